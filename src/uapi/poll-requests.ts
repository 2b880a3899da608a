/**
 * poll(): several descriptors of a process at once.
 *
 * - PR1  A negative descriptor is left out, one that is not open is POLLNVAL and ends the wait.
 *
 * Compare do_sys_poll() in the kernel's fs/select.c.
 *
 * @module
 */

import { requireObject, requireObjects } from "../arguments.ts";
import { type WaitOptions, waitError } from "../clock.ts";
import type { FdTable } from "../files/fd-table.ts";
import type { OpenFile } from "../files/open-file.ts";
import { POLLNVAL, type PollEntry, pollNow, startPoll } from "../files/poll.ts";
import { operationsOf } from "./paths.ts";

/** A descriptor, and what to poll it for. */
export interface PollRequest {
  /** A negative number is left out. */
  readonly fd: number;
  /** A mask of `POLL…`. */
  readonly events: number;
}

/** What each descriptor is ready for now. */
export function pollRequests(files: FdTable<OpenFile>, requests: readonly PollRequest[]): number[] {
  requireObjects(requests, "the requests", "poll");
  const found = requests.map(({ fd }) => files.find(fd));
  return answer(requests, found, pollNow(entriesOf(requests, found)));
}

/** The same, as soon as one is ready; all 0 when the time ran out. EINTR. */
export function pollRequestsAsync(
  files: FdTable<OpenFile>,
  requests: readonly PollRequest[],
  options: WaitOptions,
): Promise<number[]> {
  requireObjects(requests, "the requests", "poll");
  requireObject(options, "the options", "poll");
  const found = requests.map(({ fd }) => files.find(fd));
  const isBad = requests.some(({ fd }, i) => !isLeftOut(fd) && found[i] === null); // PR1
  const limited = isBad ? { ...options, timeoutMs: 0 } : options;
  return new Promise((resolve, reject) => {
    startPoll(entriesOf(requests, found), limited, (left, ready) => {
      if (left >= 0) resolve(answer(requests, found, ready));
      else reject(waitError(left, "poll", limited));
    });
  });
}

/** PR1. */
function isLeftOut(fd: number): boolean {
  return typeof fd === "number" && fd < 0;
}

type Found = readonly (OpenFile | null)[];

/** The open files, in order. */
function entriesOf(requests: readonly PollRequest[], found: Found): PollEntry[] {
  return requests.flatMap(({ events }, i) => {
    const file = found[i] ?? null;
    return file === null ? [] : [{ file: operationsOf(file).pollable, events }];
  });
}

/** What the open files are ready for, with the others between them (PR1). */
function answer(
  requests: readonly PollRequest[],
  found: Found,
  ready: readonly number[],
): number[] {
  const rest = [...ready];
  return requests.map(({ fd }, i) => {
    if (found[i] !== null) return rest.shift() ?? 0;
    return isLeftOut(fd) ? 0 : POLLNVAL;
  });
}
