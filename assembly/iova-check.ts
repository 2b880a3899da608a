// The walker of a domain's device addresses: derives every number again, and says which invariant
// is broken.
//
//   leaves, left to right     V1 V2 V3 V4: the cursor is where the next gap begins
//   blocks, lists, recent     V5 V6 V7 V11 V14
//   all together              V8 V9
//
// It changes nothing but what iovaFind last returned, where its cursor lies, and the path.
//
// Costs O(entries + blocks). The invariants stand at the head of the file that keeps them.

import {
  HIGH,
  LANE_BYTES,
  LOW,
  NODE_ENTRIES,
  PAGES,
  ROOM,
  TreeNode,
  alignedRoom,
  laneMax,
} from "./iova-node";
import { pathSeek } from "./iova-path";
import { IovaBlock, OPEN, blockPages } from "./iova-slots";
import { EXACT_CLASSES, IovaControl, IovaSpace, PathStep, SIZE_CLASSES } from "./iova-space";
import {
  PLACES,
  PLACE_SHIFT,
  blockNear,
  blockPlace,
  placedBlock,
  placesAgree,
  placesNamed,
} from "./iova-table";
import { MAX_PFN } from "./iova-tree";

const V1: u32 = 8601;
const V2: u32 = 8602;
const V3: u32 = 8603;
const V4: u32 = 8604;
const V5: u32 = 8605;
const V6: u32 = 8606;
const V7: u32 = 8607;
const V8: u32 = 8608;
const V9: u32 = 8609;
const V11: u32 = 8611;
const V14: u32 = 8614;

@unmanaged
class Cursor {
  gap: u32; // where the next gap begins; 0 = 2^32
  entries: u32; // leaf entries seen

  static of(space: IovaSpace): Cursor {
    return changetype<Cursor>(space.foundAt);
  }
}

/** 0, or the number of the first invariant that the space at `spaceAt` breaks. */
export function iovaCheck(spaceAt: usize): u32 {
  const space = IovaSpace.at(spaceAt);
  const cursor = Cursor.of(space);
  cursor.gap = space.control.startPfn;
  cursor.entries = 0;
  let broken = nodeCheck(TreeNode.at(space.rootAt), space.height - 1, true, cursor);
  if (broken != 0) return broken;
  const entries = cursor.entries;
  broken = blocksCheck(space);
  if (broken != 0) return broken;
  if (entries - 1 - space.control.blockCount + usedSlots(space) != space.rangeCount)
    return V8;
  return sparesCheck(space.control);
}

/** The nodes at and below `node`, which must be of `level`; `isLast` on the way to the anchor. */
function nodeCheck(node: TreeNode, level: u32, isLast: bool, cursor: Cursor): u32 {
  if (node.truth != 1 || node.level != level || node.count == 0 || node.count > NODE_ENTRIES)
    return V4;
  for (let i = node.count; i < <u32>LANE_BYTES >> 2; i++) {
    if ((node.word(HIGH, i) | node.word(LOW, i) | node.word(PAGES, i) | node.word(ROOM, i)) != 0)
      return V4;
  }
  for (let i: u32 = 0; i < node.count; i++) {
    const isEnd = isLast && i + 1 == node.count;
    const broken =
      level == 0 ? entryCheck(node, i, isEnd, cursor) : childCheck(node, i, isEnd, cursor);
    if (broken != 0) return broken;
  }
  return 0;
}

function entryCheck(leaf: TreeNode, i: u32, isAnchor: bool, cursor: Cursor): u32 {
  const low = leaf.word(LOW, i);
  const high = leaf.word(HIGH, i);
  if (isAnchor) {
    if (low != 0 || high != MAX_PFN) return V2;
  } else if (cursor.gap == 0 || low < cursor.gap || high < low) {
    return V1;
  }
  if (leaf.word(PAGES, i) != low - cursor.gap) return V1;
  if (leaf.word(ROOM, i) != alignedRoom(cursor.gap, low)) return V3;
  cursor.gap = high + 1;
  cursor.entries += 1;
  return 0;
}

function childCheck(node: TreeNode, i: u32, isLast: bool, cursor: Cursor): u32 {
  const child = node.child(i);
  const broken = nodeCheck(child, node.level - 1, isLast, cursor);
  if (broken != 0) return broken;
  if (node.word(HIGH, i) != child.word(HIGH, child.count - 1)) return V3;
  return node.word(PAGES, i) == laneMax(child, PAGES) && node.word(ROOM, i) == laneMax(child, ROOM)
    ? 0
    : V3;
}

