/**
 * The core's exports, typed. Each function is described where it is written, in `assembly/`.
 *
 * Preconditions of all: numbers are unsigned 32-bit integers; a result below 0 and above -4096 is a
 * negative errno, any other is an unsigned number (`>>> 0`). An address is a byte offset in the
 * memory; pfn are frame numbers from the memory's start.
 *
 * @module
 */

/** A constant of the core. */
export interface CoreConstant {
  readonly value: number;
}

/** What the compiled core offers. */
export interface CoreExports extends WebAssembly.Exports {
  readonly ABI_VERSION: CoreConstant & WebAssembly.Global;
  readonly FRAME_BYTES: CoreConstant & WebAssembly.Global;
  readonly HEADER_AT: CoreConstant & WebAssembly.Global;
  readonly MAX_ORDER: CoreConstant & WebAssembly.Global;
  readonly MAX_REGIONS: CoreConstant & WebAssembly.Global;
  readonly PAGEBLOCK_ORDER: CoreConstant & WebAssembly.Global;
  readonly THREAD_BYTES: CoreConstant & WebAssembly.Global;
  readonly SCRATCH_OFFSET: CoreConstant & WebAssembly.Global;
  readonly SCRATCH_WORDS: CoreConstant & WebAssembly.Global;
  readonly ENTRY_BYTES: CoreConstant & WebAssembly.Global;
  readonly DIRTY_BITS_MAX: CoreConstant & WebAssembly.Global;
  readonly IOTLB_ENTRIES_MAX: CoreConstant & WebAssembly.Global;
  readonly OPTIMAL_PAGES: CoreConstant & WebAssembly.Global;
  readonly BUFFER_NAME_BYTES: CoreConstant & WebAssembly.Global;
  readonly CONSUMER_LATEST: CoreConstant & WebAssembly.Global;
  readonly CONSUMER_WRITES: CoreConstant & WebAssembly.Global;
  readonly KIND_BUFFER: CoreConstant & WebAssembly.Global;
  readonly KIND_FENCE: CoreConstant & WebAssembly.Global;
  readonly KIND_POOL: CoreConstant & WebAssembly.Global;
  readonly POOL_CONSUMERS: CoreConstant & WebAssembly.Global;
  readonly POOL_FRAMES_MAX: CoreConstant & WebAssembly.Global;
  readonly BOUNCE_MAX_BYTES: CoreConstant & WebAssembly.Global;

  coreOpen(
    frameCount: number,
    backedFrames: number,
    threadCount: number,
    physPfnBase: number,
    isShared: number,
    canBlock: number,
    flags: number,
  ): number;
  coreJoin(canBlock: number): number;
  coreLeave(): void;
  scratchAt(): number;
  faultArm(nth: number, times: number): void;
  faultDisarm(): number;
  pinAdd(table: number): number;
  pinRemove(pin: number): number;
  threadReap(thread: number): number;
  threadReserve(): number;
  threadState(thread: number): number;
  check(isDeep: number): number;
  frameCountIn(state: number): number;
  pinnedFrameCount(): number;
  misuseCount(): number;
  misusePfn(i: number): number;
  poisonNext(pfn: number): number;
  movedFrameCount(): number;
  largestFreeRun(): number;

  bitmapBytes(bitCount: number, base: number): number;
  bitmapInit(at: number, bitCount: number, base: number): void;
  bitmapAlloc(at: number, count: number, alignOrder: number): number;
  bitmapTake(at: number, first: number, count: number): void;
  bitmapFree(at: number, first: number, count: number): void;
  bitmapFindFrom(
    at: number,
    start: number,
    count: number,
    alignMask: number,
    alignOffset: number,
  ): number;
  bitmapIsFree(at: number, first: number, count: number): number;
  bitmapIsTaken(at: number, first: number, count: number): number;
  bitmapTakenCount(at: number): number;
  bitmapLargestFree(at: number): number;
  bitmapCheck(at: number): number;

