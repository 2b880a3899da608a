/**
 * Watching a promise without waiting for it.
 *
 * @module
 */

/** How a promise has ended so far: "pending", "ok", or the code that it was rejected with. */
export function watch(promise: Promise<unknown>): { readonly code: string } {
  const seen = { code: "pending" };
  promise.then(
    () => {
      seen.code = "ok";
    },
    (error: { code: string }) => {
      seen.code = error.code;
    },
  );
  return seen;
}
