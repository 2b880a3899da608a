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

import type { Core } from "../core/core.ts";
import { fail } from "../errors.ts";
import { SgTable } from "../mm/sg-table.ts";
import { BufferViews } from "./buffer-views.ts";
import type { DmaBuf } from "./dma-buf.ts";
import { valueNow } from "./maybe-promise.ts";
import type { DmaBufOps, MaybePromise } from "./ops.ts";
import { undo } from "./report.ts";

/** The bytes of a buffer, for all users of its kernel mapping. Made by `buf.vmap()`. */
export class Vmapping extends BufferViews {
  /** @internal What the exporter gave. */
  readonly table: SgTable;

  /** @internal */
  constructor(core: Core, buf: DmaBuf, table: SgTable) {
    super(core, buf, table.pin(), 0, buf.sizeBytes);
    this.table = table;
  }
}

/** @internal The kernel mapping of one buffer. */
export class Vmap {
  readonly #core: Core;
  readonly #buf: DmaBuf;
  readonly #ops: DmaBufOps;
  #mapping: Vmapping | null = null;
  #count = 0;
  /** The first user's asynchronous call, until it ends. */
  #making: Promise<void> | null = null;

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
    return this.#count > 0 || this.#making !== null;
  }

  /** What its users share; null: there is none. */
  get mapping(): Vmapping | null {
    return this.#mapping;
  }

  /** The mapping for one more user (VM1). */
  get(): Vmapping {
    const operation = this.#operation();
    if (this.#making !== null)
      fail("EAGAIN", operation(), "an asynchronous call is making the mapping; await it");
    if (this.#mapping === null) {
      const table = valueNow(this.#ask(operation), operation, (late) => this.#giveBack(late));
      this.#mapping = this.#make(table, operation);
    }
    this.#count += 1;
    return this.#mapping;
  }

  /** The same, after waiting for the exporter. */
  async getAsync(): Promise<Vmapping> {
    const operation = this.#operation();
    while (this.#making !== null) await this.#making;
    if (this.#mapping === null) {
      const asked = Promise.resolve(this.#ask(operation));
      const settled = (): void => {};
      this.#making = asked.then(settled, settled);
      try {
        this.#mapping = this.#make(await asked, operation);
      } finally {
        this.#making = null;
      }
    }
    this.#count += 1;
    return this.#mapping;
  }

  /** One user less. */
  put(mapping: Vmapping): void {
    if (this.#mapping === null || mapping !== this.#mapping)
      fail("EINVAL", `vunmap ${this.#buf.name}`, "the mapping is not alive on this buffer");
    if (this.#count === 1) {
      mapping.end();
      try {
        this.#giveBack(mapping.table);
      } catch (error) {
        mapping.resume(mapping.table.pin()); // OP3
        throw error;
      }
      this.#mapping = null;
    }
    this.#count -= 1;
  }

  #operation(): () => string {
    return () => `vmap ${this.#buf.name}`;
  }

  #ask(operation: () => string): MaybePromise<SgTable> {
    const { vmap } = this.#ops;
    if (vmap === undefined)
      fail("EINVAL", operation(), `the exporter ${this.#buf.exporterName} has no vmap()`);
    return vmap.call(this.#ops, this.#buf);
  }

  #make(table: SgTable, operation: () => string): Vmapping {
    if (!(table instanceof SgTable))
      fail("ENOMEM", operation(), `the exporter ${this.#buf.exporterName} gave no table`);
    try {
      return new Vmapping(this.#core, this.#buf, table);
    } catch (error) {
      undo(() => this.#giveBack(table));
      throw error;
    }
  }

  #giveBack(table: SgTable): void {
    this.#ops.vunmap?.(this.#buf, table);
  }
}
