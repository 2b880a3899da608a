/**
 * `dmabuf`: buffers that several devices share without copies, as the Linux DMA-BUF stack does it.
 *
 * @module
 */
export type { Clock, WaitDone, WaitOptions } from "./clock.ts";
export type { CoreOptions, MemoryBytes } from "./core/core.ts";
export type { Misuse, OnMisuse } from "./core/misuse.ts";
export type { CoreSource } from "./core/module.ts";
export { CoherentBuffer } from "./device/coherent-buffer.ts";
export {
  Device,
  type DeviceLimits,
  type DeviceOptions,
  defaultLimits,
  describeLimits,
  type GivenLimits,
  type MappingLimits,
} from "./device/device.ts";
export { DeviceAccess } from "./device/device-access.ts";
export { DeviceDma, type SyncRange } from "./device/device-dma.ts";
export { DeviceMapping, type DmaSegment, type MappingKind } from "./device/device-mapping.ts";
export { type DmaFault, DmaFaultError } from "./device/dma-fault.ts";
export { DmaIova } from "./device/dma-iova.ts";
export type { MapAttrs } from "./device/map-attrs.ts";
export { DMA_MAPPING_ERROR, isDmaMappingError } from "./device/mapping-error.ts";
export { NoncontiguousBuffer } from "./device/noncontiguous-buffer.ts";
export type { PixelLimits } from "./device/pixel-limits.ts";
export { splitSegments } from "./device/split-segments.ts";
export type { Direction } from "./direction.ts";
export { Attachment } from "./dma-buf/attachment.ts";
export type { UnmapOptions } from "./dma-buf/attachment-uses.ts";
export type { AsyncOptions } from "./dma-buf/buffer-lock.ts";
export { BufferViews } from "./dma-buf/buffer-views.ts";
export type { BufferFence, BufferInfo } from "./dma-buf/bufinfo.ts";
export { type Conflict, ConflictError, type ConflictField } from "./dma-buf/conflict.ts";
export { CpuMapping, type MmapOptions } from "./dma-buf/cpu-mapping.ts";
export { type BufferStats, DmaBuf } from "./dma-buf/dma-buf.ts";
export {
  type FormatInfo,
  fourccOf,
  hasLayout,
  modifierName,
  modifiers,
  type PixelFormat,
  type PixelLayout,
  type PlaneLayout,
  pixelFormats,
} from "./dma-buf/formats.ts";
export { getDmaBuf } from "./dma-buf/get-dma-buf.ts";
export type { FileTable, Holder } from "./dma-buf/holders.ts";
export type { MappingUse } from "./dma-buf/mapping-set.ts";
export {
  type Layout,
  type Negotiation,
  negotiate,
  type Participant,
  type StorageRequest,
} from "./dma-buf/negotiate.ts";
export type { PixelRequest } from "./dma-buf/negotiate-pixels.ts";
export type {
  AttachOps,
  DmaBufOps,
  ExportInfo,
  ExportOwner,
  MaybePromise,
  MmapArea,
} from "./dma-buf/ops.ts";
export { Resv, type ResvEntry, type ResvUsage, resvUsages, usageFor } from "./dma-buf/resv.ts";
export type { Revocation } from "./dma-buf/revoke.ts";
export type { SyncAccess } from "./dma-buf/sync-files.ts";
export { Vmapping } from "./dma-buf/vmap.ts";
export { AcquireContext, type LockOptions, WwMutex } from "./dma-buf/ww-mutex.ts";
export { DmaBufError, type ErrnoCode, errno } from "./errors.ts";
export { Fence, type FenceCallback, type FenceOps, signaledFence } from "./fence/fence.ts";
export {
  FenceArray,
  type FenceArrayMode,
  type FenceArrayOptions,
  matchesContext,
} from "./fence/fence-array.ts";
export { containedFence, FenceChain, findSeqno, walkChain } from "./fence/fence-chain.ts";
export { ImportedFence } from "./fence/imported-fence.ts";
export { isLater, isSeqnoLater, laterFence, type Seqno } from "./fence/order.ts";
export { SwSync } from "./fence/sw-sync.ts";
export { type SyncFenceInfo, SyncFile, type SyncFileInfo } from "./fence/sync-file.ts";
export { Timeline } from "./fence/timeline.ts";
export { latestOfEachContext, mergeFences, unwrapFence } from "./fence/unwrap.ts";
export { startWait, startWaitAll, startWaitAny, waitAny } from "./fence/wait.ts";
export { type FdOptions, FdTable } from "./files/fd-table.ts";
export {
  type CountedFile,
  isReadable,
  isWritable,
  O_ACCMODE,
  O_APPEND,
  O_CLOEXEC,
  O_DIRECT,
  O_NOATIME,
  O_NONBLOCK,
  O_RDONLY,
  O_RDWR,
  O_WRONLY,
  type OpenFile,
  ReferencedFile,
} from "./files/open-file.ts";
export {
  POLLERR,
  POLLHUP,
  POLLIN,
  POLLNVAL,
  POLLOUT,
  POLLPRI,
  type PollableFile,
  type PollEntry,
  pollNow,
  startPoll,
  WaitQueue,
} from "./files/poll.ts";
export type { ExporterStats } from "./heaps/accounts.ts";
export type { EvictingPlace } from "./heaps/evicting-buffer.ts";
export {
  EvictingHeap,
  type EvictingHeapOptions,
  type EvictingStats,
} from "./heaps/evicting-heap.ts";
export { type AllocOptions, Heap, type HeapInfo, type HeapRequest } from "./heaps/heap.ts";
export { Owner, type OwnerOptions } from "./heaps/owner.ts";
export { createUdmabuf, type UdmabufContext, type UdmabufItem } from "./heaps/udmabuf.ts";
export type { Access, AccessKind } from "./iommu/access.ts";
export { BuiltInDomain } from "./iommu/built-in-domain.ts";
export { DirtyBitmap } from "./iommu/dirty-bitmap.ts";
export { Domain, type DomainType, type IotlbStats } from "./iommu/domain.ts";
export { type DomainOps, iommuProt, type PartialMap } from "./iommu/domain-ops.ts";
export {
  arm32Lpae,
  type DomainFormat,
  type DomainOptions,
  type IotlbFormat,
  type IotlbOptions,
} from "./iommu/domain-options.ts";
export { Iommu } from "./iommu/iommu.ts";
export { IommuDomain } from "./iommu/iommu-domain.ts";
export type {
  IommuFault,
  IommuFaultHandler,
  IommuFaultReason,
  IommuFaultResult,
  RefusalReason,
} from "./iommu/iommu-fault.ts";
export { IommuGroup, type IommuGroupOptions, type IommuMember } from "./iommu/iommu-group.ts";
export type { IotlbGather } from "./iommu/iotlb-gather.ts";
export type { PhysRange } from "./iommu/phys-range.ts";
export type { ReservedRegion, ReservedType } from "./iommu/reserved-regions.ts";
export type { CmaOptions } from "./mm/cma-declare.ts";
export { CmaRegion, type CmaStats } from "./mm/cma-region.ts";
export type { FileSink, FileSource, TransferOptions } from "./mm/files.ts";
export { type FrameOptions, FramePool, type FrameType } from "./mm/frame-pool.ts";
export { FrameRange, PinnedRange } from "./mm/frame-range.ts";
export {
  GUP_PIN_COUNTING_BIAS,
  getUserPages,
  HeldPages,
  LockedVm,
  type PinUserPagesOptions,
  pinUserPages,
  UserPage,
  type UserPagesOptions,
  UserRange,
} from "./mm/gup.ts";
export {
  Memfd,
  type MemfdMapOptions,
  MemfdMapping,
  type MemfdOptions,
  memfdCreate,
} from "./mm/memfd.ts";
export { Movable, PinnedMovable, type PinOptions } from "./mm/movable.ts";
export { PinnedTable } from "./mm/pinned-table.ts";
export type { SgTableOptions } from "./mm/sg-frames.ts";
export { type SgEntry, SgTable } from "./mm/sg-table.ts";
export {
  F_SEAL_FUTURE_WRITE,
  F_SEAL_GROW,
  F_SEAL_SEAL,
  F_SEAL_SHRINK,
  F_SEAL_WRITE,
} from "./mm/shmem.ts";
export type { FrameworkSymbols } from "./module/framework-symbols.ts";
export { isGplCompatible, Module, type ModuleInfo, type SymbolName } from "./module/module.ts";
export { markOf, type SymbolMark, symbolNames } from "./module/symbol-marks.ts";
export { type SymbolPolicy, SymbolTable } from "./module/symbol-table.ts";
export type { HolderKind } from "./stacks.ts";
export { join, joinSync, open, openSync, System } from "./system.ts";
export type { FenceOptions, OpenOptions } from "./system-options.ts";
export type { Compaction, SystemStats } from "./system-stats.ts";
export { FRAME_BYTES, formatBytes, GiB, KiB, MiB, PAGEBLOCK_BYTES } from "./units.ts";
export {
  type ConsumerOptions,
  FrameConsumer,
} from "./workers/consumer.ts";
export { Pool, type PoolOptions, type PoolReport } from "./workers/pool.ts";
export { type PublishOptions, ReadableFrame, WritableFrame } from "./workers/pool-frame.ts";
export type { PoolLayout } from "./workers/pool-layout.ts";
export type {
  ConsumerReport,
  FrameAccess,
  FrameHolder,
  FramePolicy,
  FrameReport,
} from "./workers/pool-report.ts";
export type { EndingWorker, JoinOptions, ShareOptions, SystemShare } from "./workers/share.ts";
export { SharedSystem } from "./workers/shared-system.ts";
