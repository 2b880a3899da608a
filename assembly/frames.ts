// Frames for whoever asks for frames: runs and lists of state OWNED, not zeroed.
//
// The functions of buddy.ts with the state filled in, so that a caller outside the core cannot free
// what belongs to a table, a slab or a region.

import { bulkAlloc, bulkFree } from "./buddy";
import { EINVAL, ENOENT, ENOMEM } from "./errno";
import { header } from "./layout";
import { frameTakeFast, magazineDrain, runAllocOf, runFreeFast } from "./magazine";
import {
  CMA,
  DIRTY,
  Frame,
  MIGRATE_RECLAIMABLE,
  MIGRATE_UNMOVABLE,
  OWNED,
  STATE_MASK,
  isFrameRange,
  wordsMatch,
} from "./page";
import { rangeClear } from "./storage";

/**
 * A run of `count` frames, its pfn a multiple of 2^alignOrder, all below `pfnEnd`. The pfn, or
 * EINVAL, ENOMEM, EAGAIN.
 */
export function frameAlloc(count: u32, alignOrder: u32, pfnEnd: u32): i32 {
  if (((count - 1) | alignOrder | ~pfnEnd) == 0) return frameTakeFast(OWNED);
  return runAllocOf(MIGRATE_UNMOVABLE, count, alignOrder, pfnEnd, OWNED);
}

/**
 * A run of `count` frames out of the pageblocks of a migrate type: 0 unmovable, 2 reclaimable. What
 * is grouped by type keeps other pageblocks whole. The pfn, or EINVAL (another type), ENOMEM,
 * EAGAIN.
 */
export function frameAllocOf(type: u32, count: u32, alignOrder: u32, pfnEnd: u32): i32 {
  if (type == MIGRATE_UNMOVABLE) return frameAlloc(count, alignOrder, pfnEnd);
  return type == MIGRATE_RECLAIMABLE ? runAllocOf(type, count, alignOrder, pfnEnd, OWNED) : EINVAL;
}

/**
 * Frees a run, or a part of one. 0, or EINVAL, ENOENT (not handed out), EBUSY (pinned): then
 * nothing changed.
 */
export function frameFree(pfn: u32, count: u32): i32 {
  return runFreeFast(pfn, count, OWNED);
}

/** Lists `count` single frames at `listAt`: all or none. 0, or EINVAL, ENOMEM, EAGAIN. */
export function bulkFramesAlloc(listAt: usize, count: u32): i32 {
  const result = bulkAlloc(listAt, count, OWNED, MIGRATE_UNMOVABLE);
  if (result != ENOMEM) return result;
  magazineDrain(); // its frames may be what is lacking
  return bulkAlloc(listAt, count, OWNED, MIGRATE_UNMOVABLE);
}

/** Frees the listed frames: all or none. 0, or EINVAL, ENOENT (also: one listed twice), EBUSY. */
export function bulkFramesFree(listAt: usize, count: u32): i32 {
  return bulkFree(listAt, count, OWNED);
}

/** The truth word of a frame (page.ts); 0 for a number that is no frame's. */
export function frameWord(pfn: u32): u32 {
  return pfn < header().frameCount ? Frame.at(pfn).word : 0;
}

/**
 * Clears what earlier owners left in a run that frameAlloc() or cmaAlloc() gave. Frames cleared, or
 * EINVAL, ENOENT.
 */
export function frameClearRun(pfn: u32, count: u32): i32 {
  if (!isFrameRange(pfn, count) || pfn + count > header().backedFrames) return EINVAL;
  if (wordsMatch(pfn, count, STATE_MASK | DIRTY, OWNED)) return 0; // the common case
  for (let i: u32 = 0; i < count; i++) {
    const state = Frame.at(pfn + i).state;
    if (state != OWNED && state != CMA) return ENOENT;
  }
  return rangeClear(pfn, pfn + count);
}
