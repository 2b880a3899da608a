// The tables of a domain's IO page table: a tree of frames, three levels below the top.
//
//   iovaPfn  31   27 26       18 17        9 8         0  a 44-bit address without its low 12 bits
//            ├─ top ─┼─ order 18 ┼─ order 9 ─┼─ order 0 ─┤  an entry of order n maps 2^n pages
//
//   top table ─► table of order 18 ─► table of order 9 ─► table of order 0 ─► page, 4 KiB
//   (order 27)         └─► block, 1 GiB     └─► block, 2 MiB
//
// G1  Every entry is 0, or a sound table's (order > 0) or leaf's (order < 27) in the sense of D1 of
//     pte.ts.
// G2  Every table reached is a frame of state TABLE with bytes of its own, and its Page.prev names
//     the only entry that points to it: no table is reached twice.
// G3  `tableCount` counts the tables reached.
// G4  While lastKey is not 0, walking to the range and order that it stands for ends at `lastAt`.
//
// A table is known by its address. A table that runs empty stays until its own entry is unmapped or
// replaced. The table reached last is remembered, which saves most calls the walk.
//
// The caller holds the domain's lock. Compare drivers/iommu/io-pgtable-arm.c in the kernel.

import { frameDrop, frameTakeZeroed } from "./magazine";
import { EEXIST, ENOENT } from "./errno";
import { FRAME_MASK, FRAME_SHIFT, frameAt, header } from "./layout";
import { Frame, Page, TABLE } from "./page";
import { must } from "./panic";
import {
  ENTRIES,
  Entry,
  INDEX_BITS,
  entriesFill,
  isSoundLeaf,
  isSoundTable,
  isTable,
  ptePart,
  pteStep,
  pteTable,
} from "./pte";

const G1: u32 = 7101;
const G2: u32 = 7102;
const G3: u32 = 7103;
const G4: u32 = 7104;

export const TOP_ORDER: u32 = 27; // of the top table, which holds no leaves
const TOP_ENTRIES: u32 = 1 << (32 - TOP_ORDER); // those that 32-bit page numbers reach

@unmanaged
export class PageTable {
  topAt: usize; // the top table; 0 before treeMake and after treeDrop
  tableCount: u32; // G3
  lastKey: u32; // the range and order of the table reached last, 0 = none
  lastAt: usize; // G4

  static at(rootAt: usize): PageTable {
    return changetype<PageTable>(rootAt);
  }
}

if (offsetof<PageTable>() > 32) ERROR("PageTable does not fit its place in a domain");

/** Makes the top table. 0, ENOMEM or EAGAIN. */
export function treeMake(root: PageTable): i32 {
  must(root.topAt == 0, G3);
  const top = frameTakeZeroed(TABLE);
  if (top < 0) return top;
  Page.at(top).prev = 0; // G2: no entry has that place
  root.topAt = frameAt(top);
  root.tableCount = 1;
  return 0;
}

/** Gives every table back. */
export function treeDrop(root: PageTable): void {
  must(root.topAt != 0, G3);
  tableDrop(root, root.topAt, TOP_ORDER);
  root.topAt = 0;
}

// ---- one table

/** Whether what should be a table is an errno instead: no multiple of FRAME_BYTES. */
export function isError(table: usize): bool {
  return (table & FRAME_MASK) != 0;
}

export function tableIndex(iovaPfn: u32, order: u32): u32 {
  return (iovaPfn >> order) & (ENTRIES - 1);
}

/** A number other than 0 for the table of order `order` on the way to `iovaPfn`. */
export function tableKey(iovaPfn: u32, order: u32): u32 {
  return ((((iovaPfn >> order) >> INDEX_BITS) << 5) | order) + 1;
}

/**
 * The table of order `order` on the way to `iovaPfn`, made where it is missing; or EEXIST, ENOMEM,
 * EAGAIN.
 */
export function tableReach(root: PageTable, iovaPfn: u32, order: u32): usize {
  let table = root.topAt;
  for (let above = TOP_ORDER; above != order; above -= INDEX_BITS) {
    const entry = Entry.at(table, iovaPfn, above);
    table = isTable(entry.pte)
      ? entry.table
      : entry.pte == 0
        ? tableMake(root, entry)
        : <usize>EEXIST;
    if (isError(table)) return table;
  }
  root.lastKey = tableKey(iovaPfn, order);
  root.lastAt = table;
  return table;
}

/**
 * The table of order `order` on the way to `iovaPfn`, where blocks in the way are split; or
 * ENOENT, ENOMEM, EAGAIN.
 */
