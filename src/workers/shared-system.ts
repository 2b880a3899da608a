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

import type { Core } from "../core/core.ts";
import { DmaBuf } from "../dma-buf/dma-buf.ts";
import type { ExportInfo } from "../dma-buf/ops.ts";
import { checked, fail } from "../errors.ts";
import type { Fence } from "../fence/fence.ts";
import { importFence, importReason } from "../fence/imported-fence.ts";
import type { Heap } from "../heaps/heap.ts";
import { HeapBuffer } from "../heaps/heap-buffer.ts";
import type { CmaRegion } from "../mm/cma-region.ts";
import { Pool, type PoolOptions } from "./pool.ts";
import { type ShareOptions, type SystemShare, shareCore } from "./share.ts";

/** Highest number that can name an object. */
const TOKEN_MAX = 2 ** 31 - 1;

/** What a system can do across threads. */
export abstract class SharedSystem {
  /** The core underneath, for `dmabuf/core` users and reports. */
  readonly core: Core;
  /** What a device sees as the address of byte 0. */
  readonly physicalBase: number;

  /** @internal */
  constructor(core: Core, physicalBase: number) {
    this.core = core;
    this.physicalBase = physicalBase;
  }

  abstract get regions(): readonly CmaRegion[];
  abstract heap(name: string): Heap;
  abstract export(info: ExportInfo): DmaBuf;
  /** @internal Throws ENODEV when the system is closed. */
  abstract requireOpen(operation: string): void;

  /** The index of the thread that this system belongs to: 0 for the one that opened it. */
  get thread(): number {
    return this.core.thread;
  }

  /**
   * What another thread needs to join: post it to a Worker and call `join()` there. EINVAL: the
   * memory is not shared; ENOSPC: every thread is taken.
   */
  share({ reserve = false }: ShareOptions = {}): SystemShare {
    this.requireOpen("share the system");
    return shareCore(this.core, this.physicalBase, this.regions, reserve);
  }

  /**
   * The buffer that another thread shares as `buf.token`; the caller owns a reference. The same
   * buffer for the same number. EBADF, ESTALE (SS1).
   */
  import(token: number): DmaBuf {
    const operation = `import buffer ${String(token)}`;
    this.requireOpen(operation);
    requireToken(token, operation);
    const { exports, tokens } = this.core;
    const known = tokens.get(token);
    if (known instanceof DmaBuf) return known.get();
    checked(exports.shareImport(token, exports.KIND_BUFFER.value), operation, importReason);
    const buf = this.export(HeapBuffer.adopt(this.core, this.physicalBase, token));
    tokens.set(token, buf);
    return buf;
  }

  /** The fence that another thread shares as `fence.token`. EBADF, ESTALE (SS1). */
  importFence(token: number): Fence {
    const operation = `import fence ${String(token)}`;
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

  /** The pool that another thread shares as `pool.token`. EBADF, ESTALE (SS1). */
  importPool(token: number): Pool {
    const operation = `import frame pool ${String(token)}`;
    this.requireOpen(operation);
    requireToken(token, operation);
    const { exports, tokens } = this.core;
    const known = tokens.get(token);
    if (known instanceof Pool) return known;
    checked(exports.shareImport(token, exports.KIND_POOL.value), operation, importReason);
    return Pool.adopt(this, token);
  }
}

function requireToken(token: number, operation: string): void {
  if (Number.isInteger(token) && token > 0 && token <= TOKEN_MAX) return;
  fail("EBADF", operation, "no token looks like that");
}
