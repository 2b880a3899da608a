// Pure bit arithmetic that several files of the core share; nothing here touches memory.

/** The answer "there is none" of every search for an index or a position. */
export const NONE: u32 = 0xffffffff;

/** The lowest multiple of `unit` (a power of two) that is not below `value`. */
export function alignUp(value: usize, unit: usize): usize {
  return (value + unit - 1) & ~(unit - 1);
}

/** The low `count` bits set, for 1 <= count <= 64. */
export function lowBits(count: u32): u64 {
  return <u64>-1 >> <u64>(64 - count);
}

/** Marks each bit at which `count` or more ones begin inside `word`, for 1 <= count <= 64. */
export function runStarts(word: u64, count: u32): u64 {
  let proven: u32 = 1; // a bit still set is followed by this many ones, itself included
  let missing = count - 1;
  while (missing != 0) {
    const step = min(proven, missing);
    word &= word >> <u64>step;
    missing -= step;
    proven += step;
  }
  return word;
}
