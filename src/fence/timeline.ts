/**
 * Timeline: a context and a counter. Advancing the counter signals the fences it passes, in order.
 *
 * - F2  A timeline signals its fences in `seqno` order. Who signals one of them by itself must keep
 *       to that order, because a later fence of a context stands for the earlier ones (order.ts);
 *       it is not refused, as dma_fence_signal() does not refuse it.
 *
 * Compare the kernel's drivers/dma-buf/sw_sync.c.
 *
 * @module
 */

import { requireText } from "../arguments.ts";
import type { Core } from "../core/core.ts";
import { fail, requireInteger } from "../errors.ts";
import { Fence, type FenceOps } from "./fence.ts";

const SEQNO_MAX = 2 ** 31 - 1;

/** Work that finishes in order, such as a device's queue. Made by `system.timeline()`. */
export class Timeline {
  readonly name: string;
  readonly context: number;
  readonly #core: Core;
  readonly #ops: FenceOps;
  /** Pending fences by rising seqno. */
  readonly #pending: Fence[] = [];
  #value = 0;
  #lastSeqno = 0;
  #isClosed = false;

  /** @internal */
  constructor(core: Core, name: string) {
    requireText(name, "the name", "create a timeline");
    this.#core = core;
    this.name = name;
    this.#ops = { timelineName: name };
    this.context = core.exports.fenceContextAlloc(1) >>> 0;
  }

  /** How far the timeline has come: every fence up to here is signaled. */
  get value(): number {
    return this.#value;
  }

  /** A new fence behind the last one; it signals when the counter reaches it. */
  fence(): Fence {
    if (this.#isClosed) fail("ENODEV", `create a fence on ${this.name}`, "the timeline is closed");
    const seqno = this.#lastSeqno + 1;
    const name = `${this.name}:${seqno}`;
    const fence = new Fence(this.#core, this.context, seqno, name, this.#ops);
    this.#lastSeqno = seqno;
    this.#pending.push(fence);
    return fence;
  }

  /** Moves the counter on by `count` and signals what it passes (F2). */
  advance(count = 1): void {
    requireInteger(count, "count", 1, SEQNO_MAX - this.#value, `advance ${this.name}`);
    this.#value += count;
    while (this.#pending[0] !== undefined && this.#pending[0].seqno <= this.#value)
      this.#pending.shift()?.signal();
    this.#lastSeqno = Math.max(this.#lastSeqno, this.#value);
  }

  /**
   * Ends the timeline: pending fences signal with ENOENT, as when a process closes its sw_sync
   * file.
   */
  close(): void {
    this.#isClosed = true;
    for (const fence of this.#pending.splice(0)) fence.signal("ENOENT");
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
