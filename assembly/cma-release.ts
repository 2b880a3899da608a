// Giving frames back to their region.
//
// A release writes the words of its frames, and reads them only if it must: in a large region they
// lie in no cache, and who does not read does not wait.
//
// Compare cma_release() in the kernel's mm/cma.c.

import { bitmapFree, bitmapFreeBit, bitmapIsTaken } from "./bitmap";
import { regionFindSlow } from "./cma";
import { EBUSY, EINVAL, ENOENT, ESTALE } from "./errno";
import { FRAMES_LOCK_AT, NOTHING_AT, header } from "./layout";
import { lockHard, unlock } from "./lock";
import { KIND_REGION } from "./object";
import { CMA, Frame, STATE_MASK, wordsFree, wordsMatch, wordsRelease } from "./page";
import { must } from "./panic";
import { poisonFill } from "./quarantine";
import { Region, regionFreed } from "./region";
import { Warm } from "./warm";

const C1: u32 = 6701;

/**
 * Releases [pfn, pfn + frameCount), all of it handed out by this region; a part of an allocation
 * may go. 0, or EINVAL (outside), ENOENT (not handed out: also a second release), EBUSY (pinned),
 * ESTALE.
 */
export function cmaRelease(handle: u32, pfn: u32, frameCount: u32): i32 {
  const warm = Warm.of(KIND_REGION);
  const payload = handle == warm.handle ? warm.at : regionFindSlow(handle);
  if (payload == NOTHING_AT) return ESTALE;
  const region = Region.at(payload);
  if (((frameCount - 1) | region.orderPerBit | header().freeFlags) != 0) {
    return releaseRun(payload, pfn, frameCount);
  }
  const offset = pfn - region.basePfn;
  if (offset >= region.frameCount) return EINVAL;
  lockHard(payload);
  lockHard(FRAMES_LOCK_AT); // pins are counted under it
  if (CHECKS) must(isTruthful(region, pfn, 1, offset, 1), C1, pfn);
  if (!areWordsKnown() && !Frame.at(pfn).isHeldAs(CMA)) return releaseFails(payload, pfn, 1);
  if (!bitmapFreeBit(region.bitmapAt, offset)) return releaseFails(payload, pfn, 1);
  wordsFree(pfn, 1);
  unlock(FRAMES_LOCK_AT);
  region.usedBits -= 1;
  regionFreed(region, pfn + 1);
  unlock(payload);
  return 0;
}

/** cmaRelease() for any run. */
function releaseRun(payload: usize, pfn: u32, frameCount: u32): i32 {
  const region = Region.at(payload);
  const offset = pfn - region.basePfn;
  if (offset >= region.frameCount || frameCount - 1 >= region.frameCount - offset) return EINVAL;
  const orderPerBit = region.orderPerBit;
  const bit = offset >> orderPerBit;
  const bits = ((frameCount - 1) >> orderPerBit) + 1;
  const first = region.basePfn + (bit << orderPerBit);
  const frames = bits << orderPerBit;
  lockHard(payload);
  lockHard(FRAMES_LOCK_AT); // pins are counted under it
  if (CHECKS) must(isTruthful(region, first, frames, bit, bits), C1, pfn);
  if (!runRelease(region, first, frames, bit, bits)) return releaseFails(payload, first, frames);
  if (header().freeFlags != 0) poisonFill(first, frames);
  unlock(FRAMES_LOCK_AT);
  bitmapFree(region.bitmapAt, bit, bits);
  region.usedBits -= bits;
  regionFreed(region, first + frames);
  unlock(payload);
  return 0;
}

/**
 * Whether words need not be looked at to release frames: their region's bitmap knows which are
 * handed out (C1), and none is pinned (N12). On shared memory another thread may be emptying a run
 * whose bits are taken already.
 */
@inline function areWordsKnown(): bool {
  const h = header();
  return (h.pinCount | h.isShared) == 0;
}

/** Frees the words of a run if it is handed out and not pinned. */
@inline function runRelease(region: Region, pfn: u32, frames: u32, bit: u32, bits: u32): bool {
  if (!areWordsKnown()) return wordsRelease(pfn, frames, CMA);
  if (!bitmapIsTaken(region.bitmapAt, bit, bits)) return false;
  wordsFree(pfn, frames);
  return true;
}

/** Whether bitmap and words agree on a run (C1), as far as they must. */
function isTruthful(region: Region, pfn: u32, frames: u32, bit: u32, bits: u32): bool {
  const isTaken = bitmapIsTaken(region.bitmapAt, bit, bits);
  const isHeld = wordsMatch(pfn, frames, STATE_MASK, CMA);
  return isTaken == isHeld || (isTaken && header().isShared != 0);
}

/** Ends a release of frames that cannot be released, with the locks of frames and region. */
function releaseFails(payload: usize, pfn: u32, frames: u32): i32 {
  const isHeld = wordsMatch(pfn, frames, STATE_MASK, CMA);
  unlock(FRAMES_LOCK_AT);
  unlock(payload);
  return isHeld ? EBUSY : ENOENT;
}
