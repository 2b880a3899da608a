// The lists of free blocks, by order and migrate type.
//
//   FREE_HEADS[type][order] ─► pfn ─next─► pfn ─► 0        a block of order n is 2^n frames, first pfn a multiple of 2^n
//   FREE_ORDERS[type]          bit n = the list of order n is not empty
//
// B1  A block is in the list of its order and of its pageblock's type exactly when its first word
//     says FREE | HEAD | order.
// B2  Two free buddies of one order and type are never both in a list: they merge, up to MAX_ORDER.
// B3  freeFrames is the sum of 2^order over all lists; frames in magazines are not in it.
//
// The caller of every function holds framesLock.

import { NONE } from "./bits";
import { FREE_HEADS_AT, FREE_ORDERS_AT, MAX_ORDER, PAGEBLOCK_ORDER, header } from "./layout";
import { Frame, Page, pageblockType } from "./page";
import { must } from "./panic";

const B1: u32 = 6601;

if (MAX_ORDER > PAGEBLOCK_ORDER) ERROR("buddies may lie in two pageblocks");

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

export function listInsert(pfn: u32, order: u32): void {
  const type = pageblockType(pfn);
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

export function listRemove(pfn: u32, order: u32): void {
  if (CHECKS) must(Frame.at(pfn).isFreeHead && Frame.at(pfn).order == order, B1, pfn);
  const page = Page.at(pfn);
  const next = page.next;
  const prev = page.prev;
  if (next != 0) Page.at(next).prev = prev;
  if (prev != 0) {
    Page.at(prev).next = next;
  } else {
    const type = pageblockType(pfn);
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
    if (!Frame.at(buddy).isFreeBlock(order)) break; // below MAX_ORDER it shares the pageblock
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

/**
 * The first block of the list of exactly `from` whose low 2^order frames lie below `pfnEnd`, or 0.
 */
export function blockFindIn(type: u32, from: u32, order: u32, pfnEnd: u32): u32 {
  const size = (<u32>1) << order;
  let pfn = FreeList.at(type, from).first;
  while (pfn != 0 && pfn + size > pfnEnd) pfn = Page.at(pfn).next;
  return pfn;
}

/** The first listed block of order >= `order` whose low end lies below `pfnEnd`, or 0. */
export function blockFind(type: u32, order: u32, pfnEnd: u32): u32 {
  let orders = FreeOrders.at(type).mask & (~(<u32>0) << order);
  while (orders != 0) {
    const pfn = blockFindIn(type, <u32>ctz(orders), order, pfnEnd);
    if (pfn != 0) return pfn;
    orders &= orders - 1;
  }
  return 0;
}

/**
 * Gives the rest [pfn, pfnEnd) of a block that was just cut to the lists. Its parts have no free
 * buddies: what lies before them was handed out, and they are as large as they can be.
 */
export function restInsert(pfn: u32, pfnEnd: u32): void {
  header().freeFrames += pfnEnd - pfn;
  while (pfn < pfnEnd) {
    const order = min(<u32>ctz(pfn), 31 - <u32>clz(pfnEnd - pfn));
    listInsert(pfn, order);
    pfn += (<u32>1) << order;
  }
}

/**
 * Takes a listed block out, down to `order`: its upper halves go back. Its words say FREE until the
 * caller's do.
 */
export function blockCut(pfn: u32, order: u32): u32 {
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

/** Gives one frame to the lists. */
export function frameInsert(pfn: u32): void {
  Frame.at(pfn).unmarkHead();
  rangeInsert(pfn, pfn + 1);
}
