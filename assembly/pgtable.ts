// The IO page table of a domain: which physical frame a device reaches at each of its 2^32 pages.
//
//   [iovaPfn, + 1030)   ├ 4K 4K 4K ┼──── 2 MiB ────┼──── 2 MiB ────┼ 4K 4K 4K ┤
//   [physPfn, + 1030)   ├──────────┴──── frames ───┴───────────────┴──────────┤
//
//   entries as large as the alignment of both sides lets
//
// G5  A call that fails has mapped nothing. It may leave empty tables behind.
//
// The entries (pte.ts), in their tables (pgtable-tree.ts, which has G1 to G4), are the truth. They
// hold physical frame numbers: header().physPfnBase more than ours. Unmapping a part of a block
// splits it.
//
// Cost: a walk of three steps per table unless it is the one of the last call, then 16 bytes at a
// time. Old entries are looked at before any is written.
//
// Known limits: physical page 0xffffffff looks like none to pgtLookup(). And as in the kernel a
// block replaces a whole table with all that is mapped below it, also when a later entry of the
// same call then turns out to be taken.
//
// The caller holds the domain's lock. Compare drivers/iommu/io-pgtable-arm.c and iommu.c in the
// kernel.

import { NONE } from "./bits";
import { EEXIST, EINVAL, ERANGE } from "./errno";
import { FRAME_BYTES, FRAME_MASK, FRAME_SHIFT, header } from "./layout";
import {
  PageTable,
  TOP_ORDER,
  entryDrop,
  isError,
  tableFind,
  tableIndex,
  tableKey,
  tableReach,
  treeCheck,
  treeDrop,
  treeMake,
} from "./pgtable-tree";
import {
  ENTRIES,
  Entry,
  INDEX_BITS,
  entriesMap,
  isAccess,
  isTable,
  leafKind,
  leavesClear,
  pteAttributes,
  pteLeaf,
  ptePfn,
  pteProt,
  pteStep,
  pteTableAt,
} from "./pte";

const ORDER_2M: u32 = INDEX_BITS;
const ORDER_1G: u32 = INDEX_BITS * 2;
const PAGES_2M: u32 = 1 << ORDER_2M;
const PAGES_1G: u32 = 1 << ORDER_1G;

/** Some bytes of consecutive frames, as a scatterlist has them. */
@unmanaged
class Segment {
  pfn: u32; // ours, not physical
  offset: u32; // bytes into frame `pfn`; less than FRAME_BYTES
  length: u32; // bytes
  before: u32; // not used here

  static at(listAt: usize, i: u32): Segment {
    return changetype<Segment>(listAt + <usize>i * offsetof<Segment>());
  }

  /** The frames that the bytes touch. */
  get pageCount(): u32 {
    return <u32>((<u64>this.offset + this.length + FRAME_MASK) >> FRAME_SHIFT);
  }
}

if (offsetof<Segment>() != 16) ERROR("Segment is not 16 bytes long");

// ---- the table as a whole

/** Makes an empty table at `rootAt`, which holds zeros. 0, ENOMEM or EAGAIN. */
export function pgtInit(rootAt: usize): i32 {
  return treeMake(PageTable.at(rootAt));
}

/** Gives every table back. */
export function pgtFini(rootAt: usize): void {
  treeDrop(PageTable.at(rootAt));
}

/** The frames that the table occupies. */
export function pgtTableCount(rootAt: usize): u32 {
  return PageTable.at(rootAt).tableCount;
}

/** Re-derives G1..G4 from the entries: 0, or the number of the one that is broken. */
export function pgtCheck(rootAt: usize): u32 {
  return treeCheck(PageTable.at(rootAt));
}

// ---- ranges, cut into entries as large as both sides allow

/**
 * Maps `pageCount` pages from `iovaPfn` to the frames from `physPfn`. 0, EEXIST, EINVAL, ERANGE,
 * ENOMEM or EAGAIN.
 */
