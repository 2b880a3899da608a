/**
 * What programs of a stage do: calls of the core by name, each with the core's result.
 *
 * @module
 */

const NONE = 0xffffffff;
const READ_WRITE = 3;
const PENDING = 0;

/** Frames that somebody says are his, in a table beside the core: none may be two threads'. */
function claim(owners, pfn, count, from, to) {
  for (let i = pfn; i < pfn + count; i++)
    if (Atomics.compareExchange(owners, i, from, to) !== from)
      throw new Error(`frame ${i} is ${owners[i]}'s, not ${from}'s`);
}

/** Each gets the core's exports, the thread's steps and index, the owners, and its arguments. */
export const operations = {
  allocFrames: ({ core }, count) => core.frameAlloc(count, 0, NONE),
  freeFrames: ({ core }, pfn, count) => core.frameFree(pfn, count),
  pinFrames: ({ core }, pfn, count) => core.pinRange(pfn, count),
  unpinFrames: ({ core }, pfn, count) => core.unpinRange(pfn, count),

  /** Allocated, written to the owners, and freed again. */
  useFrames({ core, thread, owners }, count) {
    const pfn = core.frameAlloc(count, 0, NONE);
    if (pfn < 0) return pfn;
    claim(owners, pfn, count, 0, thread);
    claim(owners, pfn, count, thread, 0);
    return core.frameFree(pfn, count);
  },
  useRun({ core, thread, owners }, region, count) {
    const pfn = core.cmaAlloc(region, count, 0);
    if (pfn < 0) return pfn;
    claim(owners, pfn, count, 0, thread);
    claim(owners, pfn, count, thread, 0);
    return core.cmaRelease(region, pfn, count);
  },

  allocRun: ({ core }, region, count, order) => core.cmaAlloc(region, count, order),
  releaseRun: ({ core }, region, pfn, count) => core.cmaRelease(region, pfn, count),

  makeFence: ({ core }) => core.fenceAlloc(1, 1),
  signalFence: ({ core }, fence) => core.fenceSignal(fence, 0, 1),
  fenceStatus: ({ core }, fence) => core.fenceStatus(fence),
  importFence: ({ core }, fence) => core.shareImport(fence, core.KIND_FENCE.value),
  freeFence: ({ core }, fence) => core.fenceFree(fence),
  /** Sleeps until the fence is complete, as fence.waitSync() does. */
  awaitFence({ core, steps }, fence) {
    const at = core.fenceAt(fence);
    if (at < 0) return at;
    for (;;) {
      const status = core.fenceStatus(fence);
      if (status !== PENDING) return status;
      steps.wait(at, PENDING);
    }
  },

  makeBuffer({ core }, count) {
    const table = core.storageAllocBlocks(count, NONE, 0);
    return table < 0 ? table : core.bufferAlloc(table, 4096);
  },
  importBuffer: ({ core }, buffer) => core.shareImport(buffer, core.KIND_BUFFER.value),
  freeBuffer: ({ core }, buffer) => core.bufferFree(buffer),

  map: ({ core }, domain, page, count) =>
    core.iommuMap(domain, page, 1000 + page, count, READ_WRITE),
  unmap: ({ core }, domain, page, count) => core.iommuUnmap(domain, page, count),
  translate: ({ core }, domain, page) => core.iommuIovaToPhys(domain, page) | 0,

  acquire: ({ core }, pool) => core.poolAcquire(pool, 1),
  publish: ({ core }, pool, frame, targets) => core.poolPublish(pool, frame, targets, 0, 1),
  take: ({ core }, pool, consumer) => core.poolTake(pool, consumer, 1),
  release: ({ core }, pool, consumer, frame) => core.poolRelease(pool, consumer, frame, 0),
};
