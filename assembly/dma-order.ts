// Which segment of a mapping holds a device address.
//
//   segment   0      1      2      3          offset     ├──── rank: 20 bits ────┼ bytes: 12 ┤
//   page      900    300    700    100        pageCount  ├─ misses: 14 bits ─┼ index: 18 bits ┤
//   rank      3      1      2      0     ─► in the order of addresses
//
// D10 pageCount of a direct mapping: the segment of the last access, and above it how often the
//     next one was neither that nor the one behind it. Once that is ORDERED, rank p is the segment
//     that ends last of the p + 1 that begin first: the last rank that begins at or below an
//     address holds it, or none does.
// D11 With a simulated cache the segment says which byte of the shadow is meant: the first that
//     holds the address, so that such mappings are walked. The shadow costs far more.
//
// The pages of a direct mapping are frames, which lie in any order, and segments may share bytes.
// Ranks lie above the bits of an offset, so that they need no memory of their own. They are made
// when a mapping has been walked as often as pays, under the lock of the device, and go with the
// mapping; a thread that dies meanwhile leaves it without.

import { CACHED, Mapping } from "./dma-device";
import { FRAME_MASK, FRAME_SHIFT } from "./layout";
import { ENTRIES_MAX, SgEntry } from "./sg-entries";

const WALKED_MAX: u32 = 16; // segments that a walk finds as fast
const INDEX_MASK: u32 = ENTRIES_MAX - 1;
const MISS: u32 = ENTRIES_MAX;
const ORDERED: u32 = 16 * MISS;

if (ENTRIES_MAX > (<u32>1) << (32 - FRAME_SHIFT)) ERROR("a rank does not fit above an offset");

/** Bytes from the segment's start to a device address; huge when that lies below it. */
@inline export function intoSegment(segment: SgEntry, address: u64): u64 {
  return address - (((<u64>segment.pfn) << FRAME_SHIFT) | (segment.offset & FRAME_MASK));
}

@inline function holds(segment: SgEntry, address: u64): bool {
  return intoSegment(segment, address) < <u64>segment.length;
}

/**
 * The address of the segment of a mapping that holds a device address; 0 = none. The caller has
 * locked the device. Devices go on from where they were: that and the next are looked at first.
 */
export function segmentFind(mapping: Mapping, address: u64): usize {
  if (mapping.iovaPfn != 0 || (mapping.attrs & CACHED) != 0)
    return segmentFindSlow(mapping, mapping.nents - 1, address, false); // D11
  const i = mapping.pageCount & INDEX_MASK;
  let segment = SgEntry.at(mapping.segmentsAt, i);
  if (holds(segment, address)) return changetype<usize>(segment);
  segment = SgEntry.at(changetype<usize>(segment), 1);
  if (i + 1 == mapping.nents || !holds(segment, address))
    return segmentFindSlow(mapping, i, address, true);
  mapping.pageCount += 1;
  return changetype<usize>(segment);
}

/** The same in any segment, from behind `i` on; `isDirect`: that is remembered, and ordered. */
function segmentFindSlow(mapping: Mapping, i: u32, address: u64, isDirect: bool): usize {
  const at = mapping.segmentsAt;
  const count = mapping.nents;
  let left = count;
  if (isDirect && count > WALKED_MAX && isOrdered(mapping)) {
    i = segmentBisect(at, count, address) - 1;
    left = 1;
  }
  for (; left > 0; left--) {
    i = i + 1 < count ? i + 1 : 0;
    const segment = SgEntry.at(at, i);
    if (!holds(segment, address)) continue;
    if (isDirect) mapping.pageCount = (mapping.pageCount & ~INDEX_MASK) | i;
    return changetype<usize>(segment);
  }
  return 0;
}

/** Whether a mapping has ranks, when once more neither the last segment nor the next was meant. */
function isOrdered(mapping: Mapping): bool {
  if (mapping.pageCount < ORDERED) {
    if (mapping.pageCount >= ORDERED - MISS) segmentsRank(mapping.segmentsAt, mapping.nents);
    mapping.pageCount += MISS;
  }
  return mapping.pageCount >= ORDERED;
}

/** The segment of the last rank that begins at or below an address; of the first if none does. */
function segmentBisect(at: usize, count: u32, address: u64): u32 {
  let low: u32 = 0;
  while (count > 1) {
    const half = count >> 1;
    if (keyAtSlow(at, low + half) >> KEY_SHIFT <= address) low += half;
    count -= half;
  }
  return rankedAt(at, low);
}

// ---- ranks

const KEY_SHIFT: u64 = 32 - FRAME_SHIFT;

/** The segment of a rank. */
function rankedAt(at: usize, rank: u32): u32 {
  return SgEntry.at(at, rank).offset >> FRAME_SHIFT;
}

/** What ranks are given by: the device address of a rank's segment, and below it which that is. */
function keyAtSlow(at: usize, rank: u32): u64 {
  const i = rankedAt(at, rank);
  const segment = SgEntry.at(at, i);
  return ((<u64>segment.pfn) << 32) | ((segment.offset << (32 - FRAME_SHIFT)) | i);
}

/** Gives a rank to the segment of a key. */
function rankSetSlow(at: usize, rank: u32, key: u64): void {
  const segment = SgEntry.at(at, rank);
  segment.offset = (segment.offset & FRAME_MASK) | ((<u32>key) << FRAME_SHIFT);
}

/** Gives the segments their ranks (D10). */
function segmentsRank(at: usize, count: u32): void {
  for (let i: u32 = 0; i < count; i++) rankSetSlow(at, i, i);
  ranksSort(at, count);
  let last: u64 = 0;
  let end: u64 = 0;
  for (let rank: u32 = 0; rank < count; rank++) {
    const key = keyAtSlow(at, rank);
    const keyEnd = (key >> KEY_SHIFT) + SgEntry.at(at, <u32>key & INDEX_MASK).length;
    if (keyEnd > end) {
      end = keyEnd;
      last = key;
    }
    rankSetSlow(at, rank, last);
  }
}

/** Sorts the ranks by their keys: a Shell sort, whose odd gaps bound it by O(count ^ 1.5). */
function ranksSort(at: usize, count: u32): void {
  for (let gap = count; gap > 1; ) {
    gap = (gap >> 1) | 1;
    for (let i = gap; i < count; i++) {
      const key = keyAtSlow(at, i);
      let hole = i;
      for (; hole >= gap; hole -= gap) {
        const before = keyAtSlow(at, hole - gap);
        if (before < key) break;
        rankSetSlow(at, hole, before);
      }
      rankSetSlow(at, hole, key);
    }
  }
}
