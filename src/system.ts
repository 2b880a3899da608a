/**
 * System: one memory with its heaps, devices, buffers and descriptors. Everything hangs off it.
 *
 *     open() ─► System ─┬─ heap(name) ─► DmaBuf ─► attach(device) ─► map() ─► device.dma
 *                       ├─ addDevice() ─► Device
 *                       ├─ files ─► descriptors           ├─ frames, region(name) ─► FrameRange ─► pin()
 *                       └─ timeline(), fence() ─► Fence
 *
 * - SY1  Two systems share nothing: no module keeps a registry.
 * - SY2  A closed system, and all that it gave out, refuses with ENODEV what needs its memory: its
 *        thread slot may be another's there. Closing is refused while buffers live (EBUSY).
 *
 * @module
 */

import { requireText } from "./arguments.ts";
import { type Core, openCore, openCoreSync } from "./core/core.ts";
import { Device, type DeviceOptions } from "./device/device.ts";
import { BufferRegistry } from "./dma-buf/buffer-registry.ts";
import { BufferTable } from "./dma-buf/buffer-table.ts";
import type { BufferInfo } from "./dma-buf/bufinfo.ts";
import type { DmaBuf } from "./dma-buf/dma-buf.ts";
import type { FileTable } from "./dma-buf/holders.ts";
import type { ExportInfo } from "./dma-buf/ops.ts";
import { AcquireContext } from "./dma-buf/ww-mutex.ts";
import { fail, requireInteger, textOf } from "./errors.ts";
import { Fence, signaledFence } from "./fence/fence.ts";
import { FenceArray, type FenceArrayOptions } from "./fence/fence-array.ts";
import { FenceChain } from "./fence/fence-chain.ts";
import { SwSync } from "./fence/sw-sync.ts";
import { Timeline } from "./fence/timeline.ts";
import type { FdTable } from "./files/fd-table.ts";
import { Accounts, type ExporterStats } from "./heaps/accounts.ts";
import { declareAreas } from "./heaps/areas.ts";
import { builtinHeaps, type HeapContext } from "./heaps/builtin.ts";
import { EvictingHeap, type EvictingHeapOptions } from "./heaps/evicting-heap.ts";
import type { Heap, HeapInfo } from "./heaps/heap.ts";
import type { Owner, OwnerOptions } from "./heaps/owner.ts";
import { HeapRegistry } from "./heaps/registry.ts";
import { Iommu } from "./iommu/iommu.ts";
import type { CmaRegion } from "./mm/cma-region.ts";
import { FramePool } from "./mm/frame-pool.ts";
import { Movable } from "./mm/movable.ts";
import { tableFromFrames, tableFromList, tableFromRange } from "./mm/sg-build.ts";
import type { SgTableOptions } from "./mm/sg-frames.ts";
import type { SgEntry, SgTable } from "./mm/sg-table.ts";
import type { Module, ModuleInfo, SymbolName } from "./module/module.ts";
import { SymbolTable } from "./module/symbol-table.ts";
import { Stacks } from "./stacks.ts";
import { requireClosable } from "./system-closing.ts";
import type { FenceOptions, OpenOptions } from "./system-options.ts";
import { type Compaction, compact, type SystemStats, statsOf } from "./system-stats.ts";
import { FRAME_BYTES, NO_PFN } from "./units.ts";
import { type JoinOptions, joinedAreas, joinedAs, type SystemShare } from "./workers/share.ts";
import { SharedSystem } from "./workers/shared-system.ts";

/** A system. Made by {@link open} or {@link openSync}, or on another thread by {@link join}. */
export class System extends SharedSystem {
  /**
   * Descriptors of the system's buffers. `files.install(buf)` moves the caller's reference into the
   * table; `files.install(buf.get())` keeps it.
   */
  readonly files: FdTable<DmaBuf>;
  /** Runs of frames outside the CMA regions. */
  readonly frames: FramePool;
  /** Groups of devices, and domains to attach them to. */
  readonly iommu: Iommu;
  /** A fence that is signaled: what waits for nothing gets. The kernel's dma_fence_get_stub(). */
  readonly stub: Fence = signaledFence();
  /** The modules that are loaded, and which symbols they see. */
  readonly symbols: SymbolTable;
  readonly #areas: readonly CmaRegion[];
  readonly #accounts: Accounts = new Accounts();
  readonly #heaps: HeapRegistry = new HeapRegistry(this.#accounts);
  readonly #devices: Set<Device> = new Set();
  readonly #buffers: BufferRegistry;
  #lastStamp = 0;

