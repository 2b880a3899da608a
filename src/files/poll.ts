/**
 * Polling: which files are ready now, and waiting until one is.
 *
 *     startPoll() ─► ask every file ──one is ready─────────────► done
 *                        └──none──► wait in every queue ──woken──► ask again
 *
 * - PL1  Readiness is a level: it is asked for again after every wake-up, never remembered.
 * - PL2  POLLERR, POLLHUP and POLLNVAL are told whether they were asked for or not.
 *
 * Compare do_poll() in the kernel's fs/select.c.
 *
 * @module
 */

import { requireFunction, requireObjects } from "../arguments.ts";
import { armWait, requireTimeout, type WaitOptions, waitError } from "../clock.ts";
import { fail, requireInteger } from "../errors.ts";

/** There is something to read; of a buffer: nobody writes any more. */
export const POLLIN = 1;
/** There is something urgent to read. */
export const POLLPRI = 2;
/** Writing would not wait; of a buffer: nobody reads or writes any more. */
export const POLLOUT = 4;
/** The file is broken. */
export const POLLERR = 8;
/** The other end hung up. */
export const POLLHUP = 16;
/** The descriptor is not open. */
export const POLLNVAL = 32;

const ALWAYS_TOLD = POLLERR + POLLHUP + POLLNVAL;
/** What a file that cannot be polled is always ready for. */
const DEFAULT_EVENTS = POLLIN + POLLOUT;

/** Who wants to hear that a file may have become ready. */
export class WaitQueue {
  readonly #wakes: Set<() => void> = new Set();

  add(wake: () => void): void {
    requireFunction(wake, "the callback", "wait in a queue");
    this.#wakes.add(wake);
  }

  remove(wake: () => void): void {
    this.#wakes.delete(wake);
  }

  /** Calls everybody who waits. */
  wakeAll(): void {
    for (const wake of [...this.#wakes]) wake();
  }
}

/** A file whose readiness changes. */
export interface PollableFile {
  /** What of `events` is ready; arms whatever will wake `pollQueue` when that changes. */
  poll(events: number): number;
  readonly pollQueue: WaitQueue;
}

/** A file and what to poll it for. A file that cannot be polled is always ready. */
export interface PollEntry {
  readonly file: PollableFile | null;
  readonly events: number;
}

/** The kernel keeps them in 16 bits. */
const EVENTS_MAX = 0xffff;

/** Throws EINVAL for what is no mask of events. */
export function requireEvents(events: number): void {
  requireInteger(events, "events", 0, EVENTS_MAX, "poll");
}

/** What of its events each entry is ready for now (PL2). */
export function pollNow(entries: readonly PollEntry[]): number[] {
  requireObjects(entries, "the entries", "poll");
  return entries.map(({ file, events }) => {
    requireEvents(events);
    if (file !== null && typeof file?.poll !== "function")
      fail("EINVAL", "poll", "a file of the entries cannot be polled");
    const told = events | ALWAYS_TOLD;
    return (file === null ? DEFAULT_EVENTS : file.poll(told)) & told;
  });
}

/**
 * Waits until one entry is ready; `done` also gets what each is ready for (PL1), all 0 if the time
 * ran out or the wait was aborted. EINVAL: the timeout is negative.
 */
export function startPoll(
  entries: readonly PollEntry[],
  options: WaitOptions,
  done: (left: number, ready: number[]) => void,
): void {
  const timeout = requireTimeout(options, "poll");
  requireFunction(done, "done", "poll");
  let ready = pollNow(entries);
  if (isAny(ready)) {
    done(timeout || 1, ready);
    return;
  }
  const queues = entries.flatMap(({ file }) => (file === null ? [] : [file.pollQueue]));
  const subscribe = (wake: () => void): (() => void) => {
    const ask = (): void => {
      ready = pollNow(entries);
      if (isAny(ready)) wake();
    };
    for (const queue of queues) queue.add(ask);
    return () => {
      for (const queue of queues) queue.remove(ask);
    };
  };
  armWait(options, timeout, subscribe, (left) => done(left, ready));
}

/** Resolves with what one file is ready for, as soon as it is. ETIME, EINTR, EINVAL. */
export function pollFile(
  file: PollableFile,
  events: number,
  options: WaitOptions,
): Promise<number> {
  return new Promise((resolve, reject) => {
    startPoll([{ file, events }], options, (left, [ready = 0]) => {
      if (left > 0) resolve(ready);
      else reject(waitError(left, "poll a file", options));
    });
  });
}

function isAny(ready: readonly number[]): boolean {
  return ready.some((events) => events !== 0);
}
