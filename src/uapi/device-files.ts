/**
 * Device files: /dev/dma_heap/<name> and /dev/udmabuf, and the system calls on them.
 *
 * Compare the kernel's drivers/dma-buf/dma-heap.c and udmabuf.c.
 *
 * @module
 */

import { fail } from "../errors.ts";
import { O_CLOEXEC, ReferencedFile } from "../files/open-file.ts";
import type { Heap } from "../heaps/heap.ts";
import { createUdmabuf, type UdmabufItem } from "../heaps/udmabuf.ts";
import { Memfd } from "../mm/memfd.ts";
import { UDMABUF_FLAGS_CLOEXEC } from "./constants.ts";
import { type FileOperations, type IoctlCall, plainFile, withoutBytes } from "./file-operations.ts";
import { IOC_READ, IOC_WRITE, ioctlParts } from "./ioctl-number.ts";
import {
  DMA_HEAP_IOCTL_ALLOC,
  dmaHeapAllocationData,
  UDMABUF_CREATE,
  UDMABUF_CREATE_LIST,
  udmabufCreate,
  udmabufCreateItem,
  udmabufCreateList,
} from "./structs.ts";

/** Items of one list that the kernel copies in: the module parameter list_limit. */
const LIST_LIMIT = 1024;
/** A character device that its owner reads and writes. */
const DEVICE_MODE = 0o20600;

/** An open device file. */
abstract class DeviceFile extends ReferencedFile {
  /** Its name below /dev. */
  readonly path: string;

  /** @internal */
  constructor(path: string, fileFlags: number) {
    super(fileFlags);
    this.path = path;
  }

  get description(): string {
    return this.path;
  }

  protected override release(): void {}
}

/** /dev/dma_heap/<name>, open. */
export class HeapDevice extends DeviceFile {
  readonly heap: Heap;

  /** @internal */
  constructor(heap: Heap, fileFlags: number) {
    super(`/dev/dma_heap/${heap.name}`, fileFlags);
    this.heap = heap;
  }
}

/** /dev/udmabuf, open. */
export class UdmabufDevice extends DeviceFile {
  /** @internal */
  constructor(fileFlags: number) {
    super("/dev/udmabuf", fileFlags);
  }
}

/** The calls on a heap. */
export function heapOperations({ heap, path }: HeapDevice): FileOperations {
  return { ...plainFile, mode: DEVICE_MODE, link: path, ioctl: (call) => heapIoctl(heap, call) };
}

/**
 * The ioctl is known by its number alone. The caller's struct may be shorter, and lacks zeros then,
 * or longer; what the direction of its own number does not say is not copied, and a call that
 * fails writes nothing.
 */
function heapIoctl(heap: Heap, { process, command, argument }: IoctlCall): number {
  const { number, direction, sizeBytes } = ioctlParts(command);
  if (number !== ioctlParts(DMA_HEAP_IOCTL_ALLOC).number)
    fail("EINVAL", `control heap ${heap.name}`, `a heap has no ioctl ${number}`);
  const inBytes = (direction & IOC_WRITE) === 0 ? 0 : sizeBytes;
  const outBytes = (direction & IOC_READ) === 0 ? 0 : sizeBytes;
  const data = new Uint8Array(Math.max(inBytes, outBytes, dmaHeapAllocationData.sizeBytes));
  argument.readInto(data, inBytes);
  if (dmaHeapAllocationData.get(data, "fd") !== 0)
    fail("EINVAL", `allocate from heap ${heap.name}`, "the struct's fd must be 0");
  const fdFlags = dmaHeapAllocationData.get(data, "fdFlags");
  const heapFlags = Number(dmaHeapAllocationData.get(data, "heapFlags"));
  const buf = heap.alloc(dmaHeapAllocationData.get(data, "len"), { fdFlags, heapFlags });
  const fd = process.install(buf, { closeOnExec: (fdFlags & O_CLOEXEC) !== 0 });
  dmaHeapAllocationData.set(data, "fd", fd);
  argument.write(data, 0, outBytes); // what was read can be written
  return 0;
}

/** The calls on /dev/udmabuf. */
export function udmabufOperations({ path }: UdmabufDevice): FileOperations {
  return {
    ...plainFile,
    ...withoutBytes,
    mode: DEVICE_MODE,
    link: path,
    ioctl: (call) => {
      if (call.command === UDMABUF_CREATE) return createOne(call);
      if (call.command === UDMABUF_CREATE_LIST) return createList(call);
      return fail("ENOTTY", `control ${path}`, `it has no ioctl ${call.command}`);
    },
  };
}

function createOne(call: IoctlCall): number {
  const item = udmabufCreate.decode(call.argument.read(udmabufCreate.sizeBytes));
  return create(call, item.flags, [itemOf(call, item)]);
}

function createList(call: IoctlCall): number {
  const { argument } = call;
  const { flags, count } = udmabufCreateList.decode(argument.read(udmabufCreateList.sizeBytes));
  if (count > LIST_LIMIT)
    fail("EINVAL", "create a udmabuf", `it has ${count} items; ${LIST_LIMIT} is the limit`);
  const { sizeBytes } = udmabufCreateItem;
  const bytes = argument.read(count * sizeBytes, udmabufCreateList.sizeBytes);
  const items = Array.from({ length: count }, (_, i) =>
    itemOf(call, udmabufCreateItem.decode(bytes, i * sizeBytes)),
  );
  return create(call, flags, items);
}

function itemOf(
  { process }: IoctlCall,
  {
    memfd,
    offset,
    size,
  }: { readonly memfd: number; readonly offset: bigint; readonly size: bigint },
): UdmabufItem {
  const file = process.files.find(memfd);
  return { memfd: file instanceof Memfd ? file : null, offset, sizeBytes: size };
}

function create({ process }: IoctlCall, flags: number, items: readonly UdmabufItem[]): number {
  const closeOnExec = (flags & UDMABUF_FLAGS_CLOEXEC) !== 0;
  return process.install(createUdmabuf(process.system, items), { closeOnExec });
}
