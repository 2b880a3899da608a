/**
 * Pool: frames that go from producers to consumers and come back, with back-pressure.
 *
 *     free ──acquire()──► written ──publish()──► pending ──take()──► held ──release()──► free
 *       ▲                                          └─ a later one replaces it ("latest") ─► │
 *       └───────────────────────────────────────────────────────────────────────────────────┘
 *
 * - PO1  Who owns a frame is one word in shared memory (assembly/pool.ts): each frame is written
 *        by one thread, or read by its consumers, or free.
 * - PO2  A thread that has the pool keeps all its buffers mapped; frames cost no allocation.
 * - PO3  Who writes waits for the fences of who wrote the frame last and of its readers, and a
 *        reader for the one that its writer gave. They stay with the frame until they have
 *        signaled, whoever gives up waiting for them, and also if nobody took the frame.
 * - PO4  On a thread there is one Pool for one token. It is this thread's until everybody who made
 *        or imported it has released it.
 *
 * @module
 */

import { requireObject } from "../arguments.ts";
import type { WaitOptions } from "../clock.ts";
import type { Core } from "../core/core.ts";
import type { CpuMapping } from "../dma-buf/cpu-mapping.ts";
import type { DmaBuf } from "../dma-buf/dma-buf.ts";
import type { PixelLayout } from "../dma-buf/formats.ts";
import { TimeLimit } from "../dma-buf/time-limit.ts";
import { checked, errno, fail, requireInteger, textOf } from "../errors.ts";
import type { Fence } from "../fence/fence.ts";
import { WaitQueue } from "../files/poll.ts";
import type { Heap } from "../heaps/heap.ts";
import { type ConsumedPool, type ConsumerOptions, FrameConsumer } from "./consumer.ts";
import { fenceOf, letGo, nowMs, releaseGiven, requireFence } from "./pool-fences.ts";
import { type PublishOptions, WritableFrame, type WriterSide } from "./pool-frame.ts";
import { type PoolLayout, planesOf } from "./pool-layout.ts";
import {
  type ConsumerReport,
  consumerReports,
  type FrameReport,
  frameReports,
} from "./pool-report.ts";
import { PoolTable } from "./pool-table.ts";
import {
  type Attempt,
  attemptAsync,
  attemptOnce,
  attemptSync,
  framesUntilClosed,
  type SleepOptions,
  sleepLimit,
} from "./pool-wait.ts";

/** What a pool is made of. */
export interface PoolOptions {
  /** A label for people. */
  readonly name: string;
  /** How many frames, 1 to 256. */
  readonly count: number;
  /** Bytes of each, rounded up to 4096. Not together with `layout`, which says it. */
  readonly bytes?: number | undefined;
  /** The picture that each holds: `frame.layout` tells every thread where its planes lie. */
  readonly layout?: PoolLayout | undefined;
  /** The heap that they come from. Default "system"; a CMA region's frames are in one run. */
  readonly heap?: string | undefined;
}

/** What a pool is doing. */
export interface PoolReport {
  readonly name: string;
  readonly frames: readonly FrameReport[];
  readonly consumers: readonly ConsumerReport[];
}

/** What a pool needs from its system. */
interface PoolSystem {
  readonly core: Core;
  heap(name: string): Heap;
  import(token: number): DmaBuf;
}

/** A pool of frames. Made by `system.pool()`, found by `system.importPool(token)`. */
export class Pool implements ConsumedPool, WriterSide {
  readonly name: string;
  /** The number that other threads import the pool by. */
  readonly token: number;
  /** @internal */
  readonly core: Core;
  /** @internal Where the pool's words lie. */
  readonly table: PoolTable;
  readonly #mappings: readonly CpuMapping[];
  readonly #consumers: Set<FrameConsumer> = new Set();
  /** Fences that this thread gave with a frame, to be kept until the frame is free again. */
  readonly #given: (Fence | undefined)[] = [];
  /** Who has it on this thread: its maker, and whoever imported it (PO4). */
  #userCount = 1;
  readonly #givenUp = new WaitQueue();

  private constructor(core: Core, token: number, mappings: readonly CpuMapping[]) {
    this.core = core;
    this.token = token;
    this.#mappings = mappings;
    this.table = new PoolTable(core, token);
    this.name = this.table.name;
    core.tokens.set(token, this);
  }

  /** @internal */
  static make(system: PoolSystem, options: PoolOptions): Pool {
    requireObject(options, "the options", "make a frame pool");
    const { name, count, heap = "system" } = options;
    const operation = `make frame pool ${textOf(name)}`;
    const { core } = system;
    if (typeof name !== "string" || name === "")
      fail("EINVAL", "make a frame pool", "it needs a name");
    requireInteger(count, "count", 1, core.exports.POOL_FRAMES_MAX.value, operation);
    const { bytes, layout } = framesOfOptions(options, operation);
    const token = checked(core.exports.poolAlloc(count), operation, () => "no memory is left");
    const mappings: CpuMapping[] = [];
    try {
      for (let i = 0; i < count; i++) {
        const label = { name: `${name} ${i}`, ...(layout !== null && { layout }) };
        const buf = system.heap(heap).alloc(bytes, label);
        mappings.push(mapped(buf));
        const { token: number } = buf;
        requireSuitable(core, buf, layout, operation);
        checked(core.exports.poolSetBuffer(token, i, number), operation, () => "it is gone");
      }
    } catch (error) {
      for (const mapping of mappings) mapping.unmap();
      core.exports.poolFree(token);
      throw error;
    }
    PoolTable.writeName(core, token, name);
    return new Pool(core, token, mappings);
  }

