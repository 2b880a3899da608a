/**
 * Attachment: a device's interest in a buffer, and what it has mapped of it.
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
 * - A4  Calls of a dynamic importer need `buf.resv` held; the unlocked forms hold it themselves.
 *
 * Compare `struct dma_buf_attachment` and dma_buf_map_attachment() in the kernel's
 * drivers/dma-buf/dma-buf.c.
 *
 * @module
 */

import type { Device } from "../device/device.ts";
import { DeviceMapping } from "../device/device-mapping.ts";
import { type Direction, isDirection, refuseDirection } from "../direction.ts";
import { fail } from "../errors.ts";
import { requireSignaled } from "../fence/fence.ts";
import {
  type AsyncOptions,
  requireFree,
  requireHeld,
  withLock,
  withLockAsync,
} from "./buffer-lock.ts";
import type { DmaBuf } from "./dma-buf.ts";
import { MappingSet } from "./mapping-set.ts";
import { isPromise, refusePromise } from "./maybe-promise.ts";
import type { AttachOps, DmaBufOps } from "./ops.ts";

/** @internal What a buffer does for its attachments. */
export interface AttachmentHost {
  readonly ops: DmaBufOps;
  /** Takes the attachment off the list. */
  unlist(attachment: Attachment): void;
}

/** A device attached to a buffer. Made by `buf.attach(device)` or `buf.dynamicAttach()`. */
export class Attachment {
  readonly buf: DmaBuf;
  readonly device: Device;
  /** The callbacks of a dynamic importer; null: it is static, and its mappings do not move. */
  readonly importerOps: AttachOps | null;
  /** For the importer's own use. */
  readonly importerPriv: unknown;
  /** For the exporter's own use. */
  priv: unknown = null;
  /** Whether memory without frames may be mapped; an exporter's attach() may clear it. */
  peer2peer: boolean;
  readonly #host: AttachmentHost;
  readonly #mappings: MappingSet = new MappingSet();
  #pinCount = 0;
  /** Asynchronous calls that have not ended. */
  #unfinished = 0;
  #isDetached = false;

  /** @internal */
  constructor(
    buf: DmaBuf,
    device: Device,
    host: AttachmentHost,
    importerOps: AttachOps | null,
    importerPriv: unknown,
  ) {
    this.buf = buf;
    this.device = device;
    this.#host = host;
    this.importerOps = importerOps;
    this.importerPriv = importerPriv;
    this.peer2peer = importerOps?.allowPeer2Peer === true;
  }

  /** Whether the importer is told of moves. */
  get isDynamic(): boolean {
    return this.importerOps !== null;
  }

  /** Mappings that map() gave out and unmap() did not get back. */
  get mapCount(): number {
    return this.#mappings.useCount;
  }

  /** Whether the attachment keeps a mapping of its own (A3). */
  get isKeepingMapping(): boolean {
    return this.#mappings.kept !== null;
  }

  /** Pins that are held through it. */
  get pinCount(): number {
    return this.#pinCount;
  }

  get isDetached(): boolean {
    return this.#isDetached;
  }

  /**
   * Makes the buffer reachable for the device. The first map of a buffer decides its storage.
   * EINVAL: detached, the direction, or a dynamic importer does not hold `buf.resv`; EBUSY: the
   * kept mapping has another direction; EAGAIN: a kernel fence is pending (static importers only);
   * ENOMEM: the exporter gave no mapping; EWOULDBLOCK; and what the exporter throws.
   */
  map(direction: Direction): DeviceMapping {
    this.#checkMap(direction);
    if (this.importerOps !== null) this.#requireHeld("map");
    return this.#useKept(direction) ?? this.#use(this.#mapNow(direction), direction);
  }

