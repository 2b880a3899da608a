// Small ranges of one size, cut from aligned blocks of 1024 pages: a slot is taken and given back
// by one bit.
//
//   tree (iova-tree.ts)   … ┼ range ┼──── entry of a block: 1024 pages ────┼ range …
//                                   ├ slot 0 ┼ slot 1 ┼ … ┼ slot end - 1 ┤   1, 2, … 32 pages each
//   free[16]: u64              1 = the slot is free
//   table[base >> 10 & 1023]   ─► block
//   partial[size]              ─► block ─► block ─► 0     those with a free slot
//
//   OPEN ──────── the last slot in use is freed ──────► gone
//     └──► CLOSED ── slots become entries of the tree ──► gone
//
// V5  The table's blocks are those whose base is an entry's `low` and that cover no more than it:
//     [base, base + end slots).
// V6  Slot s is a live range exactly if s < end and its bit is 0; `live` counts them; wordMask
//     tells the words that have a 1.
// V7  A block is in the list of its size exactly while it is OPEN and has a free slot.
//
// The tree alone would do: blocks are its cache for what drivers map most. They never make a
// request fail: when the tree has no fit, the blocks below the limit are dissolved into entries
// from their upper end down, and the search runs again. Blocks are bounded by the table (one
// frame); a page's block is found with two loads. While `pause` counts down, none is made, so that
// a full space does not make and dissolve them in turns. Known limit: only powers of two up to 32
// pages.
//
// Compare the magazines ("rcaches") of drivers/iommu/iova.c in the kernel, which keep freed ranges
// by size.

import { lowBits } from "./bits";
import { frameDrop, frameTakeZeroed } from "./magazine";
import { ENOMEM } from "./errno";
import { pathSeek } from "./iova-path";
import { CACHE_IOVA_RECORDS, IovaControl, IovaRange, IovaSpace } from "./iova-space";
import { sparesFill, treeFit, treeInsert, treeReady, treeRemove, treeShrink } from "./iova-tree";
import { FRAME_SHIFT, frameAt } from "./layout";
import { TABLE } from "./page";
import { must } from "./panic";
import { slabAlloc, slabFree } from "./slab";

const V6: u32 = 8606;

const BLOCK_SHIFT: u32 = 10;
export const BLOCK_PAGES: u32 = 1 << BLOCK_SHIFT;
const BLOCK_MASK: u32 = BLOCK_PAGES - 1;
const BLOCK_WORDS: u32 = BLOCK_PAGES >> 6;
export const TABLE_ENTRIES: u32 = 1024;
const WORDS_OFFSET: usize = 32;
const TRIES: u32 = 8; // blocks of a list that a limit may rule out before a new one is made
const PAUSE_REFUSED: u32 = 64; // small ranges from the tree after no block could be made
const PAUSE_DISSOLVED: u32 = 4096; // and after blocks were dissolved
export const OPEN: u32 = 1;
const CLOSED: u32 = 2; // gives no slots any more

@unmanaged
export class IovaBlock {
  state: u32; // OPEN or CLOSED; 0 = the record is free (slab.ts)
  base: u32; // first page, a multiple of BLOCK_PAGES
  sizeShift: u32; // a slot is 1 << sizeShift pages
  end: u32; // slots that still belong to the block
  live: u32; // slots in use
  wordMask: u32; // bit w = free[w] is not 0
  nextAt: usize; // links of the list of its size (V7)
  prevAt: usize;

  static at(address: usize): IovaBlock {
    return changetype<IovaBlock>(address);
  }

  get slotPages(): u32 {
    return 1 << this.sizeShift;
  }

  get isListed(): bool {
    return this.state == OPEN && this.wordMask != 0; // V7
  }

  /** The first page of slot `slot`. */
  slotPfn(slot: u32): u32 {
    return this.base + (slot << this.sizeShift);
  }

  /** Whether the block's slot over `pfn` is a live range. */
  isLive(pfn: u32): bool {
    const slot = (pfn & BLOCK_MASK) >> this.sizeShift;
    return slot < this.end && ((this.free(slot >> 6) >> <u64>(slot & 63)) & 1) == 0; // V6
  }

  free(w: u32): u64 {
    return load<u64>(changetype<usize>(this) + ((<usize>w) << 3), WORDS_OFFSET);
  }

  setFree(w: u32, word: u64): void {
    store<u64>(changetype<usize>(this) + ((<usize>w) << 3), word, WORDS_OFFSET);
  }
}

if (offsetof<IovaBlock>() > WORDS_OFFSET) ERROR("the head of IovaBlock reaches into its words");
if (WORDS_OFFSET + BLOCK_PAGES / 8 > 256) ERROR("the words leave IovaBlock");

