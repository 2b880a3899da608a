/**
 * Vmap: the kernel's mapping of a buffer, which all its users share.
 *
 *     none ──first vmap()──► mapped, count 1 ──vmap()──► count 2 ──vunmap()──► 1 ──vunmap()──► none
 *
 * - VM1  The exporter is called for the first user and for the last one only.
 * - VM2  The frames are pinned while there is a user.
 *
 * Compare dma_buf_vmap() in the kernel's drivers/dma-buf/dma-buf.c.
 *
 * @module
 */

import type { WaitOptions } from "../clock.ts";
import type { Core } from "../core/core.ts";
import { fail } from "../errors.ts";
import { SgTable } from "../mm/sg-table.ts";
import { BufferViews } from "./buffer-views.ts";
import type { DmaBuf } from "./dma-buf.ts";
import { Endings } from "./endings.ts";
import { isPromise, valueNow } from "./maybe-promise.ts";
import type { DmaBufOps, MaybePromise } from "./ops.ts";
import { undo } from "./report.ts";
import { TimeLimit } from "./time-limit.ts";

/** The bytes of a buffer, for all users of its kernel mapping. Made by `buf.vmap()`. */
export class Vmapping extends BufferViews {
  /** @internal What the exporter gave. */
  readonly table: SgTable;

  /** @internal */
  constructor(core: Core, buf: DmaBuf, table: SgTable) {
    super(core, buf, table.pin(), 0, buf.sizeBytes);
    this.table = table;
  }

  /** One user less, if there is one: `buf.vunmap()`. */
  [Symbol.dispose](): void {
    if (this.isMapped) this.buf.vunmap(this);
  }
}

/** @internal The kernel mapping of one buffer. */
export class Vmap {
  readonly #core: Core;
  readonly #buf: DmaBuf;
  readonly #ops: DmaBufOps;
  #mapping: Vmapping | null = null;
  #count = 0;
  /** Asynchronous calls that have not ended; the one of them that asks the exporter. */
  #waiting = 0;
  #making: Promise<void> | null = null;
  /** The last user's, under the mapping (EN1). */
  readonly #endings: Endings = new Endings();

  constructor(core: Core, buf: DmaBuf, ops: DmaBufOps) {
    this.#core = core;
    this.#buf = buf;
    this.#ops = ops;
  }

  get count(): number {
    return this.#count;
  }

  /** Whether it has users or, asynchronously, is about to have one. */
  get isUsed(): boolean {
    return this.#count + this.#waiting > 0;
  }

  /** What its users share; null: there is none. */
  get mapping(): Vmapping | null {
    return this.#mapping;
  }

