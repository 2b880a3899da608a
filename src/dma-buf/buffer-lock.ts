/**
 * Buffer lock: the reservation lock as the calls on a buffer need it.
 *
 *     requireHeld()   map, unmap, pin, unpin of a dynamic importer     the caller has locked
 *     withLock()      attach, detach, and the forms "…Unlocked"        the call locks, for its time
 *     withLockAsync() the forms "…Async"                               the same, after waiting
 *
 * - BL1  A call that locks for itself finds the lock free, or changes nothing: EDEADLK where only
 *        its own importer could free it, EAGAIN otherwise. Its own are a callback that runs inside
 *        a call that holds the lock, and the importer whose asynchronous call has not ended.
 * - BL2  A lock that an unfinished asynchronous call took is not the caller's.
 *
 * Compare "DMA-BUF locking convention" in the kernel's drivers/dma-buf/dma-buf.c.
 *
 * @module
 */

import { armWait, type WaitOptions } from "../clock.ts";
import { fail } from "../errors.ts";
import { CallContext, type LockHolder, type Resv } from "./resv.ts";
import type { TimeLimit } from "./time-limit.ts";
import type { AcquireContext } from "./ww-mutex.ts";

/** How an asynchronous call waits, and whose lock it may use. One limit is for all of its waits. */
export interface AsyncOptions extends WaitOptions {
  /** If this context holds the lock already, the call runs under it; else it locks with it. */
  readonly context?: AcquireContext | undefined;
}

/** Throws EINVAL unless the caller holds the lock (BL2: EDEADLK, EAGAIN). */
export function requireHeld(resv: Resv, importer: object, operation: () => string): void {
  if (!resv.isLocked)
    fail("EINVAL", operation(), "buf.resv is not locked; lock it, or use the unlocked form");
  const { holder } = resv;
  if (holder !== null && !holder.isInside) refuse(holder, importer, operation());
}

/** Throws unless the lock is free (BL1). */
export function requireFree(resv: Resv, importer: object, operation: () => string): void {
  if (!resv.isLocked) return;
  const { holder } = resv;
  if (holder !== null) refuse(holder, importer, operation());
  fail("EAGAIN", operation(), "buf.resv is locked, and the call locks it itself; unlock it first");
}

function refuse({ importer, isInside }: LockHolder, caller: object, operation: string): never {
  if (isInside)
    fail("EDEADLK", operation, "it is called from a callback that runs with buf.resv locked");
  if (importer === caller)
    fail("EDEADLK", operation, "an asynchronous call for the same device holds buf.resv; await it");
  return fail("EAGAIN", operation, "an unfinished asynchronous call holds buf.resv; try again");
}

/** Runs `call` with the lock held (BL1). */
export function withLock<T>(
  resv: Resv,
  importer: object,
  operation: () => string,
  call: () => T,
): T {
  requireFree(resv, importer, operation);
  resv.lock();
  resv.holder = { importer, isInside: true };
  try {
    return call();
  } finally {
    resv.holder = null;
    resv.unlock();
  }
}

/** Takes the lock in time. ETIME, EINTR, and what lockAsync() throws. */
async function lockWithin(
  resv: Resv,
  context: AcquireContext,
  limit: TimeLimit<AsyncOptions>,
): Promise<void> {
  const controller = new AbortController();
  let { left } = limit;
  let stop = (): void => {};
  const subscribe = (wake: () => void): (() => void) => {
    stop = wake;
    return () => {};
  };
  armWait(limit.options, left, subscribe, (rest) => {
    left = rest;
    if (rest <= 0) controller.abort();
  });
  try {
    await resv.lockAsync(context, { signal: controller.signal });
  } catch (error) {
    throw left <= 0 ? limit.error(left) : error;
  }
  if (left > 0) stop();
}

/**
 * Waits for the lock and holds it until what `call` returned is there. ETIME, EINTR: the wait for
 * the lock; EDEADLK: an older context wants it.
 */
export async function withLockAsync<T>(
  resv: Resv,
  importer: object,
  limit: TimeLimit<AsyncOptions>,
  call: () => Promise<T>,
): Promise<T> {
  const context = limit.options.context ?? new CallContext(importer);
  const isHeld = resv.lockingContext === context;
  if (!isHeld) await lockWithin(resv, context, limit);
  const outer = resv.holder;
  const holder = outer ?? { importer, isInside: false };
  resv.holder = holder;
  try {
    holder.isInside = true;
    const result = call();
    holder.isInside = false;
    return await result;
  } finally {
    resv.holder = isHeld ? outer : null;
    if (!isHeld) resv.unlock();
  }
}

/** Runs a callback that may use the lock which is held for it, whoever holds it. */
export function runInside(resv: Resv, callback: () => void): void {
  const { holder } = resv;
  const wasInside = holder?.isInside ?? false;
  if (holder !== null) holder.isInside = true;
  try {
    callback();
  } finally {
    if (holder !== null) holder.isInside = wasInside;
  }
}
