/**
 * What an op returned: a value, or the promise of one, which only asynchronous calls can wait for.
 *
 * @module
 */

import { fail } from "../errors.ts";
import type { MaybePromise } from "./ops.ts";

/** Whether an op has returned a promise. */
export function isPromise<T>(value: MaybePromise<T> | undefined): value is Promise<T> {
  return typeof (value as { then?: unknown } | null | undefined)?.then === "function";
}

/**
 * EWOULDBLOCK: a synchronous call cannot wait. What the promise gives later goes to `giveBack`, and
 * if it fails nobody is told: the call has failed already.
 */
export function refusePromise<T>(
  promise: Promise<T>,
  operation: string,
  giveBack: (late: T) => MaybePromise<void>,
): never {
  promise.then(giveBack).then(undefined, () => {});
  return fail("EWOULDBLOCK", operation, "the exporter answers asynchronously; use the async form");
}

/** The value that an op has returned; refuses a promise as {@link refusePromise} does. */
export function valueNow<T>(
  result: MaybePromise<T>,
  operation: () => string,
  giveBack: (late: T) => MaybePromise<void>,
): T {
  return isPromise(result) ? refusePromise(result, operation(), giveBack) : result;
}