  /** The mapping for one more user (VM1). */
  get(): Vmapping {
    const operation = this.#operation("vmap");
    if (this.#making !== null || this.#endings.size > 0)
      fail("EAGAIN", operation(), "an asynchronous call makes or ends the mapping; await it");
    if (this.#mapping === null) {
      const table = valueNow(this.#ask(operation), operation, (late) => this.#giveBack(late));
      this.#mapping = this.#make(table, operation);
    }
    return this.#use(this.#mapping);
  }

  /** The same, after waiting for the exporter. ETIME, EINTR. */
  getAsync(options: WaitOptions): Promise<Vmapping> {
    const operation = this.#operation("vmap");
    const stack = this.#buf.stacks?.here();
    const limit = new TimeLimit(options, operation());
    return limit.run(async () => {
      this.#waiting += 1;
      try {
        for (let other = this.#busy; other !== undefined; other = this.#busy)
          await limit.settled(other);
        if (this.#mapping === null) await this.#startMaking(limit, operation);
        return this.#use(this.#mapping as Vmapping, stack);
      } finally {
        this.#waiting -= 1;
      }
    });
  }

  /** One user less. EWOULDBLOCK, EALREADY. */
  put(mapping: Vmapping): void {
    const operation = this.#operation("vunmap");
    this.#requireLive(mapping, operation);
    this.#endings.requireNone(mapping, operation);
    if (this.#count > 1) {
      this.#leave(mapping);
      return;
    }
    const ended = this.#end(mapping);
    if (isPromise(ended))
      this.#endings.refuse(mapping, ended, () => this.#leave(mapping), operation);
    this.#leave(mapping);
  }

  /** The same, after waiting for the exporter. ETIME, EINTR. */
  async putAsync(mapping: Vmapping, options: WaitOptions): Promise<void> {
    const operation = this.#operation("vunmap");
    this.#requireLive(mapping, operation);
    const limit = new TimeLimit(options, operation());
    const begun = this.#endings.takeOver(mapping);
    if (begun === undefined) this.#endings.requireNone(mapping, operation);
    if (begun === undefined && this.#count > 1) this.#leave(mapping);
    else await limit.run(() => limit.ended(begun ?? this.#endLater(mapping, limit.rest)));
  }

  /** What must end before the exporter is asked for a mapping. */
  get #busy(): Promise<void> | undefined {
    return this.#making ?? (this.#mapping === null ? undefined : this.#endings.of(this.#mapping));
  }

  #use(mapping: Vmapping, stack?: string): Vmapping {
    this.#count += 1;
    this.#buf.stacks?.add("vmap", mapping, stack);
    return mapping;
  }

  /** One user less; the last one's mapping is no more. */
  #leave(mapping: Vmapping): void {
    this.#count -= 1;
    if (this.#count === 0) this.#mapping = null;
    this.#buf.stacks?.remove("vmap", mapping);
  }

  /** Makes the mapping, alone: others wait for `#making`. */
  #startMaking(limit: TimeLimit, operation: () => string): Promise<void> {
    const making = this.#makeLater(limit, operation);
    const settled = (): void => {
      this.#making = null;
    };
    this.#making = making.then(settled, settled);
    return making;
  }

  async #makeLater(limit: TimeLimit, operation: () => string): Promise<void> {
    const asked = this.#ask(operation, limit.rest);
    const table = await limit.answer(asked, (late) => this.#giveBack(late));
    this.#mapping = this.#make(table, operation);
  }

  /** Ends the views, and gives their table back. If that fails, they are shown again (OP3). */
  #end(mapping: Vmapping, wait?: WaitOptions): MaybePromise<void> {
    const resume = (error: unknown): never => {
      mapping.resume(mapping.table.pin());
      throw error;
    };
    mapping.end();
    try {
      const ended = this.#giveBack(mapping.table, wait);
      return isPromise(ended) ? ended.then(undefined, resume) : ended;
    } catch (error) {
      return resume(error);
    }
  }

  #endLater(mapping: Vmapping, wait: WaitOptions): MaybePromise<void> {
    return this.#endings.later(mapping, this.#end(mapping, wait), () => this.#leave(mapping));
  }

  #requireLive(mapping: Vmapping, operation: () => string): void {
    if (this.#mapping === null || mapping !== this.#mapping)
      fail("EINVAL", operation(), "the mapping is not alive on this buffer");
  }

  #operation(verb: string): () => string {
    return () => `${verb} ${this.#buf.name}`;
  }

  #ask(operation: () => string, wait?: WaitOptions): MaybePromise<SgTable> {
    const { vmap } = this.#ops;
    if (vmap === undefined)
      fail("EINVAL", operation(), `the exporter ${this.#buf.exporterName} has no vmap()`);
    return vmap.call(this.#ops, this.#buf, wait);
  }

  #make(table: SgTable, operation: () => string): Vmapping {
    if (!(table instanceof SgTable))
      fail("ENOMEM", operation(), `the exporter ${this.#buf.exporterName} gave no table`);
    try {
      if (!table.isOn(this.#core))
        fail("EIO", operation(), "the exporter's vmap() returned a table of another system");
      return new Vmapping(this.#core, this.#buf, table);
    } catch (error) {
      undo(() => this.#giveBack(table));
      throw error;
    }
  }

  #giveBack(table: SgTable, wait?: WaitOptions): MaybePromise<void> {
    return this.#ops.vunmap?.(this.#buf, table, wait);
  }
}