  /** @internal */
  constructor(
    core: Core,
    physicalBase: number,
    areas: readonly CmaRegion[],
    { symbolPolicy = "gpl-only", trackHolders = false }: OpenOptions = {},
  ) {
    super(core, physicalBase);
    core.stacks = trackHolders ? new Stacks() : null;
    this.#buffers = new BufferRegistry(core, (buf) => this.#accounts.released(buf));
    this.serve(this.#buffers);
    this.files = new BufferTable(this.#buffers);
    this.fileTables.add(this.files);
    this.frames = new FramePool(core, this.physicalBase);
    this.iommu = new Iommu(core, (operation) => this.requireOpen(operation));
    this.symbols = new SymbolTable(this, symbolPolicy);
    this.#areas = areas;
    for (const heap of builtinHeaps(this.#heapContext)) this.#heaps.add(heap);
  }

  get #heapContext(): HeapContext {
    const [areas, regions] = [this.#areas, this.#areas.filter((area) => area.isReusable)];
    const { core, physicalBase } = this;
    return { core, physicalBase, areas, regions, export: (info) => this.export(info) };
  }

  /** Adds a device. EINVAL: a limit is out of range. */
  addDevice(options: DeviceOptions): Device {
    this.requireOpen("add a device");
    const device = new Device(this.core, options, this);
    this.#devices.add(device);
    return device;
  }

  /** Devices that are there. */
  get devices(): readonly Device[] {
    return [...this.#devices].filter((device) => !device.isRemoved);
  }

  /** The heap of a name: `system`, `auto`, an area's, or one that was added. ENOENT lists them. */
  override heap(name: string): Heap {
    this.requireOpen(`find heap ${textOf(name)}`);
    return this.#heaps.find(name);
  }

  /** All heaps: `system`, `auto`, one for each CMA region and carve-out, and those added. */
  get heaps(): readonly Heap[] {
    return this.#heaps.all;
  }

  /**
   * Adds a heap of your own. EINVAL: no name, no alloc(), or the name is taken; EBUSY: there are
   * 128 heaps.
   */
  addHeap(info: HeapInfo): Heap {
    this.requireOpen(`add heap ${textOf(info?.name)}`);
    return this.#heaps.add(info);
  }

  /**
   * Adds a heap that keeps its buffers in a small place while they are used, and moves others to a
   * large one for that. EINVAL: a place is unknown; and as addHeap().
   */
  addEvictingHeap(options: EvictingHeapOptions): EvictingHeap {
    this.requireOpen(`add heap ${textOf(options?.name)}`);
    const heap = new EvictingHeap(this.#heapContext, options);
    this.#heaps.add({ name: heap.name, alloc: (request) => heap.make(request) });
    return heap;
  }

  /**
   * Somebody whom buffers are charged to: `heap.alloc(bytes, { owner })`. EINVAL: the name or the
   * quota; EEXIST: there is one of this name.
   */
  owner(name: string, options: OwnerOptions = {}): Owner {
    this.requireOpen(`make owner ${textOf(name)}`);
    return this.#accounts.addOwner(name, options);
  }

  /** All owners, oldest first. */
  get owners(): readonly Owner[] {
    return this.#accounts.owners;
  }

  /** Who pays for a buffer; null: nobody does. */
  ownerOf(buf: DmaBuf): Owner | null {
    return this.#accounts.ownerOf(buf);
  }

  /** What the live buffers of an exporter, or a heap, amount to. Cost: O(1). */
  exporterStats(exporterName: string): ExporterStats {
    return this.#accounts.exporter(exporterName);
  }

  /** The same for every exporter that has buffers. */
  get exporters(): readonly ExporterStats[] {
    return this.#accounts.exporters;
  }

  /**
   * Loads a module: a name and a licence, bound to the symbols that it uses. ENOENT: one of them is
   * unknown to it, and which; EINVAL, EEXIST.
   */
  loadModule<Name extends SymbolName>(info: ModuleInfo<Name>): Module<Name> {
    this.requireOpen(`load module ${textOf(info?.name)}`);
    return this.symbols.load(info);
  }

  /** The CMA region or carve-out of a name. ENOENT. */
  region(name: string): CmaRegion {
    const shown = textOf(name);
    this.requireOpen(`find region ${shown}`);
    const names = this.#areas.map((area) => area.name).join(", ") || "none";
    return (
      this.#areas.find((area) => area.name === name) ??
      fail("ENOENT", `find region ${shown}`, `the regions are ${names}`)
    );
  }

  /** All CMA regions, then all carve-outs, in the order they were given. */
  override get regions(): readonly CmaRegion[] {
    return this.#areas;
  }

  /**
   * Exports memory as a buffer; the caller owns the first reference. EINVAL: the size, map(),
   * unmap() or release() is missing, or what is given is not of its kind.
   */
  override export(info: ExportInfo): DmaBuf {
    this.requireOpen("export a buffer");
    const buf = this.#buffers.export(info);
    this.#accounts.exported(buf);
    return buf;
  }

  /** Live buffers, oldest first. */
  get buffers(): readonly DmaBuf[] {
    return this.#buffers.all;
  }

  /** The tables in which `buf.holders()` looks for descriptors: add those of your own. */
  get fileTables(): Set<FileTable> {
    return this.#buffers.tables;
  }

  /** Every buffer in the columns of the kernel's debugfs file, the latest first. */
  bufinfo(): BufferInfo[] {
    this.requireOpen("list the buffers");
    return this.#buffers.bufinfo();
  }

  /** A queue of work that finishes in order. */
  timeline(name: string): Timeline {
    this.requireOpen("create a timeline");
    return new Timeline(this.core, name);
  }

  /** A timeline that its user moves, as the kernel's sw_sync file; the caller owns a reference. */
  swSync(name: string): SwSync {
    this.requireOpen("create a sw_sync timeline");
    return new SwSync(this.core, name);
  }

  /** A fence, of its own context unless one is given. EINVAL: the name or the seqno. */
  fence(name: string, options?: FenceOptions): Fence {
    this.requireOpen("create a fence");
    requireText(name, "the name", "create a fence");
    if (options === undefined) return new Fence(this.core, this.fenceContexts(1), 1, name);
    const { context = this.fenceContexts(1), seqno = 1, ops = null } = options ?? {};
    requireInteger(context, "context", 0, Number.MAX_SAFE_INTEGER, `create fence ${name}`);
    requireInteger(seqno, "seqno", 0, Number.MAX_SAFE_INTEGER, `create fence ${name}`);
    return new Fence(this.core, context, seqno, name, ops);
  }

  /** `count` consecutive fence contexts that nobody else has; the first. */
  fenceContexts(count: number): number {
    this.requireOpen("make fence contexts");
    requireInteger(count, "count", 1, NO_PFN, "make fence contexts");
    return this.core.exports.fenceContextAlloc(count) >>> 0;
  }

  /** A fence for all of `fences`, or any. EINVAL: there are none, or one is a composite. */
  fenceArray(fences: readonly Fence[], options?: FenceArrayOptions): FenceArray {
    this.requireOpen("create a fence array");
    return new FenceArray(this.core, fences, options);
  }

  /** An attempt to lock several reservations at once; later ones back off for it. */
  acquireContext(): AcquireContext {
    this.requireOpen("create an acquire context");
    this.#lastStamp += 1;
    return new AcquireContext(this.#lastStamp);
  }

  /** Point `seqno` of a timeline, after `previous`. EINVAL: the seqno; `fence` is a chain. */
  fenceChain(previous: Fence | null, fence: Fence, seqno: number): FenceChain {
    this.requireOpen("create a chain node");
    return new FenceChain(this.core, previous, fence, seqno);
  }

  /**
   * A table of the frames [pfn, pfn + frameCount) that somebody holds as a range. It pins them
   * until it is freed, so the range is not freed before; old bytes are cleared first. EINVAL;
   * ENOENT: a frame is not handed out as a range.
   */
  sgTableFromRange(pfn: number, frameCount: number, maxSegmentBytes?: number): SgTable {
    this.requireOpen("build an sg table");
    return tableFromRange(this.core, pfn, frameCount, maxSegmentBytes);
  }

  /** A table of listed frames, pinned in the same way. Compare sg_alloc_table_from_pages(). */
  sgTableFromFrames(frames: ArrayLike<number>, options: SgTableOptions = {}): SgTable {
    this.requireOpen("build an sg table");
    return tableFromFrames(this.core, frames, options);
  }

  /** A table of listed segments, pinned likewise; an offset may pass the first frame. */
  sgTableFromList(segments: readonly SgEntry[]): SgTable {
    this.requireOpen("build an sg table");
    return tableFromList(this.core, segments);
  }

  /** Memory of `frameCount` frames that may move while it is not pinned. EINVAL, ENOMEM. */
  movable(frameCount: number): Movable {
    this.requireOpen("allocate movable memory");
    const frames = this.core.u8.length / FRAME_BYTES;
    requireInteger(frameCount, "frameCount", 1, frames, "allocate movable memory");
    return new Movable(this.core, frameCount);
  }

  /** Moves movable frames to the top of memory, and says what that gained. Cost: O(frames). */
  compact(): Compaction {
    this.requireOpen("compact memory");
    return compact(this.core);
  }

  /** What the system holds and has done. Cost: O(frames). */
  stats(): SystemStats {
    this.requireOpen("read statistics");
    return {
      ...statsOf(this.core, this.#devices),
      bufferCount: this.#buffers.size,
      openFds: this.files.openCount,
    };
  }

  /**
   * The frames that nobody holds and somebody wrote to since they were freed: each is found once,
   * and told to `onMisuse`. None without `poison` or `strict`. Cost: reads all free memory.
   */
  checkPoison(): number[] {
    this.requireOpen("check the poison");
    const written: number[] = [];
    for (let pfn = 0; ; pfn++) {
      pfn = this.core.exports.poisonNext(pfn) >>> 0;
      if (pfn === NO_PFN) return written;
      written.push(pfn);
    }
  }

  /**
   * Null, or the id of the first invariant that the memory breaks. `isDeep` also reads the bytes of
   * free frames, and looks for misuses before it ({@link checkPoison}).
   */
  check(isDeep = false): string | null {
    this.requireOpen("check the system");
    if (isDeep) this.checkPoison();
    return this.core.check(isDeep);
  }

  /**
   * Closes the system: descriptors first, then devices. EBUSY: buffers are still held, or something
   * is mapped for a device, and which; then nothing is closed.
   */
  close(): void {
    if (this.core.hasLeft) return;
    requireClosable(this);
    this.files.closeAll();
    for (const device of this.devices) device.remove();
    this.leave();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/**
 * Opens a system on new memory. EINVAL: an option; ENOMEM: the host refuses the memory, or regions
 * do not fit into it.
 */
export async function open(options: OpenOptions = {}): Promise<System> {
  return opened(await openCore(options), options);
}

/** The same without waiting: `wasm`, if given, must be compiled or bytes. */
export function openSync(options: OpenOptions = {}): System {
  return opened(openCoreSync(options), options);
}

function opened(core: Core, options: OpenOptions): System {
  return new System(core, options.physicalBase ?? 0, declareAreas(core, options), options);
}

/**
 * Joins a system from another thread: what `share()` gave there, as it arrived here. Heaps, frames,
 * devices and fences are this thread's own; buffers, fences and pools of others are imported.
 * EINVAL: it is no share; EBUSY: its thread has joined; ENOSPC: no thread is free.
 */
export async function join(share: SystemShare, options: JoinOptions = {}): Promise<System> {
  return joinSync(share, options);
}

/** The same without waiting. */
export function joinSync(share: SystemShare, options: JoinOptions = {}): System {
  return joinedAs(share, options, (core) => {
    const areas = joinedAreas(core, share);
    return new System(core, share.physicalBase, areas, { ...options, ...share });
  });
}
