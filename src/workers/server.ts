/**
 * BufferServer: lets other threads use the buffers whose exporter is JavaScript of this one.
 *
 *     buf.token ─► record, SERVED            another thread: import(token), a link, questions
 *     bell ─► questions are taken and answered (served-link.ts) ─► links that are gone are ended
 *     last put() here ─► kept, while others hold it ─► they let go ─► released
 *
 * - SV1  A buffer that was shared is released when nobody holds it, here or elsewhere (DB5).
 * - SV2  This thread listens while it serves a buffer; its host is kept alive only while another
 *        thread holds one.
 *
 * @module
 */

import type { Core } from "../core/core.ts";
import { loadWord, onceChanged } from "../core/wait-word.ts";
import type { DevicePool } from "../device/device.ts";
import type { BufferSharer, DmaBuf } from "../dma-buf/dma-buf.ts";
import { holderMasks } from "../dma-buf/holding-threads.ts";
import { fail, throwLater } from "../errors.ts";
import { makeServedRecord } from "../heaps/buffer-record.ts";
import { ServedLink } from "./served-link.ts";

interface Served {
  readonly buf: DmaBuf;
  readonly token: number;
  /** Nobody has a reference here any more: the one that is left is the other threads' (SV1). */
  isLeft: boolean;
}

/** Of a link: its buffer; and, in the record before it, its owner (assembly/object.ts). */
const BUFFER = 1;
const OWNER_BYTES_BEFORE = 4;

/** Of a thread's slot, where its bell is (assembly/thread.ts). */
const BELL_BYTES = 16;
/** Whether another thread holds a buffer that this one holds. */
function isHeldElsewhere(core: Core, token: number): boolean {
  const at = core.exports.bufferAt(token);
  const masks = holderMasks(core, at);
  const own = Math.floor(core.thread / 32);
  return masks.some((mask, i) => mask !== (i === own ? 2 ** (core.thread % 32) : 0));
}

/** @internal The buffers that a thread serves. */
export class BufferServer implements BufferSharer {
  readonly #core: Core;
  readonly #pool: DevicePool;
  readonly #served: Map<DmaBuf, Served> = new Map();
  readonly #links: Map<number, ServedLink> = new Map();
  #stop: (() => void) | null = null;

  constructor(core: Core, pool: DevicePool) {
    this.#core = core;
    this.#pool = pool;
  }

  token(buf: DmaBuf): number {
    const known = this.#served.get(buf);
    if (known !== undefined) return known.token;
    const operation = `share ${buf.name}`;
    if (!this.#core.isShared)
      fail("EOPNOTSUPP", operation, `only ${buf.exporterName} on its thread can map it`);
    if (buf.sizeBytes >= 2 ** 32) fail("EOPNOTSUPP", operation, "it holds 4 GiB or more");
    const token = makeServedRecord(this.#core, buf);
    this.#served.set(buf, { buf, token, isLeft: false });
    this.#listen();
    return token;
  }

  isShared(buf: DmaBuf): boolean {
    const served = this.#served.get(buf);
    return served !== undefined && isHeldElsewhere(this.#core, served.token);
  }

  keeps(buf: DmaBuf): boolean {
    const served = this.#served.get(buf);
    if (served === undefined) return false;
    if (served.isLeft)
      fail("ESTALE", `put ${buf.name}`, "the last reference of this thread was put before");
    if (this.#core.exports.bufferUnserve(served.token) === 1) {
      served.isLeft = true;
      return true;
    }
    this.#core.tokens.delete(served.token);
    this.#served.delete(buf);
    if (this.#served.size === 0) this.#silence();
    return false;
  }

  /** The word that is counted up when there is something to look at. */
  get #bellAt(): number {
    const { at, bytes } = this.#core.threadSlots;
    return at + bytes * this.#core.thread + BELL_BYTES;
  }

  #silence(): void {
    this.#stop?.();
    this.#stop = null;
  }

  /** Looks at what there is to do, and again when the bell rings (SV2). */
  #listen(): void {
    this.#silence();
    const bellAt = this.#bellAt;
    const seen = loadWord(this.#core, bellAt);
    this.#look();
    if (this.#served.size === 0) return;
    const keepsAlive = [...this.#served.keys()].some((buf) => this.isShared(buf));
    const again = (): void => this.#listen();
    this.#stop = onceChanged(this.#core, bellAt, seen, again, keepsAlive);
  }

  #look(): void {
    const { linkNext } = this.#core.exports;
    for (let handle = linkNext(); handle > 0; handle = linkNext()) this.#linkOf(handle)?.serve();
    for (const [handle, link] of this.#links) {
      link.interruptIfCancelled();
      if (!link.isThere) this.#end(handle, link);
    }
    for (const served of this.#served.values()) this.#leaveIfLast(served);
  }

  #linkOf(handle: number): ServedLink | null {
    const known = this.#links.get(handle);
    if (known !== undefined) return known;
    const at = this.#core.exports.linkAt(handle);
    const token = this.#core.word(at, BUFFER);
    const buf = this.#core.tokens.get(token) as DmaBuf | undefined;
    if (buf === undefined || !this.#served.has(buf)) return null;
    const asker = this.#core.word(at - OWNER_BYTES_BEFORE, 0);
    const link = new ServedLink(this.#core, handle, buf, this.#pool, asker);
    this.#links.set(handle, link);
    return link;
  }

  #end(handle: number, link: ServedLink): void {
    this.#links.delete(handle);
    this.#ending.add(link);
    void link
      .end()
      .catch(throwLater)
      .then(() => {
        this.#ending.delete(link);
        const served = this.#served.get(link.buf);
        if (served !== undefined) this.#leaveIfLast(served);
      });
  }

  /** Links that are gone, and not given up here yet. */
  readonly #ending: Set<ServedLink> = new Set();

  /** Releases a buffer that is nobody's any more (SV1). */
  #leaveIfLast(served: Served): void {
    const { buf } = served;
    if (!served.isLeft || this.isShared(buf)) return;
    const links = [...this.#links.values(), ...this.#ending];
    if (links.some((link) => link.buf === buf)) return;
    served.isLeft = false;
    try {
      buf.put();
    } catch (error) {
      throwLater(error); // the exporter's release() threw, or a device of this thread is attached
    }
  }
}
