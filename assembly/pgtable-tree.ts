// The tables of a domain's IO page table: a tree of frames, here with the 4 KiB granule.
//
//   iovaPfn  31   27 26       18 17        9 8         0  a 44-bit address without its low 12 bits
//            ├─ top ─┼─ order 18 ┼─ order 9 ─┼─ order 0 ─┤  an entry of order n maps 2^n pages
//
//   top table ─► table of order 18 ─► table of order 9 ─► table of order 0 ─► page, 4 KiB
//   (order 27)         └─► block, 1 GiB     └─► block, 2 MiB
//
// G1  Every entry is 0, or a sound table's (above the page's order) or leaf's (up to the largest
//     block's) in the sense of G10 (pte.ts).
// G2  Every table reached consists of frames of state TABLE with bytes of its own, and the
//     Page.prev of its first names the only entry that points to it: no table is reached twice.
// G3  `tableFrames` counts the frames of the tables reached.
// G4  While lastKey is not 0, walking to the range and order that it stands for ends at `lastAt`,
//     which is not the top table.
//
// A table is known by its address, a multiple of its size. A table that runs empty stays until its
// own entry is unmapped or replaced. The table reached last is remembered, which saves most calls
// the walk.
//
// The caller holds the domain's lock. Compare drivers/iommu/io-pgtable-arm.c in the kernel.

import { NONE } from "./bits";
import { EEXIST, ENOENT } from "./errno";
import { FRAME_MASK, FRAME_SHIFT, frameAt, header } from "./layout";
import { frameTakeZeroed, runAlloc, runDrop } from "./magazine";
import { Frame, Page, TABLE } from "./page";
import { must } from "./panic";
import { PageTable, STAGE_2 } from "./pgtable-format";
import {
  Entry,
  entriesFill,
  isSoundLeaf,
  isSoundTable,
  isTable,
  ptePart,
  pteStep,
  pteTable,
} from "./pte";
import { rangeClear } from "./storage";
import { threadIndex } from "./thread";

const G1: u32 = 7101;
const G2: u32 = 7102;
const G3: u32 = 7103;
const G4: u32 = 7104;

/** Makes the top table. 0, ENOMEM or EAGAIN. */
export function treeMake(root: PageTable): i32 {
  must(root.topAt == 0, G3);
  root.tableFrames = 0;
  const top = tableAlloc(root, root.topOrder);
  if (isError(top)) return <i32>top;
  Page.at(<u32>(top >> FRAME_SHIFT)).prev = 0; // G2: no entry has that place
  root.topAt = top;
  return 0;
}

/** Gives every table back. */
export function treeDrop(root: PageTable): void {
  must(root.topAt != 0, G3);
  tableDrop(root, root.topAt, root.topOrder);
  root.topAt = 0;
}

// ---- one table

/** Whether what should be a table is an errno instead: no multiple of FRAME_BYTES. */
export function isError(table: usize): bool {
  return (table & FRAME_MASK) != 0;
}

/**
 * The table of order `order` on the way to `iovaPfn`, made where it is missing; or EEXIST, ENOMEM,
 * EAGAIN.
 */
export function tableReach(root: PageTable, iovaPfn: u32, order: u32): usize {
  let table = root.topAt;
  if (order == root.topOrder) return table;
  const bits = root.indexBits;
  for (let above = root.topOrder; above != order; above -= bits) {
    const entry = Entry.at(table, root.indexOf(iovaPfn, above));
    table = isTable(entry.pte)
      ? entry.table
      : entry.pte == 0
        ? tableMake(root, entry, above - bits)
        : <usize>EEXIST;
    if (isError(table)) return table;
  }
  root.lastKey = root.keyOf(iovaPfn, order);
  root.lastAt = table;
  return table;
}

/**
 * The table of order `order` on the way to `iovaPfn`, where blocks in the way are split; or
 * ENOENT, ENOMEM, EAGAIN.
 */
export function tableFind(root: PageTable, iovaPfn: u32, order: u32): usize {
  let table = root.topAt;
  if (order == root.topOrder) return table;
  const bits = root.indexBits;
  for (let above = root.topOrder; above != order; above -= bits) {
    const entry = Entry.at(table, root.indexOf(iovaPfn, above));
    table = isTable(entry.pte)
      ? entry.table
      : entry.pte == 0
        ? <usize>ENOENT
        : blockSplit(root, entry, above - bits);
    if (isError(table)) return table;
  }
  root.lastKey = root.keyOf(iovaPfn, order);
  root.lastAt = table;
  return table;
}

/** The frames of a table of `order`, filled with zeros. Their address, ENOMEM or EAGAIN. */
function tableAlloc(root: PageTable, order: u32): usize {
  const count = root.framesOf(order);
  let pfn: i32;
  if (count == 1) {
    pfn = frameTakeZeroed(TABLE);
  } else {
    pfn = runAlloc(count, <u32>ctz(count), NONE, TABLE);
    if (pfn >= 0) rangeClear(pfn, pfn + count);
  }
  if (pfn < 0) return pfn;
  root.tableFrames += count;
  return frameAt(pfn);
}

/** Puts an empty table of `order` below `entry`. The table, ENOMEM or EAGAIN. */
function tableMake(root: PageTable, entry: Entry, order: u32): usize {
  const table = tableAlloc(root, order);
  if (!isError(table)) tableLink(table, entry);
  return table;
}

function tableLink(table: usize, entry: Entry): void {
  const pfn = <u32>(table >> FRAME_SHIFT);
  Page.at(pfn).prev = entry.place; // G2
  entry.pte = pteTable(pfn + header().physPfnBase);
}

/**
 * Puts a table of `order` that maps the same in the place of the block at `entry`. The table,
 * ENOMEM or EAGAIN.
 */
