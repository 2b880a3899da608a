/**
 * FenceArray: several fences as one, which signals when all of them have, or any.
 *
 *     parts    f0   f1   f2          all: the last of them signals the array
 *               └────┼────┘          any: the first of them does
 *                  array
 *
 * - FA1  An array hooks itself to its parts when somebody first wants to be told; before that, it
 *        looks at them only when asked.
 * - FA2  It signals after all callbacks of the part that completes it.
 * - FA3  It ends with the error that a hooked part reported first, or none. Parts that were never
 *        hooked report nothing.
 * - FA4  Parts are no composites: unwrap first.
 *
 * Compare the kernel's drivers/dma-buf/dma-fence-array.c.
 *
 * @module
 */

import { requireObject, requireObjects } from "../arguments.ts";
import type { Core } from "../core/core.ts";
import { fail } from "../errors.ts";
import { Fence, type FenceOps } from "./fence.ts";

/** Which parts must signal. */
export type FenceArrayMode = "all" | "any";

/** What a fence array is made of, apart from its parts. */
export interface FenceArrayOptions {
  /** Which parts must signal; all, if it is not given. */
  readonly mode?: FenceArrayMode | undefined;
  /** A context of its own, if it is not given. */
  readonly context?: number | undefined;
  /** 1, if it is not given. */
  readonly seqno?: number | undefined;
}

/** Several fences as one. Made by `system.fenceArray()`. */
export class FenceArray extends Fence {
  static readonly #ops: FenceOps = {
    driverName: "dma_fence_array",
    timelineName: "unbound",
    enableSignaling: (fence) => (fence as FenceArray).#hook(),
    signaled: (fence) => (fence as FenceArray).#isDone(),
    setDeadline: (fence, atMs) => {
      for (const part of (fence as FenceArray).fences) part.setDeadline(atMs);
    },
  };
  /** The parts, in the order they were given. */
  readonly fences: readonly Fence[];
  readonly mode: FenceArrayMode;
  /** Hooked parts that must still signal; 0 or less: done. */
  #pendingCount: number;
  #hasError = false;

  /** @internal */
  constructor(core: Core, fences: readonly Fence[], options: FenceArrayOptions = {}) {
    requireObject(options, "the options", "make a fence array");
    const { mode = "all", seqno = 1 } = options;
    requireParts(core, fences);
    const context = options.context ?? core.exports.fenceContextAlloc(1) >>> 0;
    super(core, context, seqno, `array of ${fences.length}`, FenceArray.#ops, false);
    this.fences = [...fences];
    this.mode = mode;
    this.#pendingCount = mode === "any" ? 1 : fences.length;
  }

  override get isContainer(): boolean {
    return true;
  }

  /** Whether all parts are of this context: dma_fence_match_context(). */
  matchesContext(context: number): boolean {
    return this.fences.every((fence) => fence.context === context);
  }

  /** FA1. Returns false if the parts have signaled already. */
  #hook(): boolean {
    for (const part of this.fences) {
      if (part.addCallback(this.#onPartSignaled)) continue;
      this.#note(part);
      if (this.#countDown()) return false;
    }
    return true;
  }

  readonly #onPartSignaled = (part: Fence): void => {
    this.#note(part);
    if (!this.#countDown()) return;
    part.defer(() => {
      // FA2
      this.signal();
      for (const other of this.fences) other.removeCallback(this.#onPartSignaled);
    });
  };

  /** FA3. */
  #note(part: Fence): void {
    const code = part.errorCode;
    if (code === null || this.#hasError || this.isMarkedSignaled) return;
    this.#hasError = true;
    this.setError(code);
  }

  /** Returns true for the part that completes the array. */
  #countDown(): boolean {
    this.#pendingCount -= 1;
    return this.#pendingCount === 0;
  }

  #isDone(): boolean {
    if (this.isSignalingEnabled) return this.#pendingCount <= 0;
    let pending = this.#pendingCount;
    for (const part of this.fences) {
      if (!part.isSignaled) continue;
      pending -= 1;
      if (pending === 0) return true;
    }
    return false;
  }
}

/** FA4. */
function requireParts(core: Core, fences: readonly Fence[]): void {
  const operation = "make a fence array";
  requireObjects(fences, "its parts", operation);
  if (fences.length === 0) fail("EINVAL", operation, "it has no parts");
  for (const fence of fences) {
    if (!(fence instanceof Fence)) fail("EINVAL", operation, "a part is not a fence");
    if (!fence.isOn(core)) fail("EINVAL", operation, `${fence.name} is of another system`);
    if (fence.isContainer) fail("EINVAL", operation, `${fence.name} is a composite; unwrap it`);
  }
}

/** Whether a fence, or each part of an array, is of a context: dma_fence_match_context(). */
export function matchesContext(fence: Fence, context: number): boolean {
  requireObject(fence, "the fence", "match a context");
  return fence instanceof FenceArray ? fence.matchesContext(context) : fence.context === context;
}
