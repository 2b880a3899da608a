// From a device page to the block over it: two levels of tables.
//
//   pfn   31       20 19        10 9    0
//         ├ … table ──┼── place ───┼──────┤     1024 pages a place
//   tablesAt ─► table[1024] ─► block[1024] ─► IovaBlock
//
// V5  A block's places, and no others, name it: all that blockPages() says, which lie in one table.
//     Its base is the `low` of an entry of the tree that covers [base, base + end slots).
// V15 All other entries lead to NOTHING (L7): a table of such entries, and a block without slots.
//
// Only 10 of the 12 upper bits choose the table, so two places 2^30 pages apart share an entry: the
// second of two blocks there is not made. Tables stay until the space ends.

import { IovaBlock, blockPages } from "./iova-slots";
import { IovaSpace } from "./iova-space";
import { FRAME_SHIFT, NOTHING_AT, frameAt } from "./layout";
import { frameDrop, frameTakeZeroed } from "./magazine";
import { TABLE } from "./page";

export const PLACE_SHIFT: u32 = 10;
const INDEX_BITS: u32 = 10;
const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;
export const PLACES: u32 = 1 << (2 * INDEX_BITS);

@unmanaged
class TableEntry {
  private above: usize; // counted from NOTHING_AT

  /** A table, or a block. */
  get at(): usize {
    return this.above + NOTHING_AT;
  }

  set at(at: usize) {
    this.above = at - NOTHING_AT;
  }

  get isEmpty(): bool {
    return this.above == 0; // V15
  }

  static of(tableAt: usize, index: u32): TableEntry {
    return changetype<TableEntry>(tableAt + ((<usize>(index & INDEX_MASK)) << 2));
  }
}

function placeOf(pfn: u32): u32 {
  return (pfn >> PLACE_SHIFT) & (PLACES - 1);
}

/** The entry that names the block of a place. */
@inline function entryOf(space: IovaSpace, place: u32): TableEntry {
  return TableEntry.of(TableEntry.of(space.tablesAt, place >> INDEX_BITS).at, place);
}

/** The block over `pfn`, or one that does not cover it (IovaBlock.slotOver). */
@inline export function blockNear(space: IovaSpace, pfn: u32): IovaBlock {
  return IovaBlock.at(entryOf(space, pfn >> PLACE_SHIFT).at);
}

/** Whether the tree's entry at `low` > 0 is a block, and so no range by itself. */
export function isBlockEntry(space: IovaSpace, low: u32): bool {
  return blockNear(space, low).base == low; // V5
}

/**
 * The first place at or behind `place` that is the first of a block's; PLACES when there is none.
 */
export function blockPlace(space: IovaSpace, place: u32): u32 {
  if (!space.hasTables) return PLACES;
  while (place < PLACES) {
    const table = TableEntry.of(space.tablesAt, place >> INDEX_BITS);
    if (table.isEmpty) {
      place = (place | INDEX_MASK) + 1;
      continue;
    }
    const entry = TableEntry.of(table.at, place);
    if (!entry.isEmpty && placeOf(IovaBlock.at(entry.at).base) == place) return place;
    place += 1;
  }
  return PLACES;
}

/** The block whose first place is `place`. */
export function placedBlock(space: IovaSpace, place: u32): IovaBlock {
  return IovaBlock.at(entryOf(space, place).at);
}

/** Whether all places of `pages` pages from `base` on name no block. False, too: no memory. */
export function placesReady(space: IovaSpace, base: u32, pages: u32): bool {
  if (!space.hasTables) {
    const pfn = frameTakeZeroed(TABLE);
    if (pfn < 0) return false;
    space.tablesAt = frameAt(<u32>pfn);
  }
  const place = placeOf(base);
  const table = TableEntry.of(space.tablesAt, place >> INDEX_BITS);
  if (table.isEmpty) {
    const pfn = frameTakeZeroed(TABLE);
    if (pfn < 0) return false;
    table.at = frameAt(<u32>pfn);
  }
  for (let i: u32 = 0; i < pages >> PLACE_SHIFT; i++)
    if (!TableEntry.of(table.at, place + i).isEmpty) return false;
  return true;
}

/** Has the places of a block name `at`: the block, or NOTHING_AT when it is no more. */
export function placesSet(space: IovaSpace, block: IovaBlock, at: usize): void {
  const place = placeOf(block.base);
  const tableAt = TableEntry.of(space.tablesAt, place >> INDEX_BITS).at;
  const count = blockPages(block.sizeShift) >> PLACE_SHIFT;
  for (let i: u32 = 0; i < count; i++) TableEntry.of(tableAt, place + i).at = at;
}

/** Whether all places of a block name it. */
export function placesAgree(space: IovaSpace, block: IovaBlock): bool {
  const count = blockPages(block.sizeShift) >> PLACE_SHIFT;
  for (let i: u32 = 0; i < count; i++)
    if (entryOf(space, placeOf(block.base) + i).at != changetype<usize>(block)) return false;
  return true;
}

/** How many places name a block. */
export function placesNamed(space: IovaSpace): u32 {
  let count: u32 = 0;
  for (let t: u32 = 0; t <= INDEX_MASK; t++) {
    const table = TableEntry.of(space.tablesAt, t);
    if (table.isEmpty) continue;
    for (let i: u32 = 0; i <= INDEX_MASK; i++)
      count += <u32>!TableEntry.of(table.at, i).isEmpty;
  }
  return count;
}

// ---- frames

/** Frame `i` of the tables, for each i < tableFrames(): its pfn. */
export function tableFrame(space: IovaSpace, i: u32): u32 {
  if (i == 0) return <u32>(space.tablesAt >> FRAME_SHIFT);
  let t: u32 = 0;
  while (true) {
    i -= <u32>!TableEntry.of(space.tablesAt, t).isEmpty;
    if (i == 0) return <u32>(TableEntry.of(space.tablesAt, t).at >> FRAME_SHIFT);
    t += 1;
  }
}

/** How many frames the tables take. */
export function tableFrames(space: IovaSpace): u32 {
  if (!space.hasTables) return 0;
  let count: u32 = 1;
  for (let t: u32 = 0; t <= INDEX_MASK; t++)
    count += <u32>!TableEntry.of(space.tablesAt, t).isEmpty;
  return count;
}

/** Frees the tables, which name no block any more. */
export function tablesFini(space: IovaSpace): void {
  for (let i = tableFrames(space); i > 0; i--) frameDrop(tableFrame(space, i - 1));
  space.tablesAt = NOTHING_AT;
}
