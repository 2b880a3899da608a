/**
 * SharedSystem: the part of a system that knows other threads.
 *
 *     thread 0   open({ shared: true }) ─► system.share() ──post──► join() ─► System   thread 1
 *                buf.token, fence.token, pool.token ─────number───► import…(number)
 *
 * - SS1  A number from another thread is checked before it is used: EBADF if it never named such
 *        an object, ESTALE if that is gone.
 * - SS2  A thread holds what it shares or imports until it gives it up, leaves, or is reaped.
 *
 * @module
 */

import { requireMethods, requireObject } from "../arguments.ts";
import type { WaitOptions } from "../clock.ts";
import type { Core } from "../core/core.ts";
import type { BufferRegistry } from "../dma-buf/buffer-registry.ts";
import { DmaBuf } from "../dma-buf/dma-buf.ts";
import type { ExportInfo } from "../dma-buf/ops.ts";
import { checked, fail, requireInteger, textOf } from "../errors.ts";
import type { Fence } from "../fence/fence.ts";
import { ImportedFence, importFence, importReason } from "../fence/imported-fence.ts";
import type { Heap } from "../heaps/heap.ts";
import { HeapBuffer } from "../heaps/heap-buffer.ts";
import type { CmaRegion } from "../mm/cma-region.ts";
import type { FramePool } from "../mm/frame-pool.ts";
import type { SymbolTable } from "../module/symbol-table.ts";
import { Pool, type PoolOptions } from "./pool.ts";
import { importServed } from "./remote-buffer.ts";
import { callAgain } from "./retry.ts";
import { BufferServer } from "./server.ts";
import { type ShareOptions, type SystemShare, shareCore } from "./share.ts";

/** The state of a thread slot that nobody has (assembly/thread.ts). */
const FREE_SLOT = 0;
/** Highest number that can name an object. */
const TOKEN_MAX = 2 ** 31 - 1;

/** What a system can do across threads. */
export abstract class SharedSystem {
  /**
   * The core underneath, for `dmabuf/core` users and reports. A Wasm filter imports `core.memory`,
   * and keeps its data and stack in a range of `frames.allocAt()`: low addresses are the core's.
   */
  readonly core: Core;
  /** What a device sees as the address of byte 0. */
  readonly physicalBase: number;

  /** @internal */
  constructor(core: Core, physicalBase: number) {
    this.core = core;
    this.physicalBase = physicalBase;
  }

  abstract readonly symbols: SymbolTable;
  abstract readonly frames: FramePool;
  abstract get regions(): readonly CmaRegion[];
  abstract heap(name: string): Heap;
  abstract export(info: ExportInfo): DmaBuf;

  /** @internal Throws ENODEV when the system is closed. */
  requireOpen(operation: string): void {
    this.core.requireJoined(operation);
  }

  /** @internal Lets other threads use the buffers of this one. */
  protected serve(buffers: BufferRegistry): void {
    buffers.sharer = new BufferServer(this.core, this);
  }

  /** The index of the thread that this system belongs to: 0 for the one that opened it. */
  get thread(): number {
    return this.core.thread;
  }