export function tableFind(root: PageTable, iovaPfn: u32, order: u32): usize {
  let table = root.topAt;
  for (let above = TOP_ORDER; above != order; above -= INDEX_BITS) {
    const entry = Entry.at(table, iovaPfn, above);
    table = isTable(entry.pte)
      ? entry.table
      : entry.pte == 0
        ? <usize>ENOENT
        : blockSplit(root, entry, above);
    if (isError(table)) return table;
  }
  root.lastKey = tableKey(iovaPfn, order);
  root.lastAt = table;
  return table;
}

/** Puts an empty table below `entry`. The table, ENOMEM or EAGAIN. */
function tableMake(root: PageTable, entry: Entry): usize {
  const pfn = frameTakeZeroed(TABLE);
  if (pfn < 0) return pfn;
  root.tableCount += 1;
  Page.at(pfn).prev = entry.place; // G2
  entry.pte = pteTable(pfn + header().physPfnBase);
  return frameAt(pfn);
}

/**
 * Puts a table that maps the same in the place of the block of `order` at `entry`. The table,
 * ENOMEM or EAGAIN.
 */
function blockSplit(root: PageTable, entry: Entry, order: u32): usize {
  const below = order - INDEX_BITS;
  const first = ptePart(entry.pte, below);
  const table = tableMake(root, entry);
  if (!isError(table)) entriesFill(table, ENTRIES, first, pteStep(below));
  return table;
}

/**
 * Empties an entry of a table of `order`, and gives the table that it points to back with all
 * below it.
 */
export function entryDrop(root: PageTable, entry: Entry, order: u32): void {
  const table = entry.table;
  entry.pte = 0;
  tableDrop(root, table, order - INDEX_BITS);
}

/** Gives a table of `order` back, and all tables below it. */
function tableDrop(root: PageTable, table: usize, order: u32): void {
  if (order != 0) {
    for (let i: u32 = 0; i < ENTRIES; i++) {
      const entry = Entry.at(table, i, 0);
      if (isTable(entry.pte)) tableDrop(root, entry.table, order - INDEX_BITS);
    }
  }
  frameDrop(<u32>(table >> FRAME_SHIFT));
  root.tableCount -= 1;
  root.lastKey = 0; // G4
}

// ---- the walker

/** Re-derives G1..G4 from the entries: 0, or the number of the one that is broken. */
export function treeCheck(root: PageTable): u32 {
  if (root.topAt == 0) return root.tableCount == 0 && root.lastKey == 0 ? 0 : G3;
  const found = tableCheck(root.topAt, 0, TOP_ORDER);
  if (found < 0) return 0 - found;
  if (<u32>found != root.tableCount) return G3;
  return lastIsSound(root) ? 0 : G4;
}

/** The tables from `table` down, or the number of a broken invariant, negative. */
function tableCheck(table: usize, place: u32, order: u32): i32 {
  const pfn = <u32>(table >> FRAME_SHIFT);
  const h = header();
  if (pfn < h.firstFrame || pfn >= h.backedFrames || Frame.at(pfn).state != TABLE)
    return -(<i32>G2);
  if (Page.at(pfn).prev != place) return -(<i32>G2);
  let count: i32 = 1;
  for (let i: u32 = 0; i < ENTRIES; i++) {
    const entry = Entry.at(table, i, 0);
    if (entry.pte == 0) continue;
    if (order == TOP_ORDER && i >= TOP_ENTRIES) return -(<i32>G1);
    if (order != 0 && isTable(entry.pte)) {
      if (!isSoundTable(entry.pte)) return -(<i32>G1);
      const below = tableCheck(entry.table, entry.place, order - INDEX_BITS);
      if (below < 0) return below;
      count += below;
    } else if (order == TOP_ORDER || !isSoundLeaf(entry.pte, order)) {
      return -(<i32>G1);
    }
  }
  return count;
}

/** G4, where all tables are sound. */
function lastIsSound(root: PageTable): bool {
  if (root.lastKey == 0) return true;
  const order = (root.lastKey - 1) & 31;
  const iovaPfn = (((root.lastKey - 1) >> 5) << INDEX_BITS) << order;
  let table = root.topAt;
  for (let above = TOP_ORDER; above != order; above -= INDEX_BITS) {
    const entry = Entry.at(table, iovaPfn, above);
    if (!isTable(entry.pte)) return false;
    table = entry.table;
  }
  return table == root.lastAt;
}
