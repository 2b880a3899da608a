/**
 * WwMutex: a lock of which several may be taken in any order, because somebody always backs off.
 *
 *     free ──lock(context)──► held ──unlock()──► held by the next in line, or free
 *
 * - WW1  A context that holds locks does not wait for an older one: it gets EDEADLK, must unlock
 *        all that it holds, wait for this lock with nothing held, and then take the others again.
 * - WW2  Whoever holds nothing waits, and so does an older context. In line the older goes first;
 *        who has no context goes last.
 * - WW3  A context that holds the lock already gets EALREADY.
 *
 * Compare `struct ww_mutex`, wait-die, in the kernel's kernel/locking/ww_mutex.h.
 *
 * @module
 */

import { requireInstance, requireObject } from "../arguments.ts";
import { requireSignal } from "../clock.ts";
import { DmaBufError, type ErrnoCode, fail } from "../errors.ts";

/** One attempt to hold several locks at once. Made by `system.acquireContext()`. */
export class AcquireContext {
  /** When it began: the lower is the older. */
  readonly stamp: number;
  /** @internal */
  heldCount = 0;
  #isDone = false;

  /** @internal */
  constructor(stamp: number) {
    this.stamp = stamp;
  }

  /** Whether it takes no more locks. */
  get isDone(): boolean {
    return this.#isDone;
  }

  /** Says that it has all the locks it wants; it gets no more. */
  done(): void {
    this.#isDone = true;
  }

  /** Ends the attempt. EBUSY: it still holds locks. */
  fini(): void {
    if (this.heldCount > 0)
      fail("EBUSY", "end an acquire context", `it holds ${this.heldCount} locks; unlock them`);
    this.#isDone = true;
  }

  [Symbol.dispose](): void {
    this.fini();
  }
}

interface Waiter {
  readonly context: AcquireContext | null;
  readonly wake: (error: DmaBufError | null) => void;
}

/** How to wait for a lock. */
export interface LockOptions {
  /** Ends the wait with EINTR. */
  readonly signal?: AbortSignal | undefined;
}

/** A lock that one context, or one caller without, holds at a time. */
export class WwMutex {
  #isLocked = false;
  #holder: AcquireContext | null = null;
  #waiters: Waiter[] = [];

  get isLocked(): boolean {
    return this.#isLocked;
  }

  /** The context that holds it; null while free, or held without one. */
  get lockingContext(): AcquireContext | null {
    return this.#holder;
  }

  /** Takes the lock if it is free. Returns false if it is not. */
  tryLock(): boolean {
    if (this.#isLocked) return false;
    this.#take(null);
    return true;
  }

  /**
   * Takes the lock now. EALREADY (WW3), EDEADLK (WW1), EAGAIN: it would wait; EINVAL: the context
   * is done.
   */
  lock(context: AcquireContext | null = null): void {
    this.#requireMayWait(context);
    if (this.#isLocked) fail("EAGAIN", LOCK, "it is held; use lockAsync() to wait");
    this.#take(context);
  }

  /**
   * Takes the lock when it is its turn (WW2). Rejects with EALREADY, EINTR, EINVAL, or EDEADLK,
   * also while waiting, when an older context comes. It cannot end with EDEADLK for a context that
   * holds nothing: that is the kernel's lock_slow().
   */
  async lockAsync(context: AcquireContext | null = null, options: LockOptions = {}): Promise<void> {
    requireObject(options, "the options", LOCK);
    const { signal } = options;
    requireSignal(signal, LOCK);
    this.#requireMayWait(context);
    if (!this.#isLocked) {
      this.#take(context);
      return;
    }
    if (signal?.aborted) fail("EINTR", LOCK, "the wait was aborted");
    await this.#queue(context, signal);
  }

  /** Gives the lock to the next in line, if there is one. EINVAL: it is not held. */
  unlock(): void {
    if (!this.#isLocked) fail("EINVAL", "unlock", "it is not locked");
    if (this.#holder !== null) this.#holder.heldCount -= 1;
    this.#isLocked = false;
    this.#holder = null;
    const next = this.#waiters.shift();
    if (next === undefined) return;
    this.#take(next.context);
    next.wake(null);
  }

  #take(context: AcquireContext | null): void {
    this.#isLocked = true;
    this.#holder = context;
    if (context !== null) context.heldCount += 1;
  }

  #requireMayWait(context: AcquireContext | null): void {
    if (context === null) return;
    requireInstance(context, AcquireContext, "the context", LOCK);
    if (context.isDone) fail("EINVAL", LOCK, "the context takes no more locks");
    if (!this.#isLocked) return;
    if (this.#holder === context) fail("EALREADY", LOCK, "the context holds it already"); // WW3
    const others = [this.#holder, ...this.#waiters.map((waiter) => waiter.context)];
    if (others.some((other) => mustBackOff(context, other))) fail("EDEADLK", LOCK, BACK_OFF); // WW1
  }

  #queue(context: AcquireContext | null, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const waiter: Waiter = {
        context,
        wake: (error) => {
          signal?.removeEventListener("abort", onAbort);
          if (error === null) resolve();
          else reject(error);
        },
      };
      const onAbort = (): void => this.#dismiss(waiter, "EINTR", "the wait was aborted");
      signal?.addEventListener("abort", onAbort);
      for (const other of [...this.#waiters]) {
        if (mustBackOff(other.context, context)) this.#dismiss(other, "EDEADLK", BACK_OFF);
      }
      const at = this.#waiters.findIndex((other) => isOlder(context, other.context)); // WW2
      this.#waiters.splice(at < 0 ? this.#waiters.length : at, 0, waiter);
    });
  }

  #dismiss(waiter: Waiter, code: ErrnoCode, reason: string): void {
    this.#waiters = this.#waiters.filter((other) => other !== waiter);
    waiter.wake(new DmaBufError(code, LOCK, reason));
  }
}

const LOCK = "lock";
const BACK_OFF = "an older context wants it; unlock all that this one holds, and wait for it";

function isOlder(a: AcquireContext | null, b: AcquireContext | null): boolean {
  return a !== null && (b === null || a.stamp < b.stamp);
}

/** WW1: whether `context` may not wait behind `other`. */
function mustBackOff(context: AcquireContext | null, other: AcquireContext | null): boolean {
  return context !== null && other !== null && context.heldCount > 0 && isOlder(other, context);
}
