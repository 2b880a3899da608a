/**
 * Errors of callbacks that cannot fail, or whose failing comes second.
 *
 * @module
 */

import { throwLater } from "../errors.ts";

/** Runs `callback`; what it throws is thrown again as a task of its own. */
export function reportError(callback: () => void): void {
  try {
    callback();
  } catch (error) {
    throwLater(error);
  }
}

/**
 * Runs what undoes a call that has failed: the caller hears of that failure, not of what fails in
 * its wake.
 */
export function undo(call: () => void): void {
  try {
    call();
  } catch {
    // the first error is on its way
  }
}
