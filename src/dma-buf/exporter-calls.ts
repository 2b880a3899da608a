/**
 * ExporterCalls: how one attachment asks its exporter for mappings and pins.
 *
 * - EC1  A mapping that comes back is the exporter's own answer to this call: neither nothing, nor
 *        one that the attachment has already, nor one of another system's device.
 * - EC2  A static importer gets no mapping while a kernel fence is pending, not even one that the
 *        exporter has just begun: there it waits, or the mapping is ended again.
 * - EC3  What comes too late for a synchronous call is given back as it came: with `buf.resv` held
 *        if the exporter is dynamic.
 *
 * Compare __map_dma_buf() in the kernel's drivers/dma-buf/dma-buf.c.
 *
 * @module
 */

import type { WaitOptions } from "../clock.ts";
import { DeviceMapping, type MappingHolder } from "../device/device-mapping.ts";
import type { Direction } from "../direction.ts";
import { fail } from "../errors.ts";
import { requireSignaled } from "../fence/fence.ts";
import type { Attachment } from "./attachment.ts";
import { type AsyncOptions, withLockAsync } from "./buffer-lock.ts";
import type { MappingSet } from "./mapping-set.ts";
import { isPromise, refusePromise } from "./maybe-promise.ts";
import type { DmaBufOps, MaybePromise } from "./ops.ts";
import { undo, undoLater } from "./report.ts";
import { TimeLimit } from "./time-limit.ts";

/** @internal The exporter, as one attachment sees it. */
export class ExporterCalls implements MappingHolder {
  readonly #attachment: Attachment;
  readonly #ops: DmaBufOps;
  readonly #mappings: MappingSet;

  constructor(attachment: Attachment, ops: DmaBufOps, mappings: MappingSet) {
    this.#attachment = attachment;
    this.#ops = ops;
    this.#mappings = mappings;
  }

  /** A mapping, now. EAGAIN (EC2), ENOMEM, EEXIST, EIO (EC1), EWOULDBLOCK. */
  map(direction: Direction): DeviceMapping {
    const { importerOps, buf } = this.#attachment;
    if (importerOps === null) this.#requireSettled();
    const mapping = this.#ops.map(this.#attachment, direction);
    if (isPromise(mapping))
      return this.#refuse(mapping, "map", (late) => this.#giveBack(late, direction));
    this.#requireMapping(mapping);
    mapping.holder = this;
    if (importerOps !== null || buf.resv.testSignaled("kernel")) return mapping;
    undo(() => this.unmap(mapping, direction));
    return fail("EAGAIN", this.#operation("map"), "the exporter is moving it; await its fences");
  }

  /** A mapping, after waiting for it and for kernel fences. ETIME, EINTR. */
  async mapLater(direction: Direction, limit: TimeLimit<AsyncOptions>): Promise<DeviceMapping> {
    const { importerOps, buf } = this.#attachment;
    const asked = this.#ops.map(this.#attachment, direction, limit.rest);
    const mapping = await limit.answer(asked, (late) => this.#giveBack(late, direction));
    this.#requireMapping(mapping);
    mapping.holder = this;
    if (importerOps !== null) return mapping;
    try {
      await limit.wait((rest) => buf.resv.wait("kernel", rest));
    } catch (error) {
      await undoLater(() => this.unmap(mapping, direction));
      throw error;
    }
    return mapping;
  }

  /** The importer disposes of a mapping: one use less, if it has not unmapped all (DV3). */
  giveBack(mapping: DeviceMapping): void {
    if (this.#mappings.directionOf(mapping) === undefined) return;
    const { isDynamic, buf } = this.#attachment;
    if (isDynamic && !buf.resv.isLocked) this.#attachment.unmapUnlocked(mapping);
    else this.#attachment.unmap(mapping);
  }

  /** Ends a mapping. */
  unmap(mapping: DeviceMapping, direction: Direction, wait?: WaitOptions): MaybePromise<void> {
    return this.#ops.unmap(this.#attachment, mapping, direction, wait);
  }

  /** Pins now; an exporter that cannot pin does not move either. EWOULDBLOCK. */
  pin(verb: string): void {
    const pinned = this.#ops.pin?.(this.#attachment);
    if (isPromise(pinned)) this.#refuse(pinned, verb, () => this.unpin());
  }

  /** Pins after waiting. ETIME, EINTR. */
  async pinLater(limit: TimeLimit<AsyncOptions>): Promise<void> {
    await limit.answer(this.#ops.pin?.(this.#attachment, limit.rest), () => this.unpin());
  }

  /** Takes a pin off. */
  unpin(wait?: WaitOptions): MaybePromise<void> {
    return this.#ops.unpin?.(this.#attachment, wait);
  }

  #operation(verb: string): string {
    const { buf, device } = this.#attachment;
    return `${verb} ${buf.name} for ${device.name}`;
  }

  /** EC2. */
  #requireSettled(): void {
    const { resv } = this.#attachment.buf;
    if (!resv.testSignaled("kernel"))
      requireSignaled(resv.fences("kernel"), this.#operation("map"));
  }

  /** EC1. */
  #requireMapping(mapping: unknown): asserts mapping is DeviceMapping {
    const { exporterName } = this.#attachment.buf;
    if (!(mapping instanceof DeviceMapping))
      fail("ENOMEM", this.#operation("map"), `the exporter ${exporterName} gave no mapping`);
    if (this.#mappings.has(mapping))
      fail("EEXIST", this.#operation("map"), "the exporter gave a mapping that is alive already");
    if (!mapping.isBeside(this.#attachment.device))
      fail("EIO", this.#operation("map"), "the exporter's map() returned one of another system");
  }

  #giveBack(late: unknown, direction: Direction): MaybePromise<void> {
    if (late instanceof DeviceMapping && !this.#mappings.has(late))
      return this.unmap(late, direction);
  }

  /** Ends a synchronous call whose op answered with a promise (EC3). */
  #refuse<T>(promise: Promise<T>, verb: string, giveBack: (late: T) => MaybePromise<void>): never {
    const { buf, device } = this.#attachment;
    return refusePromise(promise, this.#operation(verb), (late) => {
      if (!buf.isDynamic) return giveBack(late);
      const unlimited = new TimeLimit({}, this.#operation(verb));
      return withLockAsync(buf.resv, device, unlimited, async () => giveBack(late));
    });
  }
}
