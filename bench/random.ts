/**
 * Random numbers: the same ones in every run.
 *
 * @module
 */

/** Fast: xorshift32, for the timed loops. */
export class Random {
  #state = 0x2545f491; // an int32, never 0: V8 keeps it without a box

  /** A whole number of [0, end). */
  below(end: number): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return (x >>> 0) % end;
  }
}

/** Exact: xorshift64 with a published seed, so that other programs can make the same lists. */
export class ListRandom {
  #state = 88172645463325252n;

  /** A whole number of [0, end). */
  below(end: number): number {
    let x = this.#state;
    x ^= BigInt.asUintN(64, x << 13n);
    x ^= x >> 7n;
    x ^= BigInt.asUintN(64, x << 17n);
    this.#state = x;
    return Number(((x >> 32n) * BigInt(end)) >> 32n);
  }
}

/** Entries in a list of sizes: a power of two, so that an index wraps by masking. */
export const SIZE_COUNT = 65536;
/** Masks an index into a list of sizes. */
export const SIZE_MASK: number = SIZE_COUNT - 1;

/** SIZE_COUNT sizes of [1, max], evenly spread. */
export function randomSizes(max: number): Uint16Array {
  const random = new ListRandom();
  return Uint16Array.from({ length: SIZE_COUNT }, () => 1 + random.below(max));
}
