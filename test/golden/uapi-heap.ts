/**
 * `heaps`, `heap_open`, `heap_alloc`, `heap_multi`, `heap_ioctl`: /dev/dma_heap.
 *
 * @module
 */

import { O_CLOEXEC, O_RDWR } from "dmabuf";
import * as uapi from "dmabuf/uapi";
import type { Bed } from "./bed.ts";
import type { Fields } from "./fields.ts";
import { factsOf, notYet, type Outcome } from "./outcome.ts";
import { numberOf } from "./uapi-words.ts";
import { attempt, inWorld, type UapiWorld, type Verdict } from "./uapi-world.ts";

/** What is left in a buffer, so that the next one shows whether memory is cleared. */
const DIRT = 0xa5;

/** More than the size in any ioctl's number. */
const ARGUMENT_BYTES = 2 ** 14;

type Request = Parameters<typeof uapi.dmaHeapAllocationData.encode>[0];

/** `heaps`: the names in /dev/dma_heap. */
export function heaps(fields: Fields, bed: Bed): Outcome {
  const names = inWorld(bed, ({ process }) => process.readdir("/dev/dma_heap"));
  return { facts: factsOf(fields, { names }) };
}

/** `heap_open`: a heap opened in each mode, and used. */
export function heapOpen(fields: Fields, bed: Bed): Outcome {
  const alloc = inWorld(bed, ({ process }) =>
    attempt(() => {
      const fd = process.open(pathOf(fields), fields.number("openMode"));
      const argument = uapi.dmaHeapAllocationData.encode({ len: 4096n, fdFlags: O_RDWR });
      process.ioctl(fd, uapi.DMA_HEAP_IOCTL_ALLOC, argument);
    }),
  );
  return { facts: factsOf(fields, { alloc }) };
}

/** `heap_alloc`: one allocation, and what became of it. */
export function heapAlloc(fields: Fields, bed: Bed): Outcome {
  const request = {
    len: fields.integer("len"),
    fd: Number(fields.integer("fdIn")),
    fdFlags: Number(fields.integer("fdFlags")),
    heapFlags: fields.integer("heapFlags"),
  };
  return inWorld(bed, (world) => {
    const { r, answer } = allocate(world, fields, request);
    if (r !== "OK") return { facts: factsOf(fields, { r }) };
    const all = { r, ...describe(world, answer) };
    const asked = Object.entries(all).filter(([name]) => fields.has(name));
    return { facts: factsOf(fields, Object.fromEntries(asked)) };
  });
}

/** `heap_multi`: several faults at once. */
export function heapMulti(fields: Fields, bed: Bed): Outcome {
  const faults: [string, bigint | number][] = [];
  for (const fault of fields.text("what").split(", ")) {
    const [, name, text = ""] = /^(len|fd|fdFlags|heapFlags) (\S+)$/.exec(fault) ?? [];
    const value = numberOf(text);
    if (name === undefined || value === null) return notYet(`an allocation with ${fault}`);
    const isWide = name === "len" || name === "heapFlags";
    faults.push([name, isWide ? value : Number(value)]);
  }
  const good: Request = { len: 4096n, fdFlags: O_RDWR + O_CLOEXEC };
  const request: Request = { ...good, ...Object.fromEntries(faults) };
  const { r } = inWorld(bed, (world) => allocate(world, fields, request));
  return { facts: factsOf(fields, { r }) };
}

/** `heap_ioctl`: other numbers and sizes of the argument. */
export function heapIoctl(fields: Fields, bed: Bed): Outcome {
  return inWorld(bed, ({ process }) => {
    const fd = process.open(pathOf(fields));
    const isNull = fields.text("what").includes("NULL");
    const argument = new Uint8Array(ARGUMENT_BYTES);
    argument.set(uapi.dmaHeapAllocationData.encode({ len: 4096n, fdFlags: O_RDWR }));
    const r = attempt(() => process.ioctl(fd, fields.number("cmd"), isNull ? null : argument));
    const fdSet = uapi.dmaHeapAllocationData.decode(argument).fd !== 0;
    return { facts: factsOf(fields, fields.has("fdSet") ? { r, fdSet } : { r }) };
  });
}

function pathOf(fields: Fields): string {
  return `/dev/dma_heap/${fields.text("heap")}`;
}

function allocate({ process }: UapiWorld, fields: Fields, request: Request) {
  const argument = uapi.dmaHeapAllocationData.encode(request);
  const heap = process.open(pathOf(fields));
  const r = attempt(() => process.ioctl(heap, uapi.DMA_HEAP_IOCTL_ALLOC, argument));
  return { r, answer: uapi.dmaHeapAllocationData.decode(argument) };
}

/** Everything that a record may tell of a buffer. */
function describe(
  world: UapiWorld,
  { len, fd, heapFlags }: { readonly len: bigint; readonly fd: number; readonly heapFlags: bigint },
) {
  const { process } = world;
  const { sizeBytes, blocks, mode } = process.fstat(fd);
  const mapped = (prot: number): Verdict =>
    attempt(() => process.mmap(4096, prot, uapi.MAP_SHARED, fd));
  return {
    seekEnd: world.seekEnd(fd),
    stSize: sizeBytes,
    stBlocks: blocks,
    stMode: mode,
    getfl: world.getfl(fd),
    getfd: world.getfd(fd),
    lenOut: String(len),
    heapFlagsOut: String(heapFlags),
    mmapRead: mapped(uapi.PROT_READ),
    mmapReadWrite: mapped(uapi.PROT_READ + uapi.PROT_WRITE),
    zeroed: world.getfl(fd) !== O_RDWR || isZeroed(world, fd),
  };
}

/** Whether a buffer holds zeros only; it does not afterwards. */
function isZeroed(world: UapiWorld, fd: number): boolean {
  const { views } = world.map(fd, world.seekEnd(fd));
  const isZero = views.every((view) => view.every((byte) => byte === 0));
  for (const view of views) view.fill(DIRT);
  return isZero;
}
