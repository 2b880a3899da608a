/**
 * Resv: which operations on a buffer are under way, as fences with a usage.
 *
 *     kernel < write < read < bookkeep      asking for a usage means all fences of it and of those
 *     before it
 *
 * - RV1  Only pending fences count; signaled ones keep their place until a new fence takes it, or
 *        the list grows.
 * - RV2  A new writer waits for readers and writers, a new reader for writers only.
 * - RV3  A new fence takes the first place of a signaled fence, or of one of its context that is
 *        not later and has an equal or weaker usage; else it comes last.
 * - RV4  The list never holds more than its capacity: what is added was reserved before. Capacities
 *        are Linux's, which fill the memory blocks that its lists come in: 5, 13, 29, 61, ...
 *
 * Compare the kernel's drivers/dma-buf/dma-resv.c.
 *
 * @module
 */

import { requireFunction, requireInstance } from "../arguments.ts";
import { type WaitDone, type WaitOptions, waitError } from "../clock.ts";
import { Core } from "../core/core.ts";
import { fail, requireInteger, textOf } from "../errors.ts";
import { Fence } from "../fence/fence.ts";
import { isLater } from "../fence/order.ts";
import { arrayOf } from "../fence/unwrap.ts";
import { startWaitAll } from "../fence/wait.ts";
import { AcquireContext, WwMutex } from "./ww-mutex.ts";

/** What an operation does with the buffer. */
export type ResvUsage = "kernel" | "write" | "read" | "bookkeep";

/** A place of the list. */
export interface ResvEntry {
  readonly fence: Fence;
  readonly usage: ResvUsage;
}

/** The usages, strongest first. */
export const resvUsages: readonly ResvUsage[] = ["kernel", "write", "read", "bookkeep"];

/** More than any list needs, and few enough to hold. */
const MAX_FENCES = 2 ** 20;
/** The head of Linux's list, and each place after it. */
const LIST_HEAD_BYTES = 24;
const LIST_PLACE_BYTES = 8;

/** @internal The call on a buffer that holds the lock, if one does. */
export interface LockHolder {
  /** Who called: a device. */
  readonly importer: object;
  /** Whether one of the call's callbacks runs just now. */
  isInside: boolean;
}

/** @internal What an asynchronous call locks with that was given no context: the youngest. */
export class CallContext extends AcquireContext {
  readonly holder: LockHolder;

  constructor(importer: object) {
    super(Number.MAX_SAFE_INTEGER);
    this.holder = { importer, isInside: false };
  }
}

interface Place {
  readonly fence: Fence;
  readonly rank: number;
}

/** What a new access must wait for (RV2). */
export function usageFor(isWrite: boolean): ResvUsage {
  return isWrite ? "read" : "write";
}

/** The fences of a buffer, and the lock that guards its moves. Found as `buf.resv`. */
export class Resv extends WwMutex {
  #holder: LockHolder | null = null;
  readonly #core: Core | null;
  #places: Place[] = [];
  #capacity = 0;

  /** A list of its own; with `core`, it takes only fences of that core's system. */
  constructor(core: Core | null = null) {
    super();
    if (core !== null) requireInstance(core, Core, "the core", "make a list of fences");
    this.#core = core;
  }

