/**
 * BufferRegistry: the live buffers of a system, and what they are made with.
 *
 * - BR1  A buffer is listed from its export until its last reference is gone: who looks through the
 *        list inside the exporter's release does not find it. If release throws, it is back.
 * - BR2  Inode numbers count up from 1 and are never used again.
 *
 * Compare `db_list` in the kernel's drivers/dma-buf/dma-buf.c.
 *
 * @module
 */

import type { Core } from "../core/core.ts";
import { type BufferInfo, bufferInfo } from "./bufinfo.ts";
import { type BufferOwner, type BufferSharer, DmaBuf } from "./dma-buf.ts";
import type { FileTable } from "./holders.ts";
import type { ExportInfo } from "./ops.ts";

/** Whom a registry tells of a buffer's end. */
type OnReleased = (buf: DmaBuf) => void;

/** The buffers of a system. */
export class BufferRegistry implements BufferOwner {
  readonly core: Core;
  readonly tables: Set<FileTable> = new Set();
  /** What shares its buffers with other threads. */
  sharer: BufferSharer | null = null;
  readonly #buffers: Map<number, DmaBuf> = new Map();
  readonly #onReleased: OnReleased;
  #lastIno = 0;

  /** @internal */
  constructor(core: Core, onReleased: OnReleased) {
    this.core = core;
    this.#onReleased = onReleased;
  }

  /** How many buffers live. */
  get size(): number {
    return this.all.length;
  }

  /** Oldest first. */
  get all(): readonly DmaBuf[] {
    return [...this.#buffers.values()].filter(({ refCount }) => refCount > 0); // BR1
  }

  /** Whether a live buffer is of this system. */
  has(buf: DmaBuf): boolean {
    return this.#buffers.get(buf.ino) === buf;
  }

  /** A new buffer (BR2). EINVAL, ENOENT: see `system.export()`. */
  export(info: ExportInfo): DmaBuf {
    const buf = new DmaBuf(this, this.#lastIno + 1, info);
    this.#lastIno = buf.ino;
    this.#buffers.set(buf.ino, buf);
    buf.stacks?.addFirst(buf, "export()");
    return buf;
  }

  /** @internal */
  onReleased(buf: DmaBuf): void {
    this.#buffers.delete(buf.ino);
    this.#onReleased(buf);
  }

  /** Every buffer in the kernel's columns, the latest first. */
  bufinfo(): BufferInfo[] {
    return this.all.map(bufferInfo).reverse();
  }
}
