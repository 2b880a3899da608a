/**
 * Attachment: a device's interest in a buffer, from its attach to its detach.
 *
 *     attach ─► attached ──map()──► mapped ──unmap()──► attached ─► detach()
 *
 *     importer   exporter   map() reaches it             buf.resv while it runs
 *     static     static     each time, or see A3         as the importer holds it
 *     dynamic    dynamic    each time                    held: the importer locks
 *     static     dynamic    at attach, pinned (A3)       held: attach locks
 *     dynamic    static     at attach (A3)               free
 *
 * - A1  An attachment is in its buffer's list from the exporter's consent until detach.
 * - A2  It may hold several mappings; each is unmapped once, and it is not detached before (EBUSY).
 *       The same goes for pins.
 * - A3  A mapping that the attachment keeps is the attachment's: map() hands it out again and
 *       again, unmap() takes note, and detach ends it, whoever still has it. It is kept where one
 *       side is dynamic and the other is not, made at attach for both directions; and where the
 *       exporter says `cacheSgtMapping`, made by the first map().
 * - A4  While a detach waits, for the lock or for the exporter, nothing is mapped or pinned any
 *       more. One that fails before the exporter's detach leaves the attachment as it was.
 *
 * Compare `struct dma_buf_attachment` and dma_buf_detach() in the kernel's
 * drivers/dma-buf/dma-buf.c.
 *
 * @module
 */

import type { Device } from "../device/device.ts";
import { fail } from "../errors.ts";
import { type AttachmentHost, AttachmentUses } from "./attachment-uses.ts";
import { type AsyncOptions, requireFree, withLockAsync } from "./buffer-lock.ts";
import type { DmaBuf } from "./dma-buf.ts";
import { ExporterCalls } from "./exporter-calls.ts";
import { KeptMapping } from "./kept-mapping.ts";
import { isPromise } from "./maybe-promise.ts";
import type { AttachOps } from "./ops.ts";
import { attempt } from "./report.ts";
import { TimeLimit } from "./time-limit.ts";
import type { AcquireContext } from "./ww-mutex.ts";

/** @internal The list that an attachment is on. */
export interface AttachmentListing extends AttachmentHost {
  /** Takes the attachment off the list. */
  unlist(attachment: Attachment): void;
}

/** A device attached to a buffer. Made by `buf.attach(device)` or `buf.dynamicAttach()`. */
export class Attachment extends AttachmentUses {
  /** For the importer's own use. */
  readonly importerPriv: unknown;
  /** For the exporter's own use. */
  priv: unknown = null;
  /** Whether memory without frames may be mapped; an exporter's attach() may clear it. */
  peer2peer: boolean;
  /** @internal */
  protected readonly exporter: ExporterCalls;
  readonly #host: AttachmentListing;
  #kept: KeptMapping | null = null;
  #life: "attached" | "ending" | "detached" = "attached";
  /** Whether detachAsync() has not ended. */
  #isDetaching = false;

  /** @internal */
  constructor(
    buf: DmaBuf,
    device: Device,
    host: AttachmentListing,
    importerOps: AttachOps | null,
    importerPriv: unknown,
  ) {
    super(buf, device, host, importerOps);
    this.#host = host;
    this.exporter = new ExporterCalls(this, host.ops, this.set);
    this.importerPriv = importerPriv;
    this.peer2peer = importerOps?.allowPeer2Peer === true;
  }

  /** Whether the importer is told of moves. */
  get isDynamic(): boolean {
    return this.importerOps !== null;
  }

  get isDetached(): boolean {
    return this.#life === "detached";
  }

  protected override get isEnding(): boolean {
    return this.#life !== "attached"; // A4
  }