  frameAlloc(count: number, alignOrder: number, pfnEnd: number): number;
  frameFree(pfn: number, count: number): number;
  contigAlloc(pfn: number, count: number): number;
  frameAllocOf(type: number, count: number, alignOrder: number, pfnEnd: number): number;
  bulkFramesAlloc(listAt: number, count: number): number;
  bulkFramesFree(listAt: number, count: number): number;
  frameClearRun(pfn: number, count: number): number;
  frameWord(pfn: number): number;
  magazineDrain(): void;
  pinRange(pfn: number, count: number): number;
  unpinRange(pfn: number, count: number): number;

  cmaDeclare(basePfn: number, frameCount: number, orderPerBit: number): number;
  carveoutDeclare(basePfn: number, frameCount: number, orderPerBit: number): number;
  cmaAlloc(region: number, frameCount: number, alignOrder: number): number;
  cmaRelease(region: number, pfn: number, frameCount: number): number;
  cmaLargestFree(region: number): number;
  cmaRegionAt(region: number): number;

  movableAlloc(frameCount: number): number;
  movableFree(movable: number): number;
  movableAt(movable: number): number;
  movablePin(movable: number, isLongterm: number): number;
  movableUnpin(movable: number): number;
  compact(): number;

  sgTableAlloc(count: number): number;
  sgTableFromPages(
    listAt: number,
    count: number,
    offset: number,
    size: number,
    maxSegmentBytes: number,
  ): number;
  sgTableFromRange(pfn: number, count: number, maxSegmentBytes: number): number;
  sgTableFromList(listAt: number, count: number): number;
  sgNentsForLen(table: number, length: number): number;
  sgTableAt(table: number): number;
  sgTableFree(table: number): number;
  sgCopy(table: number, skip: number, bufferAt: number, length: number, isToBuffer: number): number;
  sgZero(table: number, skip: number, length: number): number;
  sgTableAppend(
    table: number,
    listAt: number,
    count: number,
    offset: number,
    size: number,
    maxSegmentBytes: number,
  ): number;
  sgSplit(table: number, skip: number, listAt: number, count: number): number;
  storageAllocBlocks(frameCount: number, pfnEnd: number, alignOrder: number): number;
  storageAllocRegion(region: number, frameCount: number, alignOrder: number): number;
  storageClear(table: number): number;
  storageCopy(to: number, from: number): number;
  storageFree(table: number): number;

  iommuDomainAlloc(): number;
  /** `format`: a `tableFormatWord()`. */
  iommuDomainAllocAs(format: number): number;
  iommuDomainAllocFixed(type: number): number;
  iommuDomainAt(domain: number): number;
  iommuDomainFree(domain: number): number;
  iommuAttach(domain: number, from: number, through: number): number;
  iommuMap(
    domain: number,
    iovaPfn: number,
    physPfn: number,
    pageCount: number,
    prot: number,
  ): number;
  iommuUnmap(domain: number, iovaPfn: number, pageCount: number): number;
  iommuUnmapFast(domain: number, iovaPfn: number, pageCount: number): number;
  iommuIotlbMake(domain: number, sets: number, ways: number, isLru: number): number;
  iommuIotlbSync(domain: number, iovaPfn: number, pageCount: number): number;
  iommuFlushQueue(domain: number): number;
  iommuQueuedCount(domain: number): number;
  iommuFaultReason(domain: number, iovaPfn: number, access: number): number;
  iommuReadDirty(domain: number, iovaPfn: number, pageCount: number): number;
  iommuClearDirty(domain: number, iovaPfn: number, pageCount: number): number;
  iommuIovaToPhys(domain: number, iovaPfn: number): number;
  iommuIovaAlloc(
    domain: number,
    pageCount: number,
    limitPfn: number,
    isSizeAligned: number,
  ): number;
  iommuIovaFree(domain: number, pfn: number): number;
  iommuIovaReserve(domain: number, iovaPfn: number, pageCount: number): number;

