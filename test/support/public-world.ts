/**
 * A system with one of everything, for calls of every public function.
 *
 * @module
 */

import * as dmabuf from "../../src/index.ts";
import * as uapi from "../../src/uapi/index.ts";

const { FRAME_BYTES, KiB, MiB } = dmabuf;

/** A public function, and arguments that it takes. */
export interface PublicCall {
  readonly name: string;
  readonly call: (...args: never[]) => unknown;
  readonly args: readonly unknown[];
}

/** One of everything. */
export type World = ReturnType<typeof makeObjects>;

export const noRead = Object.assign(async () => ({ bytesRead: 0 }));
export const noWrite = Object.assign(async () => ({ bytesWritten: 0 }));

/** A new system and its objects. */
export function makeObjects() {
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
    domain: system.iommu.domain({ dirtyTracking: true }),
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
    user: new dmabuf.UserRange([system.movable(1)]),
  };
}

type Methods = Readonly<Record<string, readonly unknown[]>>;

/** Calls of the methods of an object. */
export function on(name: string, target: object, methods: Methods): PublicCall[] {
  return Object.entries(methods).map(([method, args]) => ({
    name: `${name}.${method}()`,
    call: (...given) =>
      (target as Record<string, (...all: never[]) => unknown>)[method]?.(...given),
    args,
  }));
}

/** A call of a function. */
// biome-ignore lint/suspicious/noExplicitAny: arguments are made bad on purpose
export const fn = (name: string, call: (...args: any[]) => unknown, args: readonly unknown[]) => ({
  name: `${name}()`,
  call,
  args,
});

export const IOTLB = { iotlb: { entries: 8, ways: 2, eviction: "lru" } };
export const LIMIT = { timeoutMs: 1 };
