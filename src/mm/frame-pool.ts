/**
 * FramePool: all frames that belong to no region, by the run.
 *
 * Compare alloc_pages() and alloc_pages_exact() in the kernel's mm/page_alloc.c.
 *
 * @module
 */

import { hasKey, requireObject } from "../arguments.ts";
import type { Core } from "../core/core.ts";
import { checked, fail, nameOf, requireInteger } from "../errors.ts";
import { countOf, FRAME_BYTES, formatBytes, lastPfnOf, NO_PFN, orderOf, pfnOf } from "../units.ts";
import { FrameRange } from "./frame-range.ts";
import { canBeEmptied, framesText, isPinnedMovable } from "./frame-word.ts";

const RUN_FRAMES_MAX = 1024;

/** What a run of frames must look like. */
export interface FrameOptions {
  /** The first frame's number is a multiple of 2^alignOrder, 0 to 10. Default 0. */
  readonly alignOrder?: number | undefined;
  /** The run lies below this many bits of device address, 12 to 64. Default: anywhere. */
  readonly maskBits?: number | undefined;
  /** Pageblocks that hold frames of this kind are preferred. Default "unmovable". */
  readonly type?: FrameType | undefined;
}

/** Why frames are grouped: those that may go some day lie together, and so do those that stay. */
export type FrameType = "unmovable" | "reclaimable";

const typeNumbers: Record<FrameType, number> = { unmovable: 0, reclaimable: 2 };

/** The frames of a system outside its CMA regions. */
export class FramePool {
  readonly #core: Core;
  readonly #physicalBase: number;

  /** @internal */
  constructor(core: Core, physicalBase: number) {
    this.#core = core;
    this.#physicalBase = physicalBase;
  }

  /**
   * A run of 1 to 1024 frames: the begin of a free block, whose tail stays free. A block has 2^n
   * frames, the first a multiple of as many; n is alignOrder or the least that holds the run.
   * EINVAL; ENOMEM when no such block is free.
   */
  alloc(frameCount: number, options: FrameOptions = {}): FrameRange {
    const operation = `allocate a run of ${nameOf(frameCount)}`;
    requireObject(options, "the options", operation);
    const { alignOrder = 0, maskBits = 64, type = "unmovable" } = options;
    requireInteger(frameCount, "frameCount", 1, RUN_FRAMES_MAX, operation);
    requireInteger(alignOrder, "alignOrder", 0, 10, operation);
    requireInteger(maskBits, "maskBits", 12, 64, operation);
    if (!isFrameType(type))
      fail("EINVAL", operation, `the type must be one of ${Object.keys(typeNumbers).join(", ")}`);
    const pfnEnd = this.#pfnEndOf(lastPfnOf(maskBits));
    const result = this.#core.exports.frameAllocOf(
      typeNumbers[type],
      frameCount,
      alignOrder,
      pfnEnd,
    );
    const pfn = checked(result, operation, () => this.#shortage(frameCount, alignOrder, maskBits));
    return this.#range(pfn, frameCount);
  }

  /**
   * Exactly the frames [pfn, pfn + frameCount), of any length: movable memory that lies there is
   * moved away. EINVAL: not frames; EBUSY: one is held, pinned or in a CMA region, and which;
   * ENOMEM: nowhere to move to.
   */
  allocAt(pfn: number, frameCount: number): FrameRange {
    const operation = `allocate ${framesText(frameCount)} at ${nameOf(pfn)}`;
    const frames = pfnOf(this.#core.u8.length);
    requireInteger(pfn, "pfn", 0, frames - 1, operation);
    requireInteger(frameCount, "frameCount", 1, frames - pfn, operation);
    checked(this.#core.exports.contigAlloc(pfn, frameCount), operation, (code) =>
      code === "EBUSY"
        ? this.#obstacle(pfn, frameCount)
        : "movable memory lies there, and too few frames are free elsewhere for it to move to",
    );
    const range = this.#range(pfn, frameCount);
    range.clear(); // the caller knows where it lies (frame-range.ts, N12)
    return range;
  }

  #range(pfn: number, frameCount: number): FrameRange {
    return new FrameRange(this.#core, pfn, frameCount, (first, count) =>
      this.#core.exports.frameFree(first, count),
    );
  }

  /** Why no run is free, for a message. */
  #shortage(frameCount: number, alignOrder: number, maskBits: number): string {
    const block = 2 ** Math.max(orderOf(frameCount), alignOrder);
    const place = maskBits < 64 ? ` within ${maskBits} address bits` : "";
    const start = block > 1 ? ` at a multiple of ${block}` : "";
    const largest = this.#core.exports.largestFreeRun();
    const found = `${countOf(largest, "frame")} (${formatBytes(largest * FRAME_BYTES)})`;
    const wanted = `a block of ${countOf(block, "free frame")}${start}${place}`;
    return `it needs ${wanted}; the largest free run, wherever it begins, is ${found}`;
  }

  /** What keeps certain frames from being had, for a message. */
  #obstacle(pfn: number, frameCount: number): string {
    for (let at = pfn; at < pfn + frameCount; at++) {
      const word = this.#core.exports.frameWord(at) >>> 0;
      if (canBeEmptied(word)) continue;
      return isPinnedMovable(word)
        ? `frame ${at} is movable memory that is pinned; unpin it first`
        : `frame ${at} is in use`;
    }
    return "they reach into a CMA region or a carve-out; ask that for a run";
  }

  /** The end of the frames that a device reaches whose last page is `lastPfn`. */
  #pfnEndOf(lastPfn: number): number {
    if (lastPfn === NO_PFN) return NO_PFN;
    return Math.max(0, lastPfn + 1 - pfnOf(this.#physicalBase));
  }
}

function isFrameType(type: unknown): type is FrameType {
  return hasKey(typeNumbers, type);
}
