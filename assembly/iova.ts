// Device address ranges of a domain: who has which pages of the 2^32 that a device can name.
//
//   iovaAlloc ──► the recent slot (iova-block.ts)  1, 2, 4, 8 pages: the range freed last
//        ├──────► a block's slot (iova-block.ts)   up to 1024 pages: one bit
//        └──────► the tree (iova-tree.ts)          any size, any limit: the highest place that fits
//   iovaFree, iovaFind ──► the same, by any page of the range
//
// V8  rangeCount is the number of entries in the tree without the anchor and the blocks, plus the
//     slots in use of all blocks: live ranges and recent slots.
//
// An allocation returns 0 only if no place for the shape exists at or below the limit, or if no
// frame is left for the records. The caller holds the domain's lock; a thread that may not block
// can be refused the slab's lock inside, which counts as no memory. Page 0 is never given: startPfn
// is at least 1. Device pages are 4 KiB, so addresses have 44 bits.
//
// Compare drivers/iommu/iova.c in the kernel: alloc_iova, free_iova, find_iova, reserve_iova. What
// differs is the choice of place: Linux resumes where it last found one, and remembers the last
// failing size; here the search is exact each time.

import { EINVAL } from "./errno";
import { faultHits } from "./fault";
import {
  blockFind,
  blockGive,
  blockTake,
  pageGive,
  recentGive,
  recentTake,
  recentsCount,
} from "./iova-block";
import { blocksDissolve, blocksFini } from "./iova-dissolve";
import { HIGH, LOW, TreeNode } from "./iova-node";
import { pathSeek } from "./iova-path";
import { IovaBlock } from "./iova-slots";
import {
  CACHE_IOVA_RECORDS,
  EXACT_CLASSES,
  IovaRange,
  IovaSpace,
  PathStep,
  SLOT_PAGES_MAX,
  controlInit,
} from "./iova-space";
import { blockNear, isBlockEntry } from "./iova-table";
import {
  sparesFill,
  treeFini,
  treeFit,
  treeInit,
  treeInsert,
  treeReady,
  treeRemove,
  treeStretch,
} from "./iova-tree";
import { noMemory } from "./lock";
import { slabAlloc, slabFree } from "./slab";

export { iovaCheck } from "./iova-check";

/**
 * Makes the zero-filled space at `spaceAt` empty, with `startPfn` > 0 as its first page. 0, EINVAL
 * or ENOMEM.
 */
export function iovaInit(spaceAt: usize, startPfn: u32): i32 {
  if (startPfn == 0) return EINVAL;
  const space = IovaSpace.at(spaceAt);
  const controlAt = slabAlloc(CACHE_IOVA_RECORDS, 1);
  if (controlAt == 0) return noMemory();
  if (!treeInit(space, startPfn)) {
    slabFree(controlAt);
    return noMemory();
  }
  space.controlAt = controlAt;
  space.rangeCount = 0;
  controlInit(space.control, startPfn);
  return 0;
}

/** Frees every range and record. */
export function iovaFini(spaceAt: usize): void {
  const space = IovaSpace.at(spaceAt);
  if (space.controlAt == 0) return; // never begun, or ended before
  blocksFini(space);
  for (let sizeShift: u32 = 0; sizeShift < EXACT_CLASSES; sizeShift++)
    space.setRecent(sizeShift, 0);
  treeFini(space);
  slabFree(space.controlAt);
  space.controlAt = 0;
  space.rangeCount = 0;
}

/** How many ranges are live. */
export function iovaRangeCount(spaceAt: usize): u32 {
  const space = IovaSpace.at(spaceAt);
  return space.rangeCount - recentsCount(space); // V8
}

/**
 * Takes `pageCount` pages whose last is at or below `limitPfn`, if `isSizeAligned` at a multiple of
 * the next power of two. The first page, or 0.
 */
@inline export function iovaAlloc(
  spaceAt: usize,
  pageCount: u32,
  limitPfn: u32,
  isSizeAligned: bool,
): u32 {
  if (faultHits()) return 0;
  const space = IovaSpace.at(spaceAt);
  const pfn = recentTake(space, pageCount, limitPfn);
  if (pfn != 0) return pfn;
  return rangeTake(space, pageCount, limitPfn, isSizeAligned);
}

