// Ranges of up to 1024 pages, cut from aligned blocks: one is taken and given back by a bit.
//
//   tree (iova-tree.ts)   … ┼ range ┼──────── entry of a block ────────┼ range …
//                                   ├ slot 0 ┼ slot 1 ┼ … ┤ end - 1       1, 2, … 1024 pages each
//   page ─► table ─► block                                                iova-table.ts
//   partial[class] ─► block ─► block ─► 0     those with a free slot
//   recent[class] ──► the slot that was freed last: still taken, for the next request
//
//   OPEN ──────── the last slot in use is freed ──────► gone
//     └──► CLOSED ── slots become entries of the tree ──► gone      iova-dissolve.ts
//
// V7  A block is in the list of its class exactly while it is OPEN and has a free slot.
// V11 recent[class] is 0, or the first page of a taken slot of an OPEN block of that class.
//
// The tree alone would do: blocks are its cache for what drivers map. A range that must be aligned
// to its size, or needs no aligning, finds its slot in a few loads; from 9 pages on it is rounded
// up to a power of two, as Linux does up to 32. That never makes a request fail: when the tree has
// no fit, the blocks below the limit are dissolved into entries, which end where the ranges do, and
// the search runs again. A block is made only while a run of 64 times its pages is free, so that
// small ranges do not break up the last long runs. While `pause` counts down, no block of the class
// is made, so that a full space does not make and dissolve them in turns. Known limit: 3, 5, 6 and
// 7 pages, and ranges without alignment that are no power of two, come from the tree.
//
// Compare the magazines ("rcaches") of drivers/iommu/iova.c in the kernel, which keep freed ranges
// by size.

import {
  IovaBlock,
  OPEN,
  blockInit,
  blockPages,
  slotGive,
  slotTake,
} from "./iova-slots";
import {
  CACHE_IOVA_RECORDS,
  EXACT_CLASSES,
  IovaControl,
  IovaRange,
  IovaSpace,
} from "./iova-space";
import { blockNear, placesReady, placesSet } from "./iova-table";
import { pathSeek } from "./iova-path";
import { treeFit, treeInsert, treeReady, treeRemove } from "./iova-tree";
import { NOTHING_AT } from "./layout";
import { must } from "./panic";
import { slabAlloc, slabFree } from "./slab";

const V6: u32 = 8606;

const TRIES: u32 = 8; // blocks of a list that a limit may rule out before a new one is made
const ROOM_SHIFT: u32 = 6; // a block is made only while a run of 64 times its pages is free
const PAUSE_REFUSED: u32 = 64; // ranges from the tree after no block could be made

// ---- ranges

/**
 * A range of `pageCount` pages at or below `limit` in a slot of 1 << sizeShift; 0 when no block has
 * one and none can be made now.
 */
export function blockTake(space: IovaSpace, sizeShift: u32, pageCount: u32, limit: u32): u32 {
  let at = space.control.partial(sizeShift);
  for (let i: u32 = 0; i < TRIES; i++) {
    if (at == 0) break;
    const block = IovaBlock.at(at);
    if (block.slotPfn(block.end) - 1 <= limit) return rangeCut(space, block, pageCount);
    at = block.nextAt;
  }
  at = blockCreate(space, sizeShift, limit);
  return at == 0 ? 0 : rangeCut(space, IovaBlock.at(at), pageCount);
}

function rangeCut(space: IovaSpace, block: IovaBlock, pageCount: u32): u32 {
  const slot = slotTake(space, block, pageCount);
  if (block.wordMask == 0) listRemove(space.control, block); // V7
  space.rangeCount += 1;
  return block.slotPfn(slot);
}

/** Frees the live range of a block over `pfn`. Its page count, or 0: no range is there. */
export function blockGive(space: IovaSpace, block: IovaBlock, pfn: u32): u32 {
  const slot = block.slotOver(pfn);
  if (!isLive(space, block, slot)) return 0;
  const pages = block.pageCount(slot);
  if (pfn - block.slotPfn(slot) >= pages) return 0;
  rangeReturn(space, block, slot);
  return pages;
}

function rangeReturn(space: IovaSpace, block: IovaBlock, slot: u32): void {
  const wasListed = block.isListed;
  slotGive(block, slot);
  if (!wasListed && block.state == OPEN) listInsert(space.control, block); // V7
  space.rangeCount -= 1;
  if (block.live == 0) blockRetire(space, block);
}

/** Whether slot `slot` < end is a live range (V6). */
function isLive(space: IovaSpace, block: IovaBlock, slot: u32): bool {
  if (!block.isTaken(slot)) return false;
  const sizeShift = block.sizeShift;
  return sizeShift >= EXACT_CLASSES || space.recent(sizeShift) != block.slotPfn(slot);
}

/** Writes the live range of a block over `pfn` to `range`. False: no block has one there. */
export function blockFind(space: IovaSpace, pfn: u32, range: IovaRange): bool {
  const block = blockNear(space, pfn);
  const slot = block.slotOver(pfn);
  if (slot >= block.end || !isLive(space, block, slot)) return false;
  const low = block.slotPfn(slot);
  const pages = block.pageCount(slot);
  if (pfn - low >= pages) return false;
  range.low = low;
  range.high = low + pages - 1;
  return true;
}