@inline export function pgtMap(
  rootAt: usize,
  iovaPfn: u32,
  physPfn: u32,
  pageCount: u32,
  prot: u32,
): i32 {
  if (pageCount == 0) return 0;
  if (!isAccess(prot)) return EINVAL;
  return rangeMap(PageTable.at(rootAt), iovaPfn, physPfn, pageCount, pteAttributes(prot));
}

/** Takes the short way where the range lies in the table reached last. */
@inline function rangeMap(
  root: PageTable,
  iovaPfn: u32,
  physPfn: u32,
  pageCount: u32,
  attributes: u64,
): i32 {
  const order = planOrder(iovaPfn | physPfn, pageCount);
  if (isInLastTable(root, iovaPfn, pageCount, order) && physPfn <= NONE - pageCount) {
    const at = changetype<usize>(Entry.at(root.lastAt, iovaPfn, order));
    if (entriesMap(at, pageCount >> order, pteLeaf(physPfn, order, attributes), pteStep(order)))
      return 0;
  }
  return batchesMap(root, iovaPfn, physPfn, pageCount, attributes);
}

function batchesMap(
  root: PageTable,
  iovaPfn: u32,
  physPfn: u32,
  pageCount: u32,
  attributes: u64,
): i32 {
  const last = pageCount - 1;
  if (last > NONE - iovaPfn || last > NONE - physPfn) return ERANGE;
  let done: u32 = 0;
  while (done < pageCount) {
    const iova = iovaPfn + done;
    const phys = physPfn + done;
    const order = planOrder(iova | phys, pageCount - done);
    const mapped = batchMap(root, iova, phys, order, (pageCount - done) >> order, attributes);
    if (mapped < 0) {
      batchesUnmap(root, iovaPfn, done); // G5
      return mapped;
    }
    done += (<u32>mapped) << order;
  }
  return 0;
}

/** Unmaps `pageCount` pages from `iovaPfn` up to the first that is not mapped; returns how many. */
@inline export function pgtUnmap(rootAt: usize, iovaPfn: u32, pageCount: u32): u32 {
  const root = PageTable.at(rootAt);
  const order = planOrder(iovaPfn, pageCount);
  if (isInLastTable(root, iovaPfn, pageCount, order)) {
    const at = changetype<usize>(Entry.at(root.lastAt, iovaPfn, order));
    const end = at + ((<usize>(pageCount >> order)) << 3);
    const stop = leavesClear(at, end, leafKind(order));
    if (stop == end) return pageCount;
    const done = (<u32>((stop - at) >> 3)) << order;
    return done + batchesUnmap(root, iovaPfn + done, pageCount - done);
  }
  if (iovaPfn != 0) pageCount = min(pageCount, 0 - iovaPfn);
  return batchesUnmap(root, iovaPfn, pageCount);
}

function batchesUnmap(root: PageTable, iovaPfn: u32, pageCount: u32): u32 {
  let done: u32 = 0;
  while (done < pageCount) {
    const iova = iovaPfn + done;
    const order = planOrder(iova, pageCount - done);
    const unmapped = batchUnmap(root, iova, order, (pageCount - done) >> order);
    if (unmapped == 0) break;
    done += unmapped;
  }
  return done;
}

/**
 * The order of the largest entry that `pageCount` pages hold and `addresses`, both sides ORed, are
 * a multiple of.
 */
function planOrder(addresses: u32, pageCount: u32): u32 {
  if (pageCount < PAGES_2M || addresses % PAGES_2M != 0) return 0;
  return pageCount < PAGES_1G || addresses % PAGES_1G != 0 ? ORDER_2M : ORDER_1G;
}

/**
 * Whether `pageCount` pages are whole entries of `order`, all of them in the table reached last.
 */
@inline function isInLastTable(
  root: PageTable,
  iovaPfn: u32,
  pageCount: u32,
  order: u32,
): bool {
  if (root.lastKey != tableKey(iovaPfn, order)) return false;
  return pageCount >> order <= ENTRIES - tableIndex(iovaPfn, order) && isAligned(pageCount, order);
}

