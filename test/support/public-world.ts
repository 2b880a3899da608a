/**
 * A system with one of everything, for calls of every public function.
 *
 * @module
 */

import { hostClock } from "../../src/clock.ts";
import * as dmabuf from "../../src/index.ts";
import * as uapi from "../../src/uapi/index.ts";

const { FRAME_BYTES, KiB, MiB } = dmabuf;

/** A public function, and arguments that it takes. */
export interface PublicCall {
  readonly name: string;
  /** `Class.method` of the class that declares it, or the function's name. */
  readonly covers: string;
  readonly call: (...args: never[]) => unknown;
  readonly args: readonly unknown[];
}

/** One of everything. */
export type World = ReturnType<typeof makeObjects>;

export const noRead = Object.assign(async () => ({ bytesRead: 0 }));
export const noWrite = Object.assign(async () => ({ bytesWritten: 0 }));

/** A system, and what most calls are about. */
function makeFirst() {
  const system = dmabuf.openSync({ memoryBytes: 8 * MiB, cma: { default: 4 * MiB } });
  const gpu = system.addDevice({ name: "gpu", iommu: true });
  const range = system.frames.alloc(4);
  const buf = system.heap("system").alloc(64 * KiB, { name: "first" });
  const other = system.heap("system").alloc(2 * FRAME_BYTES);
  const attachment = buf.attach(gpu);
  const fence = system.fence("f");
  const group = system.iommu.group();
  const process = new uapi.Process(system, { name: "p" });
  const memfd = process.memfdCreate("x", uapi.MFD_ALLOW_SEALING);
  process.ftruncate(memfd, 2 * FRAME_BYTES);
  return {
    system,
    gpu,
    range,
    buf,
    other,
    attachment,
    fence,
    group,
    process,
    memfd,
    camera: system.addDevice({ name: "camera", dmaMaskBits: 40 }),
    dev2: system.addDevice({ name: "dev2", iommu: group }),
    driver: new dmabuf.IommuDomain({
      pgsizeBitmap: 0x1000n,
      mapPages: (_iova, _paddr, pageBytes, pageCount) => pageBytes * pageCount,
      unmapPages: (_iova, pageBytes, pageCount) => pageBytes * pageCount,
      iovaToPhys: () => null,
    }),
    pinned: range.pin(),
    spare: system.frames.alloc(2),
    region: system.region("default"),
    movable: system.movable(4),
    table: system.sgTableFromRange(range.pfn, 4),
    mapping: attachment.map("bidirectional"),
    second: other.attach(gpu),
    page: gpu.dma.mapPage(range.pfn, 0, 100, "to-device"),
    fence2: system.fence("g"),
    timeline: system.timeline("t"),
    sw: system.swSync("s"),
    chain: system.fenceChain(null, system.fence("c"), 1),
    file: new dmabuf.SyncFile(fence),
    file2: new dmabuf.SyncFile(system.fence("h")),
    owner: system.owner("o", { quotaBytes: 4 * MiB }),
    iova: gpu.dma.iovaTryAlloc(2 * FRAME_BYTES) as dmabuf.DmaIova,
    fd: system.files.install(system.heap("system").alloc(FRAME_BYTES)),
    mem: dmabuf.memfdCreate(system, "m", { allowSealing: true }),
    heapFd: process.open("/dev/dma_heap/system"),
    bytes: new Uint8Array(16),
    context: system.acquireContext(),
  };
}

/** What is made of those, and what stands alone. */
function makeMore({ system, gpu, process, memfd }: ReturnType<typeof makeFirst>) {
  const shared = dmabuf.openSync({ memoryBytes: 1 * MiB, shared: true });
  const domain = system.iommu.domain({ dirtyTracking: true });
  const seen = system.heap("system").alloc(FRAME_BYTES);
  const heap = system.addEvictingHeap({ name: "near", near: "default", far: "system" });
  const pool = system.pool({ name: "pool", count: 3, bytes: FRAME_BYTES });
  const consumer = pool.consumer({ name: "consumer" });
  pool.tryAcquire()?.publish();
  const user = new dmabuf.UserRange([system.movable(1)]);
  return {
    shared,
    domain,
    seen,
    heap,
    pool,
    consumer,
    user,
    imported: dmabuf
      .joinSync(shared.share(), { canBlock: false })
      .importFence(shared.fence("theirs").token),
    dynamic: seen.dynamicAttach(gpu, { moveNotify() {} }),
    vmapping: seen.vmap(),
    window: seen.mmap(),
    evictable: system.heap("near").alloc(FRAME_BYTES),
    reading: consumer.tryTake() as dmabuf.ReadableFrame,
    writing: pool.tryAcquire() as dmabuf.WritableFrame,
    dirty: domain.readAndClearDirty(0, FRAME_BYTES),
    gather: domain.gather(),
    held: dmabuf.getUserPages(user, { first: 0, pageCount: 1 }),
    locked: new dmabuf.LockedVm(4),
    queue: new dmabuf.WaitQueue(),
    both: system.fenceArray([system.fence("one"), system.fence("two")]),
    userMapping: process.mmap(FRAME_BYTES, 3, 1, memfd, 0),
  };
}

/** A new system and its objects. */
export function makeObjects() {
  const first = makeFirst();
  return { ...first, ...makeMore(first) };
}

/** What is held, and by whom; a device's faults are not counted: a refused access is one. */
export function stateOf({ system, process }: World): unknown {
  const { faultCount: _, ...stats } = system.stats();
  const buffers = system.buffers.map((buf) => [buf.name, buf.stats(), buf.resv.isLocked]);
  return { stats, buffers, files: [system.files.fds, process.files.fds], check: system.check() };
}

type Methods = Readonly<Record<string, readonly unknown[]>>;

/** The name of the class that declares the method of an object. */
function declarer(target: object, method: string): string {
  let at: object = target;
  while (!Object.hasOwn(at, method)) at = Object.getPrototypeOf(at);
  return at.constructor.name;
}

/** A generator does nothing, and checks nothing, before its first step. */
export function begun(result: unknown): unknown {
  const { next } = (result ?? {}) as { next?: unknown };
  return typeof next === "function" ? next.call(result) : result;
}

/** Calls of the methods of an object. */
export function on(name: string, target: object, methods: Methods): PublicCall[] {
  return Object.entries(methods).map(([method, args]) => ({
    name: `${name}.${method}()`,
    covers: `${declarer(target, method)}.${method}`,
    call: (...given) =>
      begun((target as Record<string, (...all: never[]) => unknown>)[method]?.(...given)),
    args,
  }));
}

/** A call of a function, or of a constructor: "new Class". */
// biome-ignore lint/suspicious/noExplicitAny: arguments are made bad on purpose
export const fn = (name: string, call: (...args: any[]) => unknown, args: readonly unknown[]) => ({
  name: `${name}()`,
  covers: name.replace(/^new (.*)/, "$1.constructor"),
  call: (...given: never[]) => begun(call(...given)),
  args,
});

export const IOTLB = { iotlb: { entries: 8, ways: 2, eviction: "lru" } };
export const LIMIT = {
  timeoutMs: 1,
  signal: new AbortController().signal,
  /** Of no plain object: what its functions answer is nobody's argument. */
  clock: Object.assign(Object.create(null), hostClock) as dmabuf.Clock,
};
