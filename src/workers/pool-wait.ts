/**
 * Waiting for a pool: try, and if there is nothing, wait for its event to be counted up.
 *
 * - PW1  The event is read before the try: what happens in between ends the wait at once.
 * - PW2  A call has one timeout, over its wait for a frame and those for the frame's fences.
 * - PW3  A loop over frames holds one at a time: going on, or leaving, gives back what it kept.
 * - PW4  A wait ends with ESTALE when its own thread gives up the pool, or its consumer.
 *
 * @module
 */

import { requireTimeout, type WaitOptions } from "../clock.ts";
import type { Core } from "../core/core.ts";
import { loadWord, onceChanged, sleepWhile } from "../core/wait-word.ts";
import { TimeLimit } from "../dma-buf/time-limit.ts";
import { codeOf, DmaBufError, errno, fail, isErrno } from "../errors.ts";
import type { WaitQueue } from "../files/poll.ts";

/** Something to try until it does not answer EAGAIN. */
export interface Attempt {
  readonly core: Core;
  /** The address of the event that says when to try again. */
  readonly eventAt: number;
  /** Woken when this thread gives up what it waits with, the pool or a consumer (PW4). */
  readonly givenUp: WaitQueue;
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
export async function attemptAsync(attempt: Attempt, limit: TimeLimit): Promise<number> {
  const { core, eventAt, givenUp } = attempt;
  for (;;) {
    const seen = loadWord(core, eventAt); // PW1
    const result = attemptOnce(attempt);
    if (result !== null) return result;
    await limit.woken((wake) => {
      const stop = onceChanged(core, eventAt, seen, wake);
      givenUp.add(wake);
      return () => {
        stop();
        givenUp.remove(wake);
      };
    });
  }
}

/** The same asleep. EWOULDBLOCK: this thread may not sleep; ETIME. */
export function attemptSync(attempt: Attempt, limit: TimeLimit): number {
  const { core, eventAt, operation } = attempt;
  for (;;) {
    const seen = loadWord(core, eventAt); // PW1
    const result = attemptOnce(attempt);
    if (result !== null) return result;
    if (!core.mayBlock || !core.isShared)
      fail("EWOULDBLOCK", operation, "this thread cannot sleep until another acts; await it");
    const { left } = limit;
    if (left <= 0) throw limit.error(0);
    sleepWhile(core, eventAt, seen, left);
  }
}

/** How a call that sleeps may wait. */
export type SleepOptions = Pick<WaitOptions, "timeoutMs">;

/** The limit of a call that sleeps: its time is the host's (PW2). EINVAL. */
export function sleepLimit(options: SleepOptions, operation: string): TimeLimit {
  const timeoutMs = requireTimeout(options, operation);
  return new TimeLimit({ timeoutMs }, operation);
}

/** What `next` brings, one after the other, until the pool is closed (PW3). */
export async function* framesUntilClosed<Frame extends { [Symbol.dispose](): void }>(
  next: () => Promise<Frame>,
): AsyncGenerator<Frame, void, undefined> {
  for (;;) {
    const frame = await next().catch(endOfPool);
    if (frame === null) return;
    try {
      yield frame;
    } finally {
      frame[Symbol.dispose]();
    }
  }
}

/** Null for the error that says that the pool was closed; throws any other. */
function endOfPool(error: unknown): null {
  if (error instanceof DmaBufError && error.code === "EPIPE") return null;
  throw error;
}
