// The IO page table of a domain: which physical frame a device reaches at each of its pages.
//
//   [iovaPfn, + 1030)   ├ 4K 4K 4K ┼──── 2 MiB ────┼──── 2 MiB ────┼ 4K 4K 4K ┤
//   [physPfn, + 1030)   ├──────────┴──── frames ───┴───────────────┴──────────┤
//
//   entries as large as the granule and the alignment of both sides let (pgtable-format.ts)
//
// G5  A call that fails has mapped nothing. It may leave empty tables behind.
// G9  With STRICT_MAP nothing mapped is ever replaced: a call looks at its whole range before it
//     writes.
//
// The entries (pte.ts), in their tables (pgtable-tree.ts, which has G1 to G4), are the truth. They
// hold physical frame numbers: header().physPfnBase more than ours. Unmapping a part of a block
// splits it.
//
// Cost: a walk of up to three steps per table unless it is the one of the last call, then 16 bytes
// at a time. Old entries are looked at before any is written.
//
// Known limits: physical page 0xffffffff looks like none to pgtLookup(). And as in the kernel,
// without STRICT_MAP, a block replaces a whole table with all that is mapped below it, also when a
// later entry of the same call then turns out to be taken.
//
// The caller holds the domain's lock. Compare drivers/iommu/io-pgtable-arm.c and iommu.c in the
// kernel.

import { NONE } from "./bits";
import { EEXIST, EINVAL, ERANGE } from "./errno";
import { PageTable, STAGE_1_FORMAT, STRICT_MAP, formatInit, tableKey } from "./pgtable-format";
import {
  entryDrop,
  isError,
  tableFind,
  tableReach,
  treeCheck,
  treeDrop,
  treeMake,
} from "./pgtable-tree";
import { isUnmapped } from "./pgtable-walk";
import {
  Entry,
  PTE_BYTES,
  entriesMap,
  isTable,
  leafKind,
  leavesClear,
  pteLeaf,
  pteStep,
} from "./pte";

export const INDEX_BITS: u32 = 9; // of the 4 KiB granule, which the short way knows
const ENTRIES: u32 = 1 << INDEX_BITS;
const ORDER_2M: u32 = INDEX_BITS;
const PAGES_2M: u32 = 1 << INDEX_BITS;
const PAGES_1G: u32 = 1 << (2 * INDEX_BITS);

// ---- the table as a whole

/** Makes an empty table at `rootAt`, which holds zeros: stage 1, 4 KiB pages. As pgtInitAs(). */
export function pgtInit(rootAt: usize): i32 {
  return pgtInitAs(rootAt, STAGE_1_FORMAT);
}

/**
 * Makes an empty table of a format (pgtable-format.ts) at `rootAt`, PAGE_TABLE_BYTES zeros. 0, or
 * EINVAL, ENOMEM, EAGAIN.
 */
export function pgtInitAs(rootAt: usize, format: u32): i32 {
  const root = PageTable.at(rootAt);
  const error = formatInit(root, format);
  return error != 0 ? error : treeMake(root);
}

/** Gives every table back. */
export function pgtFini(rootAt: usize): void {
  treeDrop(PageTable.at(rootAt));
}

/** The frames that the table occupies. */
export function pgtTableFrames(rootAt: usize): u32 {
  return PageTable.at(rootAt).tableFrames;
}

/** Re-derives G1..G4 from the entries: 0, or the number of the one that is broken. */
export function pgtCheck(rootAt: usize): u32 {
  return treeCheck(PageTable.at(rootAt));
}

// ---- ranges, cut into entries as large as both sides allow

/**
 * Maps `pageCount` pages from `iovaPfn` to the frames from `physPfn`. 0, or in the kernel's order
 * EINVAL (not a multiple of the granule), ERANGE, EINVAL (neither read nor write), EEXIST, ENOMEM
 * or EAGAIN.
 */
