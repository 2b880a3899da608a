// Counting over a whole bitmap: how much is taken, and how long the longest free run is.
//
// Both walk every word: for statistics and messages, not for a hot path.

import { Bitmap } from "./bitmap-lanes";
import { runStarts } from "./bits";

/** How many bits are taken. Costs O(words). */
export function bitmapTakenCount(at: usize): u32 {
  const bitmap = Bitmap.at(at);
  let freeCount: u32 = 0;
  for (let wordIndex: u32 = 0; wordIndex < bitmap.wordCount; wordIndex++) {
    freeCount += <u32>popcnt(load<u64>(bitmap.wordAt(wordIndex)));
  }
  return bitmap.bitCount - freeCount;
}

/** The length of the longest run of free bits. Costs O(words). */
export function bitmapLargestFree(at: usize): u32 {
  const bitmap = Bitmap.at(at);
  let largest: u32 = 0;
  let count: u32 = 0; // of the run that reaches the end of the words walked so far
  for (let wordIndex: u32 = 0; wordIndex <= bitmap.wordCount; wordIndex++) {
    const word = load<u64>(bitmap.wordAt(wordIndex)); // the guard ends the last run (M2)
    if (word == <u64>-1) {
      count += 64;
      continue;
    }
    largest = max(largest, count + <u32>ctz(~word));
    while (largest < 64 && runStarts(word, largest + 1) != 0) largest += 1;
    count = <u32>clz(~word);
  }
  return largest;
}
