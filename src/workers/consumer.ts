/**
 * FrameConsumer: somebody who gets frames of a pool.
 *
 *     every    each frame that was published to it, in order; it holds the producers back
 *     latest   the youngest only: a later one replaces what it has not taken yet
 *
 * - FC1  Several consumers read one frame at once; who writes has it alone, after all readers.
 * - FC2  A frame is taken before its fence is waited for. A take that gives up leaves it to the
 *        next one, ahead of later frames; of "latest", a later one replaces it. Who writes a frame
 *        waits for who wrote it last, also if nobody got it (PO3).
 *
 * @module
 */

import { requireObject } from "../arguments.ts";
import type { WaitOptions } from "../clock.ts";
import type { Core } from "../core/core.ts";
import type { CpuMapping } from "../dma-buf/cpu-mapping.ts";
import { TimeLimit } from "../dma-buf/time-limit.ts";
import { checked, errno, fail, isErrno, textOf } from "../errors.ts";
import type { Fence } from "../fence/fence.ts";
import { WaitQueue } from "../files/poll.ts";
import { fenceOf, letGo, nowMs, releaseGiven, requireFence } from "./pool-fences.ts";
import { ReadableFrame } from "./pool-frame.ts";
import type { FrameAccess, FramePolicy } from "./pool-report.ts";
import type { PoolTable } from "./pool-table.ts";
import {
  type Attempt,
  attemptAsync,
  attemptOnce,
  attemptSync,
  framesUntilClosed,
  type SleepOptions,
  sleepLimit,
} from "./pool-wait.ts";

/** How to take part in a pool. */
export interface ConsumerOptions {
  /** What producers call it: `frame.publish({ to: name })`. */
  readonly name: string;
  /** Default "read". */
  readonly access?: FrameAccess | undefined;
  /** Default "every". */
  readonly policy?: FramePolicy | undefined;
}

/** What a consumer needs from its pool. */
export interface ConsumedPool {
  readonly core: Core;
  readonly token: number;
  readonly name: string;
  readonly table: PoolTable;
  memory(index: number): CpuMapping;
}

/** A frame that the consumer has taken, and that nobody has got (FC2). */
interface Untaken {
  readonly index: number;
  /** What its producer gave. */
  readonly fence: Fence | null;
  /** Whether a call waits for the fence. */
  isAwaited: boolean;
}

/** A consumer of a pool, on the thread that made it. Made by `pool.consumer()`. */
export class FrameConsumer {
  readonly name: string;
  readonly access: FrameAccess;
  readonly policy: FramePolicy;
  readonly #pool: ConsumedPool;
  readonly #index: number;
  readonly #onClosed: () => void;
  /** Fences that it left on frames, by frame. */
  readonly #given: (Fence | undefined)[] = [];
  readonly #held: Set<ReadableFrame> = new Set();
  /** By index, those taken first first. */
  readonly #untaken: Map<number, Untaken> = new Map();
  readonly #givenUp = new WaitQueue();
  #isClosed = false;

  /** @internal */
  constructor(pool: ConsumedPool, options: ConsumerOptions, onClosed: () => void) {
    const operation = `consume frames of ${pool.name}`;
    requireObject(options, "the options", operation);
    const { name, access = "read", policy = "every" } = options;
    if (typeof name !== "string" || name === "") fail("EINVAL", operation, "it needs a name");
    if (access !== "read" && access !== "read-write")
      fail("EINVAL", operation, `access must be "read" or "read-write", not ${textOf(access)}`);
    if (policy !== "every" && policy !== "latest")
      fail("EINVAL", operation, `policy must be "every" or "latest", not ${textOf(policy)}`);
    if (pool.table.consumers().some((other) => other.name === name))
      fail("EEXIST", operation, `there is a consumer called ${name}`);
    const { exports } = pool.core;
    const flags =
      (access === "read-write" ? exports.CONSUMER_WRITES.value : 0) +
      (policy === "latest" ? exports.CONSUMER_LATEST.value : 0);
    const result = exports.poolConsumerAdd(pool.token, flags);
    this.#index = checked(result, operation, (code) =>
      code === "ENOSPC"
        ? `the pool has ${exports.POOL_CONSUMERS.value} consumers`
        : "the pool was closed",
    );
    pool.table.nameConsumer(this.#index, name);
    this.name = name;
    this.access = access;
    this.policy = policy;
    this.#pool = pool;
    this.#onClosed = onClosed;
  }

