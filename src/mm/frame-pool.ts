/**
 * FramePool: all frames that belong to no region, by the run.
 *
 * Compare alloc_pages() and alloc_pages_exact() in the kernel's mm/page_alloc.c.
 *
 * @module
 */

import type { Core } from "../core/core.ts";
import { checked, requireInteger } from "../errors.ts";
import { lastPfnOf, NO_PFN, pfnOf } from "../units.ts";
import { FrameRange } from "./frame-range.ts";

const RUN_FRAMES_MAX = 1024;

/** What a run of frames must look like. */
export interface FrameOptions {
  /** The first frame's number is a multiple of 2^alignOrder, 0 to 10. Default 0. */
  readonly alignOrder?: number;
  /** The run lies below this many bits of device address. Default: anywhere. */
  readonly maskBits?: number;
}

/** The frames of a system outside its CMA regions. */
export class FramePool {
  readonly #core: Core;
  readonly #physicalBase: number;

  /** @internal */
  constructor(core: Core, physicalBase: number) {
    this.#core = core;
    this.#physicalBase = physicalBase;
  }

  /** A run of 1 to 1024 frames. ENOMEM when no run is free that long. */
  alloc(frameCount: number, { alignOrder = 0, maskBits = 44 }: FrameOptions = {}): FrameRange {
    const operation = `allocate ${frameCount} frames`;
    requireInteger(frameCount, "frameCount", 1, RUN_FRAMES_MAX, operation);
    requireInteger(alignOrder, "alignOrder", 0, 10, operation);
    requireInteger(maskBits, "maskBits", 12, 64, operation);
    const result = this.#core.exports.frameAlloc(
      frameCount,
      alignOrder,
      this.pfnEndOf(lastPfnOf(maskBits)),
    );
    const pfn = checked(result, operation, () => "no run of free frames is that long");
    return new FrameRange(this.#core, pfn, frameCount, (first, count) =>
      this.#core.exports.frameFree(first, count),
    );
  }

  /** @internal The end of the frames that a device reaches whose last page is `lastPfn`. */
  pfnEndOf(lastPfn: number): number {
    if (lastPfn === NO_PFN) return NO_PFN;
    return Math.max(0, lastPfn + 1 - pfnOf(this.#physicalBase));
  }
}
