/**
 * Waiting for fences: one callback form underneath every promise, on a clock that the caller may
 * bring.
 *
 *     startWait() ──signaled────► done(what is left of the timeout, at least 1)
 *         ├─────────no time left► done(0)
 *         └─────────aborted─────► done(-EINTR)
 *
 * - FW1  `done` is called once, perhaps before the call returns; no callback, timer or listener of
 *        the wait is left then.
 * - FW2  Signaled is looked at before the abort, and the abort before the time.
 *
 * Compare dma_fence_wait_timeout() in the kernel's drivers/dma-buf/dma-fence.c.
 *
 * @module
 */

import { requireFunction, requireObjects } from "../arguments.ts";
import { armWait, requireTimeout, type WaitDone, type WaitOptions, waitError } from "../clock.ts";
import { fail, requireInteger } from "../errors.ts";
import type { Fence } from "./fence.ts";

/** Waits for one fence without a promise. EINVAL: the timeout is negative. */
export function startWait(fence: Fence, options: WaitOptions, done: WaitDone): void {
  requireWaitable([fence], done, "wait for a fence");
  const timeout = requireTimeout(options, `wait for ${fence.name}`);
  if (isOver(fence)) done(timeout || 1);
  else arm([fence], options, timeout, done);
}

/**
 * Waits for the first of `fences` without a promise; `done` also gets its index, or -1. EINVAL:
 * there are none, or the timeout is negative.
 */
export function startWaitAny(
  fences: readonly Fence[],
  options: WaitOptions,
  done: (left: number, index: number) => void,
): void {
  const timeout = requireTimeout(options, "wait for any fence");
  requireWaitable(fences, done, "wait for any fence");
  if (fences.length === 0) fail("EINVAL", "wait for any fence", "there are none to wait for");
  if (timeout === 0) {
    const signaled = fences.findIndex((fence) => fence.isSignaled);
    done(signaled < 0 ? 0 : 1, signaled);
    return;
  }
  const first = fences.findIndex(isOver);
  if (first >= 0) {
    done(timeout, first);
    return;
  }
  arm(fences, options, timeout, (left) => {
    done(left, left > 0 ? fences.findIndex((fence) => fence.isMarkedSignaled) : -1);
  });
}

/** Waits for all of `fences`, one after the other, with one timeout, without a promise. */
export function startWaitAll(
  fences: readonly Fence[],
  options: WaitOptions,
  done: WaitDone,
  index = 0,
): void {
  const timeout = requireTimeout(options, "wait for all fences");
  requireWaitable(fences, done, "wait for all fences");
  requireInteger(index, "index", 0, fences.length, "wait for all fences");
  const fence = fences[index];
  if (fence === undefined) {
    done(timeout || 1);
    return;
  }
  startWait(fence, options, (left) => {
    const isLimited = timeout !== 0 && timeout !== Number.POSITIVE_INFINITY;
    const rest = isLimited ? { ...options, timeoutMs: left } : options;
    if (left > 0) startWaitAll(fences, rest, done, index + 1);
    else done(left);
  });
}

/**
 * Resolves with the index of the first fence that signals. Rejects with EINVAL (no fences), ETIME
 * or EINTR.
 */
export function waitAny(fences: readonly Fence[], options: WaitOptions = {}): Promise<number> {
  return new Promise((resolve, reject) => {
    startWaitAny(fences, options, (left, index) => {
      if (left > 0) resolve(index);
      else reject(waitError(left, "wait for any fence", options));
    });
  });
}

/** Throws EINVAL for what is no list of fences, or cannot be told. */
function requireWaitable(fences: readonly Fence[], done: unknown, operation: string): void {
  requireObjects(fences, "the fences", operation);
  for (const fence of fences)
    if (typeof fence.enableSignaling !== "function")
      fail("EINVAL", operation, "one of them is no fence");
  requireFunction(done, "done", operation);
}

/** Whether a fence has signaled, when it was told that somebody waits and then asked. */
function isOver(fence: Fence): boolean {
  return !fence.enableSignaling() || fence.isSignaled;
}

/** Waits for the first of fences that are all pending. */
function arm(
  fences: readonly Fence[],
  options: WaitOptions,
  timeout: number,
  done: WaitDone,
): void {
  const subscribe = (wake: () => void): (() => void) => {
    for (const fence of fences) fence.addCallback(wake);
    return () => {
      for (const fence of fences) fence.removeCallback(wake); // FW1
    };
  };
  armWait(options, timeout, subscribe, done);
}
