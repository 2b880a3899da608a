// The export list of the core.
export {
  ABI_VERSION,
  FRAME_BYTES,
  HEADER_AT,
  MAX_ORDER,
  MAX_REGIONS,
  PAGEBLOCK_ORDER,
  THREAD_BYTES,
} from "./layout";
export {
  SCRATCH_OFFSET,
  SCRATCH_WORDS,
  scratchAt,
  threadReserve,
  threadState,
} from "./thread";
export { ENTRY_BYTES } from "./sg-entries";
export { coreJoin, coreLeave, coreOpen } from "./boot";
export {
  bitmapAlloc,
  bitmapBytes,
  bitmapCheck,
  bitmapFindFrom,
  bitmapFree,
  bitmapInit,
  bitmapIsFree,
  bitmapIsTaken,
  bitmapTake,
} from "./bitmap";
export { bitmapLargestFree, bitmapTakenCount } from "./bitmap-count";
export { magazineDrain } from "./magazine";
export {
  bulkFramesAlloc,
  bulkFramesFree,
  frameAlloc,
  frameAllocOf,
  frameClearRun,
  frameFree,
  frameWord,
} from "./frames";
export { misuseCount, misusePfn, poisonNext } from "./quarantine";
export { pinRange, unpinRange } from "./pin";
export { contigAlloc } from "./contig";
export { compact, movablePin } from "./migrate";
export { movableAlloc, movableAt, movableFree, movableUnpin } from "./movable";
export {
  carveoutDeclare,
  cmaAlloc,
  cmaDeclare,
  cmaLargestFree,
  cmaRegionAt,
} from "./cma";
export { cmaRelease } from "./cma-release";
export {
  sgCopy,
  sgNentsForLen,
  sgTableAlloc,
  sgTableAt,
  sgTableFree,
  sgTableFromList,
  sgTableFromPages,
  sgTableFromRange,
  sgZero,
} from "./sg";
export { sgTableAppend } from "./sg-grow";
export { sgSplit } from "./sg-split";
export {
  storageAllocBlocks,
  storageAllocRegion,
  storageClear,
  storageCopy,
  storageFree,
} from "./storage";
export { iovaCheck } from "./iova-check";
export {
  iovaAlloc,
  iovaFind,
  iovaFini,
  iovaFree,
  iovaInit,
  iovaRangeCount,
  iovaReserve,
} from "./iova";
export {
  pgtCheck,
  pgtFini,
  pgtInit,
  pgtInitAs,
  pgtMapRange as pgtMap,
  pgtMapPages,
  pgtTableFrames,
  pgtUnmapRange as pgtUnmap,
  pgtUnmapPages,
} from "./pgtable";
export { pgtMapFrames } from "./pgtable-frames";
export { pgtLookup, pgtProt } from "./pgtable-walk";
export { IOTLB_ENTRIES_MAX } from "./iotlb";
export { DIRTY_BITS_MAX } from "./pgtable-dirty";
export { iommuClearDirty, iommuReadDirty } from "./iommu-dirty";
export { iommuFaultReason } from "./iommu-access";
export { OPTIMAL_PAGES, iommuFlushQueue, iommuQueuedCount } from "./iommu-dma";
export {
  iommuAttach,
  iommuDomainAlloc,
  iommuDomainAllocAs,
  iommuDomainAllocFixed,
  iommuDomainAt,
  iommuDomainFree,
  iommuIovaToPhys,
  iommuIotlbMake,
  iommuIotlbSync,
  iommuMap,
  iommuUnmap,
  iommuUnmapFast,
} from "./iommu";
export { iommuIovaAlloc, iommuIovaFree, iommuIovaReserve } from "./iommu-iova";
export {
  dmaDeviceAdd,
  dmaDeviceAt,
  dmaDeviceRemove,
  dmaDeviceSetCoherentBits,
  dmaDeviceSetLimit,
  dmaMappingAt,
} from "./dma-device";
export { dmaMapTable, dmaSegmentOf, dmaUnmap } from "./dma";
export { dmaMapList, dmaMapResource, dmaMapRun } from "./dma-frames";
export { dmaNeedsSync, dmaSync } from "./dma-sync";
export {
  BOUNCE_MAX_BYTES,
  bounceInit,
  bounceSlotCount,
  bounceUsedSlots,
  bouncedBytes,
} from "./bounce";
export { dmaHeldBytes, dmaSpanAt, dmaSpans } from "./dma-access";
export {
  fenceAlloc,
  fenceAt,
  fenceContextAlloc,
  fenceFree,
  fenceSignal,
  fenceStatus,
  fenceTimestampMs,
} from "./fence";
export { faultArm, faultDisarm } from "./fault";
export { KIND_BUFFER, KIND_FENCE, KIND_POOL } from "./object";
export { pinAdd, pinRemove } from "./pin-table";
export { threadReap } from "./reap";
export { shareImport } from "./share";
export {
  CONSUMER_LATEST,
  CONSUMER_WRITES,
  POOL_CONSUMERS,
  POOL_FRAMES_MAX,
  poolAt,
  poolConsumerAt,
  poolFrameAt,
  poolSetBuffer,
} from "./pool-table";
export {
  BUFFER_NAME_BYTES,
  bufferAlloc,
  bufferAt,
  bufferFree,
  bufferServe,
  bufferServer,
  bufferSetDetails,
  bufferUnserve,
} from "./buffer";
export { linkAlloc, linkAnswer, linkAt, linkCancel, linkFree, linkNext, linkPost } from "./link";
export { tableBorrow, tableReturn } from "./borrow";
export {
  poolAbandon,
  poolAcquire,
  poolAlloc,
  poolClose,
  poolConsumerAdd,
  poolConsumerRemove,
  poolFree,
  poolPublish,
  poolRelease,
  poolReleaseFence,
  poolTake,
} from "./pool";
export { check } from "./check";
export { frameCountIn, largestFreeRun, movedFrameCount, pinnedFrameCount } from "./check-frames";