  /** @internal Null while the lock is free, or somebody took it with lock(). */
  get holder(): LockHolder | null {
    if (this.#holder !== null) return this.#holder;
    const context = this.lockingContext;
    return context instanceof CallContext ? context.holder : null;
  }

  /** @internal Says that a call runs under the lock; null: it has ended. */
  set holder(holder: LockHolder | null) {
    this.#holder = holder;
  }

  /** How many fences the list holds before it grows (RV4). */
  get capacity(): number {
    return this.#capacity;
  }

  /** The list in stored order, signaled fences included. */
  get entries(): readonly ResvEntry[] {
    return this.#places.map(({ fence, rank }) => ({ fence, usage: usageOf(rank) }));
  }

  /**
   * Makes room for `count` more fences (RV4). If the list must grow, signaled fences leave it. Do
   * this while failing is still allowed: adding cannot fail. EINVAL: the count.
   */
  reserveFences(count: number): void {
    requireInteger(count, "count", 0, MAX_FENCES, "reserve fences");
    const needed = this.#places.length + count;
    if (this.#capacity > 0 && needed <= this.#capacity) return;
    const wanted =
      this.#capacity > 0
        ? Math.max(needed, 2 * this.#capacity)
        : Math.max(4, nextPowerOfTwo(count));
    this.#capacity = capacityFor(wanted);
    this.#places = this.#places.filter(({ fence }) => !fence.isSignaled);
  }

  /**
   * Adds an operation that is under way (RV3); reserves a place itself if none is left. EINVAL: no
   * such usage, a fence of another system, or a composite, which must be unwrapped first.
   */
  addFence(fence: Fence, usage: ResvUsage): void {
    const rank = this.#requireArguments(fence, usage, "add");
    this.reserveFences(1);
    const at = this.#places.findIndex(
      (old) =>
        (old.fence.context === fence.context &&
          old.rank >= rank &&
          (old.fence === fence || isLater(fence, old.fence))) ||
        old.fence.isSignaled,
    );
    if (at < 0) this.#places.push({ fence, rank });
    else this.#places[at] = { fence, rank };
  }

  /**
   * Puts `fence` with `usage` into every place of a context: for operations whose end another fence
   * now tells. EINVAL as addFence().
   */
  replaceFences(context: number, fence: Fence, usage: ResvUsage): void {
    const rank = this.#requireArguments(fence, usage, "replace by");
    for (const [i, old] of this.#places.entries()) {
      if (old.fence.context === context) this.#places[i] = { fence, rank };
    }
  }

  /** Takes over the pending fences of another list; what this one held is forgotten. */
  copyFences(source: Resv): void {
    requireInstance(source, Resv, "the source", "copy fences");
    const pending = source.#places.filter(({ fence }) => !fence.isSignaled);
    this.#capacity = pending.length === 0 ? 0 : capacityFor(source.#places.length);
    this.#places = pending;
  }

  /** The pending fences that an access with this usage waits for (RV1), in stored order. */
  fences(usage: ResvUsage): Fence[] {
    const rank = rankOf(usage);
    const found: Fence[] = [];
    for (const place of this.#places) {
      if (place.rank <= rank && !place.fence.isSignaled) found.push(place.fence);
    }
    return found;
  }

  /**
   * The same as one fence: null if there are none, the fence if there is one, else an array. Do not
   * add it to a list.
   */
  getSingleton(usage: ResvUsage): Fence | null {
    const fences = this.fences(usage);
    const [first] = fences;
    if (first === undefined) return null;
    return fences.length === 1 ? first : arrayOf(fences);
  }

  /** Whether nothing of this usage is pending. */
  testSignaled(usage: ResvUsage): boolean {
    const rank = rankOf(usage);
    return this.#places.every((place) => place.rank > rank || place.fence.isSignaled);
  }

  /** Says by when the pending fences of this usage should be done. */
  setDeadline(usage: ResvUsage, atMs: number): void {
    for (const fence of this.fences(usage)) fence.setDeadline(atMs);
  }

  /**
   * Resolves when all fences that are pending now have signaled, within one timeout. ETIME, EINTR.
   */
  wait(usage: ResvUsage, options: WaitOptions = {}): Promise<void> {
    return new Promise((resolve, reject) => {
      this.startWait(usage, options, (left) => {
        if (left > 0) resolve();
        else reject(waitError(left, `wait for ${usage} fences`, options));
      });
    });
  }

  /** The same without a promise. */
  startWait(usage: ResvUsage, options: WaitOptions, done: WaitDone): void {
    requireFunction(done, "done", `wait for ${textOf(usage)} fences`);
    startWaitAll(this.fences(usage), options, done);
  }

  #requireArguments(fence: Fence, usage: ResvUsage, verb: string): number {
    const operation = `${verb} fence ${fence instanceof Fence ? fence.name : textOf(fence)}`;
    if (!(fence instanceof Fence)) fail("EINVAL", operation, "it is not a fence");
    if (this.#core !== null && !fence.isOn(this.#core))
      fail("EINVAL", operation, "it is of another system");
    if (fence.isContainer) fail("EINVAL", operation, "it is a composite; unwrap it");
    return rankOf(usage, operation);
  }
}

function rankOf(usage: ResvUsage, operation = "look for fences"): number {
  const rank = resvUsages.indexOf(usage);
  if (rank >= 0) return rank;
  return fail("EINVAL", operation, `the usage must be one of ${resvUsages.join(", ")}`);
}

function usageOf(rank: number): ResvUsage {
  return resvUsages[rank] ?? "bookkeep";
}

function nextPowerOfTwo(count: number): number {
  return count <= 1 ? 1 : 2 ** (32 - Math.clz32(count - 1));
}

/** What fits into the memory block that Linux takes for `count` places (RV4). */
function capacityFor(count: number): number {
  const bytes = LIST_HEAD_BYTES + LIST_PLACE_BYTES * count;
  const powerOfTwo = nextPowerOfTwo(bytes);
  const isThreeQuarters = (size: number): boolean => bytes <= size && size < powerOfTwo;
  const block = [96, 192].find(isThreeQuarters) ?? powerOfTwo; // Linux's two blocks in between
  return Math.floor((block - LIST_HEAD_BYTES) / LIST_PLACE_BYTES);
}
