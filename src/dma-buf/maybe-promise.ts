/**
 * What an op returned: a value, or the promise of one, which only asynchronous calls can wait for.
 *
 * @module
 */

import { fail } from "../errors.ts";
import type { MaybePromise } from "./ops.ts";

/** Whether an op has returned a promise. */
export function isPromise(value: unknown): value is Promise<unknown> {
  return typeof (value as { then?: unknown } | null | undefined)?.then === "function";
}

/**
 * The value that an op has returned; EWOULDBLOCK for a promise. What that gives later goes to
 * `giveBack`, and if it fails nobody is told: the call has failed already.
 */
export function valueNow<T>(
  result: MaybePromise<T>,
  operation: () => string,
  giveBack: (late: T) => void,
): T {
  if (!isPromise(result)) return result;
  result.then(giveBack, () => {});
  return fail(
    "EWOULDBLOCK",
    operation(),
    "the exporter answers asynchronously; use the async form",
  );
}
