/**
 * TickClock: the injected clock of the replay; one recorded tick is one unit, and time stands still
 * until somebody is waiting.
 *
 * @module
 */

import type { Clock } from "dmabuf";

interface Timer {
  readonly at: number;
  readonly run: () => void;
}

/** A clock that runs only while a wait needs it. */
export class TickClock implements Clock {
  #now = 0;
  #timers: readonly Timer[] = [];

  now(): number {
    return this.#now;
  }

  after(delay: number, run: () => void): () => void {
    const timer = { at: this.#now + delay, run };
    this.#timers = [...this.#timers, timer];
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer);
    };
  }

  /** What a wait ends with; ticks pass until it does. */
  waitFor(start: (done: (left: number) => void) => void): number {
    let result: number | undefined;
    start((left) => {
      result = left;
    });
    while (result === undefined) {
      if (this.#timers.length === 0) throw new Error("the wait would never end");
      this.#tick();
    }
    return result;
  }

  #tick(): void {
    this.#now += 1;
    const due = this.#timers.filter(({ at }) => at <= this.#now);
    this.#timers = this.#timers.filter(({ at }) => at > this.#now);
    for (const { run } of due) run();
  }
}
