/**
 * ImportedFence: a fence that another thread signals.
 *
 *     owner    fence.token ──number──►           importFence(number)
 *     owner    signal() ─► record in memory ─► wake-up ─► signals here, callbacks run on this thread
 *
 * - FI1  It is pending here until this thread has looked: asked for its state, waited, or woken.
 * - FI2  While it is pending and has callbacks here, this thread waits on the record.
 * - FI3  Only its owner signals it or sets its error (EPERM). An owner that is gone: it ends with
 *        EOWNERDEAD.
 * - FI4  When this thread leaves the memory, it ends with ENODEV: nobody tells it more.
 * - FI5  This thread holds the record once, for its user, who imported it, and for each use by a
 *        pool. Each gives up what is his; with the last of them the thread lets go.
 *
 * @module
 */

import { requireTimeout, type WaitOptions, waitError } from "../clock.ts";
import type { Core } from "../core/core.ts";
import { loadWord, onceChanged, sleepWhile } from "../core/wait-word.ts";
import { checked, codeOf, type ErrnoCode, fail } from "../errors.ts";
import { Fence, type FenceCallback, type FenceOps } from "./fence.ts";

const CONTEXT = 1;
const SEQNO = 2;
const TIMESTAMP_AT = 16;
const PENDING = 0;

/** A fence of another thread. Made by `system.importFence(token)`. */
export class ImportedFence extends Fence {
  static readonly #ops: FenceOps = {
    signaled: (fence) => (fence as ImportedFence).#look(),
  };
  readonly #core: Core;
  readonly #stateAt: number;
  #stopListening: (() => void) | null = null;
  #isReleasing = false;
  /** Whether the user has it; how many uses there are (FI5). */
  #isKept = false;
  #useCount = 0;

  /** @internal The thread holds the record already, for nobody yet. */
  constructor(core: Core, token: number) {
    const at = checked(core.exports.fenceAt(token), "import a fence", () => "it is gone");
    const [context, seqno] = [core.word(at, CONTEXT), core.word(at, SEQNO)];
    super(core, context, seqno, `imported ${context}:${seqno}`, ImportedFence.#ops, token);
    this.#core = core;
    this.#stateAt = at;
    core.tokens.set(token, this);
  }

  /** FI3: EPERM while the fence is pending; false once it has signaled. */
  override signal(error: ErrnoCode | null = null, atMs?: number): boolean {
    if (this.isMarkedSignaled) return false;
    if (!this.#isReleasing && !this.#look())
      fail("EPERM", `signal ${this.name}`, "only the thread that made it signals it");
    return super.signal(error, atMs);
  }

  /** FI3: EPERM while the fence is pending, EINVAL once it has signaled. */
  override setError(error: ErrnoCode): void {
    if (!this.isMarkedSignaled)
      fail("EPERM", `set the error of ${this.name}`, "only the thread that made it does");
    super.setError(error);
  }

  /** Gives up what its user has, however often he imported it (FI5). */
  override release(): void {
    this.#isKept = false;
    this.#letGo();
  }

  /** @internal It is its user's, until release(). */
  keep(): void {
    this.#isKept = true;
  }

  /** @internal One use more, until endUse(). */
  use(): void {
    this.#useCount += 1;
  }

  /** @internal One use less. */
  endUse(): void {
    this.#useCount -= 1;
    this.#letGo();
  }

  /** FI5. */
  #letGo(): void {
    if (this.#isKept || this.#useCount > 0) return;
    this.#isReleasing = true;
    this.#unlisten();
    super.release();
  }

  override addCallback(callback: FenceCallback): boolean {
    if (!super.addCallback(callback)) return false;
    this.#stopListening ??= onceChanged(this.#core, this.#stateAt, PENDING, () => this.#look());
    return true;
  }

  override removeCallback(callback: FenceCallback): boolean {
    const isRemoved = super.removeCallback(callback);
    if (!this.hasCallbacks) this.#unlisten();
    return isRemoved;
  }

  override waitSync(options: Pick<WaitOptions, "timeoutMs"> = {}): void {
    const operation = `wait for ${this.name}`;
    const timeoutMs = requireTimeout(options, operation);
    if (this.isSignaled) return;
    if (!this.#core.mayBlock)
      fail("EWOULDBLOCK", operation, "this thread may not sleep; await wait()");
    const end = performance.now() + timeoutMs;
    while (!this.isSignaled) {
      const left = end - performance.now();
      if (left <= 0) throw waitError(0, operation, { timeoutMs });
      sleepWhile(this.#core, this.#stateAt, PENDING, left);
    }
  }

  /** FI1: takes over what the record says. */
  #look(): boolean {
    if (this.#core.hasLeft) return this.#end("ENODEV", performance.now()); // FI4
    const state = loadWord(this.#core, this.#stateAt);
    if (state === PENDING) return false;
    const sinceEpochMs = this.#core.f64[(this.#stateAt + TIMESTAMP_AT) / 8] ?? 0;
    const atMs = sinceEpochMs - performance.timeOrigin;
    const error = state < 0 ? codeOf(state) : null;
    return this.#end(error, sinceEpochMs === 0 ? performance.now() : atMs);
  }

  #end(error: ErrnoCode | null, atMs: number): true {
    this.#unlisten();
    super.signal(error, atMs);
    return true;
  }

  #unlisten(): void {
    this.#stopListening?.();
    this.#stopListening = null;
  }
}

/**
 * The fence of another thread, which is the caller's to release, or this thread's own. EBADF: the
 * number is no fence's; ESTALE: it was released.
 */
export function importFence(core: Core, token: number): Fence {
  const fence = findFence(core, token);
  if (fence instanceof ImportedFence) fence.keep();
  return fence;
}

/** The same for one use, until endUse() of an imported one. */
export function useFence(core: Core, token: number): Fence {
  const fence = findFence(core, token);
  if (fence instanceof ImportedFence) fence.use();
  return fence;
}

function findFence(core: Core, token: number): Fence {
  const known = core.tokens.get(token);
  if (known instanceof Fence) return known;
  const result = core.exports.shareImport(token, core.exports.KIND_FENCE.value);
  checked(result, `import fence ${token}`, importReason);
  return new ImportedFence(core, token);
}

/** Why a number from another thread is refused. */
export function importReason(code: ErrnoCode): string {
  return code === "ESTALE"
    ? "it was released; keep it until the other thread has imported it"
    : "the number names nothing of that kind";
}
