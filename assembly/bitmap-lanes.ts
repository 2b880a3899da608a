// The header of a bitmap block, and the bounds that tell a search which words can hold its run.
//
//   leaf      8 bytes for each word:  lane 0 │ 1 │ 2 │ 3 │ 4 │ 5 │ 6 │ spare
//   level 0   node = 128 bytes = the leaves of 16 words, word c at byte 16 * (c & 7) + (c & 8)
//   level n   node = 512 bytes = 16 nodes of level n - 1, each entry stored twice:
//
//             byte 0    ┌ row 0:  child 0 │ 1 │ … │ 15 ┐ 12 rows of 16 bytes, a byte for each
//                       └ row 11: child 0 │ 1 │ … │ 15 ┘ child: a search compares one row
//             byte 256  ┌ child 0:  row 0 │ 1 │ … │ 15 ┐ 16 children of 16 bytes, a byte for
//                       └ child 15: row 0 │ 1 │ … │ 15 ┘ each row: a free raises one child
//
// M4  Lane k of word w >= min(LANE_CAP, longest free run that begins in w at a multiple of 2^k).
// M5  Row r of a child >= min(LANE_CAP, each entry below it that row r speaks for): rows 0 to 6
//     for lanes 0 to 6 of all words; rows 8 to 11, orders 7 to 10, for lane 6 of words at
//     multiples of 2, 4, 8 and 16. Row 7 and rows 12 to 15 mean nothing.
// M6  Both copies of an entry are equal.
//
// A run belongs to the word in which it begins, even when it ends in a later one. So "is there a
// run?" is a plain maximum over words, no run straddles two nodes, and the leftmost hit is first.
// Each alignment has a lane, because a long run says nothing about where its aligned part starts.
//
// Bounds are upper bounds. Taking bits leaves them alone. Freeing raises them for the one run that
// it makes, level by level until a level does not change. A search that finds too little under a
// bound lowers it to the exact value. A take can spoil only the words it touches and three before,
// so searches repair what takes have spoilt and no more: the cost is O(log16 words), amortised.
//
// Lanes count to LANE_CAP and no further, so that they fit in bytes and that a freed bit is news
// for at most the three words before its own. Longer runs are measured by the search in bitmap.ts.
// A function is @inline where the call was measured to cost 2 % of an operation or more.

import { NONE, longestRun } from "./bits";

export const LANE_CAP: u32 = 192; // three words: lanes are exact below, and mean "or more" here
export const LANE_ORDER_MAX: u32 = 6; // the last order with a lane of its own
export const ROW_ORDER_MAX: u32 = 10; // the last order with a row of its own
export const SHIFT_MASK: u32 = (1 << ROW_ORDER_MAX) - 1;
export const HEADER_BYTES: usize = 128;

const LEVEL_COUNT: u32 = 6; // one node of the last level spans 16^6 words, or 2^30 positions
const LEAF_NODE_SHIFT: usize = 7;
const NODE_SHIFT: usize = 9;
const CHILDREN_AT: usize = 256; // where the second copy of a node begins

/** The header of a block. Callers pass its address, which is a multiple of 16. */
@unmanaged
export class Bitmap {
  bitCount: u32; // 1 to BIT_COUNT_MAX
  base: u32; // number of bit 0 where alignment is counted
  shift: u32; // position of bit 0: base modulo 1024, so that positions align as numbers do
  wordCount: u32; // words that hold positions [0, shift + bitCount)
  topLevel: u32; // the level that has one node
  groupCount: u32; // words of anyGroups
  words: usize; // u64 for each 64 positions, and the guard
  anyWords: usize; // bit for each word
  anyGroups: usize; // bit for each word of anyWords
  private level0: usize; // leaves
  private level1: usize; // 0 above topLevel, like all that follow
  private level2: usize;
  private level3: usize;
  private level4: usize;
  private level5: usize;
  private spare: u32;
  private stride0: u64; // bits at multiples of 2^k, for k from 0 to 6
  private stride1: u64;
  private stride2: u64;
  private stride3: u64;
  private stride4: u64;
  private stride5: u64;
  private stride6: u64;

