// The path from the root of a domain's tree (iova-tree.ts) to one entry of a leaf.
//
//   level 2   root, index ──┐          pathSeek, pathLimit, pathNext, pathBack lead the path
//   level 1   node, index ◄─┘──┐       from the root down;
//   level 0   leaf, index ◄────┘       pathLower, pathRaise, pathRefresh renew its nodes upwards
//
// V3 (iova-node.ts) holds on the path again after lower, raise or refresh. The steps lie in the
// domain's IovaControl; a change of the tree's shape outside the path makes them worthless.

import { HIGH, LOW, PAGES, ROOM, TreeNode, laneFirst, laneLast, laneMax } from "./iova-node";
import { IovaControl, IovaSpace, PathStep } from "./iova-space";

/**
 * Leads the path to the first entry with high >= `pfn`, and returns its leaf (V2: there is one).
 */
export function pathSeek(space: IovaSpace, pfn: u32): TreeNode {
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

/**
 * Leads the path to the first entry with high >= `limit`. Mostly that is the anchor, and then
 * nothing is searched.
 */
export function pathLimit(space: IovaSpace, limit: u32): TreeNode {
  const control = space.control;
  let node = TreeNode.at(space.rootAt);
  for (let level = space.height - 1; level > 0; level--) {
    PathStep.at(control, level).set(node, node.count - 1);
    node = node.child(node.count - 1);
  }
  const anchor = node.count - 1;
  PathStep.at(control, 0).set(node, anchor);
  const hasGap = node.word(PAGES, anchor) != 0;
  return hasGap && limit >= node.gapStart(anchor) ? node : pathSeek(space, limit);
}

/** Leads the path to the entry after the one it is at, which is not the anchor. */
export function pathNext(control: IovaControl): void {
  let level: u32 = 0;
  while (PathStep.at(control, level).index + 1 == PathStep.at(control, level).node.count)
    level += 1;
  PathStep.at(control, level).index += 1;
  for (; level > 0; level--) {
    const step = PathStep.at(control, level);
    PathStep.at(control, level - 1).set(step.node.child(step.index), 0);
  }
}

/**
 * Leads the path to the last entry before it whose `lane` holds `pages` or more. False: there is
 * none.
 */
export function pathBack(space: IovaSpace, lane: usize, pages: u32): bool {
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
    step.set(node, <u32>laneLast(node, lane, node.count, pages)); // V3: the child has it
  }
  return true;
}

/**
 * Renews the nodes above the path's leaf, in which a gap with `pages` and `room` has shrunk (V3).
 */
export function pathLower(space: IovaSpace, pages: u32, room: u32): void {
  const control = space.control;
  for (let level: u32 = 1; level < space.height; level++) {
    const above = PathStep.at(control, level);
    const wasLongest = above.node.word(PAGES, above.index) == pages;
    const wasRoomiest = above.node.word(ROOM, above.index) == room;
    if (!wasLongest && !wasRoomiest) return;
    const child = PathStep.at(control, level - 1).node;
    if (wasLongest) above.node.setWord(PAGES, above.index, laneMax(child, PAGES));
    if (wasRoomiest) above.node.setWord(ROOM, above.index, laneMax(child, ROOM));
  }
}

/** Renews the nodes above the path's leaf, in which the gap of entry `i` has grown (V3). */
export function pathRaise(space: IovaSpace, leaf: TreeNode, i: u32): void {
  const control = space.control;
  const pages = leaf.word(PAGES, i);
  const room = leaf.word(ROOM, i);
  for (let level: u32 = 1; level < space.height; level++) {
    const above = PathStep.at(control, level);
    if (above.node.word(PAGES, above.index) >= pages && above.node.word(ROOM, above.index) >= room)
      return;
    above.node.setWord(PAGES, above.index, max(above.node.word(PAGES, above.index), pages));
    above.node.setWord(ROOM, above.index, max(above.node.word(ROOM, above.index), room));
  }
}

/** Renews the nodes above `level` of the path, whatever changed (V3). */
export function pathRefresh(space: IovaSpace, level: u32): void {
  const control = space.control;
  for (; level + 1 < space.height; level++) {
    const above = PathStep.at(control, level + 1);
    if (!above.node.setChild(above.index, PathStep.at(control, level).node)) return;
  }
}