/** The place of the table where a block over `pfn` must be. */
@unmanaged
export class TableEntry {
  blockAt: usize; // 0 = none

  static at(tableAt: usize, pfn: u32): TableEntry {
    return changetype<TableEntry>(
      tableAt + ((<usize>((pfn >> BLOCK_SHIFT) & (TABLE_ENTRIES - 1))) << 2),
    );
  }
}

/** The block over `pfn`, or 0. */
export function blockOver(control: IovaControl, pfn: u32): usize {
  if (control.tableAt == 0) return 0;
  const at = TableEntry.at(control.tableAt, pfn).blockAt;
  return at != 0 && IovaBlock.at(at).base == (pfn & ~BLOCK_MASK) ? at : 0;
}

/** Whether the tree's entry at `low` is a block, and so no range by itself. */
export function isBlockEntry(control: IovaControl, low: u32): bool {
  return (low & BLOCK_MASK) == 0 && blockOver(control, low) != 0; // V5
}

// ---- ranges

/**
 * A range of 1 << sizeShift pages at or below `limit`; 0 when no block has one and none can be made
 * now.
 */
export function blockTake(space: IovaSpace, sizeShift: u32, limit: u32): u32 {
  let at = space.control.partial(sizeShift);
  for (let i: u32 = 0; at != 0 && i < TRIES; i++) {
    const block = IovaBlock.at(at);
    if (block.base + BLOCK_MASK <= limit) return slotTake(space, block);
    at = block.nextAt;
  }
  at = blockCreate(space, sizeShift, limit);
  return at == 0 ? 0 : slotTake(space, IovaBlock.at(at));
}

/** Takes the highest free slot of a block that has one. */
function slotTake(space: IovaSpace, block: IovaBlock): u32 {
  const w = 31 - <u32>clz(block.wordMask);
  const word = block.free(w);
  const bit = 63 - <u32>clz<u64>(word);
  const rest = word ^ ((<u64>1) << (<u64>bit));
  block.setFree(w, rest);
  block.live += 1;
  space.rangeCount += 1;
  if (rest == 0) {
    if (block.wordMask == (<u32>1) << w) listRemove(space.control, block); // V7
    block.wordMask ^= (<u32>1) << w;
  }
  return block.slotPfn((w << 6) | bit);
}

/** Frees the live range of a block over `pfn`. Its page count, or 0: no block has one there. */
export function blockGive(space: IovaSpace, pfn: u32): u32 {
  const control = space.control;
  const at = blockOver(control, pfn);
  if (at == 0) return 0;
  const block = IovaBlock.at(at);
  if (!block.isLive(pfn)) return 0;
  const slot = (pfn & BLOCK_MASK) >> block.sizeShift;
  const w = slot >> 6;
  const pages = block.slotPages;
  block.setFree(w, block.free(w) | ((<u64>1) << (<u64>(slot & 63))));
  const wasListed = block.isListed;
  block.wordMask |= (<u32>1) << w;
  if (!wasListed && block.state == OPEN) listInsert(control, at);
  block.live -= 1;
  space.rangeCount -= 1;
  if (block.live == 0) blockRetire(space, block);
  return pages;
}

/** Writes the live range of a block over `pfn` to `range`. False: no block has one there. */
export function blockFind(control: IovaControl, pfn: u32, range: IovaRange): bool {
  const at = blockOver(control, pfn);
  if (at == 0 || !IovaBlock.at(at).isLive(pfn)) return false;
  range.low = pfn & ~(IovaBlock.at(at).slotPages - 1);
  range.high = pfn | (IovaBlock.at(at).slotPages - 1);
  return true;
}

// ---- blocks

/**
 * A new block for slots of 1 << sizeShift pages, in the list of its size; 0 when there is no place,
 * memory or patience.
 */
function blockCreate(space: IovaSpace, sizeShift: u32, limit: u32): usize {
  const control = space.control;
  if (control.pause > 0) {
    control.pause -= 1;
    return 0;
  }
  control.pause = PAUSE_REFUSED;
  const base = treeFit(space, BLOCK_PAGES, limit, true);
  if (base == 0 || !treeReady(space) || !tableReady(control)) return 0;
  const entry = TableEntry.at(control.tableAt, base);
  if (entry.blockAt != 0) return 0;
  const at = slabAlloc(CACHE_IOVA_RECORDS, OPEN);
  if (at == 0) return 0;
  control.pause = 0;
  treeInsert(space, base, base + BLOCK_MASK);
  entry.blockAt = at;
  control.blockCount += 1;
  blockInit(IovaBlock.at(at), base, sizeShift);
  listInsert(control, at);
  return at;
}

