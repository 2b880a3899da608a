/**
 * Single frames by the list: cleared, in any order, all or none.
 *
 * - FL1  Lists go to the core in the scratch words, a part at a time: freeing needs no memory, and
 *        neither does allocating beside the frames themselves.
 *
 * @module
 */

import type { Core } from "../core/core.ts";
import { checked } from "../errors.ts";
import { framesOf } from "../units.ts";
import { runsOf } from "./pinned-table.ts";

/** `count` frames without a byte of earlier owners. ENOMEM, EAGAIN. */
export function allocFrames(core: Core, count: number, operation: string): Uint32Array {
  const pfns = new Uint32Array(count);
  let done = 0;
  try {
    for (; done < count; done += core.scratch.length) {
      const part = core.scratch.subarray(0, Math.min(count - done, core.scratch.length)); // FL1
      const result = core.exports.bulkFramesAlloc(part.byteOffset, part.length);
      checked(result, operation, shortage);
      pfns.set(part, done);
    }
  } catch (error) {
    freeFrames(core, pfns.subarray(0, done));
    throw error;
  }
  for (const { pfn, lengthBytes } of runsOf(pfns))
    checked(core.exports.frameClearRun(pfn, framesOf(lengthBytes)), operation, shortage);
  return pfns;
}

/** Gives frames back. ENOENT, EBUSY: one was not handed out, or is pinned. */
export function freeFrames(core: Core, pfns: Uint32Array): void {
  for (let done = 0; done < pfns.length; done += core.scratch.length) {
    const part = pfns.subarray(done, done + core.scratch.length);
    core.scratch.set(part); // FL1
    const result = core.exports.bulkFramesFree(core.scratch.byteOffset, part.length);
    checked(result, "free frames", (code) =>
      code === "EBUSY" ? "one is pinned" : "one was not handed out",
    );
  }
}

const shortage = (): string => "too few frames are free";
