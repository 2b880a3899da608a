/**
 * Waiting for a pool: try, and if there is nothing, wait for its event to be counted up.
 *
 * - PW1  The event is read before the try: what happens in between ends the wait at once.
 *
 * @module
 */

import { armWait, requireTimeout, type WaitOptions, waitError } from "../clock.ts";
import type { Core } from "../core/core.ts";
import { loadWord, onceChanged, sleepWhile } from "../core/wait-word.ts";
import { codeOf, errno, fail, isErrno } from "../errors.ts";

/** Something to try until it does not answer EAGAIN. */
export interface Attempt {
  readonly core: Core;
  /** The address of the event that says when to try again. */
  readonly eventAt: number;
  readonly operation: string;
  /** A result of the core. */
  run(): number;
}

const reasons: Partial<Record<string, string>> = {
  EPIPE: "the pool was closed",
  EOWNERDEAD: "the thread that made the pool is gone",
  ESTALE: "this thread has let go of it",
};

/** One try: the result, or null when there is nothing now. Throws any other error. */
export function attemptOnce({ run, operation }: Attempt): number | null {
  const result = run();
  if (!isErrno(result)) return result >>> 0;
  if (result === -errno.EAGAIN) return null;
  const code = codeOf(result);
  return fail(code, operation, reasons[code] ?? "the core refuses it");
}

/** Tries until there is something. ETIME, EINTR, and what the try throws. */
export async function attemptAsync(attempt: Attempt, options: WaitOptions): Promise<number> {
  let timeout = requireTimeout(options, attempt.operation);
  for (;;) {
    const seen = loadWord(attempt.core, attempt.eventAt);
    const result = attemptOnce(attempt);
    if (result !== null) return result;
    timeout = await eventAfter(attempt, seen, timeout, options);
    if (timeout <= 0) throw waitError(timeout, attempt.operation, options);
  }
}

/** The same asleep. EWOULDBLOCK: this thread may not sleep; ETIME. */
export function attemptSync(attempt: Attempt, timeoutMs: number = Infinity): number {
  const { core, eventAt, operation } = attempt;
  const end = performance.now() + timeoutMs;
  for (;;) {
    const seen = loadWord(core, eventAt);
    const result = attemptOnce(attempt);
    if (result !== null) return result;
    if (!core.mayBlock || !core.isShared)
      fail("EWOULDBLOCK", operation, "this thread cannot sleep until another acts; await it");
    const left = end - performance.now();
    if (left <= 0) throw waitError(0, operation, { timeoutMs });
    sleepWhile(core, eventAt, seen, left);
  }
}

/** What is left of the timeout when the event has left `seen`, as armWait() tells it. */
function eventAfter(
  { core, eventAt }: Attempt,
  seen: number,
  timeout: number,
  options: WaitOptions,
): Promise<number> {
  return new Promise((resolve) => {
    armWait(options, timeout, (wake) => onceChanged(core, eventAt, seen, wake), resolve);
  });
}
