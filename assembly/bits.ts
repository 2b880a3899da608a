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

/**
 * Marks each bit at which `count` or more ones begin inside `word`, for 1 <= count <= 64. Halves
 * the count until it is 1, always in six steps: sizes change from call to call, and a branch would
 * be guessed wrong.
 */
export function runStarts(word: u64, count: u32): u64 {
  let half = <u64>(count >> 1);
  word &= word >> half;
  count -= <u32>half;
  half = count >> 1;
  word &= word >> half;
  count -= <u32>half;
  half = count >> 1;
  word &= word >> half;
  count -= <u32>half;
  half = count >> 1;
  word &= word >> half;
  count -= <u32>half;
  half = count >> 1;
  word &= word >> half;
  count -= <u32>half;
  return word & (word >> <u64>(count >> 1));
}

/** The longest run that begins at a bit of `starts`: its binary digits, the highest first. */
@inline export function longestRun(
  starts: u64,
  of1: u64,
  of2: u64,
  of4: u64,
  of8: u64,
  of16: u64,
  of32: u64,
): u32 {
  let hits = starts & of32;
  let isHit = hits != 0;
  let count = (<u64>isHit) << 5;
  starts = isHit ? hits : starts;

  hits = starts & (of16 >> count);
  isHit = hits != 0;
  count += (<u64>isHit) << 4;
  starts = isHit ? hits : starts;

  hits = starts & (of8 >> count);
  isHit = hits != 0;
  count += (<u64>isHit) << 3;
  starts = isHit ? hits : starts;

  hits = starts & (of4 >> count);
  isHit = hits != 0;
  count += (<u64>isHit) << 2;
  starts = isHit ? hits : starts;

  hits = starts & (of2 >> count);
  isHit = hits != 0;
  count += (<u64>isHit) << 1;
  starts = isHit ? hits : starts;

  return <u32>(count + <u64>((starts & (of1 >> count)) != 0));
}
