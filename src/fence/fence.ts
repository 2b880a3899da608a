/**
 * Fence: a one-way flag that says "this DMA operation has finished".
 *
 *     pending ──signal()──────► signaled
 *        └────signal(error)───► signaled, with `error` set before anyone wakes
 *
 * - F1  A fence never leaves `signaled`, and its `error` never changes there.
 * - F3  Callbacks run inside signal(), in the order they were added, exactly once; one that throws
 *       is reported and the rest run. Work that a callback defers runs after the last of them.
 * - F4  The record in shared memory lives while the fence is pending; what it ended with is kept
 *       here. Composite fences have none: their state is that of their parts.
 * - F6  A fence whose `token` was asked for has a record until it is released, so that other
 *       threads find it; its times there count from 1970, because each thread's clock begins when
 *       the thread does. A system that is closed has given all records up: its fences are this
 *       thread's alone then.
 * - F5  `enableSignaling` of the ops is called at most once, before the first callback or wait.
 *
 * Compare `struct dma_fence` in the kernel's drivers/dma-buf/dma-fence.c.
 *
 * @module
 */

import { hasKey } from "../arguments.ts";
import { requireTimeout, type WaitOptions, waitError } from "../clock.ts";
import type { Core } from "../core/core.ts";
import {
  checked,
  codeOf,
  DmaBufError,
  type ErrnoCode,
  errno,
  fail,
  textOf,
  throwLater,
} from "../errors.ts";
import { startWait } from "./wait.ts";

/** Called once when a fence signals. */
export type FenceCallback = (fence: Fence) => void;

/** What a driver knows about its fences: `struct dma_fence_ops`. Every member is optional. */
export interface FenceOps {
  /**
   * Called once, when somebody first wants to be told. False: the work is done already, and the
   * fence signals now.
   */
  readonly enableSignaling?: ((fence: Fence) => boolean) | undefined;
  /** Asked while the fence is pending. True: the work is done, and the fence signals now. */
  readonly signaled?: ((fence: Fence) => boolean) | undefined;
  /** Called when the fence is released. */
  readonly release?: ((fence: Fence) => void) | undefined;
  /** Called while the fence is pending, with the time somebody would like it to be done by. */
  readonly setDeadline?: ((fence: Fence, atMs: number) => void) | undefined;
  /** Whether seqnos have 64 bits and never wrap; 32 bits, if it is not given. */
  readonly hasWideSeqno?: boolean | undefined;
  /** Who drives the fences, as a sync file shows it; "dmabuf", if it is not given. */
  readonly driverName?: string | undefined;
  /** Which queue they are of; the fence's name, if it is not given. */
  readonly timelineName?: string | undefined;
}

/** What makes times of this thread comparable with those of others; reading it is slow. */
const TIME_ORIGIN_MS = performance.timeOrigin;
/** No record in shared memory (F4). */
const NO_RECORD = -1;

/** What completes, once. Made by `system.fence()` or by a {@link Timeline}. */
export class Fence {
  /** Fences of one context complete in `seqno` order; nothing orders two contexts. */
  readonly context: number;
  readonly seqno: number;
  /** Who will signal it, for people. */
  readonly name: string;
  /** @internal Null for a fence that was signaled from the start. */
  readonly core: Core | null;
  #handle: number;
  #isShared = false;
  /** Whether `core.tokens` leads to it: it was shared, or imported. */
  #isListed: boolean;
  readonly #ops: FenceOps | null;
  /** Null once signaled: the state and the list cannot disagree (F1, F3). */
  #callbacks: FenceCallback[] | null = [];
  /** Work for the end of signal() (F3). */
  #deferred: (() => void)[] | null = null;
  #isEnabled = false;
  #isReleased = false;
  /** What it will end with: 1, or the negative errno that was set. */
  #outcome = 1;
  #timestampMs = 0;

  /**
   * @internal `core` is null for a fence without a record; `record`: whether it gets one, or the
   * one that it stands for.
   */
  constructor(
    core: Core | null,
    context: number,
    seqno: number,
    name: string,
    ops: FenceOps | null = null,
    record: boolean | number = true,
  ) {
    this.core = core;
    this.context = context;
    this.seqno = seqno;
    this.name = name;
    this.#ops = ops;
    this.#isListed = typeof record === "number";
    core?.stacks?.add("fence", this);
    if (typeof record === "number") this.#handle = record;
    else
      this.#handle = record && core !== null ? makeRecord(core, context, seqno, name) : NO_RECORD;
  }

