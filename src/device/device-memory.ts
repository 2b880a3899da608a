/**
 * DeviceMemory: where a device's own allocations come from.
 *
 *     no IOMMU   one run of frames that the device reaches: of the pool, else of a region
 *     IOMMU      any frames, wherever they lie: one run if the pool has one, else scattered blocks
 *
 * - DF1  Who frees such memory asks requireUnused() before anything ends: a refused free() has
 *        changed nothing. Should another thread pin a frame just then, free() can be called again.
 *
 * Compare iommu_dma_alloc() and __iommu_dma_alloc_pages() in the kernel's
 * drivers/iommu/dma-iommu.c, and dma_direct_alloc() in its kernel/dma/direct.c.
 *
 * @module
 */

import type { Core } from "../core/core.ts";
import { checked, DmaBufError, fail } from "../errors.ts";
import type { IommuGroup } from "../iommu/iommu-group.ts";
import type { CmaRegion } from "../mm/cma-region.ts";
import type { FramePool } from "../mm/frame-pool.ts";
import type { FrameRange } from "../mm/frame-range.ts";
import { tableFromRange } from "../mm/sg-build.ts";
import { type SgEntry, SgTable } from "../mm/sg-table.ts";
import { addressOf, FRAME_BYTES, framesOf, NO_PFN, orderOf } from "../units.ts";

/** @internal Where a device's allocations come from, and what it can reach. */
export interface DeviceMemory {
  readonly frames: FramePool;
  readonly regions: () => readonly CmaRegion[];
  readonly physicalBase: number;
  readonly coherentBits: () => number;
  readonly maskBits: () => number;
  readonly isCoherent: () => boolean;
  /** Whether pages may be shown to it as they are, past the mapping calls. */
  readonly canLink: () => boolean;
  /** Counts device addresses that are out without a mapping: 1 more, or 1 less. */
  readonly count: (delta: number) => void;
  /** The devices that it shares an IOMMU's domain with; null: there is no IOMMU. */
  readonly group: IommuGroup | null;
}

/** @internal What to allocate. */
interface FramesRequest {
  readonly frameCount: number;
  /** The address bits that reach the frames of a device without an IOMMU. */
  readonly maskBits: number;
  /** Whether a device behind an IOMMU gets one run too. */
  readonly isRun: boolean;
}

const RUN_FRAMES_MAX = 1024;
const MAX_ALIGN_ORDER = 8; // CONFIG_CMA_ALIGNMENT: 1 MiB
const PAGE_BITS = 12;
const ALL_BITS = 64;

/** One pin in a frame's word (assembly/page.ts). */
const PIN: number = 2 ** 14;

/** @internal Frames of a device's own, zeros at first: a table of them. */
export class DeviceFrames {
  readonly table: SgTable;
  readonly #core: Core;
  /** The run; null: the table owns its frames. */
  readonly #range: FrameRange | null;
  /** The pins that each frame has from its owner. */
  #ownPins = 0;
  #isTableFreed = false;

  constructor(core: Core, table: SgTable, range: FrameRange | null) {
    this.#core = core;
    this.table = table;
    this.#range = range;
  }

  /** The most pins that one of some frames has. Cost: O(frames). */
  #mostPins(entries: Iterable<SgEntry>): number {
    let most = 0;
    for (const { pfn, lengthBytes } of entries)
      for (let i = 0; i < framesOf(lengthBytes); i++)
        most = Math.max(most, Math.floor((this.#core.exports.frameWord(pfn + i) >>> 0) / PIN));
    return most;
  }

  /** The owner has mapped and pinned them all for itself: what comes on top is somebody else's. */
  settle(): void {
    this.#ownPins = this.#mostPins([{ ...this.table.cpu(0), lengthBytes: FRAME_BYTES }]);
  }

  /** EBUSY: somebody else has mapped or pinned them (DF1). */
  requireUnused(operation: string): void {
    this.#core.requireJoined(operation);
    if (this.#isTableFreed) return;
    if (this.table.mapCount > 1 || this.#mostPins(this.table.entries()) > this.#ownPins)
      fail("EBUSY", operation, "it is mapped or pinned by somebody else; unmap and unpin it first");
  }

  /** Gives them back. EBUSY: the table is mapped or pinned. */
  free(): void {
    if (!this.#isTableFreed) this.table.free();
    this.#isTableFreed = true;
    this.#range?.free();
  }
}

/** @internal ENOMEM: the message says what was tried. */
export function allocFrames(
  core: Core,
  memory: DeviceMemory,
  request: FramesRequest,
  operation: string,
): DeviceFrames {
  core.requireJoined(operation);
  const reasons: string[] = [];
  for (const attempt of attemptsFor(core, memory, request)) {
    try {
      return attempt();
    } catch (error) {
      if (!(error instanceof DmaBufError)) throw error;
      reasons.push(error.message);
    }
  }
  const isRun = request.isRun || memory.group === null;
  const what = `${isRun ? "it must be one run of" : "it needs"} ${request.frameCount} frames`;
  const why = reasons.join("; ") || "no region is that long where the device reaches";
  return fail("ENOMEM", operation, `${what}, and ${why}`);
}

/** The places to try, best first. */
function attemptsFor(
  core: Core,
  memory: DeviceMemory,
  { frameCount, maskBits, isRun }: FramesRequest,
): (() => DeviceFrames)[] {
  const isTranslated = memory.group !== null;
  const reachBits = isTranslated ? ALL_BITS : Math.max(PAGE_BITS, maskBits);
  const alignOrder = orderOf(frameCount);
  const attempts: (() => DeviceFrames)[] = [];
  if (frameCount <= RUN_FRAMES_MAX)
    attempts.push(() =>
      inRun(core, memory.frames.alloc(frameCount, { alignOrder, maskBits: reachBits })),
    );
  if (isTranslated && !isRun) attempts.push(() => scattered(core, frameCount));
  for (const region of memory.regions()) {
    const end = memory.physicalBase + addressOf(region.basePfn + region.frameCount);
    if (end > 2 ** reachBits || frameCount > region.frameCount) continue;
    const options = { alignOrder: Math.min(alignOrder, MAX_ALIGN_ORDER) };
    attempts.push(() => inRun(core, region.alloc(frameCount, options)));
  }
  return attempts;
}

function inRun(core: Core, range: FrameRange): DeviceFrames {
  try {
    return new DeviceFrames(core, tableFromRange(core, range.pfn, range.frameCount), range);
  } catch (error) {
    range.free();
    throw error;
  }
}

function scattered(core: Core, frameCount: number): DeviceFrames {
  const result = core.exports.storageAllocBlocks(frameCount, NO_PFN, 0);
  const handle = checked(result, `take ${frameCount} frames`, () => "so many are not free");
  core.exports.storageClear(handle);
  return new DeviceFrames(core, new SgTable(core, handle, "own"), null);
}
