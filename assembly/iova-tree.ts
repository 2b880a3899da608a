// The ranges of one domain in address order, and in each entry the gap below its range: a B+ tree.
//
//   0    startPfn           low    high                                            2^32
//   ├ never ─┼───── gap ─────┼ range ┼ gap ┼ range ┼ range ┼ ────────── gap ──────────┼ anchor
//
// V1  Entries rise and are disjoint: startPfn <= low <= high, and the `pages` below `low` are
//     exactly the gap.
// V2  The last entry is the anchor: low = 0 stands for 2^32, high = 0xffffffff. So every page has
//     an entry at or above it.
// V9  spareCount is the length of the list of spare nodes.
// V12  At every moment each low and each high of a range stands in a node that is reached from the
//      root, or is splitAt: a place twice perhaps, one lane before the other, but nowhere lost; and
//      what is reached is no spare (iova-rebuild.ts).
//
// V3 and V4 are about single nodes: iova-node.ts.
//
// `low` and `high` in the leaves are the truth: all else is derived from them. An operation leads
// the path (one step per level) to an entry, changes it there, and renews the nodes above. There
// are no parent links.
//
// A search is exact, finds the highest fit and costs O(log n): each inner entry tells the largest
// gap below it, once in pages and once in what aligned requests see; only the gap that the limit
// cuts is judged by itself. Removing never needs memory, and inserting takes its nodes before it
// changes anything.
//
// Compare drivers/iommu/iova.c in the kernel: a binary tree with a remembered place, which walks
// range by range when the gaps near that place are too small. Known limit: small nodes are joined
// only below one parent, so a tree after many removals may have more nodes than its entries need.

import {
  HIGH,
  LANE_BYTES,
  LOW,
  NODE_ENTRIES,
  PAGES,
  ROOM,
  TreeNode,
  alignedRoom,
  entriesClose,
  entriesMove,
  entriesOpen,
} from "./iova-node";
import {
  pathBack,
  pathLimit,
  pathLower,
  pathNext,
  pathRaise,
  pathRefresh,
  pathSeek,
} from "./iova-path";
import { CACHE_IOVA_NODES, IovaControl, IovaSpace, MAX_HEIGHT, PathStep } from "./iova-space";
import { must } from "./panic";
import { slabAlloc, slabFree } from "./slab";

const V1: u32 = 8601;
const V4: u32 = 8604;

const LOW_ENTRIES: u32 = 7; // a node with fewer looks for a neighbour to join
const JOINED_ENTRIES: u32 = 22; // what two joined nodes may hold together
const SPARES_KEPT: u32 = 6;

export const MAX_PFN: u32 = 0xffffffff;

// ---- spare nodes: taken before a change, so that no change stops half way

function nodeTake(control: IovaControl, level: u32): TreeNode {
  const node = TreeNode.at(control.spareAt);
  nodeInit(node, level); // no node is reached with what an earlier owner left there
  control.spareAt = node.nextAt;
  control.spareCount -= 1;
  return node;
}

function nodeInit(node: TreeNode, level: u32): void {
  node.count = 0;
  node.level = level;
  memory.fill(changetype<usize>(node) + HIGH, 0, 4 * LANE_BYTES); // V4
}

function nodeDrop(control: IovaControl, node: TreeNode): void {
  if (control.spareCount < SPARES_KEPT) spareInsert(control, node);
  else slabFree(changetype<usize>(node));
}

function spareInsert(control: IovaControl, node: TreeNode): void {
  node.nextAt = control.spareAt;
  control.spareAt = changetype<usize>(node);
  control.spareCount += 1;
}

/** Takes spare nodes for an insertion anywhere. False: no memory. */
export function sparesFill(space: IovaSpace): bool {
  const control = space.control;
  while (control.spareCount <= space.height) {
    const at = slabAlloc(CACHE_IOVA_NODES, 1);
    if (at == 0) return false;
    spareInsert(control, TreeNode.at(at));
  }
  return true;
}

/** Whether an insertion at the path is certain to succeed. False: no memory. */
export function treeReady(space: IovaSpace): bool {
  return PathStep.at(space.control, 0).node.count < NODE_ENTRIES || sparesFill(space);
}

// ---- the tree

