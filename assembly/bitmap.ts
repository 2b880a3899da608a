// A set of free bits that finds the lowest aligned run of them without a scan.
//
//   at ┬ header ┬ words ┬ guard ┬ anyWords ┬ anyGroups ┬ level 0 ┬ level 1 ┬ ┄ top level ┤
//      0       128      └ 0     └ a bit    └ a bit for └ bounds on the free runs that begin
//                               for each     each word   in each word, see bitmap-lanes.ts
//                               word         of anyWords
//
//   position 0                  shift                                shift + bitCount
//            ├ always taken ────┼ bit 0 … bit bitCount - 1 ──────────┤ taken to the word's end
//
// M1  The header holds what bitmapInit() computes from the address, bitCount and base.
// M2  In a word 1 = free. Positions outside [shift, shift + bitCount) and the guard are 0.
// M3  Bit w of anyWords = (word w != 0). Bit g of anyGroups = (word g of anyWords != 0).
// M4 to M6  Bounds are never too low, and their copies agree: see bitmap-lanes.ts.
//
// Bits are what the caller counts; positions are bits moved up by shift = base modulo 1024. So
// position 0 is aligned to 1024 in the caller's numbering, and for orders up to 10 the alignment
// of a position is a matter of the position alone. The functions below `bitmap*` speak positions.
//
// The answer is that of the kernel's bitmap_find_next_zero_area_off(), which scans. Here
//   one bit, order 0      follows anyGroups, anyWords and its word: exact, no bounds;
//   orders up to 10       goes from one promising word to the next: O(log16 words) amortised;
//   orders above 10       tries the aligned positions: bitCount / 2048 of them or fewer.
// Memory: 2.3 bits for each bit. The caller holds the lock of the block.
//
// Known limit: bounds count to LANE_CAP. A request of more bits measures each free run of at least
// that length below its answer, a few ns for each.

import { bitmapCheck } from "./bitmap-check";
import {
  Bitmap,
  HEADER_BYTES,
  LANE_CAP,
  LANE_ORDER_MAX,
  ROW_ORDER_MAX,
  SHIFT_MASK,
  freeFromWord,
  lanesBytes,
  lanesInit,
  lanesNext,
  lanesRaise,
  lanesRaiseWords,
  lanesTighten,
} from "./bitmap-lanes";
import { firstFreeWord, raiseAround, wordFree, wordTake } from "./bitmap-words";
import { NONE, alignUp, lowBits, runStarts } from "./bits";

export { bitmapCheck } from "./bitmap-check";

const BIT_COUNT_MAX: u32 = (1 << 30) - 1024; // what six levels span, less the largest shift
const NEARBY_WORDS: u32 = 8; // words a long request tries by itself before it asks the bounds

/** Bytes of a block for `bitCount` bits of which the first has number `base`. */
export function bitmapBytes(bitCount: u32, base: u32): usize {
  assert(bitCount <= BIT_COUNT_MAX); // levels and u32 suffice
  const wordCount = wordCountFor(bitCount, base & SHIFT_MASK);
  return lanesOffset(wordCount) + lanesBytes(wordCount);
}

/** Makes a block of bitmapBytes() bytes at `at`, a multiple of 16. All its bits are taken. */
export function bitmapInit(at: usize, bitCount: u32, base: u32): void {
  assert((at & 15) == 0); // for vectors and the offsets
  memory.fill(at, 0, bitmapBytes(bitCount, base)); // M2, M3, M4, M5 and M6 hold for all zeros

  const bitmap = Bitmap.at(at);
  bitmap.bitCount = bitCount;
  bitmap.base = base;
  bitmap.shift = base & SHIFT_MASK;
  bitmap.wordCount = wordCountFor(bitCount, bitmap.shift);
  bitmap.groupCount = (bitmap.wordCount + 4095) >> 12;
  bitmap.words = at + HEADER_BYTES;
  bitmap.anyWords = bitmap.wordAt(bitmap.wordCount + 1);
  bitmap.anyGroups = bitmap.anyWords + ((<usize>((bitmap.wordCount + 63) >> 6)) << 3);
  lanesInit(bitmap, at + lanesOffset(bitmap.wordCount));
}

function wordCountFor(bitCount: u32, shift: u32): u32 {
  return (shift + bitCount + 63) >> 6;
}

/** Where the bounds begin: behind the header, the words, the guard, anyWords and anyGroups. */
function lanesOffset(wordCount: u32): usize {
  const u64Count = wordCount + 1 + ((wordCount + 63) >> 6) + ((wordCount + 4095) >> 12);
  return alignUp(HEADER_BYTES + ((<usize>u64Count) << 3), 16);
}

// ---- Allocating

/**
 * Takes the lowest run [i, i + count) of free bits with base + i a multiple of 2^alignOrder, and
 * returns i. Returns NONE when there is no such run, and for a count of 0. `alignOrder` < 32.
 */