@inline export function pgtMap(
  rootAt: usize,
  iovaPfn: u32,
  physPfn: u32,
  pageCount: u32,
  prot: u32,
): i32 {
  if (pageCount == 0) return 0;
  const root = PageTable.at(rootAt);
  const attributes = root.attributesOf(prot);
  if (attributes == 0) return batchesMap(root, iovaPfn, physPfn, pageCount, 0);
  return rangeMap(root, iovaPfn, physPfn, pageCount, attributes);
}

/** Takes the short way where the range lies in the table reached last, of 4 KiB granule. */
@inline function rangeMap(
  root: PageTable,
  iovaPfn: u32,
  physPfn: u32,
  pageCount: u32,
  attributes: u64,
): i32 {
  const isMapped =
    pageCount < PAGES_2M || (iovaPfn | physPfn) % PAGES_2M != 0
      ? lastMap(root, iovaPfn, physPfn, pageCount, attributes, 0)
      : (pageCount < PAGES_1G || (iovaPfn | physPfn) % PAGES_1G != 0) &&
        lastMap(root, iovaPfn, physPfn, pageCount, attributes, ORDER_2M);
  return isMapped ? 0 : batchesMap(root, iovaPfn, physPfn, pageCount, attributes);
}

/** rangeMap() for callers that can afford a call. */
export function runMap(
  root: PageTable,
  iovaPfn: u32,
  physPfn: u32,
  pageCount: u32,
  attributes: u64,
): i32 {
  return rangeMap(root, iovaPfn, physPfn, pageCount, attributes);
}

/** pgtMap() for callers that can afford a call. */
export function pgtMapRange(
  rootAt: usize,
  iovaPfn: u32,
  physPfn: u32,
  pageCount: u32,
  prot: u32,
): i32 {
  if (pageCount == 0) return 0;
  const root = PageTable.at(rootAt);
  const attributes = root.attributesOf(prot);
  return attributes == 0
    ? batchesMap(root, iovaPfn, physPfn, pageCount, 0)
    : runMap(root, iovaPfn, physPfn, pageCount, attributes);
}

/**
 * Maps whole entries of a known order in the table reached last; false, with nothing written, if
 * they do not all lie there, or one is taken.
 */
@inline function lastMap(
  root: PageTable,
  iovaPfn: u32,
  physPfn: u32,
  pageCount: u32,
  attributes: u64,
  order: u32,
): bool {
  if (!isInLastTable(root, iovaPfn, pageCount, order)) return false;
  if (physPfn > root.lastPhysPfn + 1 - pageCount) return false;
  const at = changetype<usize>(Entry.at(root.lastAt, lastIndex(iovaPfn, order)));
  const first = pteLeaf(physPfn, order == 0, attributes);
  return entriesMap(at, pageCount >> order, first, pteStep(order));
}

