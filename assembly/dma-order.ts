// Which segment of a mapping holds a device address.
//
//   behind an IOMMU   the segments ascend: their pages were laid out in that order
//   direct            device pages are frames: they lie in any order, and may share bytes
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
//     holds the address. Where segments share bytes, such a mapping is never ordered.
//
// Ranks lie above the bits of an offset, so that they need no memory of their own. They are made
// when a mapping has been walked as often as pays, under the lock of the device, and go with the
// mapping; a thread that dies meanwhile leaves it without.

import { CACHED, Mapping } from "./dma-device";
import { FRAME_MASK, FRAME_SHIFT } from "./layout";
import { ENTRIES_MAX, ENTRY_SHIFT, SgEntry } from "./sg-entries";

const WALKED_MAX: u32 = 16; // segments that a walk finds as fast
const INDEX_MASK: u32 = ENTRIES_MAX - 1;
const MISS: u32 = ENTRIES_MAX;
const ORDERED: u32 = 16 * MISS;
const OVERLAID: u32 = ORDERED + MISS; // D11

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
  const at = mapping.segmentsAt;
  if (mapping.iovaPfn != 0) return segmentBisect(at, mapping.nents, address, false);
  if ((mapping.attrs & CACHED) != 0) return segmentFindSlow(mapping, 0, address); // D11
  let i = mapping.pageCount & INDEX_MASK;
  let found = changetype<usize>(SgEntry.at(at, i));
  if (holds(SgEntry.at(found, 0), address)) return found;
  i = i + 1 < mapping.nents ? i + 1 : 0;
  found = changetype<usize>(SgEntry.at(at, i));
  if (!holds(SgEntry.at(found, 0), address)) {
    found = segmentFindSlow(mapping, i, address);
    if (found == 0) return 0;
    i = <u32>((found - at) >> ENTRY_SHIFT);
  }
  mapping.pageCount = (mapping.pageCount & ~INDEX_MASK) | i;
  return found;
}

/** The same in a direct mapping: by ranks, or while it has none a walk from segment `i` on. */
function segmentFindSlow(mapping: Mapping, i: u32, address: u64): usize {
  const at = mapping.segmentsAt;
  const count = mapping.nents;
  if (count > WALKED_MAX && mapping.pageCount < ORDERED) {
    const state = mapping.pageCount + MISS;
    const isOverlaid =
      state >= ORDERED && !segmentsRank(at, count) && (mapping.attrs & CACHED) != 0;
    mapping.pageCount = isOverlaid ? OVERLAID : state;
  }
  if (mapping.pageCount - ORDERED < MISS) return segmentBisect(at, count, address, true);
  for (let left = count; left > 0; left--) {
    const segment = SgEntry.at(at, i);
    if (holds(segment, address)) return changetype<usize>(segment);
    i = i + 1 < count ? i + 1 : 0;
  }
  return 0;
}

/** The same in segments that ascend, as they lie or by their ranks (D10). */
function segmentBisect(at: usize, count: u32, address: u64, isRanked: bool): usize {
  let low: u32 = 0;
  while (count > 1) {
    const half = count >> 1;
    const middle = low + half;
    if (keyOf(at, isRanked ? rankedAt(at, middle) : middle) >> KEY_SHIFT <= address) low = middle;
    count -= half;
  }
  const segment = SgEntry.at(at, isRanked ? rankedAt(at, low) : low);
  return holds(segment, address) ? changetype<usize>(segment) : 0;
}

// ---- ranks

const KEY_SHIFT: u64 = 32 - FRAME_SHIFT;

/** What segments are ordered by: the device address, and below it which segment it is. */
function keyOf(at: usize, i: u32): u64 {
  const segment = SgEntry.at(at, i);
  return ((<u64>segment.pfn) << 32) | ((segment.offset << (32 - FRAME_SHIFT)) | i);
}

/** The segment of a rank. */
function rankedAt(at: usize, rank: u32): u32 {
  return SgEntry.at(at, rank).offset >> FRAME_SHIFT;
}

/** The key of the segment of a rank. */
function keyAtSlow(at: usize, rank: u32): u64 {
  return keyOf(at, rankedAt(at, rank));
}

/** Gives a rank to the segment of a key. */
function rankSetSlow(at: usize, rank: u32, key: u64): void {
  const segment = SgEntry.at(at, rank);
  segment.offset = (segment.offset & FRAME_MASK) | ((<u32>key) << FRAME_SHIFT);
}

/** Gives the segments their ranks (D10). Whether no two share bytes. */
function segmentsRank(at: usize, count: u32): bool {
  for (let i: u32 = 0; i < count; i++) rankSetSlow(at, i, i);
  heapSort(at, count);
  let isApart = true;
  let last: u64 = 0;
  let end: u64 = 0;
  for (let rank: u32 = 0; rank < count; rank++) {
    const key = keyAtSlow(at, rank);
    const start = key >> KEY_SHIFT;
    const bytes = SgEntry.at(at, rankedAt(at, rank)).length;
    if (start < end) isApart = false;
    if (start + bytes > end) {
      end = start + bytes;
      last = key;
    } else {
      rankSetSlow(at, rank, last);
    }
  }
  return isApart;
}

/** Sorts the ranks by their keys: as a heap whose largest goes behind it, one after the other. */
function heapSort(at: usize, count: u32): void {
  let first = count >> 1; // what is not yet in the heap, which is made from its end
  while (count > 1) {
    let moved: u64;
    if (first > 0) {
      moved = keyAtSlow(at, --first);
    } else {
      moved = keyAtSlow(at, --count);
      rankSetSlow(at, count, keyAtSlow(at, 0));
    }
    let hole = first;
    for (let child: u32 = 2 * hole + 1; child < count; child = 2 * hole + 1) {
      if (child + 1 < count && keyAtSlow(at, child) < keyAtSlow(at, child + 1)) child += 1;
      const larger = keyAtSlow(at, child);
      if (larger <= moved) break;
      rankSetSlow(at, hole, larger);
      hole = child;
    }
    rankSetSlow(at, hole, moved);
  }
}