@inline export function bitmapAlloc(at: usize, count: u32, alignOrder: u32): u32 {
  const bitmap = Bitmap.at(at);
  assert(alignOrder < 32); // 2^alignOrder fits
  if (count - 1 >= bitmap.bitCount) return NONE; // 0 wraps and is refused, too

  if (count > 64 || alignOrder > LANE_ORDER_MAX) return allocFar(bitmap, count, alignOrder);
  const wordIndex = firstFreeWord(bitmap);
  if (wordIndex == NONE) return NONE;
  const word = load<u64>(bitmap.wordAt(wordIndex));
  let starts: u64 = 1; // of a word that is all free
  if (~word != 0) starts = runStarts(word, count) & bitmap.stride(alignOrder);
  if (starts == 0) return allocFar(bitmap, count, alignOrder);
  const bit = <u32>ctz(starts);
  wordTake(bitmap, wordIndex, word, word & ~(lowBits(count) << bit));
  return ((wordIndex << 6) | bit) - bitmap.shift;
}

/** bitmapAlloc() for a run that is not in the first word with a free bit. */
function allocFar(bitmap: Bitmap, count: u32, alignOrder: u32): u32 {
  let position: u32;
  if (alignOrder <= ROW_ORDER_MAX) {
    position = findRun(bitmap, count, alignOrder);
  } else {
    const alignMask = ((<u32>1) << alignOrder) - 1;
    position = findByScan(bitmap, bitmap.shift, count, alignMask, bitmap.base - bitmap.shift);
  }
  if (position == NONE) return NONE;

  takeRange(bitmap, position, count);
  return position - bitmap.shift;
}

/** Takes the lowest free bit; NONE when there is none. No bounds: one bit fits wherever one is. */
@inline export function bitmapAllocBit(at: usize): u32 {
  const bitmap = Bitmap.at(at);
  const wordIndex = firstFreeWord(bitmap);
  if (wordIndex == NONE) return NONE;
  const word = load<u64>(bitmap.wordAt(wordIndex));
  wordTake(bitmap, wordIndex, word, word & (word - 1));
  return ((wordIndex << 6) | <u32>ctz(word)) - bitmap.shift;
}

/** Marks [first, first + count) taken, whatever the bits were. */
export function bitmapTake(at: usize, first: u32, count: u32): void {
  const bitmap = Bitmap.at(at);
  assert(isInside(bitmap, first, count)); // M2
  if (count != 0) takeRange(bitmap, first + bitmap.shift, count);
}

/** Marks [first, first + count) free, whatever the bits were. */
export function bitmapFree(at: usize, first: u32, count: u32): void {
  const bitmap = Bitmap.at(at);
  assert(isInside(bitmap, first, count)); // M2
  if (count == 0) return;

  const position = first + bitmap.shift;
  const wordIndex = position >> 6;
  const bit = position & 63;
  const bits = (bit + count <= 64 ? lowBits(count) : <u64>-1) << bit;
  const word = wordFree(bitmap, wordIndex, bits);
  if (bit + count > 64) freeWordsTo(bitmap, wordIndex + 1, position + count);
  raiseAround(bitmap, wordIndex, word, bit);
}

/** Marks one bit free. False: it was free. */
@inline export function bitmapFreeBit(at: usize, bit: u32): bool {
  const bitmap = Bitmap.at(at);
  assert(isInside(bitmap, bit, 1)); // M2
  const position = bit + bitmap.shift;
  if (((load<u64>(bitmap.wordAt(position >> 6)) >> position) & 1) != 0) return false;
  const word = wordFree(bitmap, position >> 6, (<u64>1) << position);
  raiseAround(bitmap, position >> 6, word, position & 63);
  return true;
}

/**
 * The lowest i >= start with [i, i + count) free and (i + alignOffset) & alignMask == 0, or NONE.
 * `alignMask` is 2^k - 1; `alignOffset` may be any number and has nothing to do with the base.
 * Takes nothing, and scans: this is for going on behind a run that turned out to be of no use.
 */
export function bitmapFindFrom(
  at: usize,
  start: u32,
  count: u32,
  alignMask: u32,
  alignOffset: u32,
): u32 {
  const bitmap = Bitmap.at(at);
  assert((alignMask & (alignMask + 1)) == 0); // a mask of low bits
  if (count - 1 >= bitmap.bitCount || start >= bitmap.bitCount) return NONE;

  const shift = bitmap.shift;
  const position = findByScan(bitmap, start + shift, count, alignMask, alignOffset - shift);
  return position == NONE ? NONE : position - shift;
}

// ---- Asking

/** Whether all of [first, first + count) is free. False for bits that do not exist. */
export function bitmapIsFree(at: usize, first: u32, count: u32): bool {
  const bitmap = Bitmap.at(at);
  if (!isInside(bitmap, first, count)) return false;
  return freeFrom(bitmap, first + bitmap.shift, count) >= count;
}

/** Whether all of [first, first + count) is taken. False for bits that do not exist. */
export function bitmapIsTaken(at: usize, first: u32, count: u32): bool {
  const bitmap = Bitmap.at(at);
  if (!isInside(bitmap, first, count)) return false;
  const end = first + bitmap.shift + count;
  return nextFree(bitmap, end - count, end) == end;
}

