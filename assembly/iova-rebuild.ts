// A space of device pages built anew, after a thread died in the middle of a change to it.
//
//   old tree    lows, highs ──sorted──► pairs ──┐
//   old blocks  bits that are 0 ────────────────┴──► new tree, of all ranges that live
//
// V13  Of a range that was being added or removed only one end may be there: what has no other end
//      between itself and the next is left out. So is `pending`, a range that nobody knew of yet.
//
// What is read: the lows and highs in the leaves, one store each, and the bits of the blocks. All
// else in the old tree is not looked at. Its records are left to iova-mark.ts, and the new tree has
// no blocks until small ranges are asked for again. The caller holds the domain's lock.

import { NONE } from "./bits";
import { ENOMEM } from "./errno";
import { iovaInit, iovaReserve } from "./iova";
import { HIGH, LANE_BYTES, LOW, TreeNode } from "./iova-node";
import { EXACT_CLASSES, IovaSpace, SPACE_BYTES } from "./iova-space";
import { PLACES, blockPlace, isBlockEntry, placedBlock } from "./iova-table";
import { MAX_PFN } from "./iova-tree";
import { FRAME_MASK, FRAME_SHIFT, MAX_ORDER, NOTHING_AT, frameAt } from "./layout";
import { runAlloc, runFree } from "./magazine";
import { OBJECT, PfnCell } from "./page";
import { workspaceAt } from "./thread";

const LANE_WORDS: u32 = <u32>LANE_BYTES >> 2;

/** Words of the tree: where they are written, and how many there are so far. */
@unmanaged
class Ends {
  lowsAt: usize; // 0: they are only counted
  highsAt: usize;
  lowCount: u32;
  highCount: u32;
  topCount: u32; // highs at the very top: the anchor's, and perhaps a range's

  addLow(pfn: u32): void {
    if (this.lowsAt != 0) PfnCell.at(this.lowsAt, this.lowCount).pfn = pfn;
    this.lowCount += 1;
  }

  addHigh(pfn: u32): void {
    if (pfn == MAX_PFN) {
      this.topCount += 1;
      return;
    }
    if (this.highsAt != 0) PfnCell.at(this.highsAt, this.highCount).pfn = pfn;
    this.highCount += 1;
  }
}

/** Builds the space at `spaceAt` anew. 0, or ENOMEM with nothing changed. */
export function iovaRebuild(spaceAt: usize): i32 {
  const old = IovaSpace.at(spaceAt);
  const fresh = IovaSpace.at(workspaceAt());
  const ends = changetype<Ends>(workspaceAt() + SPACE_BYTES);
  memory.fill(workspaceAt(), 0, SPACE_BYTES + offsetof<Ends>());
  treeCollect(old, ends);
  const words = ends.lowCount + ends.highCount + 1;
  const frames = ((words << 2) + FRAME_MASK) >> FRAME_SHIFT;
  if (frames > (<u32>1) << MAX_ORDER) return ENOMEM;
  const pfn = runAlloc(frames, 0, NONE, OBJECT);
  if (pfn < 0) return pfn;
  ends.lowsAt = frameAt(pfn);
  ends.highsAt = ends.lowsAt + ((<usize>ends.lowCount) << 2);
  ends.lowCount = 0;
  ends.highCount = 0;
  ends.topCount = 0;
  treeCollect(old, ends);
  let error = iovaInit(changetype<usize>(fresh), old.control.startPfn);
  if (error == 0) error = pairsInsert(old, fresh, ends);
  if (error == 0) error = slotsInsert(old, fresh);
  runFree(pfn, frames, OBJECT);
  if (error != 0) return error; // the new records are nobody's, and swept as the old ones are
  old.rootAt = fresh.rootAt;
  old.height = fresh.height;
  old.rangeCount = fresh.rangeCount;
  old.controlAt = fresh.controlAt;
  old.tablesAt = NOTHING_AT;
  for (let sizeShift: u32 = 0; sizeShift < EXACT_CLASSES; sizeShift++) old.setRecent(sizeShift, 0);
  old.splitAt = 0;
  old.pending = 0;
  return 0;
}