  static at(address: usize): Bitmap {
    return changetype<Bitmap>(address);
  }

  wordAt(wordIndex: u32): usize {
    return this.words + ((<usize>wordIndex) << 3);
  }

  leafAt(wordIndex: u32): usize {
    const child = <usize>wordIndex & 15;
    return this.leafNodeAt(wordIndex >> 4) + ((child & 7) << 4) + (child & 8);
  }

  leafNodeAt(nodeIndex: u32): usize {
    return this.level0 + ((<usize>nodeIndex) << LEAF_NODE_SHIFT);
  }

  /** Address of a node of `level` >= 1. */
  nodeAt(level: u32, nodeIndex: u32): usize {
    assert(level != 0 && level <= this.topLevel); // such nodes exist
    const slot = changetype<usize>(this) + ((<usize>level) << 2);
    return load<usize>(slot, offsetof<Bitmap>("level0")) + ((<usize>nodeIndex) << NODE_SHIFT);
  }

  setLevelAt(level: u32, address: usize): void {
    const slot = changetype<usize>(this) + ((<usize>level) << 2);
    store<usize>(slot, address, offsetof<Bitmap>("level0"));
  }

  /** The bits of a word that lie at multiples of 2^order, for order <= 6. */
  stride(order: u32): u64 {
    return load<u64>(changetype<usize>(this) + ((<usize>order) << 3), offsetof<Bitmap>("stride0"));
  }

  setStride(order: u32, bits: u64): void {
    store<u64>(changetype<usize>(this) + ((<usize>order) << 3), bits, offsetof<Bitmap>("stride0"));
  }
}

// nodeAt() and stride() index the fields as arrays.
if (offsetof<Bitmap>() > HEADER_BYTES) ERROR("Bitmap is longer than HEADER_BYTES");
if (offsetof<Bitmap>("level5") != offsetof<Bitmap>("level0") + 20) ERROR("levels are no array");
if (offsetof<Bitmap>("stride6") != offsetof<Bitmap>("stride0") + 48) ERROR("strides are no array");

/** Bytes of the bounds for `wordCount` words. */
export function lanesBytes(wordCount: u32): usize {
  let nodeCount = (wordCount + 15) >> 4;
  let bytes = (<usize>nodeCount) << LEAF_NODE_SHIFT;
  while (nodeCount > 1) {
    nodeCount = (nodeCount + 15) >> 4;
    bytes += (<usize>nodeCount) << NODE_SHIFT;
  }
  return bytes;
}

/** Lays out the bounds over lanesBytes() zeros at `address`, which say that no word has a run. */
export function lanesInit(bitmap: Bitmap, address: usize): void {
  let nodeCount = (bitmap.wordCount + 15) >> 4;
  let level: u32 = 0;
  bitmap.setLevelAt(0, address);
  address += (<usize>nodeCount) << LEAF_NODE_SHIFT;
  while (nodeCount > 1) {
    nodeCount = (nodeCount + 15) >> 4;
    level += 1;
    bitmap.setLevelAt(level, address);
    address += (<usize>nodeCount) << NODE_SHIFT;
  }
  assert(level < LEVEL_COUNT); // bitCount <= BIT_COUNT_MAX
  bitmap.topLevel = level;

  let bits: u64 = 1;
  for (let order: u32 = LANE_ORDER_MAX; order > 0; order--) {
    bitmap.setStride(order, bits);
    bits |= bits << ((<u64>1) << (order - 1)); // twice as dense
  }
  bitmap.setStride(0, bits);
}

/** Free positions from the start of a word on; stops to count at `enough` or a little later. */
@inline export function freeFromWord(bitmap: Bitmap, wordIndex: u32, enough: u32): u32 {
  let address = bitmap.wordAt(wordIndex);
  let count: u32 = 0;
  while (count < enough) {
    const taken = ~load<u64>(address); // the guard ends the walk at the latest (M2)
    if (taken != 0) return count + <u32>ctz(taken);
    count += 64;
    address += 8;
  }
  return count;
}

