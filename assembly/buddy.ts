// Free frames: blocks of 2^order frames, by migrate type.
//
//   runTake / bulkAlloc ─► blockTake(type) ─► the type's own lists (free-list.ts)
//                                        └─► another type's (steal.ts)
//
// B4  No function changes anything before all its checks have passed.
//
// A run that is no power of two is the begin of a block of the next larger order, whose tail stays
// free: nothing is wasted. Every operation costs O(MAX_ORDER); a pfn limit below the top of memory
// may walk a list.
//
// Compare mm/page_alloc.c in the kernel.

import { NONE } from "./bits";
import { EAGAIN, EBUSY, EINVAL, ENOENT, ENOMEM } from "./errno";
import { faultHits } from "./fault";
import { chunkPfn } from "./chunk";
import { FreeRanks, chunkFind, chunkTake, frameInsert, listTake, rangeInsert } from "./free-list";
import { FRAMES_LOCK_AT, MAX_ORDER, header } from "./layout";
import { lock, lockHard, unlock } from "./lock";
import { CACHED, Frame, PINS_MASK, PfnCell, STATE_MASK, wordsFree, wordsTake } from "./page";
import { framesRetire } from "./quarantine";
import { stealTake } from "./steal";
import { threadIndex } from "./thread";

/**
 * Takes a block of `order` out of the lists of `type`, or of another type's; 0 when there is none
 * below `pfnEnd`. Its words say FREE until the caller's do.
 */
export function blockTake(order: u32, pfnEnd: u32, type: u32): u32 {
  return cutOf(order, (<u32>1) << order, pfnEnd, type);
}

/** The first `count` frames of a block of `order`. */
@inline function cutOf(order: u32, count: u32, pfnEnd: u32, type: u32): u32 {
  const pfn = listTake(type, order, count, pfnEnd);
  return pfn != 0 ? pfn : stealTake(order, count, pfnEnd, type);
}

/**
 * The exact run of `count` frames aligned to 2^alignOrder, its words untouched; 0 when there is
 * none.
 */
export function runTake(count: u32, alignOrder: u32, pfnEnd: u32, type: u32): u32 {
  const order = max(count == 1 ? 0 : 32 - <u32>clz(count - 1), alignOrder);
  return cutOf(order, count, pfnEnd, type);
}

// ---- many single frames at once

/**
 * Writes `count` single frames for `state` to the list at `listAt`: all or none. 0, or EINVAL,
 * ENOMEM, EAGAIN.
 */
export function bulkAlloc(listAt: usize, count: u32, state: u32, type: u32): i32 {
  if (count == 0 || count > header().frameCount) return EINVAL;
  if (faultHits()) return ENOMEM;
  if (!lock(FRAMES_LOCK_AT)) return EAGAIN;
  let done: u32 = 0;
  while (done < count) {
    const order = smallOrder(type, count - done);
    const number = chunkFind(type, order, count - done);
    if (number != 0) {
      for (let bits = chunkTake(number); bits != 0; bits &= bits - 1) {
        const pfn = chunkPfn(number) + <u32>ctz(bits);
        Frame.at(pfn).take(state, threadIndex());
        PfnCell.at(listAt, done++).pfn = pfn;
      }
      continue;
    }
    const pfn = blockTake(order, NONE, type);
    if (pfn == 0) break; // not even a single frame
    const size = (<u32>1) << order;
    wordsTake(pfn, size, state, threadIndex());
    for (let i: u32 = 0; i < size; i++) PfnCell.at(listAt, done + i).pfn = pfn + i;
    done += size;
  }
  if (done < count) for (let i: u32 = 0; i < done; i++) frameInsert(PfnCell.at(listAt, i).pfn);
  unlock(FRAMES_LOCK_AT);
  return done < count ? ENOMEM : 0;
}

/**
 * The order of the block that `left` > 0 single frames are best taken from: of just that size, if
 * it is the largest of a chunk, or else the smallest that is, so that large ones stay whole. When
 * the type's own lists are empty, a single frame is stolen.
 */
export function smallOrder(type: u32, left: u32): u32 {
  const orders = FreeRanks.at(type).mask >> 1;
  const wanted = min(31 - <u32>clz(left), MAX_ORDER);
  if (((orders >> wanted) & 1) != 0) return wanted;
  return orders == 0 ? 0 : min(<u32>ctz(orders), wanted);
}

/**
 * Frees the `count` frames listed at `listAt`, each handed out as `state`: all or none. 0, or
 * EINVAL, EBUSY, ENOENT.
 */
export function bulkFree(listAt: usize, count: u32, state: u32): i32 {
  if (count == 0 || count > header().frameCount) return EINVAL;
  lockHard(FRAMES_LOCK_AT);
  const bad = bulkMark(listAt, count, state, CACHED);
  if (bad < count) {
    bulkMark(listAt, bad, CACHED, state); // B4
    const error = bulkError(PfnCell.at(listAt, bad).pfn, state);
    unlock(FRAMES_LOCK_AT);
    return error;
  }
  for (let i: u32 = 0; i < count; ) {
    const first = PfnCell.at(listAt, i).pfn;
    let run: u32 = 1;
    while (i + run < count && PfnCell.at(listAt, i + run).pfn == first + run) run += 1;
    i += run;
    if (header().freeFlags != 0 && framesRetire(first, run)) continue;
    wordsFree(first, run);
    rangeInsert(first, first + run);
  }
  unlock(FRAMES_LOCK_AT);
  return 0;
}

/**
 * Turns the listed frames from one state to another, so that a frame listed twice is met in the
 * wrong one. How many it turned.
 */
function bulkMark(listAt: usize, count: u32, from: u32, to: u32): u32 {
  const frameCount = header().frameCount;
  for (let i: u32 = 0; i < count; i++) {
    const pfn = PfnCell.at(listAt, i).pfn;
    if (pfn >= frameCount) return i;
    const frame = Frame.at(pfn);
    const word = atomic.load<u32>(changetype<usize>(frame)); // magazine.ts, A3
    if ((word & (STATE_MASK | PINS_MASK)) != from) return i;
    frame.word = (word & ~STATE_MASK) | to;
  }
  return count;
}

function bulkError(pfn: u32, state: u32): i32 {
  if (pfn >= header().frameCount) return EINVAL;
  return Frame.at(pfn).state == state && Frame.at(pfn).pins > 0 ? EBUSY : ENOENT;
}
