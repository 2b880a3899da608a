/**
 * A clock for tests of waits: time passes when it is told to.
 *
 * @module
 */

import type { Clock } from "../../src/clock.ts";
import { settle } from "./slow-exporter.ts";

/** A clock that stands until it is moved. */
export class TestClock implements Clock {
  #now = 0;
  readonly #timers: Set<{ at: number; run: () => void }> = new Set();

  now(): number {
    return this.#now;
  }

  after(delay: number, run: () => void): () => void {
    const timer = { at: this.#now + delay, run };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  /** Lets time pass, and runs what is due. */
  pass(by: number): void {
    this.#now += by;
    this.#runUntil(this.#now);
  }

  /** The same, and lets everything run that this ends. */
  async advance(by: number): Promise<void> {
    this.pass(by);
    await settle();
  }

  /** Runs every timer, whenever it is due; no time passes. */
  fire(): void {
    this.#runUntil(Number.POSITIVE_INFINITY);
  }

  #runUntil(time: number): void {
    for (const timer of [...this.#timers])
      if (timer.at <= time && this.#timers.delete(timer)) timer.run();
  }

  /** How long each timer waits yet. */
  get delays(): number[] {
    return [...this.#timers].map(({ at }) => at - this.#now);
  }

  get timerCount(): number {
    return this.#timers.size;
  }
}
