/**
 * CmaRegion: memory kept for buffers in one piece, first-fit, placed exactly where Linux places
 * them.
 *
 * Compare cma_alloc() and cma_release() in the kernel's mm/cma.c.
 *
 * @module
 */

import { requireObject } from "../arguments.ts";
import type { Core } from "../core/core.ts";
import { checked, type ErrnoCode, requireInteger } from "../errors.ts";
import { FRAME_BYTES, formatBytes, NO_PFN } from "../units.ts";
import { FrameRange } from "./frame-range.ts";
import { canBeEmptied, formatRuns, framesText, isPinnedMovable } from "./frame-word.ts";

const BASE_PFN = 1;
const FRAME_COUNT = 2;
const ORDER_PER_BIT = 3;
const BITMAP_AT = 4;
const LENT_FRAMES = 6;
const USED_BITS = 7;
const ALLOC_COUNT = 8;
const FAIL_COUNT = 9;
const IS_FIXED = 11;
/** A word of the header (assembly/layout.ts). */
const PHYS_PFN_BASE = 10;

const NOWHERE_TO_GO =
  "movable memory has borrowed frames there, and too few are free elsewhere for it to move to";

/** What is asked of a region. */
interface Wanted {
  readonly frameCount: number;
  readonly alignOrder: number;
}

/** What a region has done and holds. */
export interface CmaStats {
  readonly frameCount: number;
  /** Frames handed out, in whole bits. */
  readonly usedFrames: number;
  /** The longest run of free frames. */
  readonly largestFreeFrames: number;
  /** Free frames that movable memory has borrowed. */
  readonly lentFrames: number;
  readonly allocCount: number;
  readonly failCount: number;
}

/**
 * A contiguous region. Made by `open({ cma: { name: bytes } })`, or as a carve-out by
 * `open({ carveout: { name: bytes } })`; found by `system.region(name)`.
 */
export class CmaRegion {
  readonly name: string;
  /** The core's number for it. */
  readonly handle: number;
  /** The first frame. */
  readonly basePfn: number;
  readonly frameCount: number;
  /** Whether movable memory borrows its free frames. Not those of a carve-out. */
  readonly isReusable: boolean;
  readonly #core: Core;

  /** @internal */
  constructor(core: Core, name: string, handle: number) {
    this.#core = core;
    this.name = name;
    this.handle = handle;
    this.basePfn = this.#field(BASE_PFN);
    this.frameCount = this.#field(FRAME_COUNT);
    this.isReusable = this.#field(IS_FIXED) === 0;
  }

  #field(index: number): number {
    const result = this.#core.exports.cmaRegionAt(this.handle);
    const at = checked(result, `read region ${this.name}`, () => "there is no such region");
    return this.#core.word(at, index);
  }

  /**
   * The first run of `frameCount` frames whose device address is a multiple of 4096 << alignOrder.
   * EINVAL: no region could; ENOMEM: the message says what was asked and what there is.
   */
  alloc(
    frameCount: number,
    options: { readonly alignOrder?: number | undefined } = {},
  ): FrameRange {
    const operation = `allocate ${framesText(frameCount)} of region ${this.name}`;
    requireObject(options, "the options", operation);
    const { alignOrder = 0 } = options;
    requireInteger(frameCount, "frameCount", 1, this.frameCount, operation);
    requireInteger(alignOrder, "alignOrder", 0, 31, operation);
    const pfn = checked(
      this.#core.exports.cmaAlloc(this.handle, frameCount, alignOrder),
      operation,
      (code) => this.explain(code, { frameCount, alignOrder }),
    );
    return new FrameRange(this.#core, pfn, frameCount, (first, count) =>
      this.#core.exports.cmaRelease(this.handle, first, count),
    );
  }

  /** Why the region refused, for a message: what was asked, and what there is. */
  explain(code: ErrnoCode, wanted: Wanted): string {
    if (code === "EBUSY") return this.#blockers(wanted);
    if (code !== "ENOMEM") return "another thread holds the region; try again";
    const { usedFrames, frameCount, largestFreeFrames, lentFrames } = this.stats();
    if (this.#hasPlace(wanted))
      return lentFrames > 0 ? NOWHERE_TO_GO : "no memory is left for its record";
    const used = `${usedFrames} of ${frameCount} frames are used, the largest free run is`;
    return `${used} ${runText(largestFreeFrames)}${beside(wanted, largestFreeFrames)}`;
  }

  /** Whether a run would do, apart from movable memory that has borrowed some of it. */
  #hasPlace({ frameCount, alignOrder }: Wanted): boolean {
    const orderPerBit = this.#field(ORDER_PER_BIT);
    const unit = 2 ** orderPerBit;
    const mask = 2 ** Math.max(0, alignOrder - orderPerBit) - 1;
    const { bitmapFindFrom, HEADER_AT } = this.#core.exports;
    const basePfn = this.basePfn + this.#core.word(HEADER_AT.value, PHYS_PFN_BASE);
    const bits = Math.ceil(frameCount / unit);
    const offset = Math.floor(basePfn / unit) % (mask + 1);
    const bit = bitmapFindFrom(this.#field(BITMAP_AT), 0, bits, mask, offset) >>> 0;
    return bit !== NO_PFN;
  }

  /** Which pinned frames keep runs from being made. */
  #blockers(wanted: Wanted): string {
    const pinned: number[] = [];
    const unit = 2 ** this.#field(ORDER_PER_BIT);
    let run = 0; // frames in a row, in whole units, that are not used, or can move away
    let largest = 0;
    for (let first = this.basePfn; first < this.basePfn + this.frameCount; first += unit) {
      const words = Array.from(
        { length: unit },
        (_, i) => this.#core.exports.frameWord(first + i) >>> 0,
      );
      for (const [i, word] of words.entries()) if (isPinnedMovable(word)) pinned.push(first + i);
      run = words.every(canBeEmptied) ? run + unit : 0;
      largest = Math.max(largest, run);
    }
    const room = `the largest run without one is ${runText(largest)}${beside(wanted, largest)}`;
    return `pinned frames are in the way: ${formatRuns(pinned, 8)}; unpin them, ${room}`;
  }

  /** What the region holds. O(1), but for a walk over its bitmap when that has changed. */
  stats(): CmaStats {
    return {
      frameCount: this.frameCount,
      usedFrames: this.#field(USED_BITS) * 2 ** this.#field(ORDER_PER_BIT),
      largestFreeFrames: this.#core.exports.cmaLargestFree(this.handle) >>> 0,
      lentFrames: this.#field(LENT_FRAMES),
      allocCount: this.#field(ALLOC_COUNT),
      failCount: this.#field(FAIL_COUNT),
    };
  }
}

function runText(frameCount: number): string {
  return `${framesText(frameCount)} (${formatBytes(frameCount * FRAME_BYTES)})`;
}

/** That none of the runs begins where it must, when the largest is long enough. */
function beside({ frameCount, alignOrder }: Wanted, largest: number): string {
  if (alignOrder === 0 || frameCount > largest) return "";
  const start = `a multiple of ${formatBytes(FRAME_BYTES * 2 ** alignOrder)}`;
  return `, but none holds ${framesText(frameCount)} from ${start} on`;
}
