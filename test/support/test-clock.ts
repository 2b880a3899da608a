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

  async advance(by: number): Promise<void> {
    this.#now += by;
    for (const timer of [...this.#timers]) {
      if (timer.at > this.#now) continue;
      this.#timers.delete(timer);
      timer.run();
    }
    await settle();
  }

  get timerCount(): number {
    return this.#timers.size;
  }
}