  /**
   * The number that other threads import the fence by: `system.importFence(token)`. Release the
   * fence when all have. EOPNOTSUPP: it belongs to no system; ESTALE: it was released.
   */
  get token(): number {
    const { core } = this;
    const operation = `share ${this.name}`;
    core?.requireJoined(operation);
    if (this.#isShared) return this.#handle;
    if (core === null) return fail("EOPNOTSUPP", operation, "it belongs to no system");
    if (this.#isReleased) return fail("ESTALE", operation, "it was released");
    if (this.#handle === NO_RECORD)
      this.#handle = makeRecord(core, this.context, this.seqno, this.name);
    this.#isShared = true;
    this.#isListed = true;
    core.tokens.set(this.#handle, this);
    if (this.isSignaled) this.#signalRecord(core);
    else this.enableSignaling(); // a composite hooks its parts
    return this.#handle;
  }

  /** Whether it is made of other fences: an array or a chain. */
  get isContainer(): boolean {
    return false;
  }

  /** Whether its seqno has 64 bits; one of 32 bits wraps. */
  get hasWideSeqno(): boolean {
    return this.#ops?.hasWideSeqno === true;
  }

  /** Who drives it: the kernel's get_driver_name(). */
  get driverName(): string {
    return this.#ops?.driverName ?? "dmabuf";
  }

  /** The queue that it is of: the kernel's get_timeline_name(). */
  get timelineName(): string {
    return this.#ops?.timelineName ?? this.name;
  }

  /** Whether it has signaled. Asks the ops of a pending fence, which may signal it now. */
  get isSignaled(): boolean {
    if (this.#callbacks === null) return true;
    if (this.#ops?.signaled?.(this) !== true) return false;
    this.signal();
    return true;
  }

  /** Whether it is known to have signaled: nobody is asked, and nothing changes. */
  get isMarkedSignaled(): boolean {
    return this.#callbacks === null;
  }

  /** @internal Whether a callback waits for it. */
  get hasCallbacks(): boolean {
    return this.#callbacks !== null && this.#callbacks.length > 0;
  }

  /** Whether somebody has wanted to be told (F5). */
  get isSignalingEnabled(): boolean {
    return this.#isEnabled;
  }

  /** 0 pending, 1 signaled, or the negative errno it ended with. Asks as `isSignaled` does. */
  get status(): number {
    return this.isSignaled ? this.#outcome : 0;
  }

  /** What the operation failed with; null while pending and after success. */
  get error(): DmaBufError | null {
    const code = this.errorCode;
    return code === null
      ? null
      : new DmaBufError(code, `finish ${this.name}`, "its owner reported the error");
  }

  /** The code of `error`, without making one. */
  get errorCode(): ErrnoCode | null {
    return this.#callbacks === null && this.#outcome < 0 ? codeOf(this.#outcome) : null;
  }

  /** When it signaled, in milliseconds of `performance.now()`; 0 while pending. */
  get timestampMs(): number {
    return this.#timestampMs;
  }

  /**
   * Makes sure that the fence will signal without being asked (F5). Returns false if it has
   * signaled. The kernel's dma_fence_enable_sw_signaling().
   */
  enableSignaling(): boolean {
    if (!this.#isEnabled) {
      this.#isEnabled = true;
      if (this.#callbacks === null) return false;
      if (this.#ops?.enableSignaling?.(this) === false) this.signal();
    }
    return this.#callbacks !== null;
  }

  /**
   * Runs `callback` on completion. Returns false, without calling it, if already signaled. EINVAL:
   * it is no function.
   */
  addCallback(callback: FenceCallback): boolean {
    if (typeof callback !== "function")
      fail("EINVAL", `add a callback to ${this.name}`, "the callback must be a function");
    if (this.#callbacks === null || !this.enableSignaling()) return false;
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
   * Sets what the fence will end with; hidden until it signals, and the last one counts. EINVAL: it
   * has signaled (F1).
   */
  setError(error: ErrnoCode): void {
    if (this.#callbacks === null)
      fail("EINVAL", `set the error of ${this.name}`, "it has signaled already");
    this.#outcome = -this.#numberOf(error, "set the error of");
  }

  #numberOf(error: ErrnoCode, verb: string): number {
    if (hasKey(errno, error)) return errno[error];
    return fail("EINVAL", `${verb} ${this.name}`, `${textOf(error)} is no errno's name`);
  }

  /**
   * Completes the fence, with an errno if the operation failed, now or at a time of the caller's.
   * Returns false if it was complete already.
   */
  signal(error: ErrnoCode | null = null, atMs: number = performance.now()): boolean {
    const callbacks = this.#callbacks;
    if (callbacks === null) return false;
    if (!Number.isFinite(atMs)) fail("EINVAL", `signal ${this.name}`, `${textOf(atMs)} is no time`);
    if (error !== null) this.#outcome = -this.#numberOf(error, "signal");
    this.#timestampMs = atMs;
    this.#callbacks = null; // F1 holds from here on, even if a callback looks
    this.#endRecord();
    for (const callback of callbacks) runReported(callback, this);
    if (this.#deferred !== null) {
      for (const work of this.#deferred) runReported(work, this); // F3
      this.#deferred = null;
    }
    return true;
  }

  /**
   * @internal Whether it belongs to the memory of `core`: another system's contexts mean nothing.
   */
  isOn(core: Core): boolean {
    return this.core === null || this.core.memory === core.memory;
  }

  /** @internal From a callback: runs `work` when all callbacks have run (F3). */
  defer(work: () => void): void {
    this.#deferred ??= [];
    this.#deferred.push(work);
  }

  /** Says by when the fence should be done. A hint: only its ops know what to do with it. */
  setDeadline(atMs: number): void {
    if (typeof atMs !== "number" || Number.isNaN(atMs))
      fail("EINVAL", `set the deadline of ${this.name}`, `${textOf(atMs)} is no time`);
    if (!this.isSignaled) this.#ops?.setDeadline?.(this, atMs);
  }

  /**
   * Gives the fence up, as the last dma_fence_put() does: if it is pending, also when its ops are
   * asked, it ends with EDEADLK, so that nobody waits for ever.
   */
  release(): void {
    if (this.#isReleased) return;
    this.#isReleased = true;
    if (!this.isSignaled) this.signal("EDEADLK");
    this.#dropRecord();
    this.#ops?.release?.(this);
  }

  [Symbol.dispose](): void {
    this.release();
  }

  /**
   * Resolves when the fence is signaled, with or without an error. Rejects with ETIME, or EINTR
   * when `signal` aborts.
   */
  wait(options: WaitOptions = {}): Promise<void> {
    return new Promise((resolve, reject) => {
      startWait(this, options, (left) => {
        if (left > 0) resolve();
        else reject(waitError(left, `wait for ${this.name}`, options));
      });
    });
  }

  /**
   * Sleeps until the fence is signaled. Only a fence that another thread signals can be waited for
   * like that. EDEADLK: it is this thread's own; ETIME; EWOULDBLOCK: this thread may not sleep.
   */
  waitSync(options: Pick<WaitOptions, "timeoutMs"> = {}): void {
    requireTimeout(options, `wait for ${this.name}`);
    if (this.isSignaled) return;
    fail("EDEADLK", `wait for ${this.name}`, "a thread that sleeps cannot signal it; use wait()");
  }

  /** F4, F6. */
  #endRecord(): void {
    if (this.#handle === NO_RECORD || this.core === null) return;
    this.#signalRecord(this.core);
    if (!this.#isShared) this.#dropRecord();
  }

  #signalRecord({ exports }: Core): void {
    const atMs = this.#timestampMs + TIME_ORIGIN_MS;
    exports.fenceSignal(this.#handle, Math.min(this.#outcome, 0), atMs);
  }

  #dropRecord(): void {
    if (this.#handle === NO_RECORD || this.core === null) return;
    if (this.#isListed) this.core.tokens.delete(this.#handle);
    this.core.exports.fenceFree(this.#handle);
    this.#handle = NO_RECORD;
    this.#isShared = false;
    this.#isListed = false;
  }
}

function makeRecord({ exports }: Core, context: number, seqno: number, name: string): number {
  const handle = exports.fenceAlloc(context, seqno);
  if (handle >= 0) return handle; // its name is not put together for nothing
  return checked(handle, `create fence ${name}`, () => "no memory is left for its record");
}

/** F3: what a callback throws must not reach the signaller. */
function runReported(callback: FenceCallback, fence: Fence): void {
  try {
    callback(fence);
  } catch (error) {
    throwLater(error);
  }
}

/** The names of a fence that nobody drives. */
const stubOps: FenceOps = { driverName: "stub", timelineName: "stub" };

/** A fence that signaled at `timestampMs`, of context 0: dma_fence_allocate_private_stub(). */
export function signaledFence(timestampMs: number = performance.now()): Fence {
  const fence = new Fence(null, 0, 0, "signaled", stubOps);
  fence.signal(null, timestampMs);
  return fence;
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
