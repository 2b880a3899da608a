/**
 * What code under test throws as a task of its own, for the host to hear.
 *
 * @module
 */

/**
 * The next error that nobody catches. Until it has come the runner's own listeners, which would
 * fail the test, do not hear.
 */
export function nextUncaught(): Promise<unknown> {
  const listeners = process.listeners("uncaughtException");
  for (const one of listeners) process.removeListener("uncaughtException", one);
  return new Promise((resolve) => {
    process.once("uncaughtException", (error) => {
      for (const one of listeners) process.on("uncaughtException", one);
      resolve(error);
    });
  });
}
