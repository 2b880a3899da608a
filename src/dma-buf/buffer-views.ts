/**
 * BufferViews: pinned bytes of a buffer, as the CPU sees them.
 *
 * - BV1  The frames under the views are pinned as long as the views may be used: they are neither
 *        moved nor freed.
 * - BV2  There is one view for each run of frames: entries of the table that follow each other in
 *        memory are one.
 *
 * @module
 */

import { requireBytes } from "../arguments.ts";
import type { Core } from "../core/core.ts";
import { fail } from "../errors.ts";
import type { PinnedTable } from "../mm/pinned-table.ts";
import type { DmaBuf } from "./dma-buf.ts";

type Bytes = Uint8Array<ArrayBufferLike>;

/** Pinned bytes. Bracket every use with beginCpuAccess / endCpuAccess. */
export class BufferViews {
  readonly buf: DmaBuf;
  readonly #core: Core;
  readonly #begin: number;
  readonly #end: number;
  #pinned: PinnedTable;
  #views: readonly Bytes[] | null;

  /** @internal The bytes [begin, end) of the table. */
  constructor(core: Core, buf: DmaBuf, pinned: PinnedTable, begin: number, end: number) {
    this.#core = core;
    this.buf = buf;
    this.#begin = begin;
    this.#end = end;
    this.#pinned = pinned;
    this.#views = runs(core, pinned.views, begin, end);
  }

  /** Whether the bytes may be used. */
  get isMapped(): boolean {
    return this.#views !== null;
  }

  /**
   * The bytes in order: one view for each run of frames (BV2). A typed array cannot be revoked: do
   * not keep it beyond the mapping. EINVAL once unmapped.
   */
  get views(): readonly Bytes[] {
    return this.#views ?? fail("EINVAL", `read ${this.buf.name}`, "it was unmapped");
  }

  /** The bytes as one view. EINVAL when they are not in one run: use `views`. */
  get bytes(): Bytes {
    const [first, ...more] = this.views;
    if (first !== undefined && more.length === 0) return first;
    const reason = `its bytes lie in ${this.views.length} runs; use views`;
    return fail("EINVAL", `read ${this.buf.name} as one view`, reason);
  }

  /**
   * Copies the first bytes into `into`, across all runs. How many. Counted in `bytesCopied`.
   */
  copyTo(into: Uint8Array): number {
    requireBytes(into, "the target", `copy from ${this.buf.name}`);
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
   * Copies `from` to the first bytes, across all runs. How many. Counted in `bytesCopied`.
   */
  copyFrom(from: Uint8Array): number {
    requireBytes(from, "the source", `copy to ${this.buf.name}`);
    let done = 0;
    for (const view of this.views) {
      const part = from.subarray(done, done + view.length);
      view.set(part);
      done += part.length;
    }
    this.#core.bytesCopied += done;
    return done;
  }

  /** @internal Takes the pins off; the views are nobody's from here on. */
  end(): void {
    this.#views = null;
    this.#pinned.unpin();
  }

  /** @internal Shows the bytes again, after end(). */
  resume(pinned: PinnedTable): void {
    this.#pinned = pinned;
    this.#views = runs(this.#core, pinned.views, this.#begin, this.#end);
  }
}

/** The bytes [begin, end) of what `views` show in order, joined where they are neighbours (BV2). */
function runs(core: Core, views: readonly Bytes[], begin: number, end: number): Bytes[] {
  const joined: { at: number; length: number }[] = [];
  let from = 0;
  for (const view of views) {
    const first = Math.max(0, begin - from);
    const length = Math.min(view.length, end - from) - first;
    from += view.length;
    if (length <= 0) continue;
    const at = view.byteOffset + first;
    const last = joined.at(-1);
    if (last !== undefined && last.at + last.length === at) last.length += length;
    else joined.push({ at, length });
  }
  return joined.map(({ at, length }) => core.view(at, length));
}