function rangeTake(space: IovaSpace, pageCount: u32, limit: u32, isAligned: bool): u32 {
  if (pageCount == 0) return 0;
  if (pageCount <= SLOT_PAGES_MAX) {
    const sizeShift: u32 = 32 - <u32>clz(pageCount - 1);
    const isRounded = (pageCount & (pageCount - 1)) != 0;
    if (!isRounded || (isAligned && sizeShift >= EXACT_CLASSES)) {
      const pfn = blockTake(space, sizeShift, pageCount, limit);
      if (pfn != 0) return pfn;
    }
  }
  return entryTake(space, pageCount, limit, isAligned);
}

function entryTake(space: IovaSpace, pageCount: u32, limit: u32, isAligned: bool): u32 {
  let pfn = treeFit(space, pageCount, limit, isAligned);
  if (pfn == 0 && blocksDissolve(space, 0, limit) != 0)
    pfn = treeFit(space, pageCount, limit, isAligned);
  if (pfn == 0 || !treeReady(space)) return 0;
  space.pending = pfn;
  treeInsert(space, pfn, pfn + pageCount - 1);
  space.rangeCount += 1;
  return pfn;
}

/** Says that a record names the range that iovaAlloc() gave last: it outlives the thread. */
@inline export function iovaSettle(spaceAt: usize): void {
  IovaSpace.at(spaceAt).pending = 0;
}

/** Frees the range that holds `pfn`. Its page count, or 0: nobody has that page. */
@inline export function iovaFree(spaceAt: usize, pfn: u32): u32 {
  const space = IovaSpace.at(spaceAt);
  const block = blockNear(space, pfn);
  if (pageGive(space, block, pfn)) return 1;
  return slotFree(space, block, pfn);
}

function slotFree(space: IovaSpace, block: IovaBlock, pfn: u32): u32 {
  const slot = block.slotOver(pfn);
  if (slot >= block.end) return entryGive(space, pfn);
  const pages = recentGive(space, block, slot);
  return pages != 0 ? pages : blockGive(space, block, pfn);
}

function entryGive(space: IovaSpace, pfn: u32): u32 {
  const leaf = pathSeek(space, pfn);
  const i = PathStep.at(space.control, 0).index;
  if (!holdsRange(space, leaf, i, pfn)) return 0;
  const pages = leaf.word(HIGH, i) - leaf.word(LOW, i) + 1;
  treeRemove(space);
  space.rangeCount -= 1;
  return pages;
}

/** Whether entry `i`, the first that ends at or above `pfn`, is a live range over `pfn`. */
function holdsRange(space: IovaSpace, leaf: TreeNode, i: u32, pfn: u32): bool {
  const low = leaf.word(LOW, i);
  return low - 1 < pfn && !isBlockEntry(space, low); // the anchor's low is 0 and stands for 2^32
}

/**
 * The IovaRange (low and high page, inclusive) that holds `pfn`, or 0. What it says is valid until
 * the next call.
 */
export function iovaFind(spaceAt: usize, pfn: u32): usize {
  const space = IovaSpace.at(spaceAt);
  const range = IovaRange.at(space.foundAt);
  if (blockFind(space, pfn, range)) return space.foundAt;
  const leaf = pathSeek(space, pfn);
  const i = PathStep.at(space.control, 0).index;
  if (!holdsRange(space, leaf, i, pfn)) return 0;
  range.low = leaf.word(LOW, i);
  range.high = leaf.word(HIGH, i);
  return space.foundAt;
}

/**
 * Makes sure that nobody is given a page of [pfn, pfnEnd), where pfnEnd = 0 stands for 2^32. Like
 * Linux: a range that the reservation overlaps is stretched down to it, what lies above the range
 * goes on behind it, and only the rest, if any, becomes a range of its own. Pages below startPfn
 * are never given anyway. 0, EINVAL or ENOMEM.
 */
export function iovaReserve(spaceAt: usize, pfn: u32, pfnEnd: u32): i32 {
  const space = IovaSpace.at(spaceAt);
  const high = pfnEnd - 1;
  let low = max(pfn, space.control.startPfn);
  if (high < pfn) return EINVAL;
  if (high < low) return 0;
  if (blocksDissolve(space, low, high) < 0 || !sparesFill(space)) return noMemory();
  while (true) {
    const leaf = pathSeek(space, low);
    const i = PathStep.at(space.control, 0).index;
    const nextLow = leaf.word(LOW, i);
    if (high <= nextLow - 1) {
      treeInsert(space, low, high);
      space.rangeCount += 1;
      return 0;
    }
    const nextHigh = leaf.word(HIGH, i);
    if (low < nextLow) treeStretch(space, low);
    if (high <= nextHigh) return 0;
    low = nextHigh + 1;
  }
  return 0;
}
