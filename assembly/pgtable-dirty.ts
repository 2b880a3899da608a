// Dirty tracking: which pages of a range devices have written to.
//
//   leaf of a table with dirty bits   ├ DBM = 1 ┼ not writable = 1 ┤ clean ──a device writes──► dirty
//                                     ├ DBM = 1 ┼ not writable = 0 ┤ dirty ──dirtyClear───────► clean
//
// A page is dirty as its leaf is: one write makes all of a block dirty. A fresh leaf is dirty,
// since nobody knows what came before.
//
// Compare arm_lpae_read_and_clear_dirty() in drivers/iommu/io-pgtable-arm.c of later kernels. The
// caller holds the domain's lock.

import { PageTable } from "./pgtable-format";
import { endEntry, endPagesLeft, walkEnd } from "./pgtable-walk";
import { pteCleaned, pteIsDirty, pteWritten } from "./pte";
import { SCRATCH_WORDS, scratchStore } from "./thread";

/** The granules that one dirtyRead() has room for. */
export const DIRTY_BITS_MAX: u32 = SCRATCH_WORDS * 32;

/** A device writes to a clean page: its leaf is dirty from now on. */
export function dirtyMark(root: PageTable, iovaPfn: u32): void {
  const entry = endEntry(walkEnd(root, iovaPfn));
  entry.pte = pteWritten(entry.pte);
}

/**
 * Writes a bit for each granule of a range to the scratch words, 1 = dirty. How many are 1. The
 * range is granular, within the width, and has at most DIRTY_BITS_MAX granules.
 */
export function dirtyRead(root: PageTable, iovaPfn: u32, pageCount: u32): u32 {
  const count = pageCount >> root.granuleOrder;
  let dirty: u32 = 0;
  let word: u32 = 0;
  let left: u32 = 0; // granules of the leaf or hole that the last walk met
  let isDirty = false;
  for (let i: u32 = 0; i < count; i++) {
    if (left == 0) {
      const pfn = iovaPfn + (i << root.granuleOrder);
      const end = walkEnd(root, pfn);
      left = endPagesLeft(end, pfn) >> root.granuleOrder;
      isDirty = pteIsDirty(endEntry(end).pte);
    }
    left -= 1;
    dirty += <u32>isDirty;
    word |= (<u32>isDirty) << (i & 31);
    if ((i & 31) == 31 || i == count - 1) {
      scratchStore(i >> 5, word);
      word = 0;
    }
  }
  return dirty;
}

/** Makes every leaf that the range touches clean. */
export function dirtyClear(root: PageTable, iovaPfn: u32, pageCount: u32): void {
  let done: u32 = 0;
  while (done < pageCount) {
    const end = walkEnd(root, iovaPfn + done);
    const entry = endEntry(end);
    entry.pte = pteCleaned(entry.pte);
    done += min(pageCount - done, endPagesLeft(end, iovaPfn + done));
  }
}