/** A tree that holds only the anchor. False: no memory. */
export function treeInit(space: IovaSpace, startPfn: u32): bool {
  const at = slabAlloc(CACHE_IOVA_NODES, 1);
  if (at == 0) return false;
  const leaf = TreeNode.at(at);
  nodeInit(leaf, 0);
  leaf.count = 1;
  leaf.setEntry(0, 0, MAX_PFN, startPfn); // V2
  space.rootAt = at;
  space.height = 1;
  return true;
}

/** Frees all nodes, spare ones included. */
export function treeFini(space: IovaSpace): void {
  const control = space.control;
  while (control.spareAt != 0) {
    const at = control.spareAt;
    control.spareAt = TreeNode.at(at).nextAt;
    slabFree(at);
  }
  control.spareCount = 0;
  nodeFree(TreeNode.at(space.rootAt));
  space.rootAt = 0;
  space.height = 0;
}

function nodeFree(node: TreeNode): void {
  if (node.level > 0) for (let i: u32 = 0; i < node.count; i++) nodeFree(node.child(i));
  slabFree(changetype<usize>(node));
}

/**
 * The highest page at or below `limit` where `pageCount` > 0 pages are free, and the path at the
 * entry above; 0 when there is none. `limit` bounds the last page.
 */
export function treeFit(space: IovaSpace, pageCount: u32, limit: u32, isAligned: bool): u32 {
  const leaf = pathLimit(space, limit);
  const i = PathStep.at(space.control, 0).index;
  const gap = leaf.gapStart(i);
  let gapEnd = leaf.word(LOW, i);
  if (gapEnd - 1 > limit) gapEnd = limit + 1; // the limit cuts this gap, and no other
  if (gap > limit || !gapFits(gap, gapEnd, pageCount, isAligned)) {
    if (!pathBack(space, isAligned ? ROOM : PAGES, pageCount)) return 0;
    const step = PathStep.at(space.control, 0);
    gapEnd = step.node.word(LOW, step.index);
  }
  if (!isAligned || pageCount == 1) return gapEnd - pageCount;
  return (gapEnd - pageCount) & ((<u32>-1) << (32 - <u32>clz(pageCount - 1)));
}

function gapFits(gap: u32, gapEnd: u32, pageCount: u32, isAligned: bool): bool {
  if (gapEnd - gap < pageCount) return false;
  return !isAligned || alignedRoom(gap, gapEnd) >= pageCount;
}

/**
 * Puts [low, high] into the gap below the path's entry. treeReady() has said true since the path
 * was led there.
 */
export function treeInsert(space: IovaSpace, low: u32, high: u32): void {
  const control = space.control;
  const step = PathStep.at(control, 0);
  if (step.node.count == NODE_ENTRIES) pathSplit(space);
  const leaf = step.node;
  const i = step.index;
  const gap = leaf.gapStart(i);
  must(gap <= low && low <= high && high <= leaf.word(LOW, i) - 1, V1, low);
  const pages = leaf.word(PAGES, i);
  const room = leaf.word(ROOM, i);
  entriesOpen(leaf, i);
  leaf.setEntry(i, low, high, gap);
  leaf.setGap(i + 1, high + 1);
  pathLower(space, pages, room);
}

/** Takes out the range that the path is at; not the anchor. */
export function treeRemove(space: IovaSpace): void {
  const step = PathStep.at(space.control, 0);
  nextGap(space, step.node.gapStart(step.index));
  entryRemove(space);
}

/** Stretches the range that the path is at down to `low`, which lies in its gap. */
export function treeStretch(space: IovaSpace, low: u32): void {
  const step = PathStep.at(space.control, 0);
  const gap = step.node.gapStart(step.index);
  const pages = step.node.word(PAGES, step.index);
  const room = step.node.word(ROOM, step.index);
  must(gap <= low && low < step.node.word(LOW, step.index), V1, low);
  step.node.setEntry(step.index, low, step.node.word(HIGH, step.index), gap);
  pathLower(space, pages, room);
}

/** Ends the range that the path is at with `high`, inside of it. */
export function treeShrink(space: IovaSpace, high: u32): void {
  nextGap(space, high + 1);
  const step = PathStep.at(space.control, 0);
  must(
    step.node.word(LOW, step.index) <= high && high < step.node.word(HIGH, step.index),
    V1,
    high,
  );
  step.node.setWord(HIGH, step.index, high);
  if (step.index + 1 == step.node.count) pathRefresh(space, 0);
}

