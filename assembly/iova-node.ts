// One node of the tree of ranges (iova-tree.ts): four lanes of words, searched and shifted by
// vectors.
//
//   node, 512 bytes   ├ head: 32 ┼ high[26] ┼ low[26] ┼ pages[26] ┼ room[26] ┤   + 4 words a lane
//   leaf entry          the range: high, low (inclusive)   of the gap below it: pages, room
//   inner entry         high: of the child's last entry    of the child's: the largest pages, room
//                       low: the child
//
// V3  `room` of a leaf entry is alignedRoom() of its gap; an inner entry repeats its child's last
//     `high`, and the largest `pages` and `room` in it.
// V4  A node has 1 to 26 entries, and the lanes hold zeros behind the last one: a vector may read
//     past it.
//
// A request of n pages at a multiple of P, the next power of two >= n, fits [gap, gapEnd) exactly
// when n <= alignedRoom(). Let c be the most aligned page of [gap, gapEnd]. No other page behind c
// is a multiple of any P >= n that still leaves n pages, and before c lie whole blocks: the request
// fits if gapEnd - c >= n, or c - gap >= P. With c - gap rounded down to a power of two, both are
// one comparison with n. So the largest room below a node says whether to search there.

export const NODE_ENTRIES: u32 = 26;

export const HIGH: usize = 32;
export const LOW: usize = 152;
export const PAGES: usize = 272;
export const ROOM: usize = 392;
export const LANE_BYTES: usize = 120;

@unmanaged
export class TreeNode {
  truth: u32; // 1: the record is in use (slab.ts)
  count: u32; // 1 .. NODE_ENTRIES; not while spare
  level: u32; // 0 = leaf
  nextAt: usize; // only while spare

  static at(address: usize): TreeNode {
    return changetype<TreeNode>(address);
  }

  word(lane: usize, i: u32): u32 {
    return load<u32>(changetype<usize>(this) + lane + ((<usize>i) << 2));
  }

  setWord(lane: usize, i: u32, value: u32): void {
    store<u32>(changetype<usize>(this) + lane + ((<usize>i) << 2), value);
  }

  child(i: u32): TreeNode {
    return TreeNode.at(<usize>this.word(LOW, i));
  }

  /** The first page of the gap below entry `i` of a leaf. */
  gapStart(i: u32): u32 {
    return this.word(LOW, i) - this.word(PAGES, i);
  }

  /** Writes entry `i` of a leaf, whose gap begins at `gap`. */
  setEntry(i: u32, low: u32, high: u32, gap: u32): void {
    this.setWord(HIGH, i, high);
    this.setWord(LOW, i, low);
    this.setGap(i, gap);
  }

  /** The gap below entry `i` of a leaf begins at `gap` from now on. */
  setGap(i: u32, gap: u32): void {
    const low = this.word(LOW, i);
    this.setWord(PAGES, i, low - gap);
    this.setWord(ROOM, i, alignedRoom(gap, low));
  }

  /** Writes entry `i` of an inner node: what `child` says now. False if it said the same before. */
  setChild(i: u32, child: TreeNode): bool {
    const high = child.word(HIGH, child.count - 1);
    const pages = laneMax(child, PAGES);
    const room = laneMax(child, ROOM);
    const isSame =
      this.word(HIGH, i) == high && this.word(PAGES, i) == pages && this.word(ROOM, i) == room;
    this.setWord(HIGH, i, high);
    this.setWord(LOW, i, <u32>changetype<usize>(child));
    this.setWord(PAGES, i, pages);
    this.setWord(ROOM, i, room);
    return !isSame;
  }
}

if (HIGH + 4 * LANE_BYTES != 512 || ROOM + LANE_BYTES != 512)
  ERROR("the lanes do not fill the node");
if (offsetof<TreeNode>() > HIGH) ERROR("the head of a node reaches into its lanes");

/** The largest n of which an aligned request fits [gap, gapEnd); gapEnd = 0 stands for 2^32. */
export function alignedRoom(gap: u32, gapEnd: u32): u32 {
  if (gap == gapEnd) return 0;
  const start = <u64>gap;
  const end = start + <u64>(gapEnd - gap);
  const order = 63 - clz<u64>((start - 1) ^ end);
  const center = (end >> order) << order; // the most aligned page of [gap, gapEnd]
  const before = center - start;
  const wholeBlock = before == 0 ? 0 : (<u64>1) << (63 - clz<u64>(before));
  return <u32>max(wholeBlock, end - center);
}

