/**
 * UapiWorld: a process for one record, what its calls come to by name, and the common calls.
 *
 * @module
 */

import {
  DmaBufError,
  type ErrnoCode,
  KiB,
  MiB,
  O_CLOEXEC,
  O_RDWR,
  POLLIN,
  type System,
} from "dmabuf";
import * as uapi from "dmabuf/uapi";
import type { Bed } from "./bed.ts";

/** The machine of the records: 1 GiB, some of it for the heap "reserved". */
const MEMORY = { min: 256 * MiB, preferred: 1024 * MiB };
const RESERVED_BYTES = 64 * MiB;
/** The process's memory: the first page is nobody's. */
const PROCESS_BYTES = 64 * KiB;
/** Where a list that the kernel fills lies in it. */
const LIST_AT = 8192;

/** What a call came to: "OK", or the errno's name. */
export type Verdict = "OK" | ErrnoCode;

/** What SYNC_IOC_FILE_INFO says, as the records have it. */
export interface RecordedInfo {
  readonly status: number;
  readonly num: number;
  /** [timeline, driver, status, whether it has a time]. */
  readonly fences: readonly (readonly [string, string, number, number])[];
}

/** What `call` came to. */
export function attempt(call: () => unknown): Verdict {
  try {
    call();
    return "OK";
  } catch (error) {
    if (error instanceof DmaBufError) return error.code;
    throw error;
  }
}

/** The system of the records of one file. */
function machine(bed: Bed): System {
  return bed.memo("uapi machine", () =>
    bed.openSystem({ memoryBytes: MEMORY, cma: { reserved: RESERVED_BYTES } }),
  );
}

/** A process, and calls that must succeed. Ended by close(). */
export class UapiWorld {
  readonly process: uapi.Process;
  #heapFd = -1;

  constructor(bed: Bed) {
    const memory = new Uint8Array(PROCESS_BYTES);
    this.process = new uapi.Process(machine(bed), { memory, fdLimit: 4096 });
  }

  close(): void {
    this.process.exit();
  }

  /** A buffer of the system heap. */
  alloc(len = 4096, fdFlags: number = O_RDWR + O_CLOEXEC): number {
    if (this.#heapFd < 0) this.#heapFd = this.process.open("/dev/dma_heap/system");
    const argument = uapi.dmaHeapAllocationData.encode({ len: BigInt(len), fdFlags });
    this.process.ioctl(this.#heapFd, uapi.DMA_HEAP_IOCTL_ALLOC, argument);
    return uapi.dmaHeapAllocationData.decode(argument).fd;
  }

  /** A timeline, named as the program that opens it. */
  timeline(name: string): number {
    this.process.name = name;
    return this.process.open("/sys/kernel/debug/sync/sw_sync");
  }

  /** A fence of a timeline. */
  fence(timeline: number, value: number): number {
    const argument = uapi.swSyncCreateFenceData.encode({ value });
    this.process.ioctl(timeline, uapi.SW_SYNC_IOC_CREATE_FENCE, argument);
    return uapi.swSyncCreateFenceData.decode(argument).fence;
  }

  /** Moves a timeline on. */
  inc(timeline: number, count: number): Verdict {
    const argument = uapi.dmaBufSync.encode({ flags: BigInt(count) }).subarray(0, 4);
    return attempt(() => this.process.ioctl(timeline, uapi.SW_SYNC_IOC_INC, argument));
  }

  /** Two sync files as one. */
  merge(a: number, b: number, name = ""): number {
    const argument = uapi.syncMergeData.encode({ name, fd2: b });
    this.process.ioctl(a, uapi.SYNC_IOC_MERGE, argument);
    return uapi.syncMergeData.decode(argument).fence;
  }

  /** What a sync file says: asked for the count first, then for so many fences. */
  info(fd: number): RecordedInfo & { readonly name: string } {
    const ask = (values: Parameters<typeof uapi.syncFileInfo.encode>[0]) => {
      const argument = uapi.syncFileInfo.encode(values);
      this.process.ioctl(fd, uapi.SYNC_IOC_FILE_INFO, argument);
      return uapi.syncFileInfo.decode(argument);
    };
    const { numFences } = ask({});
    const { name, status } = ask({ numFences, syncFenceInfo: BigInt(LIST_AT) });
    const fences = Array.from({ length: numFences }, (_, i) => {
      const at = LIST_AT + i * uapi.syncFenceInfo.sizeBytes;
      const one = uapi.syncFenceInfo.decode(this.process.memory, at);
      const hasTime = Number(one.timestampNs !== 0n);
      return [one.objName, one.driverName, one.status, hasTime] as const;
    });
    return { name, status, num: numFences, fences };
  }

  /** The same without the name. */
  state(fd: number): RecordedInfo {
    const { status, num, fences } = this.info(fd);
    return { status, num, fences };
  }

  /** EXPORT_SYNC_FILE: the sync file. */
  exportSyncFile(buf: number, flags: number): number {
    const argument = uapi.dmaBufSyncFile.encode({ flags });
    this.process.ioctl(buf, uapi.DMA_BUF_IOCTL_EXPORT_SYNC_FILE, argument);
    return uapi.dmaBufSyncFile.decode(argument).fd;
  }

  /** What EXPORT_SYNC_FILE and FILE_INFO say of a buffer. */
  exported(buf: number, flags: number): RecordedInfo {
    const fd = this.exportSyncFile(buf, flags);
    const state = this.state(fd);
    this.process.close(fd);
    return state;
  }

  /** IMPORT_SYNC_FILE. */
  importSyncFile(buf: number, flags: number, fd: number): void {
    const argument = uapi.dmaBufSyncFile.encode({ flags, fd });
    this.process.ioctl(buf, uapi.DMA_BUF_IOCTL_IMPORT_SYNC_FILE, argument);
  }

  /** What one descriptor is ready for. */
  poll(fd: number, events: number = POLLIN): number {
    return this.process.poll([{ fd, events }])[0] ?? -1;
  }

  /** fdinfo as the records have it: without what depends on the machine. */
  fdinfo(fd: number): string[] {
    const lines = this.process.fdinfo(fd).split("\n");
    return lines.filter((line) => line !== "" && !/^(ino|mnt_id):/.test(line));
  }

  /** Whether a descriptor is closed on exec: 1 or 0. */
  getfd(fd: number): number {
    return this.process.fcntl(fd, uapi.F_GETFD);
  }

  /** The flags of a descriptor's file. */
  getfl(fd: number): number {
    return this.process.fcntl(fd, uapi.F_GETFL);
  }

  /** The size that lseek finds. */
  seekEnd(fd: number): number {
    return this.process.lseek(fd, 0, uapi.SEEK_END);
  }

  /** Maps pages shared. */
  map(fd: number, length: number, offset = 0): uapi.UserMapping {
    const prot = uapi.PROT_READ + uapi.PROT_WRITE;
    return this.process.mmap(length, prot, uapi.MAP_SHARED, fd, offset);
  }
}

/** The replay of one record in a world of its own. */
export function inWorld<T>(bed: Bed, replay: (world: UapiWorld) => T): T {
  const world = new UapiWorld(bed);
  try {
    return replay(world);
  } finally {
    world.close();
  }
}