// ---- Raising

/** Whether no run can raise the bounds of a word: each lane is LANE_CAP or more. */
@inline export function lanesAreFull(bitmap: Bitmap, wordIndex: u32): bool {
  const lanes = load<u64>(bitmap.leafAt(wordIndex));
  return (lanes & (lanes << 1) & 0x80808080808080) == 0x80808080808080; // 192 is two high bits
}

/** Whether no lane of a word is 0 that counts a run of one free bit at `bit`. */
@inline export function lanesHaveBit(bitmap: Bitmap, wordIndex: u32, bit: u32): bool {
  const counting = 0x01010101010101 >> ((6 - ctz(<u64>(bit | 64))) << 3);
  return (~load<u64>(bitmap.leafAt(wordIndex)) & counting) == 0; // if each of them is odd
}

/** Bounds learn that [bit, bitEnd), counted from the start of the word, is a free run; bit < 64. */
export function lanesRaise(bitmap: Bitmap, wordIndex: u32, bit: u32, bitEnd: u32): void {
  assert(bit < 64); // the run begins here
  assert(bitEnd > bit && bitEnd <= 255); // fits in a byte
  const strideMasks = i8x16(0, 1, 3, 7, 15, 31, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63);
  const bits = i8x16.splat(<i8>bit);
  const starts = v128.andnot(i8x16.add(bits, strideMasks), strideMasks); // rounded up to 2^lane
  const counts = v128.and(
    i8x16.sub_sat_u(i8x16.splat(<i8>bitEnd), starts),
    i8x16.lt_u(starts, i8x16.splat(64)), // what begins in the next word is told to that word
  );
  const leaf = bitmap.leafAt(wordIndex);
  const old = v128.load64_zero(leaf);
  const lanes = i8x16.max_u(counts, old);
  const low = <u64>i64x2.extract_lane(lanes, 0);
  if (low == <u64>i64x2.extract_lane(old, 0)) return; // M5 holds already
  store<u64>(leaf, low);

  const alignedOrderCount = min(ctz(wordIndex | 16), 4); // rows 8 to 11 that this word counts for
  const lane6 = ((low >> 48) & 255) * 0x01010101;
  const rows8To11 = lane6 & (((<u64>1) << (<u64>(alignedOrderCount << 3))) - 1);
  raiseAbove(bitmap, wordIndex >> 4, i64x2.replace_lane(lanes, 1, rows8To11));
}

/** Bounds learn that the words [wordIndex, wordIndexEnd) are free, and perhaps more behind them. */
export function lanesRaiseWords(bitmap: Bitmap, wordIndex: u32, wordIndexEnd: u32): void {
  while (wordIndex < wordIndexEnd) {
    store<u64>(bitmap.leafAt(wordIndex), -1); // too much for the last three: a search will see
    const isLastOfNode = (wordIndex & 15) == 15 || wordIndex + 1 == wordIndexEnd;
    if (isLastOfNode) raiseAbove(bitmap, wordIndex >> 4, i8x16.splat(-1));
    wordIndex += 1;
  }
}

/** Level 1 and up learn that a level 0 node has at least these rows. */
@inline function raiseAbove(bitmap: Bitmap, leafNodeIndex: u32, rows: v128): void {
  const topLevel = bitmap.topLevel;
  let entry = leafNodeIndex;
  for (let level: u32 = 1; level <= topLevel; level++) {
    const node = bitmap.nodeAt(level, entry >> 4);
    const column = node + (entry & 15);
    const child = node + ((<usize>(entry & 15)) << 4);
    const old = v128.load(child, CHILDREN_AT);
    const raised = i8x16.max_u(old, rows);
    if (!v128.any_true(v128.xor(old, raised))) return; // nor does a level above change (M5)
    v128.store(child, raised, CHILDREN_AT);
    v128.store_lane<u8>(column, raised, 0, 0 << 4); // the other copy, row by row (M6)
    v128.store_lane<u8>(column, raised, 1, 1 << 4);
    v128.store_lane<u8>(column, raised, 2, 2 << 4);
    v128.store_lane<u8>(column, raised, 3, 3 << 4);
    v128.store_lane<u8>(column, raised, 4, 4 << 4);
    v128.store_lane<u8>(column, raised, 5, 5 << 4);
    v128.store_lane<u8>(column, raised, 6, 6 << 4);
    v128.store_lane<u8>(column, raised, 8, 8 << 4);
    v128.store_lane<u8>(column, raised, 9, 9 << 4);
    v128.store_lane<u8>(column, raised, 10, 10 << 4);
    v128.store_lane<u8>(column, raised, 11, 11 << 4);
    entry >>= 4;
  }
}