  dmaDeviceAdd(
    domain: number,
    limitPfn: number,
    maxSegmentBytes: number,
    maxSegments: number,
    boundaryMask: number,
    flags: number,
    minAlignMask: number,
    coherentBits: number,
  ): number;
  dmaDeviceSetCoherentBits(device: number, bits: number): number;
  dmaDeviceRemove(device: number): number;
  dmaDeviceAt(device: number): number;
  dmaDeviceSetLimit(device: number, limitPfn: number): number;
  dmaMapTable(device: number, table: number, direction: number, attrs: number): number;
  dmaMapRun(
    device: number,
    pfn: number,
    offset: number,
    length: number,
    direction: number,
    attrs: number,
  ): number;
  dmaMapList(
    device: number,
    listAt: number,
    count: number,
    direction: number,
    attrs: number,
  ): number;
  dmaMapResource(
    device: number,
    physPfn: number,
    offset: number,
    length: number,
    direction: number,
    attrs: number,
  ): number;
  dmaUnmap(mapping: number, attrs: number): number;
  dmaSync(
    mapping: number,
    from: number,
    length: number,
    direction: number,
    isForDevice: number,
  ): number;
  dmaNeedsSync(mapping: number): number;
  dmaMappingAt(mapping: number): number;
  dmaSegmentOf(mapping: number, offset: number): number;
  dmaHeldBytes(device: number, devicePfn: number, offset: number, access: number): number;
  dmaSpans(
    device: number,
    devicePfn: number,
    offset: number,
    lengthBytes: number,
    access: number,
  ): number;
  dmaSpanAt(
    device: number,
    devicePfn: number,
    offset: number,
    lengthBytes: number,
    access: number,
    physPfn: number,
  ): number;

  bounceInit(bytes: number): number;
  bounceSlotCount(): number;
  bounceUsedSlots(): number;
  bouncedBytes(): number;

  fenceContextAlloc(count: number): number;
  fenceAlloc(context: number, seqno: number): number;
  fenceSignal(fence: number, error: number, nowMs: number): number;
  fenceStatus(fence: number): number;
  fenceTimestampMs(fence: number): number;
  fenceAt(fence: number): number;
  fenceFree(fence: number): number;

  shareImport(handle: number, kind: number): number;
  bufferAlloc(table: number, sizeBytes: number): number;
  bufferServe(sizeBytes: number): number;
  bufferServer(buffer: number): number;
  bufferSetDetails(buffer: number, table: number): number;
  bufferUnserve(buffer: number): number;
  linkAlloc(buffer: number): number;
  linkAt(link: number): number;
  linkPost(link: number, op: number, a: number, b: number): number;
  linkCancel(link: number): number;
  linkFree(link: number): number;
  linkNext(): number;
  linkAnswer(link: number, result: number, value: number, more: number, reply: number): number;
  tableBorrow(table: number): number;
  tableReturn(table: number): number;
  bufferAt(buffer: number): number;
  bufferFree(buffer: number): number;

  poolAlloc(count: number): number;
  poolAt(pool: number): number;
  poolSetBuffer(pool: number, frame: number, buffer: number): number;
  poolClose(pool: number): number;
  poolFree(pool: number): number;
  poolConsumerAt(pool: number, consumer: number): number;
  poolFrameAt(pool: number, frame: number): number;
  poolConsumerAdd(pool: number, flags: number): number;
  poolConsumerRemove(pool: number, consumer: number): number;
  poolAcquire(pool: number, nowMs: number): number;
  poolAbandon(pool: number, frame: number): number;
  poolPublish(pool: number, frame: number, targets: number, fence: number, nowMs: number): number;
  poolTake(pool: number, consumer: number, nowMs: number): number;
  poolRelease(pool: number, consumer: number, frame: number, fence: number): number;
  poolReleaseFence(pool: number, frame: number, consumer: number): number;
}