  /**
   * What another thread needs to join: post it to a Worker and call `join()` there. EINVAL: the
   * memory is not shared, or `worker` has no `once()`; ENOSPC: every thread is taken.
   */
  share(options: ShareOptions = {}): SystemShare {
    this.requireOpen("share the system");
    requireObject(options, "the options", "share the system");
    const { worker, reserve = worker !== undefined } = options;
    if (worker !== undefined) requireMethods(worker, ["once"], "worker", "share the system");
    const { core, physicalBase, symbols } = this;
    const share = shareCore(core, physicalBase, this.regions, symbols.policy, reserve);
    const { thread } = share;
    if (worker !== undefined && thread !== null) worker.once("exit", () => this.#exited(thread));
    return share;
  }

  /**
   * Cleans up after a thread that runs no more, however it ended, also inside the core: what it
   * held is released, what its locks protected is rebuilt, and its pending fences end with
   * EOWNERDEAD. What is guaranteed exactly: docs/threads.md. Call it only when the thread is gone:
   * after the Worker's exit, or after `await worker.terminate()`. How many frames came back.
   * EINVAL: there is no such thread, or it is this one; ESRCH: nobody has joined as that thread.
   */
  reap(thread: number): number {
    const operation = `reap thread ${textOf(thread)}`;
    this.requireOpen(operation);
    requireInteger(thread, "thread", 0, 63, operation);
    return checked(this.core.exports.threadReap(thread), operation, (code) =>
      code === "ESRCH" ? "nobody has joined as that thread" : "it must be another one's number",
    );
  }

  /**
   * Makes a call that may be refused with EAGAIN, and makes it again until it is not: for threads
   * that may not sleep, as a page's main thread, while another holds the allocator. ETIME, EINTR,
   * and what else the call throws.
   */
  async retry<T>(call: () => T, options: Omit<WaitOptions, "clock"> = {}): Promise<T> {
    const operation = "make a call again";
    this.requireOpen(operation);
    return callAgain(call, options, operation);
  }

  /** After an orderly end the thread has left already. */
  #exited(thread: number): void {
    if (this.core.hasLeft) return; // whoever has this slot now is asked by nobody to reap
    if (this.core.exports.threadState(thread) !== FREE_SLOT) this.reap(thread);
  }

  /** @internal Leaves the memory; what this thread waits for there ends with ENODEV (FI4). */
  protected leave(): void {
    this.core.leave();
    for (const one of [...this.core.tokens.values()])
      if (one instanceof ImportedFence) void one.isSignaled;
  }

  /**
   * The buffer that another thread shares as `buf.token`; the caller owns a reference. The same
   * buffer for the same number. EBADF, ESTALE (SS1); EOWNERDEAD, ENODEV: its exporter is JavaScript
   * of a thread that is gone.
   *
   * A buffer of such an exporter is used by the forms "…Async": they ask its thread. Synchronous
   * ones are EWOULDBLOCK, but for those that give back. See docs/threads.md.
   */
  import(token: number): DmaBuf {
    const operation = `import buffer ${textOf(token)}`;
    this.requireOpen(operation);
    requireToken(token, operation);
    const { exports, tokens } = this.core;
    const known = tokens.get(token);
    if (known instanceof DmaBuf) return known.get();
    checked(exports.shareImport(token, exports.KIND_BUFFER.value), operation, importReason);
    const { core, physicalBase } = this;
    const info = importServed(core, token) ?? HeapBuffer.adopt(core, physicalBase, token);
    const buf = this.export(info);
    buf.stacks?.madeBy(buf, "import()");
    tokens.set(token, buf);
    return buf;
  }

  /** The fence that another thread shares as `fence.token`. EBADF, ESTALE (SS1). */
  importFence(token: number): Fence {
    const operation = `import fence ${textOf(token)}`;
    this.requireOpen(operation);
    requireToken(token, operation);
    return importFence(this.core, token);
  }

  /**
   * Frames that go from producers to consumers and come back. EINVAL: an option; ENOMEM: no room
   * for that many.
   */
  pool(options: PoolOptions): Pool {
    this.requireOpen("make a frame pool");
    return Pool.make(this, options);
  }

  /** @internal The pools that this thread has not let go of. */
  get pools(): readonly Pool[] {
    return [...this.core.tokens.values()].filter((one) => one instanceof Pool);
  }

  /**
   * The pool that another thread shares as `pool.token`; the caller releases it. The same pool for
   * the same number. EBADF, ESTALE (SS1).
   */
  importPool(token: number): Pool {
    const operation = `import frame pool ${textOf(token)}`;
    this.requireOpen(operation);
    requireToken(token, operation);
    const { exports, tokens } = this.core;
    const known = tokens.get(token);
    if (known instanceof Pool) return known.get();
    checked(exports.shareImport(token, exports.KIND_POOL.value), operation, importReason);
    return Pool.adopt(this, token);
  }
}

function requireToken(token: number, operation: string): void {
  if (Number.isInteger(token) && token > 0 && token <= TOKEN_MAX) return;
  fail("EBADF", operation, "no token looks like that");
}