// ---- lanes

/** Bit i = word i is >= `value` > 0; the zeros behind the last entry never are (V4). */
function laneMask(node: TreeNode, lane: usize, value: u32): u32 {
  const at = changetype<usize>(node) + lane;
  const values = i32x4.splat(value);
  const a = i32x4.ge_u(v128.load(at), values);
  const b = i32x4.ge_u(v128.load(at, 16), values);
  const c = i32x4.ge_u(v128.load(at, 32), values);
  const d = i32x4.ge_u(v128.load(at, 48), values);
  const e = i32x4.ge_u(v128.load(at, 64), values);
  const f = i32x4.ge_u(v128.load(at, 80), values);
  const g = i32x4.ge_u(v128.load(at, 96), values);
  const abcd = i8x16.narrow_i16x8_s(i16x8.narrow_i32x4_s(a, b), i16x8.narrow_i32x4_s(c, d));
  const efg = i8x16.narrow_i16x8_s(i16x8.narrow_i32x4_s(e, f), i16x8.narrow_i32x4_s(g, g));
  return <u32>(i8x16.bitmask(abcd) | (i8x16.bitmask(efg) << 16)) & 0x0fffffff;
}

/** The index of the first word >= `value` > 0 in a lane that has one. */
export function laneFirst(node: TreeNode, lane: usize, value: u32): u32 {
  return <u32>ctz(laneMask(node, lane, value));
}

/** The index of the last word >= `value` > 0 among the first `count`, or -1. */
export function laneLast(node: TreeNode, lane: usize, count: u32, value: u32): i32 {
  return 31 - clz<i32>(laneMask(node, lane, value) & ((1 << count) - 1));
}

export function laneMax(node: TreeNode, lane: usize): u32 {
  const at = changetype<usize>(node) + lane;
  let top = i32x4.max_u(v128.load(at), v128.load(at, 16));
  let other = i32x4.max_u(v128.load(at, 32), v128.load(at, 48));
  top = i32x4.max_u(top, v128.load(at, 64));
  other = i32x4.max_u(other, v128.load(at, 80));
  top = i32x4.max_u(i32x4.max_u(top, other), v128.load(at, 96));
  top = i32x4.max_u(top, v128.shuffle<i32>(top, top, 2, 3, 0, 1));
  top = i32x4.max_u(top, v128.shuffle<i32>(top, top, 1, 0, 3, 2));
  return <u32>i32x4.extract_lane(top, 0);
}

/** Opens a place at entry `i` of a node that is not full. */
export function entriesOpen(node: TreeNode, i: u32): void {
  const at = changetype<usize>(node);
  const first = at + ((<usize>i) << 2);
  let from = first + ((((<usize>(node.count - i)) << 2) - 4) & ~15);
  node.count += 1;
  for (; from >= first; from -= 16) {
    v128.store(from + 4, v128.load(from, HIGH), HIGH);
    v128.store(from + 4, v128.load(from, LOW), LOW);
    v128.store(from + 4, v128.load(from, PAGES), PAGES);
    v128.store(from + 4, v128.load(from, ROOM), ROOM);
  }
}

/** Takes entry `i` out of its node. */
export function entriesClose(node: TreeNode, i: u32): void {
  const at = changetype<usize>(node);
  const end = at + ((<usize>node.count) << 2);
  node.count -= 1;
  for (let to = at + ((<usize>i) << 2); to < end; to += 16) {
    v128.store(to, v128.load(to + 4, HIGH), HIGH);
    v128.store(to, v128.load(to + 4, LOW), LOW);
    v128.store(to, v128.load(to + 4, PAGES), PAGES);
    v128.store(to, v128.load(to + 4, ROOM), ROOM); // V4: zeros follow
  }
}

/** Moves the entries of `from` behind `keep` to the end of `to`. */
export function entriesMove(from: TreeNode, keep: u32, to: TreeNode): void {
  const zero = i64x2.splat(0);
  for (let lane = HIGH; lane <= ROOM; lane += LANE_BYTES) {
    const end = changetype<usize>(from) + lane + ((<usize>from.count) << 2);
    let target = changetype<usize>(to) + lane + ((<usize>to.count) << 2);
    for (
      let source = changetype<usize>(from) + lane + ((<usize>keep) << 2);
      source < end;
      source += 16
    ) {
      v128.store(target, v128.load(source));
      v128.store(source, zero); // V4
      target += 16;
    }
  }
  to.count += from.count - keep;
  from.count = keep;
}
