/**
 * Time for waits: a clock that the caller may bring, and the one way in which every wait ends.
 *
 *     armWait() ──woken──────► done(what is left of the timeout, at least 1)
 *         ├───────no time left► done(0)
 *         └───────aborted─────► done(-EINTR)
 *
 * - CK1  `done` is called once, perhaps before the call returns; no subscription, timer or listener
 *        of the wait is left then.
 *
 * @module
 */

import { requireMethods, requireObject } from "./arguments.ts";
import { DmaBufError, errno, fail, textOf } from "./errors.ts";

/** Time for waits. */
export interface Clock {
  now(): number;
  /** Calls `run` when `delay` units have passed; what it returns cancels that. */
  after(delay: number, run: () => void): () => void;
}

/** How to wait: a time limit, and the AbortSignal that interrupts. */
export interface WaitOptions {
  /** Milliseconds, or units of `clock`; without it the wait has no limit. */
  readonly timeoutMs?: number | undefined;
  /** Ends the wait with EINTR. */
  readonly signal?: AbortSignal | undefined;
  /** What measures `timeoutMs`; the host's timers if it is not given. */
  readonly clock?: Clock | undefined;
}

/**
 * How a wait ended: above 0, it was woken and this much of the timeout is left (1 of a timeout of
 * 0); 0, the time ran out; -4 (EINTR), it was aborted.
 */
export type WaitDone = (left: number) => void;

/** The longest delay that the host's timers take. */
const TIMER_MAX_MS = 2 ** 31 - 1;

/** The host's timers. */
export const hostClock: Clock = {
  now: () => performance.now(),
  after: (delay, run) => {
    const timer = setTimeout(run, Math.min(delay, TIMER_MAX_MS));
    return () => clearTimeout(timer);
  },
};

/** Throws EINVAL for a signal that is none; without one is right too. */
export function requireSignal(signal: AbortSignal | null | undefined, operation: string): void {
  if (signal === undefined || signal === null) return;
  requireMethods(signal, ["addEventListener", "removeEventListener"], "the signal", operation);
}

/** The time limit of a wait, Infinity without one. EINVAL: it is negative, or another option. */
export function requireTimeout(options: WaitOptions, operation: string): number {
  requireObject(options, "the options", operation);
  const { timeoutMs, signal, clock } = options;
  requireSignal(signal, operation);
  if (clock !== undefined) requireMethods(clock, ["now", "after"], "the clock", operation);
  const timeout = timeoutMs ?? Number.POSITIVE_INFINITY;
  if (typeof timeout === "number" && timeout >= 0) return timeout;
  const reason = `the timeout must be a number, 0 or more, and is ${textOf(timeoutMs)}`;
  return fail("EINVAL", operation, reason);
}

/**
 * Waits until what `subscribe` was given is called, the time is over, or the signal aborts.
 * `subscribe` returns what takes the subscription back; it does not wake at once.
 */
export function armWait(
  { signal, clock = hostClock }: WaitOptions,
  timeout: number,
  subscribe: (wake: () => void) => () => void,
  done: WaitDone,
): void {
  if (signal?.aborted || timeout === 0) {
    done(signal?.aborted ? -errno.EINTR : 0);
    return;
  }
  const startedAt = clock.now();
  let cancelTimer: (() => void) | null = null;
  const finish = (left: number): void => {
    unsubscribe(); // CK1
    signal?.removeEventListener("abort", onAbort);
    cancelTimer?.();
    done(left);
  };
  const onAbort = (): void => finish(-errno.EINTR);
  const unsubscribe = subscribe(() => finish(Math.max(1, timeout - (clock.now() - startedAt))));
  if (timeout !== Number.POSITIVE_INFINITY) cancelTimer = clock.after(timeout, () => finish(0));
  signal?.addEventListener("abort", onAbort);
}

/** The error of a wait that ended with `left`: ETIME, or EINTR. */
export function waitError(left: number, operation: string, options: WaitOptions): DmaBufError {
  return left === 0
    ? new DmaBufError("ETIME", operation, `it is pending after ${options.timeoutMs} ms`)
    : new DmaBufError("EINTR", operation, "the wait was aborted");
}