// ---- the tree

function treeCollect(space: IovaSpace, ends: Ends): void {
  nodeCollect(TreeNode.at(space.rootAt), ends);
  if (space.splitAt != 0) nodeCollect(TreeNode.at(space.splitAt), ends);
}

/** Collects from all places of a node: its count may be ahead of them. */
function nodeCollect(node: TreeNode, ends: Ends): void {
  let before: u32 = 0;
  for (let i: u32 = 0; i < LANE_WORDS; i++) {
    const low = node.word(LOW, i);
    const high = node.word(HIGH, i);
    if (node.level > 0) {
      if (low != 0 && low != before) nodeCollect(node.child(i), ends);
      before = low;
    } else {
      if (low != 0) ends.addLow(low);
      if (high != 0) ends.addHigh(high);
    }
  }
}

/** Adds the ranges whose ends were collected (V13). 0 or ENOMEM. */
function pairsInsert(old: IovaSpace, fresh: IovaSpace, ends: Ends): i32 {
  sort(ends.lowsAt, ends.lowCount);
  sort(ends.highsAt, ends.highCount);
  let j: u32 = 0;
  for (let i: u32 = 0; i < ends.lowCount; i++) {
    const low = PfnCell.at(ends.lowsAt, i).pfn;
    const isLast = i + 1 == ends.lowCount;
    if (!isLast && PfnCell.at(ends.lowsAt, i + 1).pfn == low) continue; // it stands twice
    while (j < ends.highCount && PfnCell.at(ends.highsAt, j).pfn < low) j += 1;
    const high = j < ends.highCount ? PfnCell.at(ends.highsAt, j).pfn : MAX_PFN;
    const hasEnd = isLast
      ? high != MAX_PFN || ends.topCount > 1
      : high < PfnCell.at(ends.lowsAt, i + 1).pfn;
    if (!hasEnd || low == old.pending || isBlockEntry(old, low)) continue;
    const error = iovaReserve(changetype<usize>(fresh), low, high + 1);
    if (error != 0) return error;
  }
  return 0;
}

// ---- blocks

/** Adds the slots of blocks that are live ranges. 0 or ENOMEM. */
function slotsInsert(old: IovaSpace, fresh: IovaSpace): i32 {
  for (let place = blockPlace(old, 0); place < PLACES; place = blockPlace(old, place + 1)) {
    const block = placedBlock(old, place);
    const recent = block.sizeShift < EXACT_CLASSES ? old.recent(block.sizeShift) : 0;
    for (let slot: u32 = 0; slot < block.end; slot++) {
      const low = block.slotPfn(slot);
      if (!block.isTaken(slot) || low == recent || low == old.pending) continue;
      const error = iovaReserve(changetype<usize>(fresh), low, low + block.pageCount(slot));
      if (error != 0) return error;
    }
  }
  return 0;
}

// ---- heap sort: no memory, and no case that takes long

function sort(listAt: usize, count: u32): void {
  for (let i = count >> 1; i > 0; i--) sink(listAt, i - 1, count);
  for (let end = count; end > 1; end--) {
    const last = PfnCell.at(listAt, end - 1);
    const first = PfnCell.at(listAt, 0);
    const pfn = last.pfn;
    last.pfn = first.pfn;
    first.pfn = pfn;
    sink(listAt, 0, end - 1);
  }
}

/** Sinks word `i` below those of the heap that are larger. */
function sink(listAt: usize, i: u32, count: u32): void {
  const pfn = PfnCell.at(listAt, i).pfn;
  for (let child: u32 = 2 * i + 1; child < count; child = 2 * i + 1) {
    const right = child + 1 < count ? PfnCell.at(listAt, child + 1).pfn : 0;
    if (right > PfnCell.at(listAt, child).pfn) child += 1;
    if (PfnCell.at(listAt, child).pfn <= pfn) break;
    PfnCell.at(listAt, i).pfn = PfnCell.at(listAt, child).pfn;
    i = child;
  }
  PfnCell.at(listAt, i).pfn = pfn;
}
