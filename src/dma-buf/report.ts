/**
 * Errors of callbacks that cannot fail: they reach the host's handler, not the caller.
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