function tableReady(control: IovaControl): bool {
  if (control.tableAt != 0) return true;
  const pfn = frameTakeZeroed(TABLE);
  if (pfn < 0) return false;
  control.tableAt = frameAt(<u32>pfn);
  return true;
}

/** A block whose slots are all free. */
function blockInit(block: IovaBlock, base: u32, sizeShift: u32): void {
  block.base = base;
  block.sizeShift = sizeShift;
  block.end = BLOCK_PAGES >> sizeShift;
  block.live = 0;
  block.wordMask = 0;
  for (let w: u32 = 0; w < BLOCK_WORDS; w++) {
    const firstSlot = w << 6;
    block.setFree(w, firstSlot < block.end ? lowBits(min(block.end - firstSlot, 64)) : 0);
    if (firstSlot < block.end) block.wordMask |= (<u32>1) << w;
  }
}

/** Gives up an empty block, unless it is the only one of its size with a free slot. */
function blockRetire(space: IovaSpace, block: IovaBlock): void {
  must(block.live == 0, V6, block.base);
  if (block.state == OPEN && block.nextAt == 0 && block.prevAt == 0) return;
  const base = block.base;
  blockDrop(space.control, block);
  pathSeek(space, base);
  treeRemove(space);
}

/** Frees the record of a block; its entry stays. */
function blockDrop(control: IovaControl, block: IovaBlock): void {
  if (block.isListed) listRemove(control, block);
  TableEntry.at(control.tableAt, block.base).blockAt = 0;
  control.blockCount -= 1;
  slabFree(changetype<usize>(block));
}

/**
 * Turns the live slots of all blocks over [low, high] into entries of the tree, and frees what they
 * did not use. How many blocks went, or ENOMEM; the live ranges stay what they are.
 */
export function blocksDissolve(space: IovaSpace, low: u32, high: u32): i32 {
  const control = space.control;
  if (control.blockCount == 0) return 0;
  let count: i32 = 0;
  for (let i: u32 = 0; i < TABLE_ENTRIES; i++) {
    const at = TableEntry.at(control.tableAt, i << BLOCK_SHIFT).blockAt;
    if (at == 0) continue;
    const block = IovaBlock.at(at);
    if (block.base > high || block.base + BLOCK_MASK < low) continue;
    control.pause = PAUSE_DISSOLVED;
    if (!blockDissolve(space, block)) return ENOMEM;
    count += 1;
  }
  return count;
}

function blockDissolve(space: IovaSpace, block: IovaBlock): bool {
  const base = block.base;
  const pages = block.slotPages;
  if (block.isListed) listRemove(space.control, block);
  block.state = CLOSED;
  while (block.live > 0) {
    let slot = block.end - 1;
    while (!block.isLive(block.slotPfn(slot))) slot -= 1;
    const low = block.slotPfn(slot);
    const high = low + pages - 1;
    if (slot == 0) {
      blockBecome(space, block, high);
      return true;
    }
    if (!sparesFill(space)) return false;
    pathSeek(space, base);
    treeShrink(space, low - 1); // V5
    block.end = slot;
    block.live -= 1;
    pathSeek(space, high);
    treeInsert(space, low, high);
  }
  blockDrop(space.control, block);
  pathSeek(space, base);
  treeRemove(space);
  return true;
}

/** Leaves the entry of a block to its last live slot, which begins where the entry does. */
function blockBecome(space: IovaSpace, block: IovaBlock, high: u32): void {
  const low = block.base;
  const isWhole = block.end == 1;
  blockDrop(space.control, block);
  if (isWhole) return;
  pathSeek(space, low);
  treeShrink(space, high);
}

/** Frees all blocks and their table, but not their entries. */
export function blocksFini(control: IovaControl): void {
  if (control.tableAt == 0) return;
  for (let i: u32 = 0; i < TABLE_ENTRIES; i++) {
    const at = TableEntry.at(control.tableAt, i << BLOCK_SHIFT).blockAt;
    if (at != 0) blockDrop(control, IovaBlock.at(at));
  }
  frameDrop(<u32>(control.tableAt >> FRAME_SHIFT));
  control.tableAt = 0;
}

// ---- lists of blocks with a free slot

function listInsert(control: IovaControl, at: usize): void {
  const block = IovaBlock.at(at);
  const first = control.partial(block.sizeShift);
  block.prevAt = 0;
  block.nextAt = first;
  if (first != 0) IovaBlock.at(first).prevAt = at;
  control.setPartial(block.sizeShift, at);
}

function listRemove(control: IovaControl, block: IovaBlock): void {
  if (block.nextAt != 0) IovaBlock.at(block.nextAt).prevAt = block.prevAt;
  if (block.prevAt != 0) IovaBlock.at(block.prevAt).nextAt = block.nextAt;
  else control.setPartial(block.sizeShift, block.nextAt);
}
