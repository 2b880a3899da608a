/**
 * Errors of callbacks that cannot fail, or whose failing comes second.
 *
 * @module
 */

import { isPromise } from "./maybe-promise.ts";
import type { MaybePromise } from "./ops.ts";

/** Runs what must not stop the rest; what it throws goes to `failures`. */
export function attempt(call: () => MaybePromise<void>, failures: unknown[]): MaybePromise<void> {
  try {
    return call();
  } catch (error) {
    failures.push(error);
  }
}

/**
 * Runs what undoes a call that has failed: the caller hears of that failure, not of what fails in
 * its wake.
 */
export function undo(call: () => MaybePromise<void>): void {
  try {
    const undone = call();
    if (isPromise(undone)) undone.then(undefined, () => {});
  } catch {
    // the first error is on its way
  }
}

/** The same for a call that waits until it is undone. */
export async function undoLater(call: () => MaybePromise<void>): Promise<void> {
  try {
    await call();
  } catch {
    // the first error is on its way
  }
}
