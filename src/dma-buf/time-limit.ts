/**
 * TimeLimit: one timeout and one signal over all that a call waits for.
 *
 *     run() ─► wait for the lock ─► answer(): the exporter's op ─► wait for fences ─► resolves
 *                 └─over─► the call fails      └─over─► ETIME, EINTR at once; what comes too late
 *                                                       is given back, and the call ends then
 *
 * - TL1  A wait gets what the waits before it left of the timeout.
 *        Its ETIME and EINTR name the whole call, and the timeout that the caller gave.
 * - TL2  An exporter that has been asked cannot be hurried. The caller is told in time; the call
 *        keeps what it holds, the lock among it, until the exporter has answered.
 *
 * @module
 */

import {
  armWait,
  type Clock,
  hostClock,
  requireTimeout,
  type WaitOptions,
  waitError,
} from "../clock.ts";
import { DmaBufError, errno } from "../errors.ts";
import { isPromise } from "./maybe-promise.ts";
import type { MaybePromise } from "./ops.ts";
import { undoLater } from "./report.ts";

/** @internal Arranges that `wake` is called; returns what takes that back. */
export type Subscribe = (wake: () => void) => () => void;

/** @internal The limit of one call. */
export class TimeLimit<Options extends WaitOptions = WaitOptions> {
  /** What the caller gave, for the whole call. */
  readonly options: Options;
  readonly #operation: string;
  readonly #clock: Clock;
  readonly #end: number;
  /** Why the call was given up; null: it was not. */
  #error: DmaBufError | null = null;
  #giveUp: (error: DmaBufError) => void = () => {};

  /** EINVAL: what requireTimeout() refuses. */
  constructor(options: Options, operation: string) {
    this.options = options;
    this.#operation = operation;
    const timeout = requireTimeout(options, operation);
    this.#clock = options.clock ?? hostClock;
    this.#end = this.#clock.now() + timeout;
  }

  /** Whether the caller has been told that the time is over, while the call goes on (TL2). */
  get isGivenUp(): boolean {
    return this.#error !== null;
  }

  /** What is left of the timeout. */
  get left(): number {
    return Math.max(0, this.#end - this.#clock.now());
  }

  /** The options of the next wait (TL1). */
  get rest(): Options {
    const timeoutMs = this.left;
    return Number.isFinite(timeoutMs) ? { ...this.options, timeoutMs } : this.options;
  }

  /** The error of a wait that ended with `left`, as armWait() tells it (TL1). */
  error(left: number): DmaBufError {
    return waitError(left, this.#operation, this.options);
  }

  /** Waits in `wait`, which throws ETIME and EINTR of its own (TL1). */
  async wait<T>(wait: (rest: Options) => Promise<T>): Promise<T> {
    try {
      return await wait(this.rest);
    } catch (error) {
      throw this.#ofCall(error);
    }
  }

  /** The same asleep. */
  waitSync<T>(wait: (rest: Options) => T): T {
    try {
      return wait(this.rest);
    } catch (error) {
      throw this.#ofCall(error);
    }
  }

  #ofCall(error: unknown): unknown {
    if (!(error instanceof DmaBufError)) return error;
    if (error.code === "ETIME") return this.error(0);
    return error.code === "EINTR" ? this.error(-errno.EINTR) : error;
  }

  /** Resolves or rejects as `call` does, or when it is given up (TL2). */
  run<T>(call: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#giveUp = reject;
      call().then(resolve, reject);
    });
  }

  /**
   * Waits for what an op has answered (TL2). If the call is given up meanwhile, what comes too late
   * goes to `giveBack`, and then this throws ETIME or EINTR.
   */
  async answer<T>(answer: MaybePromise<T>, giveBack: (late: T) => MaybePromise<void>): Promise<T> {
    const value = await this.ended(answer);
    if (this.#error === null) return value;
    await undoLater(() => giveBack(value));
    throw this.#error;
  }

  /** The same for an op that gives back: if the call is given up, it goes on to its end. */
  async ended<T>(answer: MaybePromise<T>): Promise<T> {
    if (!isPromise(answer)) return answer;
    armWait(this.options, this.left, onSettled(answer), (left) => {
      if (left > 0) return;
      this.#error = this.error(left);
      this.#giveUp(this.#error);
    });
    return answer;
  }

  /** Waits for another call, which ends without this one. ETIME, EINTR. */
  settled(other: Promise<unknown>): Promise<void> {
    return this.woken(onSettled(other));
  }

  /** Waits until it is woken. ETIME, EINTR. */
  woken(subscribe: Subscribe): Promise<void> {
    return new Promise((resolve, reject) => {
      armWait(this.options, this.left, subscribe, (left) => {
        if (left > 0) resolve();
        else reject(this.error(left));
      });
    });
  }

  /** Waits until `isOver`, or the time is. EINTR. */
  async until(subscribe: Subscribe, isOver: () => boolean): Promise<void> {
    for (let { left } = this; left > 0 && !isOver(); left = this.left) {
      const result = await new Promise<number>((resolve) => {
        armWait(this.options, left, subscribe, resolve);
      });
      if (result < 0) throw this.error(result);
    }
  }
}

/** Wakes when a promise is fulfilled or rejected. */
function onSettled(promise: Promise<unknown>): Subscribe {
  return (wake) => {
    let tell: (() => void) | null = wake;
    const settled = (): void => tell?.();
    promise.then(settled, settled);
    return () => {
      tell = null;
    };
  };
}
