// A device's walk through an IO page table, which changes nothing.
//
//   iovaPfn ─► entry of the top table ─► … ─► leaf ─► physical frame, protection
//                       └─ 0: nothing is mapped there
//
// Reads each entry once. The caller holds the domain's lock, or is the only thread.
//
// Compare __arm_lpae_iova_to_phys() in drivers/iommu/io-pgtable-arm.c in the kernel.

import { NONE } from "./bits";
import { PageTable, STAGE_2 } from "./pgtable-format";
import { Entry, areEmpty, isTable, ptePfn, pteProt, pteStep, pteTableAt } from "./pte";

const TOP_ORDER: u32 = 27; // of 44-bit addresses with the 4 KiB granule: the walk is written out
const INDEX_BITS: u32 = 9;
const END_ORDER_BITS: u64 = 5;

/** The physical frame that a device reaches at `iovaPfn`, or NONE. */
@inline export function pgtLookup(rootAt: usize, iovaPfn: u32): u32 {
  const pte = pageAt(PageTable.at(rootAt), iovaPfn);
  return pte == 0 ? NONE : ptePfn(pte);
}

/** What a device may do at `iovaPfn`, as IOMMU_* bits; 0 where nothing is mapped. */
export function pgtProt(rootAt: usize, iovaPfn: u32): u32 {
  const root = PageTable.at(rootAt);
  const pte = pageAt(root, iovaPfn);
  return pte == 0 ? 0 : pteProt(pte, root.stage == STAGE_2);
}

/** The leaf over `iovaPfn`, moved to the frame of that page; 0 where nothing is mapped. */
export function pageAt(root: PageTable, iovaPfn: u32): u64 {
  if (root.topOrder != TOP_ORDER) return pageAtAny(root, iovaPfn);
  const top = Entry.at(root.topAt, iovaPfn >> TOP_ORDER).pte;
  if (!isTable(top)) return 0;
  const large = entryBelow(top, iovaPfn, 2 * INDEX_BITS);
  if (!isTable(large)) return pageOf(large, iovaPfn, 2 * INDEX_BITS);
  const middle = entryBelow(large, iovaPfn, INDEX_BITS);
  if (!isTable(middle)) return pageOf(middle, iovaPfn, INDEX_BITS);
  return entryBelow(middle, iovaPfn, 0);
}

/** The same for every other format. */
function pageAtAny(root: PageTable, iovaPfn: u32): u64 {
  if (iovaPfn > root.lastPfn) return 0;
  let order = root.topOrder;
  let pte = Entry.at(root.topAt, iovaPfn >> order).pte;
  while (order != root.granuleOrder && isTable(pte)) {
    order -= root.indexBits;
    pte = Entry.at(pteTableAt(pte), root.indexOf(iovaPfn, order)).pte;
  }
  return pageOf(pte, iovaPfn, order);
}

function entryBelow(pte: u64, iovaPfn: u32, order: u32): u64 {
  return Entry.at(pteTableAt(pte), (iovaPfn >> order) & ((1 << INDEX_BITS) - 1)).pte;
}

function pageOf(leaf: u64, iovaPfn: u32, order: u32): u64 {
  return leaf == 0 ? 0 : leaf + (iovaPfn & ((<u32>1 << order) - 1)) * pteStep(0);
}

// ---- where a walk ends

/**
 * The entry at which a walk to `iovaPfn` ends, a leaf or an empty one, and its order: address * 32
 * + order. The page is within the width.
 */
export function walkEnd(root: PageTable, iovaPfn: u32): u64 {
  let order = root.topOrder;
  let entry = Entry.at(root.topAt, iovaPfn >> order);
  while (order != root.granuleOrder && isTable(entry.pte)) {
    order -= root.indexBits;
    entry = Entry.at(entry.table, root.indexOf(iovaPfn, order));
  }
  return ((<u64>changetype<usize>(entry)) << END_ORDER_BITS) | order;
}

/** The entry of what walkEnd() gave. */
export function endEntry(end: u64): Entry {
  return changetype<Entry>(<usize>(end >> END_ORDER_BITS));
}

/** How many pages the entry covers from `iovaPfn` on. */
export function endPagesLeft(end: u64, iovaPfn: u32): u32 {
  const pages = (<u32>1) << <u32>(end & ((1 << END_ORDER_BITS) - 1));
  return pages - (iovaPfn & (pages - 1));
}

/** Whether nothing is mapped in a range within the width; empty tables may be there. */
export function isUnmapped(root: PageTable, iovaPfn: u32, pageCount: u32): bool {
  for (let done: u32 = 0; done < pageCount; ) {
    const pfn = iovaPfn + done;
    const end = walkEnd(root, pfn);
    const inTable = (1 << root.indexBits) - (root.indexOf(pfn, root.granuleOrder));
    const isPage = <u32>(end & ((1 << END_ORDER_BITS) - 1)) == root.granuleOrder;
    const count = isPage ? min(inTable, (pageCount - done) >> root.granuleOrder) : 1;
    if (!areEmpty(changetype<usize>(endEntry(end)), count)) return false;
    const pages = isPage ? count << root.granuleOrder : endPagesLeft(end, pfn);
    done += min(pageCount - done, pages);
  }
  return true;
}
