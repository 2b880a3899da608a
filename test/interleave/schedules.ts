/**
 * Who runs when: at random by a seed, or every way with few preemptions.
 *
 * @module
 */

import type { Prng } from "../support/prng.ts";
import type { Choose } from "./stage.ts";

const TO_ITS_END = 1_000_000;

/** Any thread that is ready, mostly for a few steps, sometimes for many. */
export function randomWalk(rng: Prng): Choose {
  return (ready) => {
    const steps = rng.pick([1, 1, 2, 3, 1 + rng.below(12), 1 + rng.below(60), TO_ITS_END]);
    return [rng.pick(ready), steps];
  };
}

/**
 * A schedule of two threads: who begins, and how many steps lie before each preemption, counted
 * from the one before it. That a thread ends or sleeps, and the other goes on, is no preemption.
 */
export class Preempted {
  readonly #gaps: readonly number[];
  #current: number;
  #since = 0; // steps at the last preemption
  /** How many of the preemptions came before all was done. */
  came = 0;

  constructor(first: number, gaps: readonly number[]) {
    this.#current = first;
    this.#gaps = gaps;
  }

  readonly choose: Choose = (ready, steps) => {
    const gap = this.#gaps[this.came];
    if (gap !== undefined && steps - this.#since >= gap) {
      this.came += 1;
      this.#since = steps;
      this.#current = 3 - this.#current;
    }
    if (!ready.includes(this.#current)) this.#current = ready[0] as number;
    const next = this.#gaps[this.came];
    return [this.#current, next === undefined ? TO_ITS_END : next - (steps - this.#since)];
  };
}

/**
 * Every schedule of two threads with at most two preemptions, each at most `mostSteps` steps behind
 * the one before: whoever waits for a lock spins, which needs no closer look. How many there were.
 */
export function eachSchedule(
  mostSteps: number,
  run: (schedule: Preempted, label: string) => void,
): number {
  let count = 0;
  const tried = (first: number, ...gaps: number[]): boolean => {
    const schedule = new Preempted(first, gaps);
    run(schedule, `thread ${first} first, preemptions after ${gaps.join(" and ")} steps`);
    count += 1;
    return schedule.came === gaps.length;
  };
  for (const first of [1, 2]) {
    tried(first);
    for (let one = 1; one <= mostSteps && tried(first, one); one++)
      for (let two = 1; two <= mostSteps && tried(first, one, two); two++);
  }
  return count;
}