// ---- recent slots

/** The recent slot of just `pageCount` pages, if it ends at or below `limit`: its first page; 0. */
@inline export function recentTake(space: IovaSpace, pageCount: u32, limit: u32): u32 {
  if (pageCount - 1 >= 1 << (EXACT_CLASSES - 1)) return 0;
  if ((pageCount & (pageCount - 1)) != 0) return 0;
  const sizeShift = <u32>ctz(pageCount);
  const pfn = space.recent(sizeShift);
  if (pfn + (pageCount - 1) > limit) return 0;
  space.pending = pfn;
  space.setRecent(sizeShift, 0);
  return pfn;
}

/** Keeps slot `slot` < end as the recent one, if there is none. Its page count, or 0. */
export function recentGive(space: IovaSpace, block: IovaBlock, slot: u32): u32 {
  const sizeShift = block.sizeShift;
  if (sizeShift >= EXACT_CLASSES || block.state != OPEN) return 0;
  if (!block.isTaken(slot)) return 0;
  if (space.recent(sizeShift) != 0) return 0;
  space.setRecent(sizeShift, block.slotPfn(slot));
  return (<u32>1) << sizeShift;
}

/** The same for page `pfn`, if the block near it has slots of single pages. */
@inline export function pageGive(space: IovaSpace, block: IovaBlock, pfn: u32): bool {
  if (!block.hasSingle(pfn) || !block.isTakenSingle(pfn)) return false;
  if (space.recent(0) != 0) return false;
  space.setRecent(0, pfn);
  return true;
}

/** Gives the recent slots back to their blocks. How many. */
export function recentsDrop(space: IovaSpace): u32 {
  let count: u32 = 0;
  for (let sizeShift: u32 = 0; sizeShift < EXACT_CLASSES; sizeShift++) {
    const pfn = space.recent(sizeShift);
    if (pfn == 0) continue;
    const block = blockNear(space, pfn);
    rangeReturn(space, block, block.slotOver(pfn));
    space.setRecent(sizeShift, 0); // not before: it is nobody's range meanwhile
    count += 1;
  }
  return count;
}

/** How many slots are recent. */
export function recentsCount(space: IovaSpace): u32 {
  let count: u32 = 0;
  for (let sizeShift: u32 = 0; sizeShift < EXACT_CLASSES; sizeShift++)
    count += <u32>(space.recent(sizeShift) != 0);
  return count;
}

// ---- blocks

/**
 * A new block for slots of 1 << sizeShift pages, in the list of its class; 0 when there is no
 * place, memory or patience.
 */
function blockCreate(space: IovaSpace, sizeShift: u32, limit: u32): usize {
  const control = space.control;
  const pause = control.pause(sizeShift);
  control.setPause(sizeShift, pause > 0 ? pause - 1 : PAUSE_REFUSED);
  if (pause > 0) return 0;
  const pages = blockPages(sizeShift);
  if (treeFit(space, pages << ROOM_SHIFT, limit, true) == 0) return 0;
  const base = treeFit(space, pages, limit, true);
  if (base == 0 || !treeReady(space) || !placesReady(space, base, pages)) return 0;
  const at = slabAlloc(CACHE_IOVA_RECORDS, OPEN);
  if (at == 0) return 0;
  const block = IovaBlock.at(at);
  control.setPause(sizeShift, 0);
  blockInit(block, base, sizeShift);
  space.pending = base;
  treeInsert(space, base, base + pages - 1);
  placesSet(space, block, at);
  control.blockCount += 1;
  listInsert(control, block);
  return at;
}

/** Gives up an empty block, unless it is the only one of its class with a free slot. */
function blockRetire(space: IovaSpace, block: IovaBlock): void {
  must(block.live == 0, V6, block.base);
  if (block.state == OPEN && block.nextAt == 0 && block.prevAt == 0) return;
  pathSeek(space, block.base);
  treeRemove(space);
  blockDrop(space, block);
}

/** Frees the record of a block; its entry stays. */
export function blockDrop(space: IovaSpace, block: IovaBlock): void {
  if (block.isListed) listRemove(space.control, block);
  placesSet(space, block, NOTHING_AT);
  space.control.blockCount -= 1;
  slabFree(changetype<usize>(block));
}

// ---- lists of blocks with a free slot

function listInsert(control: IovaControl, block: IovaBlock): void {
  const at = changetype<usize>(block);
  const first = control.partial(block.sizeShift);
  block.prevAt = 0;
  block.nextAt = first;
  if (first != 0) IovaBlock.at(first).prevAt = at;
  control.setPartial(block.sizeShift, at);
}

export function listRemove(control: IovaControl, block: IovaBlock): void {
  if (block.nextAt != 0) IovaBlock.at(block.nextAt).prevAt = block.prevAt;
  if (block.prevAt != 0) IovaBlock.at(block.prevAt).nextAt = block.nextAt;
  else control.setPartial(block.sizeShift, block.nextAt);
}