/** The gap of the entry after the path's begins at `gap`. The path stays where it is. */
function nextGap(space: IovaSpace, gap: u32): void {
  const step = PathStep.at(space.control, 0);
  const leaf = step.node;
  const i = step.index;
  if (i + 1 < leaf.count) {
    leaf.setGap(i + 1, gap);
    pathRaise(space, leaf, i + 1);
    return;
  }
  pathNext(space.control);
  step.node.setGap(step.index, gap);
  pathRaise(space, step.node, step.index);
  pathSeek(space, leaf.word(LOW, i));
}

/** Splits the path's leaf, which is full, and every full node above it. */
function pathSplit(space: IovaSpace): void {
  const control = space.control;
  let level: u32 = 0;
  while (level < space.height && PathStep.at(control, level).node.count == NODE_ENTRIES) level += 1;
  if (level == space.height) rootRaise(space);
  while (level > 0) nodeSplit(space, --level);
}

/** Puts a node above the root. */
function rootRaise(space: IovaSpace): void {
  const root = nodeTake(space.control, space.height);
  root.count = 1;
  root.setChild(0, TreeNode.at(space.rootAt));
  PathStep.at(space.control, space.height).set(root, 0);
  space.rootAt = changetype<usize>(root);
  space.height += 1;
  must(space.height <= MAX_HEIGHT, V4);
}

/**
 * Splits the path's node of `level`; the one above has room. A place near the low end leaves most
 * entries in the upper node, which nobody will insert into: ranges handed out downwards fill their
 * nodes.
 */
function nodeSplit(space: IovaSpace, level: u32): void {
  const control = space.control;
  const step = PathStep.at(control, level);
  const above = PathStep.at(control, level + 1);
  const keep: u32 = step.index < LOW_ENTRIES ? LOW_ENTRIES : NODE_ENTRIES / 2;
  const lower = step.node;
  const upper = nodeTake(control, level);
  space.splitAt = changetype<usize>(upper); // V12
  entriesMove(lower, keep, upper);
  entriesOpen(above.node, above.index + 1);
  above.node.setChild(above.index, lower);
  above.node.setChild(above.index + 1, upper);
  space.splitAt = 0;
  if (step.index >= keep) {
    step.set(upper, step.index - keep);
    above.index += 1;
  }
}

/** Takes the path's entry out of its leaf, and joins or drops the nodes that become too small. */
function entryRemove(space: IovaSpace): void {
  const control = space.control;
  const top = space.height - 1;
  let level: u32 = 0;
  let emptied: usize = 0; // the node that the entry taken out led to
  while (true) {
    const step = PathStep.at(control, level);
    entriesClose(step.node, step.index);
    if (emptied != 0) nodeDrop(control, TreeNode.at(emptied)); // V12: nothing leads there
    if (level == top) return rootLower(space);
    emptied = step.node.count >= LOW_ENTRIES ? 0 : nodeJoin(control, level);
    if (emptied == 0) {
      // The gap of a last entry went to another node.
      if (level > 0 || step.index == step.node.count) pathRefresh(space, level);
      return;
    }
    level += 1;
  }
}

/**
 * Empties the path's small node of `level` or its neighbour into the other, and leads the path
 * above to the empty one, which is returned; 0: none was emptied.
 */
function nodeJoin(control: IovaControl, level: u32): usize {
  const node = PathStep.at(control, level).node;
  const above = PathStep.at(control, level + 1);
  if (node.count > 0) {
    if (above.node.count == 1) return 0;
    const lowerIndex = above.index + 1 < above.node.count ? above.index : above.index - 1;
    const lower = above.node.child(lowerIndex);
    const upper = above.node.child(lowerIndex + 1);
    if (lower.count + upper.count > JOINED_ENTRIES) return 0;
    entriesMove(upper, 0, lower);
    above.node.setChild(lowerIndex, lower);
    above.index = lowerIndex + 1;
  }
  return changetype<usize>(above.node.child(above.index));
}

/** Drops roots that have a single child. */
function rootLower(space: IovaSpace): void {
  let root = TreeNode.at(space.rootAt);
  while (space.height > 1 && root.count == 1) {
    const child = root.child(0);
    space.rootAt = changetype<usize>(child);
    space.height -= 1;
    nodeDrop(space.control, root); // V12
    root = child;
  }
}
