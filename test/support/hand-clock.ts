/**
 * A clock that stands until a test moves it.
 *
 * @module
 */

import type { Clock } from "../../src/clock.ts";

/** A clock that is set by hand, and the timers that wait for it. */
export class HandClock implements Clock {
  #now = 0;
  readonly #timers = new Map<() => void, number>();

  now(): number {
    return this.#now;
  }

  after(delay: number, run: () => void): () => void {
    this.#timers.set(run, this.#now + delay);
    return () => this.#timers.delete(run);
  }

  /** Lets time pass, and runs what is due. */
  advance(by: number): void {
    this.#now += by;
    for (const [run, at] of [...this.#timers]) if (at <= this.#now) this.#run(run);
  }

  /** Runs every timer, whenever it is due; no time passes. */
  fire(): void {
    for (const run of [...this.#timers.keys()]) this.#run(run);
  }

  #run(run: () => void): void {
    if (this.#timers.delete(run)) run();
  }

  /** How long each timer waits yet. */
  get delays(): number[] {
    return [...this.#timers.values()].map((at) => at - this.#now);
  }

  get timerCount(): number {
    return this.#timers.size;
  }
}
