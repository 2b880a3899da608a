/**
 * AttachmentList: who is attached to a buffer, and how one comes onto the list.
 *
 *     check ─► exporter's attach ─► listed ─► kept mapping, where one side only is dynamic
 *                                     │                 └─fails─┐
 *                                     └─► detach ─► unlisted ◄──┘
 *
 * - AL1  The exporter's attach() does not see the attachment on the list; its detach() neither.
 * - AL2  The list is in the order of attaching; move notices go through it from its end, as Linux,
 *        which lists the latest first.
 *
 * Compare dma_buf_dynamic_attach() in the kernel's drivers/dma-buf/dma-buf.c.
 *
 * @module
 */

import { requireInstance } from "../arguments.ts";
import type { Core } from "../core/core.ts";
import { Device } from "../device/device.ts";
import { DmaBufError, type ErrnoCode, fail, reportError } from "../errors.ts";
import { Attachment, type AttachmentListing } from "./attachment.ts";
import { type AsyncOptions, requireFree, runInside, withLockAsync } from "./buffer-lock.ts";
import type { DmaBuf } from "./dma-buf.ts";
import { Endings } from "./endings.ts";
import { isPromise, refusePromise } from "./maybe-promise.ts";
import type { AttachOps, DmaBufOps } from "./ops.ts";
import { undo, undoLater } from "./report.ts";
import { TimeLimit } from "./time-limit.ts";

/** @internal The attachments of one buffer. */
export class AttachmentList implements AttachmentListing {
  readonly ops: DmaBufOps;
  mapCount = 0;
  pinCount = 0;
  isRevoked = false;
  readonly endings: Endings = new Endings();
  /** Called after each unmap and unpin. */
  readonly watchers: Set<() => void> = new Set();
  readonly #core: Core;
  readonly #buf: DmaBuf;
  readonly #listed: Set<Attachment> = new Set();
  /** Asynchronous calls that have not ended. */
  #attaching = 0;

  constructor(core: Core, buf: DmaBuf, ops: DmaBufOps) {
    this.#core = core;
    this.#buf = buf;
    this.ops = ops;
  }

  get size(): number {
    return this.#listed.size;
  }

  /** Whether somebody is attached or, asynchronously, about to be or not to be. */
  get isUsed(): boolean {
    return this.#listed.size + this.#attaching + this.endings.size > 0;
  }

  /** Oldest first. */
  get all(): Attachment[] {
    return [...this.#listed];
  }

  unlist(attachment: Attachment): void {
    this.#listed.delete(attachment);
    this.onUnused();
  }

  onUnused(): void {
    if (this.watchers.size === 0) return;
    for (const watcher of [...this.watchers]) watcher();
  }

  /** Attaches now. */
  attach(device: Device, importerOps: AttachOps | null, priv: unknown): Attachment {
    const buf = this.#buf;
    const attachment = this.#make(device, importerOps, priv);
    const operation = (): string => operationOf(device, buf);
    requireFree(buf.resv, device, operation);
    const consent = this.ops.attach?.(buf, attachment);
    if (isPromise(consent))
      refusePromise(consent, operation(), () => this.ops.detach?.(buf, attachment));
    this.#listed.add(attachment); // AL1
    if (attachment.isDynamic === buf.isDynamic) return attachment;
    try {
      attachment.keepMapping();
    } catch (error) {
      this.#listed.delete(attachment);
      undo(() => this.ops.detach?.(buf, attachment));
      throw error;
    }
    return attachment;
  }

  /** Attaches after waiting for the exporter and the lock. */
  async attachAsync(
    device: Device,
    importerOps: AttachOps | null,
    priv: unknown,
    options: AsyncOptions,
  ): Promise<Attachment> {
    const attachment = this.#make(device, importerOps, priv);
    const limit = new TimeLimit(options, operationOf(device, this.#buf));
    return limit.run(async () => {
      this.#attaching += 1;
      try {
        const detach = () => this.ops.detach?.(this.#buf, attachment);
        const consent = this.ops.attach?.(this.#buf, attachment, limit.rest);
        await limit.answer(consent, detach);
        await this.#listLater(attachment, limit);
      } finally {
        this.#attaching -= 1;
      }
      return attachment;
    });
  }

  async #listLater(attachment: Attachment, limit: TimeLimit<AsyncOptions>): Promise<void> {
    const buf = this.#buf;
    const keeps = attachment.isDynamic !== buf.isDynamic;
    try {
      await withLockAsync(buf.resv, attachment.device, limit, async () => {
        this.#listed.add(attachment); // AL1
        if (keeps && buf.isDynamic) await attachment.keepMappingLater(limit);
      });
      if (keeps && !buf.isDynamic) await attachment.keepMappingLater(limit);
    } catch (error) {
      this.#listed.delete(attachment);
      await undoLater(() => this.ops.detach?.(buf, attachment));
      throw error;
    }
  }

  /** Tells the dynamic importers of a move (AL2); what one throws is reported. */
  moveNotify(): void {
    for (const attachment of this.all.reverse()) {
      const { importerOps } = attachment;
      if (importerOps === null || attachment.isDetached) continue;
      runInside(this.#buf.resv, () => reportError(() => importerOps.moveNotify(attachment)));
    }
  }

  /** What attach() would throw for a static importer; null: nothing. */
  canAttach(device: Device): DmaBufError | null {
    try {
      this.#requireAttachable(device);
      requireFree(this.#buf.resv, device, () => operationOf(device, this.#buf));
      this.ops.canAttach?.(this.#buf, device);
      return null;
    } catch (error) {
      if (error instanceof DmaBufError) return error;
      throw error;
    }
  }

  #refuse(device: Device, code: ErrnoCode, reason: string): never {
    return fail(code, operationOf(device, this.#buf), reason);
  }

  #requireAttachable(device: Device): void {
    if (device === null || device === undefined)
      this.#refuse(device, "EINVAL", "there is no device");
    if (device.isRemoved) this.#refuse(device, "ENODEV", "the device was removed");
    requireInstance(device, Device, "the device", `attach to ${this.#buf.name}`);
    if (!device.isOn(this.#core)) this.#refuse(device, "EINVAL", "it is of another system");
  }

  #make(device: Device, importerOps: AttachOps | null, priv: unknown): Attachment {
    this.#requireAttachable(device);
    if (importerOps !== null && typeof importerOps?.moveNotify !== "function")
      this.#refuse(device, "EINVAL", "the importer's ops lack moveNotify()");
    const attachment = new Attachment(this.#buf, device, this, importerOps, priv);
    this.#buf.stacks?.add("attachment", attachment);
    return attachment;
  }
}

function operationOf(device: Device, buf: DmaBuf): string {
  return `attach ${device?.name ?? String(device)} to ${buf.name}`;
}
