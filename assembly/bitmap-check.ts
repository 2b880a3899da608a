// The walker that derives everything in a bitmap block again and compares.
//
//   bitCount, base ──M1──► header      words ──M2──► themselves
//   words ──M3──► anyWords ──M3──► anyGroups
//   words ──M4──► leaves ──M5──► level 1 ──M5──► … top level, each level ──M6──► its copy
//
// The invariants are stated in bitmap.ts (M1 to M3) and bitmap-lanes.ts (M4 to M6). Nothing here
// shares arithmetic with the code that keeps them, and nothing here writes. Costs O(bits).

import { Bitmap, HEADER_BYTES, LANE_CAP, LANE_ORDER_MAX } from "./bitmap-lanes";

const ROW_COUNT: u32 = 12;
const SPARE_ROW: u32 = 7;

/** 0 when M1 to M6 hold for the block at `at`, else the number of the first that does not. */
export function bitmapCheck(at: usize): u32 {
  const bitmap = Bitmap.at(at);
  if (!isHeaderRight(bitmap)) return 1;
  if (!areOutsideBitsTaken(bitmap)) return 2;
  if (!areAnyBitsExact(bitmap)) return 3;
  if (!areLeavesBounds(bitmap)) return 4;
  return checkLevels(bitmap);
}

/** M1. */
function isHeaderRight(bitmap: Bitmap): bool {
  const wordCount = bitmap.wordCount;
  const positionCount = (bitmap.base % 1024) + bitmap.bitCount;
  if (bitmap.shift != bitmap.base % 1024) return false;
  if (wordCount * 64 < positionCount || wordCount * 64 - positionCount >= 64) return false;
  if (bitmap.groupCount != (wordCount + 4095) / 4096) return false;
  if (bitmap.words != changetype<usize>(bitmap) + HEADER_BYTES) return false;
  if (bitmap.anyWords != bitmap.words + <usize>(wordCount + 1) * 8) return false;
  if (bitmap.anyGroups != bitmap.anyWords + <usize>((wordCount + 63) / 64) * 8) return false;

  let address = (bitmap.anyGroups + <usize>bitmap.groupCount * 8 + 15) & ~15;
  let nodeCount = (wordCount + 15) / 16;
  if (bitmap.leafNodeAt(0) != address) return false;
  address += <usize>nodeCount * 128;
  for (let level: u32 = 1; level <= bitmap.topLevel; level++) {
    if (nodeCount <= 1) return false; // topLevel is the first level of one node
    if (bitmap.nodeAt(level, 0) != address) return false;
    nodeCount = (nodeCount + 15) / 16;
    address += <usize>nodeCount * 512;
  }
  if (nodeCount > 1) return false;

  for (let bit: u32 = 0; bit < 64; bit++) {
    for (let order: u32 = 0; order <= LANE_ORDER_MAX; order++) {
      const isMultiple = bit % (1 << order) == 0;
      if (isSet(bitmap.stride(order), bit) != isMultiple) return false;
    }
  }
  return true;
}

/** M2. */
function areOutsideBitsTaken(bitmap: Bitmap): bool {
  const positionEnd = bitmap.shift + bitmap.bitCount;
  for (let position: u32 = 0; position < bitmap.shift; position++) {
    if (isSet(load<u64>(bitmap.wordAt(position / 64)), position % 64)) return false;
  }
  for (let position = positionEnd; position < (bitmap.wordCount + 1) * 64; position++) {
    if (isSet(load<u64>(bitmap.wordAt(position / 64)), position % 64)) return false;
  }
  return true;
}

/** M3. */
function areAnyBitsExact(bitmap: Bitmap): bool {
  const anyWordCount = (bitmap.wordCount + 63) / 64;
  return (
    areBitsOfNonzero(bitmap.anyWords, bitmap.words, bitmap.wordCount) &&
    areBitsOfNonzero(bitmap.anyGroups, bitmap.anyWords, anyWordCount)
  );
}

/** Whether bit i at `bits` = (word i at `words` != 0), and the bits behind the last one are 0. */
function areBitsOfNonzero(bits: usize, words: usize, wordCount: u32): bool {
  for (let index: u32 = 0; index < ((wordCount + 63) & ~63); index++) {
    const isNonzero = index < wordCount && load<u64>(words + <usize>index * 8) != 0;
    if (isSet(load<u64>(bits + <usize>(index / 64) * 8), index % 64) != isNonzero) return false;
  }
  return true;
}

/** M4: walks the positions backwards and counts the free run that begins at each of them. */
function areLeavesBounds(bitmap: Bitmap): bool {
  let count: u32 = 0; // positions of that run, at most LANE_CAP
  for (let wordIndex = bitmap.wordCount; wordIndex-- > 0; ) {
    const word = load<u64>(bitmap.wordAt(wordIndex));
    const leaf = bitmap.leafAt(wordIndex);
    for (let bit: u32 = 64; bit-- > 0; ) {
      count = isSet(word, bit) ? min(count + 1, LANE_CAP) : 0;
      for (let order: u32 = 0; order <= LANE_ORDER_MAX && bit % (1 << order) == 0; order++) {
        if (<u32>load<u8>(leaf + order) < count) return false;
      }
    }
  }
  return true;
}

/** 0, or 5 or 6: M5 and M6. */
function checkLevels(bitmap: Bitmap): u32 {
  let entryCount = (bitmap.wordCount + 15) / 16;
  for (let level: u32 = 1; level <= bitmap.topLevel; level++) {
    for (let entry: u32 = 0; entry < entryCount; entry++) {
      const node = bitmap.nodeAt(level, entry / 16);
      const child = <usize>entry % 16;
      for (let row: u32 = 0; row < ROW_COUNT; row++) {
        if (row == SPARE_ROW) continue;
        const bound = <u32>load<u8>(node + <usize>row * 16 + child);
        if (bound != <u32>load<u8>(node + 256 + child * 16 + row)) return 6;
        if (bound < min(highestBelow(bitmap, level, entry, row), LANE_CAP)) return 5;
      }
    }
    entryCount = (entryCount + 15) / 16;
  }
  return 0;
}

/** The highest bound in the node below an entry of `level` among those that `row` speaks for. */
function highestBelow(bitmap: Bitmap, level: u32, entry: u32, row: u32): u32 {
  let highest: u32 = 0;
  if (level > 1) {
    const rowAt = bitmap.nodeAt(level - 1, entry) + <usize>row * 16;
    for (let child: u32 = 0; child < 16; child++) {
      highest = max(highest, <u32>load<u8>(rowAt + child));
    }
  } else {
    const lane = min(row, LANE_ORDER_MAX);
    const wordStep: u32 = row > SPARE_ROW ? 1 << (row - SPARE_ROW) : 1;
    for (let child: u32 = 0; child < 16; child += wordStep) {
      highest = max(highest, <u32>load<u8>(bitmap.leafAt(entry * 16 + child) + lane));
    }
  }
  return highest;
}

function isSet(word: u64, bit: u32): bool {
  return ((word >> bit) & 1) != 0;
}
