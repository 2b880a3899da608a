/**
 * Errors of callbacks that cannot fail, or whose failing comes second.
 *
 * @module
 */

/** Runs `callback`; what it throws is thrown again as a task of its own. */
export function reportError(callback: () => void): void {
  try {
    callback();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
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
