/**
 * A seeded generator: the same seed gives the same events, and every failing fuzz test prints its
 * seed.
 *
 * @module
 */

/** Random numbers of a seed (xorshift32). */
export class Prng {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0 || 1;
  }

  /** A 32-bit number. */
  next(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x >>> 0;
    return this.#state;
  }

  /** An integer of [0, end). */
  below(end: number): number {
    return Math.floor((this.next() / 2 ** 32) * end);
  }

  /** An element of a list that is not empty. */
  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)] as T;
  }
}

/** The seed of a fuzz test: from FUZZ_SEED, or a fixed one, so that a plain run repeats itself. */
export function fuzzSeed(fallback: number): number {
  return Number(process.env.FUZZ_SEED ?? fallback);
}
