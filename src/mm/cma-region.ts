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
import { FRAME_BYTES, formatBytes } from "../units.ts";
import { FrameRange } from "./frame-range.ts";

const BASE_PFN = 1;
const FRAME_COUNT = 2;
const ORDER_PER_BIT = 3;
const LENT_FRAMES = 6;
const USED_BITS = 7;
const ALLOC_COUNT = 8;
const FAIL_COUNT = 9;
const IS_FIXED = 11;

// A frame's word (assembly/page.ts): its state in the low digits, its pins in the high ones.
const STATES = 16;
const FREE = 0;
const MOVABLE = 4;
const PIN: number = 2 ** 14;

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
    const operation = `allocate ${frameCount} frames of region ${this.name}`;
    requireObject(options, "the options", operation);
    const { alignOrder = 0 } = options;
    requireInteger(frameCount, "frameCount", 1, this.frameCount, operation);
    requireInteger(alignOrder, "alignOrder", 0, 31, operation);
    const pfn = checked(
      this.#core.exports.cmaAlloc(this.handle, frameCount, alignOrder),
      operation,
      (code) => this.explain(code),
    );
    return new FrameRange(this.#core, pfn, frameCount, (first, count) =>
      this.#core.exports.cmaRelease(this.handle, first, count),
    );
  }

  /** Why the region refused, for a message. */
  explain(code: ErrnoCode): string {
    if (code === "EBUSY") return this.#blockers();
    if (code !== "ENOMEM") return "another thread holds the region; try again";
    const { usedFrames, frameCount, largestFreeFrames } = this.stats();
    const largest = `${largestFreeFrames} frames (${formatBytes(largestFreeFrames * FRAME_BYTES)})`;
    return `${usedFrames} of ${frameCount} frames are used, the largest free run is ${largest}`;
  }

  /** Which pinned frames keep runs from being made. */
  #blockers(): string {
    const pinned: number[] = [];
    let run = 0; // frames in a row that are not used, or can move away
    let largest = 0;
    for (let pfn = this.basePfn; pfn < this.basePfn + this.frameCount; pfn++) {
      const word = this.#core.exports.frameWord(pfn) >>> 0;
      const isLent = word % STATES === MOVABLE;
      if (isLent && word >= PIN) pinned.push(pfn);
      run = word % STATES === FREE || (isLent && word < PIN) ? run + 1 : 0;
      largest = Math.max(largest, run);
    }
    const shown = pinned.slice(0, 8).join(", ");
    const more = pinned.length > 8 ? ` and ${pinned.length - 8} more` : "";
    const room = `the largest run without one is ${largest} frames`;
    return `pinned frames are in the way: ${shown}${more}; unpin them, ${room}`;
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
