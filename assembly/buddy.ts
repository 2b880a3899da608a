// Free frames by order and migrate type, and magazines of single frames in front of them.
//
//   FREE_HEADS[type][order] ─► pfn ─next─► pfn ─► 0        a block of order n is 2^n frames, first pfn a multiple of 2^n
//   FREE_ORDERS[type]          bit n = the list of order n is not empty
//   magazine (thread.ts)       a stack of single frames that belongs to one thread: no lock to pop
//   or push
//
// B1  A block is in the list of its order and of its pageblock's type exactly when its first word
//     says FREE | HEAD | order.
// B2  Two free buddies of one order and type are never both in a list: they merge, up to MAX_ORDER.
// B3  freeFrames is the sum of 2^order over all lists; frames in magazines are not in it.
// B4  No function changes anything before all its checks have passed.
//
// A run that is no power of two is cut from the next larger block, and the tail goes back at once:
// nothing is wasted. Every operation costs O(MAX_ORDER); a pfn limit below the top of memory may
// walk a list.
//
// Compare mm/page_alloc.c in the kernel.

import { NONE } from "./bits";
import { EAGAIN, EBUSY, EINVAL, ENOENT, ENOMEM } from "./errno";
import { FRAMES_LOCK_AT, FREE_HEADS_AT, FREE_ORDERS_AT, MAX_ORDER, header } from "./layout";
import { lock, lockHard, unlock } from "./lock";
import {
  CACHED,
  Frame,
  MIGRATE_UNMOVABLE,
  PINS_MASK,
  Page,
  PfnCell,
  STATE_MASK,
  pageblockType,
  wordsFree,
  wordsTake,
} from "./page";
import { must } from "./panic";
import { MAGAZINE_FRAMES, threadIndex } from "./thread";

const B1: u32 = 6601;
const REFILL_FRAMES: u32 = MAGAZINE_FRAMES / 2;

@unmanaged
export class FreeList {
  first: u32; // pfn of the first block; 0 = empty

  static at(type: u32, order: u32): FreeList {
    return changetype<FreeList>(FREE_HEADS_AT + ((<usize>(type * (MAX_ORDER + 1) + order)) << 2));
  }
}

@unmanaged
export class FreeOrders {
  mask: u32; // bit n = the list of order n is not empty

  static at(type: u32): FreeOrders {
    return changetype<FreeOrders>(FREE_ORDERS_AT + ((<usize>type) << 2));
  }
}

// ---- blocks; the caller holds framesLock

function listInsert(pfn: u32, order: u32): void {
  const type = <u32>pageblockType(pfn);
  const list = FreeList.at(type, order);
  const first = list.first;
  const page = Page.at(pfn);
  page.next = first;
  page.prev = 0;
  if (first != 0) Page.at(first).prev = pfn;
  else FreeOrders.at(type).mask |= (<u32>1) << order;
  list.first = pfn;
  Frame.at(pfn).markHead(order);
}

function listRemove(pfn: u32, order: u32): void {
  must(Frame.at(pfn).isFreeHead && Frame.at(pfn).order == order, B1, pfn);
  const page = Page.at(pfn);
  const next = page.next;
  const prev = page.prev;
  if (next != 0) Page.at(next).prev = prev;
  if (prev != 0) {
    Page.at(prev).next = next;
  } else {
    const type = <u32>pageblockType(pfn);
    FreeList.at(type, order).first = next;
    if (next == 0) FreeOrders.at(type).mask &= ~((<u32>1) << order);
  }
  Frame.at(pfn).unmarkHead();
}

/**
 * Puts the free block at `pfn` into a list, merged with its buddies as far as they are free (B2).
 */
function blockInsert(pfn: u32, order: u32): void {
  while (order < MAX_ORDER) {
    const buddy = pfn ^ ((<u32>1) << order);
    if (buddy >= header().backedFrames) break;
    const frame = Frame.at(buddy);
    if (!frame.isFreeHead || frame.order != order || pageblockType(buddy) != pageblockType(pfn))
      break;
    listRemove(buddy, order);
    pfn &= buddy;
    order += 1;
  }
  listInsert(pfn, order);
}

/** Gives the free frames [pfn, pfnEnd) to the lists, as the largest aligned blocks they hold. */
export function rangeInsert(pfn: u32, pfnEnd: u32): void {
  header().freeFrames += pfnEnd - pfn;
  while (pfn < pfnEnd) {
    const fits = 31 - <u32>clz(pfnEnd - pfn);
    const order = min(min(<u32>ctz(pfn), fits), MAX_ORDER);
    blockInsert(pfn, order);
    pfn += (<u32>1) << order;
  }
}