  /**
   * Ends the attachment, with the mapping that it keeps. EBUSY: mappings or pins are left, or an
   * asynchronous call has not ended; EINVAL: detached before; EDEADLK, EAGAIN: `buf.resv` is not
   * free; EWOULDBLOCK: the exporter has begun, and goes on; detachAsync() waits and does the rest;
   * EALREADY: before it has ended.
   */
  detach(): void {
    this.#requireAttached();
    this.requireUnused(() => this.#operation());
    requireFree(this.buf.resv, this.device, () => this.#operation());
    const failures: unknown[] = [];
    this.#endKept(failures);
    this.#leave();
    const ended = attempt(() => this.#host.ops.detach?.(this.buf, this), failures);
    if (isPromise(ended)) this.#refuseDetach(ended);
    if (failures.length > 0) throw failures[0]; // OP3
  }

  /**
   * The same for exporters of both kinds, after waiting for calls that were interrupted, and for
   * `buf.resv`. ETIME, EINTR: what the exporter has begun goes on, and the attachment ends with it.
   */
  async detachAsync(options: AsyncOptions = {}): Promise<void> {
    const limit = new TimeLimit(options, this.#operation());
    const begun = this.#host.endings.takeOver(this);
    if (begun !== undefined) return limit.run(() => limit.ended(begun));
    this.#requireAttached();
    const { interrupted } = this;
    if (interrupted.length === 0) this.requireUnused(() => this.#operation());
    return limit.run(() => this.#detachLater(limit, interrupted, options.context));
  }

  [Symbol.dispose](): void {
    if (!this.isDetached) this.detach();
  }

  /** @internal Makes the mapping that attach keeps (A3). */
  keepMapping(): void {
    this.#keeping().make();
  }

  /** @internal The same; the caller holds `buf.resv` if the exporter is dynamic. */
  async keepMappingLater(limit: TimeLimit<AsyncOptions>): Promise<void> {
    await this.#keeping().makeLater(limit);
  }

  #operation(): string {
    return `detach ${this.device.name} from ${this.buf.name}`;
  }

  #requireAttached(): void {
    if (this.#life === "detached") fail("EINVAL", this.#operation(), "it was detached before");
    if (this.#isDetaching)
      fail("EALREADY", this.#operation(), "detachAsync() has not ended; await it");
  }

  #keeping(): KeptMapping {
    this.#kept ??= new KeptMapping(this, this.#host, this.exporter, this.set);
    return this.#kept;
  }

  /** Ends the mapping that the attachment keeps. If its unmap throws, nothing has changed. */
  #endKept(failures: unknown[]): void {
    if (this.#kept === null && this.set.kept === null) return;
    try {
      this.#keeping().end(failures);
    } catch (error) {
      if (this.#keeping().isEnding) this.#life = "ending"; // A4
      throw error;
    }
  }

  async #detachLater(
    limit: TimeLimit<AsyncOptions>,
    interrupted: Promise<unknown>[],
    context?: AcquireContext,
  ): Promise<void> {
    const before = this.#life;
    this.#life = "ending";
    this.#isDetaching = true;
    try {
      if (interrupted.length > 0) {
        await limit.settled(Promise.all(interrupted));
        this.requireUnused(() => this.#operation()); // A2
      }
      await this.#endAll(limit, context);
    } finally {
      this.#isDetaching = false;
      if (!this.isDetached) this.#life = before; // A4
    }
  }

  /** All that detach() does, in its order. From the exporter's first answer on it goes on. */
  async #endAll(limit: TimeLimit<AsyncOptions>, context?: AcquireContext): Promise<void> {
    const { buf, device } = this;
    const failures: unknown[] = [];
    const kept = this.#kept === null && this.set.kept === null ? null : this.#keeping();
    const isFirst = kept !== null && !buf.isDynamic;
    if (isFirst) await kept.endLater(limit, failures);
    const lockLimit = isFirst
      ? new TimeLimit<AsyncOptions>(context === undefined ? {} : { context }, this.#operation())
      : limit;
    const left = withLockAsync(buf.resv, device, lockLimit, async () => {
      if (!isFirst) await kept?.endLater(limit, failures);
      this.#leave();
    });
    await (isFirst ? limit.ended(left) : left);
    try {
      const ended = this.#host.ops.detach?.(buf, this, limit.rest);
      await limit.ended(this.#host.endings.later(this, ended, () => {}));
    } catch (error) {
      failures.push(error);
    }
    if (failures.length > 0) throw failures[0]; // OP3
  }

  /** A1. */
  #leave(): void {
    this.#life = "detached";
    this.#host.unlist(this);
  }

  #refuseDetach(ended: Promise<void>): never {
    const done = (): void => {};
    return this.#host.endings.refuse(this, ended, done, () => this.#operation());
  }
}