// ---- entries of one order in one table

/**
 * Maps entries of 2^pageOrder pages each (order 0, 9 or 18): `count`, or as many as their table has
 * left from `iovaPfn` on. Returns how many, or EEXIST, EINVAL, ERANGE, ENOMEM or EAGAIN.
 */
export function pgtMapPages(
  rootAt: usize,
  iovaPfn: u32,
  physPfn: u32,
  pageOrder: u32,
  count: u32,
  prot: u32,
): i32 {
  if (!isLeafOrder(pageOrder) || !isAligned(iovaPfn | physPfn, pageOrder) || !isAccess(prot))
    return EINVAL;
  const fits = min(count, ENTRIES - tableIndex(iovaPfn, pageOrder));
  if (<u64>physPfn + ((<u64>fits) << pageOrder) > <u64>NONE + 1) return ERANGE;
  return batchMap(PageTable.at(rootAt), iovaPfn, physPfn, pageOrder, count, pteAttributes(prot));
}

/** Maps `count` entries, or as many as the table has left. How many, or EEXIST, ENOMEM, EAGAIN. */
function batchMap(
  root: PageTable,
  iovaPfn: u32,
  physPfn: u32,
  order: u32,
  count: u32,
  attributes: u64,
): i32 {
  const table =
    root.lastKey == tableKey(iovaPfn, order) ? root.lastAt : tableReach(root, iovaPfn, order);
  if (isError(table)) return <i32>table;
  const fits = min(count, ENTRIES - tableIndex(iovaPfn, order));
  const at = changetype<usize>(Entry.at(table, iovaPfn, order));
  const first = pteLeaf(physPfn, order, attributes);
  while (!entriesMap(at, fits, first, pteStep(order))) {
    if (!tablesRemove(root, at, fits, order)) return EEXIST;
  }
  return fits;
}

/**
 * Unmaps entries of 2^pageOrder pages each, up to the first empty one or the end of their table;
 * one that is a table goes with all that is below it. Returns how many pages; 0 also where no frame
 * is left to split a block.
 */
export function pgtUnmapPages(rootAt: usize, iovaPfn: u32, pageOrder: u32, count: u32): u32 {
  if (!isLeafOrder(pageOrder) || !isAligned(iovaPfn, pageOrder) || count == 0) return 0;
  return batchUnmap(PageTable.at(rootAt), iovaPfn, pageOrder, count);
}

/** Unmaps entries up to the first empty one or the end of their table; how many pages. */
function batchUnmap(root: PageTable, iovaPfn: u32, order: u32, count: u32): u32 {
  const table =
    root.lastKey == tableKey(iovaPfn, order) ? root.lastAt : tableFind(root, iovaPfn, order);
  if (isError(table)) return 0;
  const fits = min(count, ENTRIES - tableIndex(iovaPfn, order));
  return (
    entriesClear(root, changetype<usize>(Entry.at(table, iovaPfn, order)), fits, order) << order
  );
}

/** Whether entries of `order` can be leaves. */
function isLeafOrder(order: u32): bool {
  return order == 0 || order == ORDER_2M || order == ORDER_1G;
}

function isAligned(addresses: u32, order: u32): bool {
  return (addresses & ((1 << order) - 1)) == 0;
}

/**
 * Empties the tables among `count` entries of `order`, in order, up to the first leaf; false if
 * there is one.
 */
function tablesRemove(root: PageTable, at: usize, count: u32, order: u32): bool {
  const end = at + ((<usize>count) << 3);
  for (; at < end; at += 8) {
    const entry = changetype<Entry>(at);
    if (entry.pte == 0) continue;
    if (order == 0 || !isTable(entry.pte)) break;
    entryDrop(root, entry, order);
  }
  return at == end;
}

