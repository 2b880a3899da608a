// The words of a bitmap block: which one is the lowest with a free bit, and what changes with a
// word.
//
//   wordTake ─► word ─ when it gets 0 ─► anyWords ─► anyGroups, bounds                 (M3)
//   wordFree ─► word ─ when it was 0 ──► anyWords ─► anyGroups;      raiseAround ─► bounds  (M4)
//
// The invariants are stated in bitmap.ts (M1 to M3) and bitmap-lanes.ts (M4 to M6). Everything here
// that is @inline is part of taking or freeing one bit, which costs a few ns.

import {
  Bitmap,
  LANE_CAP,
  freeFromWord,
  lanesAreFull,
  lanesCap,
  lanesHaveBit,
  lanesRaise,
} from "./bitmap-lanes";
import { NONE } from "./bits";

/** The lowest word with a free bit, or NONE. */
@inline export function firstFreeWord(bitmap: Bitmap): u32 {
  const groups = load<u64>(bitmap.anyGroups);
  return groups != 0 ? firstWordOf(bitmap, <u32>ctz(groups)) : firstFreeWordBehind(bitmap);
}

/** The same, when the first word of anyGroups is 0. */
function firstFreeWordBehind(bitmap: Bitmap): u32 {
  for (let groupIndex: u32 = 1; groupIndex < bitmap.groupCount; groupIndex++) {
    const groups = load<u64>(bitmap.anyGroups + ((<usize>groupIndex) << 3));
    if (groups != 0) return firstWordOf(bitmap, (groupIndex << 6) | <u32>ctz(groups));
  }
  return NONE;
}

/** The first word that a word of anyWords, which is not 0, tells of (M3). */
@inline function firstWordOf(bitmap: Bitmap, anyIndex: u32): u32 {
  return (anyIndex << 6) | <u32>ctz(load<u64>(bitmap.anyWords + ((<usize>anyIndex) << 3)));
}

/** Takes all bits of a word but those of `rest`. */
@inline export function wordTake(bitmap: Bitmap, wordIndex: u32, word: u64, rest: u64): void {
  store<u64>(bitmap.wordAt(wordIndex), rest);
  if (rest != 0) return; // M3 holds still

  const anyAt = bitmap.anyWords + ((<usize>(wordIndex >> 6)) << 3);
  const anyRest = load<u64>(anyAt) & ~((<u64>1) << wordIndex);
  store<u64>(anyAt, anyRest);
  if (anyRest == 0) {
    const groupAt = bitmap.anyGroups + ((<usize>(wordIndex >> 12)) << 3);
    store<u64>(groupAt, load<u64>(groupAt) & ~((<u64>1) << (wordIndex >> 6)));
  }
  if (~word != 0) lanesCap(bitmap, wordIndex);
}

/** Frees the `bits` of a word, and returns it. Its bounds are the caller's to raise. */
@inline export function wordFree(bitmap: Bitmap, wordIndex: u32, bits: u64): u64 {
  const was = load<u64>(bitmap.wordAt(wordIndex));
  const word = was | bits;
  store<u64>(bitmap.wordAt(wordIndex), word);
  if (was != 0) return word; // M3 holds still

  const anyAt = bitmap.anyWords + ((<usize>(wordIndex >> 6)) << 3);
  store<u64>(anyAt, load<u64>(anyAt) | ((<u64>1) << wordIndex));
  const groupAt = bitmap.anyGroups + ((<usize>(wordIndex >> 12)) << 3);
  store<u64>(groupAt, load<u64>(groupAt) | ((<u64>1) << (wordIndex >> 6)));
  return word;
}

/**
 * Raises the bounds for the free run around a bit of `word`, in the words where that run can begin.
 */
@inline export function raiseAround(bitmap: Bitmap, wordIndex: u32, word: u64, bit: u32): void {
  if (isAlone(word, bit)) {
    if (lanesHaveBit(bitmap, wordIndex, bit)) return;
  } else if (lanesAreFull(bitmap, wordIndex)) {
    const isWhole = <u32>ctz(~word) > bit; // the run begins with the word, or earlier
    if (!(isWhole && endsFree(bitmap, wordIndex))) return;
  }
  raiseRun(bitmap, wordIndex, word, bit);
}

/** Whether the positions beside a bit are taken; false at the ends of the word. */
@inline function isAlone(word: u64, bit: u32): bool {
  return (((<i64>word) >> (bit - 1)) & 7) == 2;
}

function raiseRun(bitmap: Bitmap, wordIndex: u32, word: u64, bit: u32): void {
  const before = <u32>clz(~((word << 1) << (63 - bit))); // free bits that end at `bit`
  let isWhole = before == bit;
  let bitEnd = bit + <u32>ctz(~(word >> bit));
  if (bitEnd == 64) bitEnd += min(freeFromWord(bitmap, wordIndex + 1, LANE_CAP), 191);
  lanesRaise(bitmap, wordIndex, bit - before, bitEnd);

  // A run that starts further back than this counts to LANE_CAP without the freed bits.
  const firstIndex = wordIndex > 3 ? wordIndex - 3 : 0;
  while (isWhole && wordIndex > firstIndex) {
    wordIndex -= 1;
    const suffix = <u32>clz(~load<u64>(bitmap.wordAt(wordIndex)));
    if (suffix == 0) return;
    bitEnd = min(bitEnd + 64, 255);
    lanesRaise(bitmap, wordIndex, 64 - suffix, bitEnd);
    isWhole = suffix == 64;
  }
}

/** Whether the last position before a word is free. */
@inline function endsFree(bitmap: Bitmap, wordIndex: u32): bool {
  return wordIndex != 0 && <i64>load<u64>(bitmap.wordAt(wordIndex - 1)) < 0;
}