function isInside(bitmap: Bitmap, first: u32, count: u32): bool {
  return first <= bitmap.bitCount && count <= bitmap.bitCount - first;
}

// ---- Finding positions

/** The lowest free run of `count` positions at a multiple of 2^order, for order <= 10, or NONE. */
@inline function findRun(bitmap: Bitmap, count: u32, order: u32): u32 {
  const bitOrder = min(order, LANE_ORDER_MAX); // in a word, order 6 and all above mean its bit 0
  const alignedBits = bitmap.stride(bitOrder);
  const bound = min(count, LANE_CAP);
  const wordCount = bitmap.wordCount;
  let wordIndex: u32 = 0;
  let nearbyCount: u32 = 0; // words still to try without asking the bounds
  while (wordIndex < wordCount) {
    if (nearbyCount == 0) {
      wordIndex = lanesNext(bitmap, order, bound, wordIndex);
      if (wordIndex == NONE) return NONE;
    }

    const word = load<u64>(bitmap.wordAt(wordIndex));
    if (count <= 64) {
      const starts = runStarts(word, count) & alignedBits;
      if (starts != 0) return (wordIndex << 6) | <u32>ctz(starts);
    }

    const suffix = (<u32>clz(~word) >> bitOrder) << bitOrder; // aligned end of the word, all free
    if (suffix != 0) {
      const position = ((wordIndex + 1) << 6) - suffix;
      const found = suffix + freeFromWord(bitmap, wordIndex + 1, count - suffix);
      if (found >= count) return position;
      if (found >= LANE_CAP) {
        // The bound was right and the run too short all the same: go on where it ends.
        wordIndex = (position + found) >> 6;
        nearbyCount = order <= LANE_ORDER_MAX ? NEARBY_WORDS : 0; // above, few words are aligned
        continue;
      }
    }

    if (nearbyCount != 0) {
      nearbyCount -= 1;
      wordIndex += 1;
    } else {
      lanesTighten(bitmap, wordIndex); // so that lanesNext() passes it by
    }
  }
  return NONE;
}

/** The lowest position p >= `position` with `count` free and p + alignOffset aligned, or NONE. */
function findByScan(
  bitmap: Bitmap,
  position: u32,
  count: u32,
  alignMask: u32,
  alignOffset: u32,
): u32 {
  const end = bitmap.shift + bitmap.bitCount;
  while (true) {
    // Aligned positions that are a word or more apart are as cheap to try as to look out for.
    if (alignMask < 63) position = nextFree(bitmap, position, end);
    const gap: u32 = (0 - (position + alignOffset)) & alignMask; // a sum that wraps stays aligned
    const room = end - position;
    if (gap > room || count > room - gap) return NONE;
    position += gap;
    const found = freeFrom(bitmap, position, count);
    if (found >= count) return position;
    position += found + 1;
  }
  return NONE;
}

/** The first free position in [position, end), or `end`. */
function nextFree(bitmap: Bitmap, position: u32, end: u32): u32 {
  while (position < end) {
    const rest = load<u64>(bitmap.wordAt(position >> 6)) >> (position & 63);
    if (rest != 0) return min(position + <u32>ctz(rest), end);
    position = (position | 63) + 1;
  }
  return end;
}

/** How many positions from `position` on are free; stops to count at `enough` or a little later. */
function freeFrom(bitmap: Bitmap, position: u32, enough: u32): u32 {
  const bit = position & 63;
  const wordIndex = position >> 6;
  const count = <u32>ctz(~(load<u64>(bitmap.wordAt(wordIndex)) >> bit)); // 64 only for bit 0
  if (bit + count < 64 || count >= enough) return count;
  return count + freeFromWord(bitmap, wordIndex + 1, enough - count);
}

// ---- Changing positions

function takeRange(bitmap: Bitmap, position: u32, count: u32): void {
  let wordIndex = position >> 6;
  let bit = position & 63;
  while (count > 0) {
    const countHere = min(64 - bit, count);
    const word = load<u64>(bitmap.wordAt(wordIndex));
    wordTake(bitmap, wordIndex, word, word & ~(lowBits(countHere) << bit));
    count -= countHere;
    wordIndex += 1;
    bit = 0;
  }
}

/** Frees from the start of a word to `positionEnd`, and raises the bounds of these words. */
function freeWordsTo(bitmap: Bitmap, wordIndex: u32, positionEnd: u32): void {
  const lastIndex = positionEnd >> 6;
  for (let fullIndex = wordIndex; fullIndex < lastIndex; fullIndex++) {
    wordFree(bitmap, fullIndex, -1);
  }
  lanesRaiseWords(bitmap, wordIndex, lastIndex);

  const lastCount = positionEnd & 63;
  if (lastCount == 0) return;
  wordFree(bitmap, lastIndex, lowBits(lastCount));
  lanesRaise(bitmap, lastIndex, 0, freeFromWord(bitmap, lastIndex, LANE_CAP));
}