/** Maps a range that does not lie in one table, or cannot be mapped: `attributes` 0 is EINVAL. */
export function batchesMap(
  root: PageTable,
  iovaPfn: u32,
  physPfn: u32,
  pageCount: u32,
  attributes: u64,
): i32 {
  if (!root.isGranular(iovaPfn | physPfn | pageCount)) return EINVAL;
  if (!isWithin(iovaPfn, pageCount, root.lastPfn)) return ERANGE;
  if (!isWithin(physPfn, pageCount, root.lastPhysPfn)) return ERANGE;
  if (attributes == 0) return EINVAL;
  if ((root.format & STRICT_MAP) != 0 && !isUnmapped(root, iovaPfn, pageCount)) return EEXIST; // G9
  let done: u32 = 0;
  while (done < pageCount) {
    const iova = iovaPfn + done;
    const phys = physPfn + done;
    const order = orderOf(root, iova | phys, pageCount - done);
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
  const done =
    pageCount < PAGES_2M || iovaPfn % PAGES_2M != 0
      ? lastUnmap(root, iovaPfn, pageCount, 0)
      : pageCount < PAGES_1G || iovaPfn % PAGES_1G != 0
        ? lastUnmap(root, iovaPfn, pageCount, ORDER_2M)
        : 0;
  if (done == pageCount) return done;
  return done + batchesUnmap(root, iovaPfn + done, pageCount - done);
}

/** pgtUnmap() for callers that can afford a call. */
export function pgtUnmapRange(rootAt: usize, iovaPfn: u32, pageCount: u32): u32 {
  return pgtUnmap(rootAt, iovaPfn, pageCount);
}

/**
 * Unmaps leaves of a known order in the table reached last, up to the first entry that is none; 0
 * if they do not all lie there. How many pages.
 */
@inline function lastUnmap(root: PageTable, iovaPfn: u32, pageCount: u32, order: u32): u32 {
  if (!isInLastTable(root, iovaPfn, pageCount, order)) return 0;
  const at = changetype<usize>(Entry.at(root.lastAt, lastIndex(iovaPfn, order)));
  const end = at + (<usize>(pageCount >> order)) * PTE_BYTES;
  const stop = leavesClear(at, end, leafKind(order == 0));
  return stop == end ? pageCount : (<u32>((stop - at) / PTE_BYTES)) << order;
}

export function batchesUnmap(root: PageTable, iovaPfn: u32, pageCount: u32): u32 {
  if (iovaPfn > root.lastPfn || !root.isGranular(iovaPfn | pageCount)) return 0;
  const left = root.lastPfn - iovaPfn;
  if (pageCount > left) pageCount = left == NONE ? NONE : left + 1;
  let done: u32 = 0;
  while (done < pageCount) {
    const iova = iovaPfn + done;
    const order = orderOf(root, iova, pageCount - done);
    const unmapped = batchUnmap(root, iova, order, (pageCount - done) >> order);
    if (unmapped == 0) break;
    done += unmapped;
  }
  return done;
}

export function isWithin(pfn: u32, pageCount: u32, lastPfn: u32): bool {
  return pfn <= lastPfn && pageCount - 1 <= lastPfn - pfn;
}

/**
 * The order of the largest entry that `pageCount` pages hold and `addresses`, both sides ORed, are
 * a multiple of.
 */
function orderOf(root: PageTable, addresses: u32, pageCount: u32): u32 {
  let order = root.granuleOrder;
  while (order < root.blockOrder) {
    const next = order + root.indexBits;
    if (pageCount >> next == 0 || !isAligned(addresses, next)) break;
    order = next;
  }
  return order;
}

/**
 * Whether `pageCount` pages are whole entries of `order`, all of them in the table reached last.
 * Only with the 4 KiB granule: the orders of the others are none of its.
 */
@inline function isInLastTable(
  root: PageTable,
  iovaPfn: u32,
  pageCount: u32,
  order: u32,
): bool {
  if (root.lastKey != tableKey(iovaPfn, order, INDEX_BITS)) return false;
  return pageCount >> order <= ENTRIES - lastIndex(iovaPfn, order) && isAligned(pageCount, order);
}

/** PageTable.indexOf() below the top table of the 4 KiB granule. */
export function lastIndex(iovaPfn: u32, order: u32): u32 {
  return (iovaPfn >> order) & (ENTRIES - 1);
}

// ---- entries of one order in one table

/**
 * Maps entries of 2^pageOrder pages each: `count`, or as many as their table has left from
 * `iovaPfn` on. Returns how many, or EEXIST, EINVAL (also: no order of the granule's), ERANGE,
 * ENOMEM or EAGAIN.
 */
export function pgtMapPages(
  rootAt: usize,
  iovaPfn: u32,
  physPfn: u32,
  pageOrder: u32,
  count: u32,
  prot: u32,
): i32 {
  const root = PageTable.at(rootAt);
  const attributes = root.attributesOf(prot);
  if (!root.isLeafOrder(pageOrder) || !isAligned(iovaPfn | physPfn, pageOrder)) return EINVAL;
  if (iovaPfn > root.lastPfn || physPfn > root.lastPhysPfn) return ERANGE;
  if (attributes == 0) return EINVAL;
  if (count == 0) return 0;
  const fits = entriesLeft(root, iovaPfn, pageOrder, count);
  if (<u64>physPfn + ((<u64>fits) << pageOrder) > <u64>root.lastPhysPfn + 1) return ERANGE;
  return batchMap(root, iovaPfn, physPfn, pageOrder, count, attributes);
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
  const isLast = root.lastKey == root.keyOf(iovaPfn, order);
  const table = isLast ? root.lastAt : tableReach(root, iovaPfn, order);
  if (isError(table)) return <i32>table;
  const fits = entriesLeft(root, iovaPfn, order, count);
  const at = changetype<usize>(Entry.at(table, root.indexOf(iovaPfn, order)));
  const first = pteLeaf(physPfn, order == root.granuleOrder, attributes);
  while (!entriesMap(at, fits, first, pteStep(order))) {
    if (!tablesRemove(root, at, fits, order)) return EEXIST;
  }
  return fits;
}

/** `count`, or as many entries as a table of `order` has from `iovaPfn` on. */
function entriesLeft(root: PageTable, iovaPfn: u32, order: u32, count: u32): u32 {
  return min(count, root.entriesOf(order) - root.indexOf(iovaPfn, order));
}

/**
 * Unmaps entries of 2^pageOrder pages each, up to the first empty one or the end of their table;
 * one that is a table goes with all that is below it. Returns how many pages; 0 also where no frame
 * is left to split a block.
 */
export function pgtUnmapPages(rootAt: usize, iovaPfn: u32, pageOrder: u32, count: u32): u32 {
  const root = PageTable.at(rootAt);
  if (!root.isLeafOrder(pageOrder) || !isAligned(iovaPfn, pageOrder) || count == 0) return 0;
  return iovaPfn > root.lastPfn ? 0 : batchUnmap(root, iovaPfn, pageOrder, count);
}

/** Unmaps entries up to the first empty one or the end of their table; how many pages. */
function batchUnmap(root: PageTable, iovaPfn: u32, order: u32, count: u32): u32 {
  const isLast = root.lastKey == root.keyOf(iovaPfn, order);
  const table = isLast ? root.lastAt : tableFind(root, iovaPfn, order);
  if (isError(table)) return 0;
  const fits = entriesLeft(root, iovaPfn, order, count);
  const at = changetype<usize>(Entry.at(table, root.indexOf(iovaPfn, order)));
  return entriesClear(root, at, fits, order) << order;
}

function isAligned(addresses: u32, order: u32): bool {
  return (addresses & ((1 << order) - 1)) == 0;
}

/**
 * Empties the tables among `count` entries of `order`, in order, up to the first leaf; false if
 * there is one.
 */
function tablesRemove(root: PageTable, at: usize, count: u32, order: u32): bool {
  const end = at + (<usize>count) * PTE_BYTES;
  for (; at < end; at += PTE_BYTES) {
    const entry = changetype<Entry>(at);
    if (entry.pte == 0) continue;
    if (order == root.granuleOrder || !isTable(entry.pte)) break;
    entryDrop(root, entry, order);
  }
  return at == end;
}

/** Empties `count` entries of `order` up to the first that is empty already; returns how many. */
function entriesClear(root: PageTable, start: usize, count: u32, order: u32): u32 {
  const end = start + (<usize>count) * PTE_BYTES;
  const kind = leafKind(order == root.granuleOrder);
  let at = leavesClear(start, end, kind);
  while (at < end) {
    const entry = changetype<Entry>(at);
    if (entry.pte == 0) break;
    entryDrop(root, entry, order);
    at = leavesClear(at + PTE_BYTES, end, kind);
  }
  return <u32>((at - start) / PTE_BYTES);
}