// ---- Searching

/**
 * The first word >= `wordIndex` whose bound for `order` <= 10 promises `bound` positions, or NONE.
 * Climbs from the word to the first node with a promise to the right, then goes down to it. The
 * bound of a node that has turned out to hold no such word is lowered on the way.
 */
@inline export function lanesNext(
  bitmap: Bitmap,
  order: u32,
  bound: u32,
  wordIndex: u32,
): u32 {
  assert(wordIndex < bitmap.wordCount); // else the walk leaves the tree
  assert(bound != 0 && bound <= LANE_CAP); // entries that do not exist are 0
  const topLevel = bitmap.topLevel;
  const wanted = i8x16.splat(<i8>bound);
  const hasLane = order <= LANE_ORDER_MAX;
  const lane = hasLane ? order : LANE_ORDER_MAX;
  const row = hasLane ? order : order + 1;
  const alignedWords: u32 = hasLane ? 0xffff : <u32>bitmap.stride(order - LANE_ORDER_MAX) & 0xffff;

  let level = wordIndex == 0 ? topLevel : 0;
  let entry = wordIndex; // the first one of this level that is still in question
  while (true) {
    const nodeIndex = entry >> 4;
    const bounds =
      level == 0
        ? leafNodeRow(bitmap.leafNodeAt(nodeIndex), lane)
        : v128.load(bitmap.nodeAt(level, nodeIndex) + ((<usize>row) << 4));
    let hits = <u32>i8x16.bitmask(i8x16.ge_u(bounds, wanted));
    if (level == 0) hits &= alignedWords;
    const hitsFromEntry = (hits >> (entry & 15)) << (entry & 15);
    if (hitsFromEntry != 0) {
      entry = (nodeIndex << 4) | <u32>ctz(hitsFromEntry);
      if (level == 0) return entry;
      level -= 1;
      entry <<= 4;
      continue;
    }

    if (level == topLevel) return NONE;
    level += 1;
    if (hits == 0) {
      const highest = hasLane ? highestByte(bounds) : bound - 1; // words out of line do not count
      const parent = bitmap.nodeAt(level, nodeIndex >> 4);
      const child = <usize>nodeIndex & 15;
      store<u8>(parent + ((<usize>row) << 4) + child, highest);
      store<u8>(parent + (child << 4) + row, highest, CHILDREN_AT); // M6
    }
    entry = nodeIndex + 1;
    while ((entry & 15) == 0) {
      if (level == topLevel) return NONE;
      level += 1;
      entry >>= 4;
    }
  }
  return NONE;
}

/** One lane of the 16 words of a level 0 node, in the order of the words. */
function leafNodeRow(node: usize, lane: u32): v128 {
  return v128.or(
    v128.or(
      v128.or(leafPairByte(node, 0, lane), leafPairByte(node, 1, lane)),
      v128.or(leafPairByte(node, 2, lane), leafPairByte(node, 3, lane)),
    ),
    v128.or(
      v128.or(leafPairByte(node, 4, lane), leafPairByte(node, 5, lane)),
      v128.or(leafPairByte(node, 6, lane), leafPairByte(node, 7, lane)),
    ),
  );
}

