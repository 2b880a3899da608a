/**
 * KeptMapping: the mapping that an attachment keeps, and the pin under it.
 *
 *     dynamic exporter   lock ─► pin ─► map …… unmap ─► unpin ─► unlock
 *     static exporter                   map …… unmap
 *
 * - KM1  What was made last ends first. An end that has not ended, or failed, is taken up again by
 *        the next detach.
 *
 * Compare the static importer's branch of dma_buf_dynamic_attach() and dma_buf_detach() in the
 * kernel's drivers/dma-buf/dma-buf.c.
 *
 * @module
 */

import type { Attachment } from "./attachment.ts";
import type { AttachmentHost } from "./attachment-uses.ts";
import { type AsyncOptions, withLock } from "./buffer-lock.ts";
import type { ExporterCalls } from "./exporter-calls.ts";
import type { MappingSet } from "./mapping-set.ts";
import { isPromise } from "./maybe-promise.ts";
import { attempt, undo, undoLater } from "./report.ts";
import type { TimeLimit } from "./time-limit.ts";

/** @internal The mapping that one attachment keeps. */
export class KeptMapping {
  readonly #attachment: Attachment;
  readonly #host: AttachmentHost;
  readonly #exporter: ExporterCalls;
  readonly #mappings: MappingSet;
  #isPinned = false;

  constructor(
    attachment: Attachment,
    host: AttachmentHost,
    exporter: ExporterCalls,
    mappings: MappingSet,
  ) {
    this.#attachment = attachment;
    this.#host = host;
    this.#exporter = exporter;
    this.#mappings = mappings;
  }

  /** Makes it for both directions, as attach does. */
  make(): void {
    this.#inLock("attach", () => {
      if (this.#isDynamic) this.#exporter.pin("attach");
      this.#isPinned = this.#isDynamic;
      try {
        this.#mappings.keep(this.#exporter.map("bidirectional"), "bidirectional");
      } catch (error) {
        this.#isPinned = false;
        if (this.#isDynamic) undo(() => this.#exporter.unpin());
        throw error;
      }
    });
  }

  /** The same; the caller holds `buf.resv` if the exporter is dynamic. ETIME, EINTR. */
  async makeLater(limit: TimeLimit<AsyncOptions>): Promise<void> {
    if (this.#isDynamic) await this.#exporter.pinLater(limit);
    try {
      const mapping = await this.#exporter.mapLater("bidirectional", limit);
      this.#mappings.keep(mapping, "bidirectional");
      this.#isPinned = this.#isDynamic;
    } catch (error) {
      if (this.#isDynamic) await undoLater(() => this.#exporter.unpin());
      throw error;
    }
  }

  /** Whether the exporter has begun to end it. */
  get isEnding(): boolean {
    const { endings } = this.#host;
    const { kept } = this.#mappings;
    return endings.of(kept ?? this) !== undefined;
  }

  /** Ends it; what unpin() throws goes to `failures`. EWOULDBLOCK, EALREADY. */
  end(failures: unknown[]): void {
    this.#inLock("detach", () => {
      this.#endMapping();
      this.#endPin(failures);
    });
  }

  #endMapping(): void {
    const { kept, keptDirection } = this.#mappings;
    if (kept === null) return;
    const { endings } = this.#host;
    endings.requireNone(kept, this.#operation);
    const ended = this.#exporter.unmap(kept, keptDirection);
    if (isPromise(ended)) endings.refuse(kept, ended, this.#drop, this.#operation);
    this.#drop();
  }

  #endPin(failures: unknown[]): void {
    const { endings } = this.#host;
    endings.requireNone(this, this.#operation);
    if (!this.#isPinned) return;
    this.#isPinned = false;
    const ended = attempt(() => this.#exporter.unpin(), failures);
    if (isPromise(ended)) endings.refuse(this, ended, () => {}, this.#operation);
  }

  /** The same after waiting; the caller holds `buf.resv` if the exporter is dynamic. */
  async endLater(limit: TimeLimit<AsyncOptions>, failures: unknown[]): Promise<void> {
    const { kept, keptDirection } = this.#mappings;
    const { endings } = this.#host;
    if (kept !== null) {
      const end = () => {
        const ended = this.#exporter.unmap(kept, keptDirection, limit.rest);
        return endings.later(kept, ended, this.#drop);
      };
      await limit.ended(endings.of(kept) ?? end());
    }
    try {
      await limit.ended(endings.of(this));
      if (!this.#isPinned) return;
      this.#isPinned = false;
      await limit.ended(this.#exporter.unpin(limit.rest));
    } catch (error) {
      failures.push(error);
    }
  }

  /** Forgets the mapping, whoever uses it. */
  readonly #drop = (): void => {
    const { kept } = this.#mappings;
    if (kept === null) return;
    this.#host.mapCount -= this.#attachment.mapCount;
    this.#attachment.buf.stacks?.clear("mapping", kept);
    this.#mappings.dropKept();
  };

  get #isDynamic(): boolean {
    return this.#attachment.buf.isDynamic;
  }

  readonly #operation = (): string => {
    const { buf, device } = this.#attachment;
    return `detach ${device.name} from ${buf.name}`;
  };

  #inLock(verb: string, call: () => void): void {
    const { buf, device } = this.#attachment;
    if (!this.#isDynamic) call();
    else withLock(buf.resv, device, () => `${verb} ${buf.name} for ${device.name}`, call);
  }
}