  /** @internal The thread holds the pool already. */
  static adopt(system: PoolSystem, token: number): Pool {
    const { core } = system;
    const mappings: CpuMapping[] = [];
    try {
      const table = new PoolTable(core, token);
      for (let i = 0; i < table.count; i++)
        mappings.push(mapped(system.import(table.bufferToken(i))));
    } catch (error) {
      for (const mapping of mappings) mapping.unmap();
      core.exports.poolFree(token);
      throw error;
    }
    return new Pool(core, token, mappings);
  }

  /** How many frames it has. */
  get count(): number {
    return this.#mappings.length;
  }

  /** Bytes of each frame. */
  get frameBytes(): number {
    return this.#mappings[0]?.buf.sizeBytes ?? 0;
  }

  /** Where the planes of each frame's picture lie; null: the frames are bytes. */
  get layout(): PixelLayout | null {
    return this.#mappings[0]?.buf.layout ?? null;
  }

  // ---- producing

  #acquiring(): Attempt {
    const operation = `acquire a frame of ${this.name}`;
    this.requireHeld(operation);
    const { core, token, table } = this;
    const run = (): number =>
      this.#userCount === 0 ? -errno.ESTALE : core.exports.poolAcquire(token, nowMs());
    return { core, eventAt: table.freeEventAt, givenUp: this.#givenUp, operation, run };
  }

  /**
   * A free frame to write, the one published longest ago; waits for one, and for the fences that
   * its last writer and its readers left. ETIME, EINTR; EPIPE: the pool was closed; EOWNERDEAD.
   */
  async acquire(options: WaitOptions = {}): Promise<WritableFrame> {
    const attempt = this.#acquiring();
    const limit = new TimeLimit(options, attempt.operation);
    const index = await attemptAsync(attempt, limit);
    this.requireHeld(attempt.operation);
    const fences = this.#releaseFences(index);
    try {
      for (const fence of fences) await limit.wait((rest) => fence.wait(rest));
      return this.#writable(index, attempt.operation);
    } catch (error) {
      this.abandon(index); // PO3
      throw error;
    } finally {
      for (const fence of fences) letGo(fence);
    }
  }

  /** The same asleep, where the thread may. EWOULDBLOCK: it may not. */
  acquireSync(options: SleepOptions = {}): WritableFrame {
    const attempt = this.#acquiring();
    const limit = sleepLimit(options, attempt.operation);
    const index = attemptSync(attempt, limit);
    const fences = this.#releaseFences(index);
    try {
      for (const fence of fences) limit.waitSync((rest) => fence.waitSync(rest));
      return this.#writable(index, attempt.operation);
    } catch (error) {
      this.abandon(index); // PO3
      throw error;
    } finally {
      for (const fence of fences) letGo(fence);
    }
  }

  /** The same without waiting: null when no frame is free whose fences have signaled. */
  tryAcquire(): WritableFrame | null {
    const attempt = this.#acquiring();
    const pending: number[] = [];
    try {
      for (;;) {
        const index = attemptOnce(attempt);
        if (index === null) return null;
        if (this.#isReady(index)) return this.#writable(index, attempt.operation);
        pending.push(index);
      }
    } finally {
      for (const index of pending) this.abandon(index); // PO3
    }
  }

  /**
   * Free frames, one after the other, as they come: the loop waits while consumers have them all.
   * A frame that the loop did not publish is given back when it goes on. Ends when the pool is
   * closed. EINTR: `signal` aborted; EOWNERDEAD.
   */
  frames(options: WaitOptions = {}): AsyncGenerator<WritableFrame, void, undefined> {
    return framesUntilClosed(() => this.acquire(options));
  }

  /** A frame that nobody reads any more, and whose fences are over. ESTALE: released. */
  #writable(index: number, operation: string): WritableFrame {
    this.requireHeld(operation);
    for (const consumer of this.table.releasers(index))
      this.core.exports.poolReleaseFence(this.token, index, consumer);
    releaseGiven(this.#given[index]);
    this.#given[index] = undefined;
    return new WritableFrame(index, this.memory(index), this);
  }

  /** The fences of who wrote a frame last and of its readers, each to be let go of. */
  #releaseFences(index: number): Fence[] {
    const { core, table } = this;
    const left = table.releasers(index).map((consumer) => table.releaseFence(index, consumer));
    return [table.fence(index), ...left].flatMap((token) => {
      const fence = token === 0 ? null : fenceOf(core, token);
      return fence === null ? [] : [fence];
    });
  }

