/**
 * BufferTable: the descriptors of a system, which are for its own buffers.
 *
 * - BT1  What is in the table is a live buffer of the system: close() of the system can look at
 *        each, and put it.
 *
 * @module
 */

import { fail } from "../errors.ts";
import { FdTable } from "../files/fd-table.ts";
import type { BufferRegistry } from "./buffer-registry.ts";
import { DmaBuf } from "./dma-buf.ts";

/** A table that takes the buffers of one registry. */
export class BufferTable extends FdTable<DmaBuf> {
  readonly #buffers: BufferRegistry;

  /** @internal */
  constructor(buffers: BufferRegistry) {
    super();
    this.#buffers = buffers;
  }

  /** BT1. EINVAL: no buffer, or another system's. */
  protected override requireAccepted(file: DmaBuf, operation: string): void {
    if (!(file instanceof DmaBuf))
      fail("EINVAL", operation, "the table takes buffers only; make another FdTable for it");
    if (!this.#buffers.has(file)) fail("EINVAL", operation, "it is of another system");
  }
}