// ---- blocks

function blocksCheck(space: IovaSpace): u32 {
  let count: u32 = 0;
  let listed: u32 = 0;
  let places: u32 = 0;
  for (let place = blockPlace(space, 0); place < PLACES; place = blockPlace(space, place + 1)) {
    const block = placedBlock(space, place);
    if (!placesAgree(space, block) || !entryAgrees(space, block)) return V5;
    if (!slotsAgree(block)) return V6;
    if (block.lastSingle != lastSingleOf(block)) return V14;
    count += 1;
    if (block.isListed) listed += 1;
    places += blockPages(block.sizeShift) >> PLACE_SHIFT;
  }
  if (count != space.control.blockCount || places != placesNamed(space)) return V5;
  for (let sizeShift: u32 = 0; sizeShift < SIZE_CLASSES; sizeShift++) {
    const length = listCheck(space.control, sizeShift);
    if (length < 0) return V7;
    listed -= <u32>length;
  }
  return listed == 0 ? recentsCheck(space) : V7;
}

/** Whether an entry of the tree covers just the slots of a block. */
function entryAgrees(space: IovaSpace, block: IovaBlock): bool {
  const leaf = pathSeek(space, block.base);
  const i = PathStep.at(space.control, 0).index;
  return leaf.word(LOW, i) == block.base && leaf.word(HIGH, i) == block.slotPfn(block.end) - 1;
}

/** Whether `live` and wordMask say what the bits do, and all ranges fill more than half a slot. */
function slotsAgree(block: IovaBlock): bool {
  const slots = blockPages(block.sizeShift) >> block.sizeShift;
  let live: u32 = 0;
  for (let slot: u32 = 0; slot < block.end; slot++) {
    if (!block.isTaken(slot)) continue;
    const pages = block.pageCount(slot);
    if (pages > block.slotPages || pages << 1 <= block.slotPages) return false;
    live += 1;
  }
  if (live != block.live) return false;
  for (let w: u32 = 0; w << 6 < slots; w++) {
    if ((block.free(w) != 0) != (((block.wordMask >> w) & 1) != 0)) return false;
  }
  return block.state != OPEN || block.end == slots;
}

function lastSingleOf(block: IovaBlock): u32 {
  const isSingles = block.state == OPEN && block.sizeShift == 0;
  return isSingles ? block.base + block.end - 1 : 0;
}

/** The length of the list of one class, or -1 when a block has no place there. */
function listCheck(control: IovaControl, sizeShift: u32): i32 {
  let length: i32 = 0;
  let emptyCount: u32 = 0;
  let previousAt: usize = 0;
  for (let at = control.partial(sizeShift); at != 0; at = IovaBlock.at(at).nextAt) {
    const block = IovaBlock.at(at);
    if (!block.isListed || block.sizeShift != sizeShift || block.prevAt != previousAt) return -1;
    if (block.live == 0) emptyCount += 1;
    previousAt = at;
    length += 1;
  }
  return emptyCount <= 1 ? length : -1;
}

function recentsCheck(space: IovaSpace): u32 {
  for (let sizeShift: u32 = 0; sizeShift < EXACT_CLASSES; sizeShift++) {
    const pfn = space.recent(sizeShift);
    if (pfn == 0) continue;
    const block = blockNear(space, pfn);
    const slot = block.slotOver(pfn);
    if (slot >= block.end || block.slotPfn(slot) != pfn || !block.isTaken(slot)) return V11;
    if (block.state != OPEN || block.sizeShift != sizeShift) return V11;
  }
  return 0;
}

function usedSlots(space: IovaSpace): u32 {
  let live: u32 = 0;
  for (let place = blockPlace(space, 0); place < PLACES; place = blockPlace(space, place + 1))
    live += placedBlock(space, place).live;
  return live;
}

function sparesCheck(control: IovaControl): u32 {
  let length: u32 = 0;
  for (let at = control.spareAt; at != 0; at = TreeNode.at(at).nextAt) {
    if (TreeNode.at(at).truth != 1) return V9;
    length += 1;
  }
  return length == control.spareCount ? 0 : V9;
}