  #taking(): Attempt {
    const operation = `take a frame of ${this.#pool.name} as ${this.name}`;
    if (this.#isClosed) fail("ESTALE", operation, "the consumer was closed");
    const { core, table } = this.#pool;
    const run = (): number => (this.#isClosed ? -errno.ESTALE : this.#next());
    return { core, eventAt: table.publishEventAt, givenUp: this.#givenUp, operation, run };
  }

  /** The index of the next frame, which is untaken then; or an errno of the core. */
  #next(): number {
    const { core, token } = this.#pool;
    const left = this.#left();
    if (left !== undefined && this.policy === "every") return awaited(left);
    const index = core.exports.poolTake(token, this.#index, nowMs());
    if (isErrno(index)) return left === undefined ? index : awaited(left);
    if (left !== undefined) this.#giveBack(left);
    this.#untaken.set(index, { index, fence: this.#acquireFence(index), isAwaited: true });
    return index;
  }

  /** What a take has left to the next one (FC2). */
  #left(): Untaken | undefined {
    for (const untaken of this.#untaken.values()) if (!untaken.isAwaited) return untaken;
    return undefined;
  }

  /**
   * The next frame; waits for one, and for the fence that its producer gave. ETIME, EINTR; EPIPE:
   * the pool was closed and nothing is left; EOWNERDEAD: likewise, its maker is gone.
   */
  async take(options: WaitOptions = {}): Promise<ReadableFrame> {
    const attempt = this.#taking();
    const limit = new TimeLimit(options, attempt.operation);
    const index = await attemptAsync(attempt, limit);
    const untaken = this.#untaken.get(index);
    try {
      const { fence = null } = untaken ?? {};
      if (fence !== null) await limit.wait((rest) => fence.wait(rest));
    } finally {
      if (untaken !== undefined) untaken.isAwaited = false; // FC2
    }
    return this.#readable(untaken, attempt.operation);
  }

  /** The same asleep, where the thread may. EWOULDBLOCK: it may not. */
  takeSync(options: SleepOptions = {}): ReadableFrame {
    const attempt = this.#taking();
    const limit = sleepLimit(options, attempt.operation);
    const untaken = this.#untaken.get(attemptSync(attempt, limit));
    try {
      const { fence = null } = untaken ?? {};
      if (fence !== null) limit.waitSync((rest) => fence.waitSync(rest));
    } finally {
      if (untaken !== undefined) untaken.isAwaited = false; // FC2
    }
    return this.#readable(untaken, attempt.operation);
  }

  /** The next frame if there is one now; its `acquireFence` may be pending. */
  tryTake(): ReadableFrame | null {
    const attempt = this.#taking();
    const index = attemptOnce(attempt);
    return index === null ? null : this.#readable(this.#untaken.get(index), attempt.operation);
  }

  /**
   * Frames as they come. A frame that the loop did not release is given back when it goes on. Ends
   * when the pool is closed and nothing is left. EINTR: `signal` aborted; EOWNERDEAD.
   */
  frames(options: WaitOptions = {}): AsyncGenerator<ReadableFrame, void, undefined> {
    return framesUntilClosed(() => this.take(options));
  }

  #acquireFence(index: number): Fence | null {
    const token = this.#pool.table.fence(index);
    return token === 0 ? null : fenceOf(this.#pool.core, token);
  }

  /** Gives a frame out. ESTALE: the consumer was closed while its fence was waited for. */
  #readable(untaken: Untaken | undefined, operation: string): ReadableFrame {
    if (untaken === undefined || this.#isClosed)
      return fail("ESTALE", operation, "the consumer was closed");
    const { index, fence } = untaken;
    const { table } = this.#pool;
    this.#untaken.delete(index);
    releaseGiven(this.#given[index]);
    this.#given[index] = undefined;
    const memory = this.#pool.memory(index);
    const frame: ReadableFrame = new ReadableFrame(
      index,
      memory,
      table.seqno(index),
      fence,
      (i, left) => {
        this.#give(i, left);
        this.#held.delete(frame);
        if (fence !== null) letGo(fence);
      },
    );
    this.#held.add(frame);
    return frame;
  }

  #give(index: number, fence: Fence | null): void {
    this.#release(index, fence);
    this.#given[index] = fence ?? undefined;
  }

  #release(index: number, fence: Fence | null): void {
    const operation = `release frame ${index} as ${this.name}`;
    const { core, token } = this.#pool;
    if (fence !== null) requireFence(fence, core, operation);
    const result = core.exports.poolRelease(token, this.#index, index, fence?.token ?? 0);
    checked(result, operation, () => "it does not hold it");
  }

  /** Gives back what nobody got (FC2). */
  #giveBack({ index, fence }: Untaken): void {
    this.#untaken.delete(index);
    this.#release(index, null);
    if (fence !== null) letGo(fence);
  }

  /** Takes no part any more: what it holds or has not taken is given back. */
  close(): void {
    if (this.#isClosed) return;
    for (const frame of [...this.#held]) frame.release();
    for (const untaken of [...this.#untaken.values()]) this.#giveBack(untaken);
    this.#isClosed = true;
    for (const fence of this.#given) releaseGiven(fence);
    const { core, token } = this.#pool;
    core.exports.poolConsumerRemove(token, this.#index);
    this.#givenUp.wakeAll(); // PW4
    this.#onClosed();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** The frame's index; a call is about to wait for its fence. */
function awaited(untaken: Untaken): number {
  untaken.isAwaited = true;
  return untaken.index;
}