function blockSplit(root: PageTable, entry: Entry, order: u32): usize {
  const first = ptePart(entry.pte, order == root.granuleOrder);
  const table = tableAlloc(root, order);
  if (isError(table)) return table;
  entriesFill(table, root.entriesOf(order), first, pteStep(order));
  tableLink(table, entry); // at every moment the entry maps what the block did
  return table;
}

/**
 * Empties an entry of a table of `order`, and gives the table that it points to back with all
 * below it.
 */
export function entryDrop(root: PageTable, entry: Entry, order: u32): void {
  const table = entry.table;
  entry.pte = 0;
  tableDrop(root, table, order - root.indexBits);
}

/** Gives a table of `order` back, and all tables below it. */
function tableDrop(root: PageTable, table: usize, order: u32): void {
  if (order != root.granuleOrder) {
    const count = root.entriesOf(order);
    for (let i: u32 = 0; i < count; i++) {
      const entry = Entry.at(table, i);
      if (isTable(entry.pte)) tableDrop(root, entry.table, order - root.indexBits);
    }
  }
  const pfn = <u32>(table >> FRAME_SHIFT);
  const frames = root.framesOf(order);
  runDrop(pfn, frames, TABLE);
  root.tableFrames -= frames;
  root.lastKey = 0; // G4
}

/** Restores what the entries tell: tableFrames, and the place of each table (G2 to G4). */
export function treeRebuild(root: PageTable): void {
  root.lastKey = 0;
  root.tableFrames = tableRebuild(root, root.topAt, 0, root.topOrder);
}

/** The frames of the tables from `table` down. */
function tableRebuild(root: PageTable, table: usize, place: u32, order: u32): u32 {
  Page.at(<u32>(table >> FRAME_SHIFT)).prev = place;
  let count = root.framesOf(order);
  if (order == root.granuleOrder) return count;
  for (let i: u32 = 0; i < root.entriesOf(order); i++) {
    const entry = Entry.at(table, i);
    if (isTable(entry.pte))
      count += tableRebuild(root, entry.table, entry.place, order - root.indexBits);
  }
  return count;
}

/** Makes the tables that thread `dead` made the calling thread's. */
export function treeStamp(root: PageTable, dead: u32): void {
  if (root.topAt != 0) tableStamp(root, root.topAt, root.topOrder, dead);
}

function tableStamp(root: PageTable, table: usize, order: u32, dead: u32): void {
  const pfn = <u32>(table >> FRAME_SHIFT);
  for (let i: u32 = 0; i < root.framesOf(order); i++) {
    const frame = Frame.at(pfn + i);
    if (frame.thread == dead) frame.stamp(threadIndex());
  }
  if (order == root.granuleOrder) return;
  for (let i: u32 = 0; i < root.entriesOf(order); i++) {
    const entry = Entry.at(table, i);
    if (isTable(entry.pte)) tableStamp(root, entry.table, order - root.indexBits, dead);
  }
}

// ---- the walker

/** Re-derives G1..G4 from the entries: 0, or the number of the one that is broken. */
export function treeCheck(root: PageTable): u32 {
  if (root.topAt == 0) return root.tableFrames == 0 && root.lastKey == 0 ? 0 : G3;
  const found = tableCheck(root, root.topAt, 0, root.topOrder);
  if (found < 0) return 0 - found;
  if (<u32>found != root.tableFrames) return G3;
  return lastIsSound(root) ? 0 : G4;
}

/** The frames of the tables from `table` down, or the number of a broken invariant, negative. */
function tableCheck(root: PageTable, table: usize, place: u32, order: u32): i32 {
  const pfn = <u32>(table >> FRAME_SHIFT);
  let count = root.framesOf(order);
  if (!areTableFrames(pfn, count) || Page.at(pfn).prev != place) return -(<i32>G2);
  const hasTables = order != root.granuleOrder;
  const entries = order == root.topOrder ? count << (FRAME_SHIFT - 3) : root.entriesOf(order);
  for (let i: u32 = 0; i < entries; i++) {
    const entry = Entry.at(table, i);
    if (entry.pte == 0) continue;
    if (i >= root.entriesOf(order)) return -(<i32>G1);
    if (hasTables && isTable(entry.pte)) {
      if (!isSoundTable(entry.pte)) return -(<i32>G1);
      const below = tableCheck(root, entry.table, entry.place, order - root.indexBits);
      if (below < 0) return below;
      count += below;
    } else if (order > root.blockOrder || !isLeaf(root, entry.pte, order)) {
      return -(<i32>G1);
    }
  }
  return count;
}

function areTableFrames(pfn: u32, count: u32): bool {
  const h = header();
  if (pfn < h.firstFrame || pfn + count > h.backedFrames || (pfn & (count - 1)) != 0) return false;
  for (let i: u32 = 0; i < count; i++) if (Frame.at(pfn + i).state != TABLE) return false;
  return true;
}

function isLeaf(root: PageTable, pte: u64, order: u32): bool {
  return isSoundLeaf(pte, order, order == root.granuleOrder, root.stage == STAGE_2);
}

/** G4, where all tables are sound. */
function lastIsSound(root: PageTable): bool {
  if (root.lastKey == 0) return true;
  const bits = root.indexBits;
  const order = (root.lastKey - 1) & 31;
  const iovaPfn = (((root.lastKey - 1) >> 5) << bits) << order;
  let table = root.topAt;
  if (order == root.topOrder) return false;
  for (let above = root.topOrder; above != order; above -= bits) {
    const entry = Entry.at(table, root.indexOf(iovaPfn, above));
    if (!isTable(entry.pte)) return false;
    table = entry.table;
  }
  return table == root.lastAt;
}
