/**
 * Memory in pieces: what a long-running system looks like to whoever needs a run of frames.
 *
 * @module
 */

import { DmaBufError, type FrameRange, type System } from "../../src/index.ts";

/** Leaves the pool no two free frames side by side: every even one is free. */
export function cutUp(system: System): void {
  const held: FrameRange[] = [];
  try {
    while (true) held.push(system.frames.alloc(1));
  } catch (error) {
    if (!(error instanceof DmaBufError && error.code === "ENOMEM")) throw error;
  }
  for (const range of held) if (range.pfn % 2 === 0) range.free();
}
