/**
 * Making a call again while another thread holds what it needs.
 *
 * @module
 */

import { requireFunction } from "../arguments.ts";
import { armWait, requireTimeout, type WaitOptions, waitError } from "../clock.ts";
import { DmaBufError } from "../errors.ts";

/** Makes a call until it is not refused with EAGAIN. ETIME, EINTR, and what else it throws. */
export async function callAgain<T>(
  call: () => T,
  options: Omit<WaitOptions, "clock">,
  operation: string,
): Promise<T> {
  requireFunction(call, "the call", operation);
  const end = performance.now() + requireTimeout(options, operation);
  for (;;) {
    try {
      return call();
    } catch (error) {
      if (!(error instanceof DmaBufError && error.code === "EAGAIN")) throw error;
    }
    const timeout = Math.max(0, end - performance.now());
    const left = await new Promise<number>((done) => armWait(options, timeout, soon, done));
    if (left <= 0) throw waitError(left, operation, options);
  }
}

/** Calls `wake` a moment later; locks are held for less. */
function soon(wake: () => void): () => void {
  const timer = setTimeout(wake, 1);
  return () => clearTimeout(timer);
}