  /** Whether all of them have signaled. */
  #isReady(index: number): boolean {
    const fences = this.#releaseFences(index);
    const isReady = fences.every((fence) => fence.isSignaled);
    for (const fence of fences) letGo(fence);
    return isReady;
  }

  /** @internal */
  publish(index: number, { to, fence }: PublishOptions): number {
    const operation = `publish frame ${index} of ${this.name}`;
    this.requireHeld(operation);
    const targets = this.table.maskOf(to, operation);
    if (fence !== undefined && fence !== null) requireFence(fence, this.core, operation);
    const { token } = fence ?? { token: 0 };
    const result = this.core.exports.poolPublish(this.token, index, targets, token, nowMs());
    const count = checked(result, operation, () => "it is not this thread's to publish");
    this.#given[index] = fence ?? undefined;
    return count;
  }

  /** @internal */
  abandon(index: number): void {
    if (this.#userCount > 0) this.core.exports.poolAbandon(this.token, index);
  }

  // ---- consuming

  /**
   * Takes part in the pool under a name. EINVAL: an option; EEXIST: the name is taken; ENOSPC:
   * there are 16 consumers; EPIPE: the pool was closed.
   */
  consumer(options: ConsumerOptions): FrameConsumer {
    const operation = `consume frames of ${this.name}`;
    this.requireHeld(operation);
    requireObject(options, "the options", operation);
    const consumer = new FrameConsumer(this, options, () => this.#consumers.delete(consumer));
    this.#consumers.add(consumer);
    return consumer;
  }

  /** @internal The memory of a frame on this thread. */
  memory(index: number): CpuMapping {
    return (
      this.#mappings[index] ?? fail("EINVAL", `use frame ${index}`, "the pool has no such one")
    );
  }

  /** @internal Throws ESTALE when this thread has let go of the pool. */
  requireHeld(operation: string): void {
    if (this.#userCount === 0) fail("ESTALE", operation, "this thread has released the pool");
  }

  // ---- the whole

  /** Who holds what, since when. */
  report(): PoolReport {
    this.requireHeld(`report on ${this.name}`);
    const { table, name } = this;
    return { name, frames: frameReports(table), consumers: consumerReports(table) };
  }

  /**
   * Ends the pool for everybody: nobody gets a frame to write any more, and consumers end once they
   * have taken what was published. EPERM: another thread made it.
   */
  close(): void {
    const operation = `close ${this.name}`;
    this.requireHeld(operation);
    const result = this.core.exports.poolClose(this.token);
    checked(result, operation, () => "only the thread that made it closes it; release it here");
  }

  /** @internal One user more on this thread. */
  get(): this {
    this.#userCount += 1;
    return this;
  }

  /**
   * Lets go of the pool, once for each time that it was made or imported. With the last one, this
   * thread lets go, with its consumers here and what they hold; the one who made it closes it so.
   * The memory is free when every thread has.
   */
  release(): void {
    if (this.#userCount > 1) this.#userCount -= 1;
    else if (this.#userCount === 1) this.#leave();
  }

  /** The last user has released it. */
  #leave(): void {
    for (const consumer of [...this.#consumers]) consumer.close();
    this.#userCount = 0;
    for (const fence of this.#given) releaseGiven(fence);
    for (const mapping of this.#mappings) mapping.unmap();
    this.core.tokens.delete(this.token);
    this.core.exports.poolFree(this.token);
    this.#givenUp.wakeAll(); // PW4
  }

  [Symbol.dispose](): void {
    this.release();
  }
}

/** The bytes of a frame, and the picture in it. EINVAL: neither is given, or both are. */
function framesOfOptions(
  { bytes, layout }: PoolOptions,
  operation: string,
): { readonly bytes: number; readonly layout: PixelLayout | null } {
  if (bytes !== undefined && layout !== undefined)
    fail("EINVAL", operation, "bytes and layout are both given; the layout says how many bytes");
  if (layout === undefined)
    return { bytes: bytes ?? fail("EINVAL", operation, "give bytes or a layout"), layout: null };
  const planes = planesOf(layout, operation);
  return { bytes: planes.sizeBytes, layout: planes };
}

/** EOPNOTSUPP: the heap's buffers are served by their thread; EINVAL: it ignores layouts. */
function requireSuitable(
  core: Core,
  buf: DmaBuf,
  layout: PixelLayout | null,
  operation: string,
): void {
  if (core.exports.bufferServer(buf.token) >= 0)
    fail("EOPNOTSUPP", operation, `buffers of heap ${buf.exporterName} are served by one thread`);
  if (layout !== null && buf.layout === null)
    fail("EINVAL", operation, `heap ${buf.exporterName} gives buffers without a layout`);
}

/** A mapping that holds the only reference of this thread. */
function mapped(buf: DmaBuf): CpuMapping {
  try {
    return buf.mmap();
  } finally {
    buf.put();
  }
}
