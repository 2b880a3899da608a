// The ranges of one domain in address order, and in each entry the gap below its range: a B+ tree.
//
//   0    startPfn              low    high                                                  2^32
//   ├ never ─┼────── gap ───────┼ range ┼ gap ┼ range ┼ range ┼ ───────────── gap ────────────┼ anchor
//
// V1  Entries rise and are disjoint: startPfn <= low <= high, and the `pages` below `low` are exactly the gap.
// V2  The last entry is the anchor: low = 0 stands for 2^32, high = 0xffffffff. So every page has an entry at or above it.
//     (V3 and V4 are about single nodes: iova-node.ts.)
//
// `low` and `high` in the leaves are the truth: all else is derived from them. An operation leads the path (one step per
// level) to an entry, changes it there, and renews the nodes above. There are no parent links.
//
// A search is exact, finds the highest fit and costs O(log n): each inner entry tells the largest gap below it, once in
// pages and once in what aligned requests see; only the gap that the limit cuts is judged by itself. Removing never needs
// memory, and inserting takes its nodes before it changes anything.
//
// Compare drivers/iommu/iova.c in the kernel: a binary tree with a remembered place, which walks range by range when the
// gaps near that place are too small. Known limit: small nodes are joined only below one parent, so a tree after many
// removals may have more nodes than its entries need.

import {
  HIGH, LANE_BYTES, LOW, NODE_ENTRIES, PAGES, ROOM, TreeNode, alignedRoom, entriesClose, entriesMove, entriesOpen, laneFirst,
  laneLast,
} from "./iova-node";
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
  control.spareAt = node.nextAt;
  control.spareCount -= 1;
  nodeInit(node, level);
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

/** Leads the path to the first entry with high >= `pfn`, and returns its leaf (V2: there is one). */
export function treeSeek(space: IovaSpace, pfn: u32): TreeNode {
  const control = space.control;
  pfn = max(pfn, 1); // page 0 lies in no range
  let node = TreeNode.at(space.rootAt);
  for (let level = space.height - 1; level > 0; level--) {
    const i = laneFirst(node, HIGH, pfn);
    PathStep.at(control, level).set(node, i);
    node = node.child(i);
  }
  PathStep.at(control, 0).set(node, laneFirst(node, HIGH, pfn));
  return node;
}

/** Leads the path to the entry after the one it is at, which is not the anchor. */
function pathNext(control: IovaControl): void {
  let level: u32 = 0;
  while (PathStep.at(control, level).index + 1 == PathStep.at(control, level).node.count) level += 1;
  PathStep.at(control, level).index += 1;
  for (; level > 0; level--) {
    const step = PathStep.at(control, level);
    PathStep.at(control, level - 1).set(step.node.child(step.index), 0);
  }
}

/** Leads the path to the last entry before it whose `lane` holds `pages` or more. False: there is none. */
function pathBack(space: IovaSpace, lane: usize, pages: u32): bool {
  const control = space.control;
  let level: u32 = 0;
  let step = PathStep.at(control, 0);
  let found = laneLast(step.node, lane, step.index, pages);
  while (found < 0) {
    level += 1;
    if (level == space.height) return false;
    step = PathStep.at(control, level);
    found = laneLast(step.node, lane, step.index, pages);
  }
  step.index = <u32>found;
  for (; level > 0; level--) {
    const node = step.node.child(step.index);
    step = PathStep.at(control, level - 1);
    step.set(node, <u32>laneLast(node, lane, node.count, pages)); // V3: the child has what its parent promises
  }
  return true;
}

/**
 * The highest page at or below `limit` where `pageCount` > 0 pages are free, and the path at the entry above; 0 when there
 * is none. `limit` bounds the last page.
 */
export function treeFit(space: IovaSpace, pageCount: u32, limit: u32, isAligned: bool): u32 {
  const leaf = treeSeek(space, limit);
  const i = PathStep.at(space.control, 0).index;
  const gap = leaf.gapStart(i);
  let gapEnd = leaf.word(LOW, i);
  if (gapEnd - 1 > limit) gapEnd = limit + 1; // the limit cuts this gap, and no other
  let isFound = false;
  if (gap <= limit && gap != gapEnd) isFound = (isAligned ? alignedRoom(gap, gapEnd) : gapEnd - gap) >= pageCount;
  if (!isFound) {
    if (!pathBack(space, isAligned ? ROOM : PAGES, pageCount)) return 0;
    const step = PathStep.at(space.control, 0);
    gapEnd = step.node.word(LOW, step.index);
  }
  if (!isAligned || pageCount == 1) return gapEnd - pageCount;
  return (gapEnd - pageCount) & (<u32>-1 << (32 - <u32>clz(pageCount - 1)));
}

