// What a device sees: its walk through an IO page table, which changes nothing.
//
//   iovaPfn ─► entry of the top table ─► … ─► leaf ─► physical frame, protection
//                       └─ 0: nothing is mapped there
//
// Reads each entry once. The caller holds the domain's lock, or is the only thread.
//
// Compare __arm_lpae_iova_to_phys() in drivers/iommu/io-pgtable-arm.c in the kernel.

import { NONE } from "./bits";
import { PageTable, STAGE_2 } from "./pgtable-format";
import { Entry, isTable, ptePfn, pteProt, pteStep, pteTableAt } from "./pte";

const TOP_ORDER: u32 = 27; // of 44-bit addresses with the 4 KiB granule: the walk is written out
const INDEX_BITS: u32 = 9;

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