/** The first listed block of order >= `order` whose low end lies below `pfnEnd`, or 0. */
function blockFind(type: u32, order: u32, pfnEnd: u32): u32 {
  const size = (<u32>1) << order;
  let orders = FreeOrders.at(type).mask & (~(<u32>0) << order);
  while (orders != 0) {
    let pfn = FreeList.at(type, <u32>ctz(orders)).first;
    while (pfn != 0) {
      if (pfn + size <= pfnEnd) return pfn;
      pfn = Page.at(pfn).next;
    }
    orders &= orders - 1;
  }
  return 0;
}

/**
 * Takes a block of `order` out of the lists; 0 when there is none below `pfnEnd`. Its words say
 * FREE until the caller's do.
 */
export function blockTake(order: u32, pfnEnd: u32): u32 {
  const pfn = blockFind(MIGRATE_UNMOVABLE, order, pfnEnd);
  if (pfn == 0) return 0;
  let have = Frame.at(pfn).order;
  listRemove(pfn, have);
  while (have > order) {
    have -= 1;
    listInsert(pfn + ((<u32>1) << have), have);
  }
  header().freeFrames -= (<u32>1) << order;
  return pfn;
}

/**
 * Takes exactly [pfn, pfn + count) out of the lists; false, with nothing changed, unless all of it
 * is listed.
 */
export function rangeTake(pfn: u32, count: u32): bool {
  const pfnEnd = pfn + count;
  for (let at = pfn; at < pfnEnd; ) {
    const head = blockOf(at);
    if (head == NONE) return false;
    at = head + ((<u32>1) << Frame.at(head).order);
  }
  for (let at = pfn; at < pfnEnd; ) {
    const head = blockOf(at);
    const size = (<u32>1) << Frame.at(head).order;
    listRemove(head, Frame.at(head).order);
    header().freeFrames -= size;
    const end = head + size;
    if (head < pfn) rangeInsert(head, pfn);
    if (end > pfnEnd) rangeInsert(pfnEnd, end);
    at = end;
  }
  return true;
}

/** The first frame of the listed block that holds `pfn`, or NONE. */
function blockOf(pfn: u32): u32 {
  for (let order: u32 = 0; order <= MAX_ORDER; order++) {
    const head = pfn & (~(<u32>0) << order);
    const frame = Frame.at(head);
    if (frame.isFreeHead)
      return frame.order >= order && head + ((<u32>1) << frame.order) > pfn ? head : NONE;
  }
  return NONE;
}

/**
 * The exact run of `count` frames aligned to 2^alignOrder, its words untouched; 0 when there is
 * none.
 */
export function runTake(count: u32, alignOrder: u32, pfnEnd: u32): u32 {
  const order = max(count == 1 ? 0 : 32 - <u32>clz(count - 1), alignOrder);
  const pfn = blockTake(order, pfnEnd);
  if (pfn != 0) {
    const blockEnd = pfn + ((<u32>1) << order);
    if (pfn + count < blockEnd) rangeInsert(pfn + count, blockEnd);
  }
  return pfn;
}

// ---- many single frames at once

/**
 * Writes `count` single frames for `state` to the list at `listAt`: all or none. 0, or EINVAL,
 * ENOMEM, EAGAIN.
 */
export function bulkAlloc(listAt: usize, count: u32, state: u32): i32 {
  if (count == 0 || count > header().frameCount) return EINVAL;
  if (!lock(FRAMES_LOCK_AT)) return EAGAIN;
  let done: u32 = 0;
  let order = min(31 - <u32>clz(count), MAX_ORDER);
  while (done < count) {
    while ((<u32>1) << order > count - done) order -= 1;
    const pfn = blockTake(order, NONE);
    if (pfn != 0) {
      const size = (<u32>1) << order;
      wordsTake(pfn, size, state, threadIndex());
      for (let i: u32 = 0; i < size; i++) PfnCell.at(listAt, done + i).pfn = pfn + i;
      done += size;
    } else if (order > 0) {
      order -= 1;
    } else {
      break;
    }
  }
  if (done < count) for (let i: u32 = 0; i < done; i++) frameInsert(PfnCell.at(listAt, i).pfn);
  unlock(FRAMES_LOCK_AT);
  return done < count ? ENOMEM : 0;
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
    wordsFree(first, run);
    rangeInsert(first, first + run);
    i += run;
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
    if ((frame.word & (STATE_MASK | PINS_MASK)) != from) return i;
    frame.word = (frame.word & ~STATE_MASK) | to;
  }
  return count;
}

function bulkError(pfn: u32, state: u32): i32 {
  if (pfn >= header().frameCount) return EINVAL;
  return Frame.at(pfn).state == state && Frame.at(pfn).pins > 0 ? EBUSY : ENOENT;
}

export function frameInsert(pfn: u32): void {
  Frame.at(pfn).unmarkHead();
  rangeInsert(pfn, pfn + 1);
}
