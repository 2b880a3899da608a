// Blocks turned back into entries of the tree, when their pages are needed for something else.
//
//   entry of a block ├ range ┼ free ┼ range · ┼ … ┤      · the tail of a slot
//        │ from the upper end down: cut, insert
//        ▼
//   entries          ├ range ┤      ├ range ┤            the ranges stay what they are
//
// V5 and V6 hold after every step, so that running out of memory in between leaves a CLOSED block,
// which is right but gives no slots.

import { ENOMEM } from "./errno";
import { blockDrop, listRemove, recentsDrop } from "./iova-block";
import { pathSeek } from "./iova-path";
import { IovaBlock, blockClose, blockPages } from "./iova-slots";
import { IovaSpace } from "./iova-space";
import { PLACES, blockPlace, placedBlock, tablesFini } from "./iova-table";
import { sparesFill, treeInsert, treeRemove, treeShrink } from "./iova-tree";

const PAUSE_DISSOLVED: u32 = 4096; // ranges from the tree until blocks are made again

/**
 * Turns the live slots of all blocks over [low, high] into entries of the tree, and frees what they
 * did not use. How many blocks and recent slots went, or ENOMEM; the live ranges stay what they
 * are.
 */
export function blocksDissolve(space: IovaSpace, low: u32, high: u32): i32 {
  if (space.control.blockCount == 0) return 0;
  let count = <i32>recentsDrop(space);
  for (let place = blockPlace(space, 0); place < PLACES; place = blockPlace(space, place + 1)) {
    const block = placedBlock(space, place);
    const last = block.base + blockPages(block.sizeShift) - 1;
    if (block.base > high || last < low) continue;
    space.control.setPause(block.sizeShift, PAUSE_DISSOLVED);
    if (!blockDissolve(space, block)) return ENOMEM;
    count += 1;
  }
  return count;
}

function blockDissolve(space: IovaSpace, block: IovaBlock): bool {
  const base = block.base;
  if (block.isListed) listRemove(space.control, block);
  blockClose(block);
  while (block.live > 0) {
    let slot = block.end - 1;
    while (!block.isTaken(slot)) slot -= 1;
    const low = block.slotPfn(slot);
    const high = low + block.pageCount(slot) - 1;
    if (slot == 0) {
      blockBecome(space, block, high);
      return true;
    }
    if (!sparesFill(space)) return false;
    pathSeek(space, base);
    treeShrink(space, low - 1); // V5
    pathSeek(space, high);
    treeInsert(space, low, high);
    block.end = slot; // not before: the range is always in one of both
    block.live -= 1;
  }
  pathSeek(space, base);
  treeRemove(space);
  blockDrop(space, block);
  return true;
}

/** Leaves the entry of a block to its last live range, which begins where the entry does. */
function blockBecome(space: IovaSpace, block: IovaBlock, high: u32): void {
  if (block.slotPfn(block.end) - 1 != high) {
    pathSeek(space, block.base);
    treeShrink(space, high);
  }
  blockDrop(space, block);
}

/** Frees all blocks and the tables, but not their entries. */
export function blocksFini(space: IovaSpace): void {
  for (let place = blockPlace(space, 0); place < PLACES; place = blockPlace(space, place + 1))
    blockDrop(space, placedBlock(space, place));
  tablesFini(space);
}
