/**
 * Endings: ops that give back, while they have not ended.
 *
 *     unmapAsync() ─► op ─► a Promise ─► ended: resolves         the mapping is there until then
 *     unmap()      ─► op ─► a Promise ─► EWOULDBLOCK             the same, until somebody
 *                                            └─► unmapAsync()    takes the end over, and waits
 *
 * - EN1  An op that gives back is called once: while it is under way, a call for the same thing is
 *        EALREADY. An end that a synchronous call began is taken over by the first that waits.
 * - EN2  What is given back stays until the op has ended; if that fails, it stays for good.
 *
 * @module
 */

import { fail } from "../errors.ts";
import { isPromise } from "./maybe-promise.ts";
import type { MaybePromise } from "./ops.ts";

/** @internal What is being given back of one buffer, each thing under a token. */
export class Endings {
  readonly #pending: Map<object, Promise<void>> = new Map();
  /** Those that nobody waits for (EN1). */
  readonly #deserted: Set<object> = new Set();

  /** How many have not ended. */
  get size(): number {
    return this.#pending.size;
  }

  /** The end of `token` that is under way. */
  of(token: object): Promise<void> | undefined {
    return this.#pending.get(token);
  }

  /** The end of `token` that is under way and that nobody waits for; the caller does (EN1). */
  takeOver(token: object): Promise<void> | undefined {
    return this.#deserted.delete(token) ? this.#pending.get(token) : undefined;
  }

  /** Throws EALREADY while `token` ends (EN1). */
  requireNone(token: object, operation: () => string): void {
    if (this.#pending.size > 0 && this.#pending.has(token))
      fail("EALREADY", operation(), "the exporter is ending it; await the async form");
  }

  /** For an asynchronous call: `ended` is what the op has answered; calls `done` when it has. */
  later(token: object, ended: MaybePromise<void>, done: () => void): MaybePromise<void> {
    return isPromise(ended) ? this.#begin(token, ended, done) : done();
  }

  /** For a synchronous call whose op answered with a promise (EN2). EWOULDBLOCK. */
  refuse(token: object, ended: Promise<void>, done: () => void, operation: () => string): never {
    this.#deserted.add(token);
    this.#begin(token, ended, done).catch(() => {}); // this call has failed already
    const reason = "the exporter ends it asynchronously, and goes on; await the async form";
    return fail("EWOULDBLOCK", operation(), reason);
  }

  #begin(token: object, ended: Promise<void>, done: () => void): Promise<void> {
    const pending = this.#finish(token, ended, done);
    this.#pending.set(token, pending);
    return pending;
  }

  async #finish(token: object, ended: Promise<void>, done: () => void): Promise<void> {
    try {
      await ended;
    } finally {
      this.#pending.delete(token);
      this.#deserted.delete(token);
    }
    done();
  }
}
