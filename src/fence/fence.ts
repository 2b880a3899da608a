/**
 * Fence: a one-way flag that says "this DMA operation has finished".
 *
 *     pending ──signal()──────► signaled
 *        └────signal(error)───► signaled, with `error` set before anyone wakes
 *
 * - F1  A fence never leaves `signaled`, and its `error` never changes there.
 * - F3  Callbacks run inside signal(), in the order they were added, exactly once; one that throws
 *       is reported and the rest run.
 * - F4  The record in shared memory lives while the fence is pending; what it ended with is kept
 *       here.
 *
 * Compare `struct dma_fence` in the kernel's drivers/dma-buf/dma-fence.c.
 *
 * @module
 */

import type { Core } from "../core/core.ts";
import { checked, codeOf, DmaBufError, type ErrnoCode, errno, fail } from "../errors.ts";

/** Called once when a fence signals. */
export type FenceCallback = (fence: Fence) => void;

/** How to wait: a time limit, and the AbortSignal that interrupts. */
export interface WaitOptions {
  /** Milliseconds; without it the wait has no limit. */
  readonly timeoutMs?: number;
  /** Ends the wait with EINTR. */
  readonly signal?: AbortSignal;
}

/** What completes, once. Made by `system.fence()` or by a {@link Timeline}. */
export class Fence {
  /** Fences of one context complete in `seqno` order; nothing orders two contexts. */
  readonly context: number;
  readonly seqno: number;
  /** Who will signal it, for people. */
  readonly name: string;
  readonly #core: Core;
  readonly #handle: number;
  /** Null once signaled: the state and the list cannot disagree (F1, F3). */
  #callbacks: FenceCallback[] | null = [];
  #status = 0;
  #timestampMs = 0;

  /** @internal */
  constructor(core: Core, context: number, seqno: number, name: string) {
    this.#core = core;
    this.context = context;
    this.seqno = seqno;
    this.name = name;
    this.#handle = checked(
      core.exports.fenceAlloc(context, seqno),
      `create fence ${name}`,
      () => "no memory is left for its record",
    );
  }

  get isSignaled(): boolean {
    return this.#callbacks === null;
  }

  /** 0 pending, 1 signaled, or the negative errno it ended with. */
  get status(): number {
    return this.#status;
  }

  /** What the operation failed with; null while pending and after success. */
  get error(): DmaBufError | null {
    return this.#status < 0
      ? new DmaBufError(codeOf(this.#status), `finish ${this.name}`, "its owner reported the error")
      : null;
  }

  /** When it signaled, in milliseconds of `performance.now()`; 0 while pending. */
  get timestampMs(): number {
    return this.#timestampMs;
  }

  /** Runs `callback` on completion. Returns false, without calling it, if already signaled. */
  addCallback(callback: FenceCallback): boolean {
    if (this.#callbacks === null) return false;
    this.#callbacks.push(callback);
    return true;
  }

  /** Takes a callback back. Returns false if it ran already or was never added. */
  removeCallback(callback: FenceCallback): boolean {
    const at = this.#callbacks?.indexOf(callback) ?? -1;
    if (at < 0) return false;
    this.#callbacks?.splice(at, 1);
    return true;
  }

  /**
   * Completes the fence, with an errno if the operation failed. Returns false if it was complete
   * already.
   */
  signal(error: ErrnoCode | null = null): boolean {
    const callbacks = this.#callbacks;
    if (callbacks === null) return false;
    const now = performance.now();
    this.#core.exports.fenceSignal(this.#handle, error === null ? 0 : -errno[error], now);
    this.#status = error === null ? 1 : -errno[error];
    this.#timestampMs = now;
    this.#callbacks = null; // F1 holds from here on, even if a callback looks
    this.#core.exports.fenceFree(this.#handle); // F4
    for (const callback of callbacks) runReported(callback, this);
    return true;
  }

  /**
   * Resolves when the fence is signaled, with or without an error. Rejects with ETIME, or EINTR
   * when `signal` aborts.
   */
  async wait(options: WaitOptions = {}): Promise<void> {
    if (this.isSignaled) return;
    await waitForCallback(this, options, `wait for ${this.name}`);
  }
}

/**
 * F3: an error thrown by a callback is its owner's, and must reach the host's handler, not the
 * signaller.
 */
function runReported(callback: FenceCallback, fence: Fence): void {
  try {
    callback(fence);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

function waitForCallback(
  fence: Fence,
  { timeoutMs, signal }: WaitOptions,
  operation: string,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = (code: ErrnoCode | null, reason: string): void => {
      fence.removeCallback(onSignaled);
      signal?.removeEventListener("abort", onAbort);
      clearTimeout(timer);
      if (code === null) resolve();
      else reject(new DmaBufError(code, operation, reason));
    };
    const onSignaled = (): void => end(null, "");
    const onAbort = (): void => end("EINTR", "the wait was aborted");
    const timer =
      timeoutMs === undefined
        ? undefined
        : setTimeout(() => end("ETIME", `it is pending after ${timeoutMs} ms`), timeoutMs);
    if (signal?.aborted) return onAbort();
    signal?.addEventListener("abort", onAbort);
    fence.addCallback(onSignaled);
  });
}

/** Throws EAGAIN when one of `fences` is pending: what a call that cannot wait does. */
export function requireSignaled(fences: readonly Fence[], operation: string): void {
  const pending = fences.find((fence) => !fence.isSignaled);
  if (pending !== undefined) {
    fail(
      "EAGAIN",
      operation,
      `fence ${pending.name} (${pending.context}:${pending.seqno}) is pending; await it first`,
    );
  }
}