/** One lane of words `child` and `child + 8`, each moved to the byte of its word. */
function leafPairByte(node: usize, child: i32, lane: u32): v128 {
  const leaves = v128.load(node + ((<usize>child) << 4));
  const bytes = v128.and(i64x2.shr_u(leaves, lane << 3), i64x2.splat(255));
  return i64x2.shl(bytes, child << 3);
}

function highestByte(bytes: v128): u32 {
  const upper8 = i64x2.shuffle(bytes, bytes, 1, 0);
  const of8 = i8x16.max_u(bytes, upper8);
  const upper4 = i32x4.shuffle(of8, of8, 1, 0, 3, 2);
  const of4 = i8x16.max_u(of8, upper4);
  const last = <u32>i32x4.extract_lane(of4, 0);
  return max(max(last & 255, (last >> 8) & 255), max((last >> 16) & 255, last >> 24));
}

// ---- Lowering

/** Puts the exact lanes of a word, after a bound has promised too much. */
export function lanesTighten(bitmap: Bitmap, wordIndex: u32): void {
  store<u64>(bitmap.leafAt(wordIndex), exactLanes(bitmap, wordIndex));
}

/**
 * Lowers the lanes of a word that has no free bit any more to 1: a search for a run passes it by,
 * and one free bit that comes back seldom has to raise them.
 */
@inline export function lanesCap(bitmap: Bitmap, wordIndex: u32): void {
  const leaf = bitmap.leafAt(wordIndex);
  v128.store64_lane(leaf, i8x16.min_u(v128.load64_zero(leaf), i8x16.splat(1)), 0);
}

function exactLanes(bitmap: Bitmap, wordIndex: u32): u64 {
  const free = load<u64>(bitmap.wordAt(wordIndex));
  const taken = ~free;
  if (free == 0) return 0;
  const behind = <i64>free < 0 ? freeFromWord(bitmap, wordIndex + 1, LANE_CAP) : 0;
  if (taken == 0) return <u64>min(64 + behind, 255) * 0x01010101010101;

  // of<n> marks the bits at which n or more ones begin.
  const of2 = free & (free >> 1);
  const of4 = of2 & (of2 >> 2);
  const of8 = of4 & (of4 >> 4);
  const of16 = of8 & (of8 >> 8);
  const of32 = of16 & (of16 >> 16);
  const run0 = longestRun(-1, free, of2, of4, of8, of16, of32);
  const run1 = longestRun(bitmap.stride(1), free, of2, of4, of8, of16, of32);
  const run2 = longestRun(bitmap.stride(2), free, of2, of4, of8, of16, of32);

  // From order 3 on there are so few places to begin at that each is measured on its own.
  const run6 = <u32>ctz(taken);
  const run5 = max(run6, min(<u32>ctz(taken >> 32), 32));
  const run4 = max(run5, max(min(<u32>ctz(taken >> 16), 48), min(<u32>ctz(taken >> 48), 16)));
  const run8Or24 = max(min(<u32>ctz(taken >> 8), 56), min(<u32>ctz(taken >> 24), 40));
  const run40Or56 = max(min(<u32>ctz(taken >> 40), 24), min(<u32>ctz(taken >> 56), 8));
  const run3 = max(run4, max(run8Or24, run40Or56));

  const suffix = <u32>clz(taken);
  return (
    withSuffix(run0, suffix, behind, 0) |
    (withSuffix(run1, suffix, behind, 1) << 8) |
    (withSuffix(run2, suffix, behind, 2) << 16) |
    (withSuffix(run3, suffix, behind, 3) << 24) |
    (withSuffix(run4, suffix, behind, 4) << 32) |
    (withSuffix(run5, suffix, behind, 5) << 40) |
    ((<u64>run6) << 48) // a run at the first bit ends in this word, which is not full
  );
}

/** `run`, or the aligned part of the word's `suffix` free end with the `behind` bits after it. */
function withSuffix(run: u32, suffix: u32, behind: u32, order: u32): u64 {
  const aligned = (suffix >> order) << order;
  return <u64>(aligned != 0 ? max(run, aligned + behind) : run);
}