/** Empties `count` entries of `order` up to the first that is empty already; returns how many. */
function entriesClear(root: PageTable, start: usize, count: u32, order: u32): u32 {
  const end = start + ((<usize>count) << 3);
  let at = leavesClear(start, end, leafKind(order));
  while (at < end) {
    const entry = changetype<Entry>(at);
    if (entry.pte == 0) break;
    entryDrop(root, entry, order);
    at = leavesClear(at + 8, end, leafKind(order));
  }
  return <u32>((at - start) >> 3);
}

// ---- what a device sees

/** The physical frame that a device reaches at `iovaPfn`, or NONE. */
@inline export function pgtLookup(rootAt: usize, iovaPfn: u32): u32 {
  const pte = pageAt(PageTable.at(rootAt), iovaPfn);
  return pte == 0 ? NONE : ptePfn(pte);
}

/** IOMMU_READ and IOMMU_WRITE as a device has them at `iovaPfn`; 0 where nothing is mapped. */
export function pgtProt(rootAt: usize, iovaPfn: u32): u32 {
  const pte = pageAt(PageTable.at(rootAt), iovaPfn);
  return pte == 0 ? 0 : pteProt(pte);
}

/**
 * The leaf over `iovaPfn`, moved to the frame of that page; 0 where nothing is mapped. Reads each
 * entry once.
 */
function pageAt(root: PageTable, iovaPfn: u32): u64 {
  const top = Entry.at(root.topAt, iovaPfn, TOP_ORDER).pte;
  if (!isTable(top)) return 0;
  const large = Entry.at(pteTableAt(top), iovaPfn, ORDER_1G).pte;
  if (!isTable(large)) return pageOf(large, iovaPfn % PAGES_1G);
  const middle = Entry.at(pteTableAt(large), iovaPfn, ORDER_2M).pte;
  if (!isTable(middle)) return pageOf(middle, iovaPfn % PAGES_2M);
  return Entry.at(pteTableAt(middle), iovaPfn, 0).pte;
}

function pageOf(block: u64, page: u32): u64 {
  return block == 0 ? 0 : block + page * pteStep(0);
}

// ---- scattered frames

/**
 * Maps the frames of `segmentCount` segments, each rounded out to whole frames, one behind the
 * other from `iovaPfn` on. 0, EEXIST, EINVAL, ERANGE, ENOMEM or EAGAIN.
 */
export function pgtMapFrames(
  rootAt: usize,
  iovaPfn: u32,
  segmentsAt: usize,
  segmentCount: u32,
  prot: u32,
): i32 {
  if (segmentCount == 0) return 0;
  if (!isAccess(prot)) return EINVAL;
  const root = PageTable.at(rootAt);
  const attributes = pteAttributes(prot);
  const physPfnBase = header().physPfnBase;
  // [at, atEnd) are the entries from `iova` on in its table of order 0, as far as that is known.
  let at: usize = 0;
  let atEnd: usize = 0;
  let iova = iovaPfn;
  let error: i32 = 0;
  for (let i: u32 = 0; i < segmentCount; i++) {
    const segment = Segment.at(segmentsAt, i);
    const physPfn = segment.pfn + physPfnBase;
    const pages = segment.pageCount;
    if (pages == 1 && at != atEnd) {
      const entry = changetype<Entry>(at);
      error = entry.pte != 0 ? EEXIST : 0;
      if (error < 0) break;
      entry.pte = pteLeaf(physPfn, 0, attributes);
      at += offsetof<Entry>();
    } else if (pages != 0) {
      error = iova < iovaPfn ? ERANGE : rangeMap(root, iova, physPfn, pages, attributes);
      if (error < 0) break;
      const isKnown = root.lastKey == tableKey(iova + pages, 0);
      at = isKnown ? changetype<usize>(Entry.at(root.lastAt, iova + pages, 0)) : 0;
      atEnd = isKnown ? root.lastAt + FRAME_BYTES : 0;
    }
    iova += pages;
  }
  if (error < 0) batchesUnmap(root, iovaPfn, iova - iovaPfn); // G5
  return error;
}