/** Puts [low, high] into the gap below the path's entry. treeReady() has said true since the path was led there. */
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
  must(step.node.word(LOW, step.index) <= high && high < step.node.word(HIGH, step.index), V1, high);
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
  treeSeek(space, leaf.word(LOW, i));
}

/** Renews the nodes above the path's leaf, in which a gap with `pages` and `room` has shrunk (V3). */
function pathLower(space: IovaSpace, pages: u32, room: u32): void {
  const control = space.control;
  for (let level: u32 = 1; level < space.height; level++) {
    const above = PathStep.at(control, level);
    if (above.node.word(PAGES, above.index) > pages && above.node.word(ROOM, above.index) > room) return;
    above.node.setChild(above.index, PathStep.at(control, level - 1).node);
  }
}

/** Renews the nodes above the path's leaf, in which the gap of entry `i` has grown (V3). */
function pathRaise(space: IovaSpace, leaf: TreeNode, i: u32): void {
  const control = space.control;
  const pages = leaf.word(PAGES, i);
  const room = leaf.word(ROOM, i);
  for (let level: u32 = 1; level < space.height; level++) {
    const above = PathStep.at(control, level);
    if (above.node.word(PAGES, above.index) >= pages && above.node.word(ROOM, above.index) >= room) return;
    above.node.setWord(PAGES, above.index, max(above.node.word(PAGES, above.index), pages));
    above.node.setWord(ROOM, above.index, max(above.node.word(ROOM, above.index), room));
  }
}

/** Renews the nodes above `level` of the path, whatever changed (V3). */
function pathRefresh(space: IovaSpace, level: u32): void {
  const control = space.control;
  for (; level + 1 < space.height; level++) {
    const above = PathStep.at(control, level + 1);
    if (!above.node.setChild(above.index, PathStep.at(control, level).node)) return;
  }
}

/** Splits the path's leaf, which is full, and every full node above it. */
function pathSplit(space: IovaSpace): void {
  const control = space.control;
  let level: u32 = 0;
  while (level < space.height && PathStep.at(control, level).node.count == NODE_ENTRIES) level += 1;
  if (level == space.height) rootRaise(space);
  while (level > 0) nodeSplit(control, --level);
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
 * Splits the path's node of `level`; the one above has room. A place near the low end leaves most entries in the upper
 * node, which nobody will insert into: ranges handed out downwards fill their nodes.
 */
function nodeSplit(control: IovaControl, level: u32): void {
  const step = PathStep.at(control, level);
  const above = PathStep.at(control, level + 1);
  const keep: u32 = step.index < LOW_ENTRIES ? LOW_ENTRIES : NODE_ENTRIES / 2;
  const lower = step.node;
  const upper = nodeTake(control, level);
  entriesMove(lower, keep, upper);
  entriesOpen(above.node, above.index + 1);
  above.node.setChild(above.index, lower);
  above.node.setChild(above.index + 1, upper);
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
  while (true) {
    const step = PathStep.at(control, level);
    entriesClose(step.node, step.index);
    if (level == top) return rootLower(space);
    if (step.node.count >= LOW_ENTRIES || !nodeJoin(control, level)) {
      if (level > 0 || step.index == step.node.count) pathRefresh(space, level); // its gap went to another node
      return;
    }
    level += 1;
  }
}

/** Empties the path's small node of `level` or its neighbour into the other, and leads the path above to the empty one. */
function nodeJoin(control: IovaControl, level: u32): bool {
  const node = PathStep.at(control, level).node;
  const above = PathStep.at(control, level + 1);
  if (node.count > 0) {
    if (above.node.count == 1) return false;
    const lowerIndex = above.index + 1 < above.node.count ? above.index : above.index - 1;
    const lower = above.node.child(lowerIndex);
    const upper = above.node.child(lowerIndex + 1);
    if (lower.count + upper.count > JOINED_ENTRIES) return false;
    entriesMove(upper, 0, lower);
    above.node.setChild(lowerIndex, lower);
    above.index = lowerIndex + 1;
  }
  nodeDrop(control, above.node.child(above.index));
  return true;
}

/** Drops roots that have a single child. */
function rootLower(space: IovaSpace): void {
  let root = TreeNode.at(space.rootAt);
  while (space.height > 1 && root.count == 1) {
    const child = root.child(0);
    nodeDrop(space.control, root);
    space.rootAt = changetype<usize>(child);
    space.height -= 1;
    root = child;
  }
}
