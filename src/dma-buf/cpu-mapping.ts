/**
 * CpuMapping: a buffer's bytes as the CPU sees them, pinned as long as it lives.
 *
 * - X1  The frames under the views are pinned from mmap() to unmap(): they are neither moved nor
 *       freed.
 * - X2  A mapping holds a reference to its buffer.
 *
 * Compare dma_buf_mmap() in the kernel's drivers/dma-buf/dma-buf.c.
 *
 * @module
 */

import type { Core } from "../core/core.ts";
import { fail } from "../errors.ts";
import type { PinnedTable } from "../mm/pinned-table.ts";
import type { SgTable } from "../mm/sg-table.ts";
import type { DmaBuf } from "./dma-buf.ts";

/**
 * Views over a buffer. Made by `buf.mmap()`. Bracket every use with beginCpuAccess / endCpuAccess.
 */
export class CpuMapping {
  readonly buf: DmaBuf;
  readonly #core: Core;
  readonly #table: SgTable;
  #pinned: PinnedTable;
  #isMapped = true;

  /** @internal */
  constructor(core: Core, buf: DmaBuf, table: SgTable) {
    this.#core = core;
    this.buf = buf;
    this.#table = table;
    this.#pinned = table.pin();
    buf.get();
  }

  /**
   * The bytes in order: one view for each run of frames. A typed array cannot be revoked: do not
   * keep it beyond unmap().
   */
  get views(): readonly Uint8Array<ArrayBufferLike>[] {
    if (!this.#isMapped) fail("EINVAL", `read ${this.buf.name}`, "it was unmapped");
    return this.#pinned.views;
  }

  /** The bytes as one view. EINVAL when they are not in one run: use `views`. */
  get bytes(): Uint8Array<ArrayBufferLike> {
    const views = this.views;
    if (views.length !== 1)
      fail(
        "EINVAL",
        `read ${this.buf.name} as one view`,
        `its bytes lie in ${views.length} runs; use views`,
      );
    return views[0] as Uint8Array<ArrayBufferLike>;
  }

  /**
   * Copies the buffer's first bytes into `into`, across all runs. How many. Counted in
   * `bytesCopied`.
   */
  copyTo(into: Uint8Array): number {
    let done = 0;
    for (const view of this.views) {
      const part = view.subarray(0, into.length - done);
      into.set(part, done);
      done += part.length;
    }
    this.#core.bytesCopied += done;
    return done;
  }

  /**
   * Copies `from` to the buffer's first bytes, across all runs. How many. Counted in `bytesCopied`.
   */
  copyFrom(from: Uint8Array): number {
    let done = 0;
    for (const view of this.views) {
      const part = from.subarray(done, done + view.length);
      view.set(part);
      done += part.length;
    }
    this.#core.bytesCopied += done;
    return done;
  }

  /** Ends the mapping and its pins. EINVAL: unmapped before. */
  unmap(): void {
    if (!this.#isMapped) fail("EINVAL", `unmap ${this.buf.name}`, "it was unmapped before");
    this.#pinned.unpin();
    try {
      this.buf.put();
    } catch (error) {
      this.#pinned = this.#table.pin(); // the reference is still ours, and so is the mapping
      throw error;
    }
    this.#isMapped = false;
  }

  [Symbol.dispose](): void {
    if (this.#isMapped) this.unmap();
  }
}