  /** The same with `buf.resv` held by the call: EDEADLK, EAGAIN if it is not free. */
  mapUnlocked(direction: Direction): DeviceMapping {
    this.#checkMap(direction);
    return this.#locked(
      "map",
      () => this.#useKept(direction) ?? this.#use(this.#mapNow(direction), direction),
    );
  }

  /**
   * The same for exporters of both kinds, after waiting: for `buf.resv` where the importer or the
   * exporter is dynamic, for the exporter, and for kernel fences. ETIME, EINTR.
   */
  async mapAsync(direction: Direction, options: AsyncOptions = {}): Promise<DeviceMapping> {
    this.#checkMap(direction);
    return this.#unended(() => {
      const call = async (): Promise<DeviceMapping> =>
        this.#useKept(direction) ?? this.#use(await this.#mapLater(direction, options), direction);
      const needsLock = this.importerOps !== null || this.buf.isDynamic;
      return needsLock ? withLockAsync(this.buf.resv, this.device, options, call) : call();
    });
  }

  /**
   * Ends a mapping. `direction` is what the exporter is told; that of map(), if it is not given.
   * EINVAL: it is not one of this attachment's live mappings, or a dynamic importer does not hold
   * `buf.resv`.
   */
  unmap(mapping: DeviceMapping, direction?: Direction): void {
    const asked = this.#requireUsed(mapping, direction);
    if (this.importerOps !== null) this.#requireHeld("unmap");
    this.#unmapNow(mapping, asked);
  }

  /** The same with `buf.resv` held by the call. */
  unmapUnlocked(mapping: DeviceMapping, direction?: Direction): void {
    const asked = this.#requireUsed(mapping, direction);
    this.#locked("unmap", () => this.#unmapNow(mapping, asked));
  }

  /**
   * Keeps the storage where it is, for uses that cannot be told to stop. Needs `buf.resv` held.
   * EINVAL: not held, a static importer, detached; EWOULDBLOCK; and what the exporter throws.
   */
  pin(): void {
    this.#checkPin();
    this.#requireHeld("pin");
    const pinned = this.#host.ops.pin?.(this);
    if (isPromise(pinned)) this.#refusePromise(pinned, "pin", () => this.#host.ops.unpin?.(this));
    this.#pinCount += 1;
  }

  /** The same for exporters of both kinds, with `buf.resv` held by the call. EINTR. */
  async pinAsync(options: AsyncOptions = {}): Promise<void> {
    this.#checkPin();
    await this.#unended(() =>
      withLockAsync(this.buf.resv, this.device, options, async () => {
        await this.#host.ops.pin?.(this);
        this.#pinCount += 1;
      }),
    );
  }

  /** Takes a pin off. Needs `buf.resv` held. EINVAL: not held, or there is no pin. */
  unpin(): void {
    if (this.#pinCount === 0) fail("EINVAL", this.#operation("unpin"), "the importer holds no pin");
    this.#requireHeld("unpin");
    this.#host.ops.unpin?.(this);
    this.#pinCount -= 1;
  }

  /**
   * Ends the attachment, with the mapping that it keeps. EBUSY: mappings or pins are left, or an
   * asynchronous call has not ended; EINVAL: detached before; EDEADLK, EAGAIN: `buf.resv` is not
   * free.
   */
  detach(): void {
    const operation = (): string => `detach ${this.device.name} from ${this.buf.name}`;
    if (this.#isDetached) fail("EINVAL", operation(), "it was detached before");
    if (this.#mappings.ownCount > 0)
      fail("EBUSY", operation(), `${this.#mappings.ownCount} mappings are alive; unmap them first`);
    if (this.#pinCount > 0)
      fail("EBUSY", operation(), `${this.#pinCount} pins are left; unpin them first`);
    if (this.#unfinished > 0)
      fail("EBUSY", operation(), `${this.#unfinished} asynchronous calls have not ended`);
    requireFree(this.buf.resv, this.device, operation);
    this.#dropKept();
    this.#isDetached = true;
    this.#host.unlist(this);
    this.#host.ops.detach?.(this.buf, this);
  }

  [Symbol.dispose](): void {
    if (!this.#isDetached) this.detach();
  }

  /** @internal Makes the mapping that attach keeps (A3). */
  keepMapping(): void {
    const { ops } = this.#host;
    if (!this.buf.isDynamic) {
      this.#mappings.keep(this.#mapNow("bidirectional"), "bidirectional");
      return;
    }
    this.#locked("attach", () => {
      const pinned = ops.pin?.(this);
      if (isPromise(pinned)) this.#refusePromise(pinned, "attach", () => ops.unpin?.(this));
      try {
        this.#mappings.keep(this.#mapNow("bidirectional"), "bidirectional");
      } catch (error) {
        ops.unpin?.(this);
        throw error;
      }
    });
  }

  /** @internal The same; the caller holds `buf.resv` if the exporter is dynamic. */
  async keepMappingLater(options: AsyncOptions): Promise<void> {
    const { ops } = this.#host;
    await ops.pin?.(this);
    try {
      this.#mappings.keep(await this.#mapLater("bidirectional", options), "bidirectional");
    } catch (error) {
      ops.unpin?.(this);
      throw error;
    }
  }

  #operation(verb: string): string {
    return `${verb} ${this.buf.name} for ${this.device.name}`;
  }

  #requireHeld(verb: string): void {
    const { resv } = this.buf;
    if (resv.isLocked && resv.holder === null) return;
    requireHeld(resv, this.device, () => this.#operation(verb));
  }

  #locked<T>(verb: string, call: () => T): T {
    return withLock(this.buf.resv, this.device, () => this.#operation(verb), call);
  }

  async #unended<T>(call: () => Promise<T>): Promise<T> {
    this.#unfinished += 1;
    try {
      return await call();
    } finally {
      this.#unfinished -= 1;
    }
  }

  #checkMap(direction: Direction): void {
    if (this.#isDetached) fail("EINVAL", this.#operation("map"), "the attachment was detached");
    if (!isDirection(direction)) refuseDirection(direction, this.#operation("map"));
  }

  #checkPin(): void {
    if (this.#isDetached) fail("EINVAL", this.#operation("pin"), "the attachment was detached");
    if (this.importerOps === null)
      fail("EINVAL", this.#operation("pin"), "only dynamic importers pin; use dynamicAttach()");
  }

  /** The kept mapping, if there is one (A3). */
  #useKept(direction: Direction): DeviceMapping | null {
    const mappings = this.#mappings;
    if (mappings.kept === null) return null;
    if (!mappings.suits(direction))
      fail("EBUSY", this.#operation("map"), `it is mapped ${mappings.keptDirection} already`);
    mappings.useKept();
    return mappings.kept;
  }

  /** Notes a mapping that the exporter has just made. */
  #use(mapping: DeviceMapping, direction: Direction): DeviceMapping {
    if (this.#host.ops.cacheSgtMapping !== true) this.#mappings.add(mapping, direction);
    else {
      this.#mappings.keep(mapping, direction);
      this.#mappings.useKept();
    }
    return mapping;
  }

  /** Ends the mapping that the attachment keeps, as attach or map made it. */
  #dropKept(): void {
    const { kept, keptDirection } = this.#mappings;
    if (kept === null) return;
    const { ops } = this.#host;
    const end = (): void => {
      ops.unmap(this, kept, keptDirection);
      ops.unpin?.(this);
    };
    if (this.buf.isDynamic) this.#locked("detach", end);
    else end();
    this.#mappings.dropKept();
  }

  #mapNow(direction: Direction): DeviceMapping {
    if (this.importerOps === null) this.#requireSettled();
    const mapping = this.#host.ops.map(this, direction);
    if (isPromise(mapping)) {
      return this.#refusePromise(mapping, "map", (late) => {
        if (late instanceof DeviceMapping) this.#endMapping(late, direction);
      });
    }
    this.#requireMapping(mapping);
    if (this.importerOps !== null || this.buf.resv.testSignaled("kernel")) return mapping;
    this.#endMapping(mapping, direction);
    this.#requireSettled(); // the exporter has begun a move
    return mapping;
  }

  async #mapLater(direction: Direction, options: AsyncOptions): Promise<DeviceMapping> {
    const mapping = await this.#host.ops.map(this, direction);
    this.#requireMapping(mapping);
    if (this.importerOps !== null) return mapping;
    try {
      await this.buf.resv.wait("kernel", options);
    } catch (error) {
      this.#endMapping(mapping, direction);
      throw error;
    }
    return mapping;
  }

  /** A static importer's mapping is usable at once: nothing of the kernel's is pending. */
  #requireSettled(): void {
    const { resv } = this.buf;
    if (!resv.testSignaled("kernel"))
      requireSignaled(resv.fences("kernel"), this.#operation("map"));
  }

  /** Ends a synchronous call whose op answered with a promise (OP4). */
  #refusePromise<T>(promise: Promise<T>, verb: string, giveBack: (late: T) => void): never {
    return refusePromise(promise, this.#operation(verb), (late) =>
      this.#later(() => giveBack(late)),
    );
  }

  #requireMapping(mapping: unknown): asserts mapping is DeviceMapping {
    if (!(mapping instanceof DeviceMapping))
      fail(
        "ENOMEM",
        this.#operation("map"),
        `the exporter ${this.buf.exporterName} gave no mapping`,
      );
    if (this.#mappings.has(mapping))
      fail("EEXIST", this.#operation("map"), "the exporter gave a mapping that is alive already");
  }

  /** Throws EINVAL unless `mapping` was given out; the direction that the exporter is told. */
  #requireUsed(mapping: DeviceMapping, direction: Direction | undefined): Direction {
    const asked = this.#mappings.directionOf(mapping);
    if (asked === undefined)
      fail("EINVAL", this.#operation("unmap"), "the mapping is not alive on this attachment");
    if (direction === undefined) return asked;
    if (!isDirection(direction)) refuseDirection(direction, this.#operation("unmap"));
    return direction;
  }

  #unmapNow(mapping: DeviceMapping, direction: Direction): void {
    if (mapping !== this.#mappings.kept) this.#endMapping(mapping, direction);
    this.#mappings.remove(mapping);
  }

  #endMapping(mapping: DeviceMapping, direction: Direction): void {
    this.#host.ops.unmap(this, mapping, direction);
  }

  /** Gives back what an op's promise brought after the call had failed, as the op ran (OP4). */
  #later(call: () => void): void {
    if (!this.buf.isDynamic) call();
    else void withLockAsync(this.buf.resv, this.device, {}, async () => call());
  }
}
