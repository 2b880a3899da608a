/**
 * Building tables of frames that somebody holds: cleared of old bytes, and pinned until the table
 * is freed.
 *
 * @module
 */

import { requireObjects } from "../arguments.ts";
import type { Core } from "../core/core.ts";
import { checked, type ErrnoCode, requireInteger } from "../errors.ts";
import { addressOf, FRAME_BYTES, offsetOf, pfnOf } from "../units.ts";
import { isPaged } from "./page-finder.ts";
import { holdRuns, type Run, runsOf } from "./pinned-table.ts";
import { framesInto, type SgTableOptions } from "./sg-frames.ts";
import { type SgEntry, SgTable } from "./sg-table.ts";
import { withWords, wordsOf } from "./word-list.ts";

const operation = "build an sg table";
const MAX = 2 ** 32 - 1;

/** A table of the frames [pfn, pfn + frameCount). */
export function tableFromRange(
  core: Core,
  pfn: number,
  frameCount: number,
  maxSegmentBytes: number = MAX,
): SgTable {
  requireInteger(pfn, "pfn", 0, MAX, operation);
  requireInteger(frameCount, "frameCount", 1, MAX, operation);
  requireInteger(maxSegmentBytes, "maxSegmentBytes", FRAME_BYTES, MAX, operation);
  const runs = [{ pfn, offset: 0, lengthBytes: addressOf(frameCount) }];
  return tableOf(core, runs, () => {
    const result = core.exports.sgTableFromRange(pfn, frameCount, maxSegmentBytes);
    return checked(result, operation, tableReason);
  });
}

/** A table of listed frames. */
export function tableFromFrames(
  core: Core,
  frames: ArrayLike<number>,
  options: SgTableOptions,
): SgTable {
  const words = wordsOf(frames, "a frame", operation);
  return tableOf(core, runsOf(words), () => framesInto(core, 0, words, options, operation));
}

/** A table of listed segments. */
export function tableFromList(core: Core, segments: readonly SgEntry[]): SgTable {
  requireObjects(segments, "the segments", operation);
  const words = wordsOfEntries(segments);
  const runs = segments.map(({ pfn, offset, lengthBytes }) => ({
    pfn: pfn + pfnOf(offset),
    offset: offsetOf(offset),
    lengthBytes,
  }));
  return tableOf(core, runs, () => listInto(core, words));
}

/**
 * A table of listed segments that pins nothing: whoever owns their frames frees it before them.
 * ENOMEM.
 */
export function tableOverList(core: Core, segments: readonly SgEntry[]): SgTable {
  return new SgTable(core, listInto(core, wordsOfEntries(segments)), "others");
}

const ENTRY_WORDS = 4;

function wordsOfEntries(segments: readonly SgEntry[]): Uint32Array {
  const numbers = segments.flatMap((one) => [one.pfn, one.offset, one.lengthBytes, 0]);
  return wordsOf(numbers, "a segment's number", operation);
}

function listInto(core: Core, words: Uint32Array): number {
  return withWords(core, words, operation, (at) => {
    const result = core.exports.sgTableFromList(at, words.length / ENTRY_WORDS);
    return checked(result, operation, tableReason);
  });
}

/** The table that `build` makes of the runs, once they are pinned. */
function tableOf(core: Core, runs: readonly Run[], build: () => number): SgTable {
  const held = holdRuns(core, runs, operation);
  try {
    return new SgTable(core, build(), "others", () => held.unpin(), isPaged(runs));
  } catch (error) {
    held.unpin();
    throw error;
  }
}

function tableReason(code: ErrnoCode): string {
  if (code === "ENOMEM") return "no run of frames is free for its entries";
  if (code === "ENOENT") return "a frame of the range is not handed out as a range";
  if (code === "EOVERFLOW") return "a frame has as many pins as can be counted";
  return "it names no segment, or one that is empty or leaves memory";
}
