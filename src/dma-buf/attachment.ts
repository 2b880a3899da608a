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
import type { DeviceMapping } from "../device/device-mapping.ts";
import { type Direction, isDirection, refuseDirection } from "../direction.ts";
import { fail } from "../errors.ts";
import {
  type AsyncOptions,
  requireFree,
  requireHeld,
  withLock,
  withLockAsync,
} from "./buffer-lock.ts";
import type { DmaBuf } from "./dma-buf.ts";
import { ExporterCalls } from "./exporter-calls.ts";
import { MappingSet, type MappingUse } from "./mapping-set.ts";
import type { AttachOps, DmaBufOps } from "./ops.ts";
import { undo } from "./report.ts";

/** @internal What a buffer does for its attachments. */
export interface AttachmentHost {
  readonly ops: DmaBufOps;
  /** Live mappings and pins of all attachments. */
  mapCount: number;
  pinCount: number;
  /** Nothing is mapped or pinned any more. */
  readonly isRevoked: boolean;
  /** A mapping or a pin has gone. */
  onUnused(): void;
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
  readonly #exporter: ExporterCalls;
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
    this.#exporter = new ExporterCalls(this, host.ops, this.#mappings);
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

  /** The mappings that it has, those that map() gave out and the one that it keeps. */
  get mappings(): readonly MappingUse[] {
    return this.#mappings.all;
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
    return this.#useKept(direction) ?? this.#use(this.#exporter.map(direction), direction);
  }

  /** The same with `buf.resv` held by the call: EDEADLK, EAGAIN if it is not free. */
  mapUnlocked(direction: Direction): DeviceMapping {
    this.#checkMap(direction);
    return this.#locked(
      "map",
      () => this.#useKept(direction) ?? this.#use(this.#exporter.map(direction), direction),
    );
  }

  /**
   * The same for exporters of both kinds, after waiting: for `buf.resv` where the importer or the
   * exporter is dynamic, for the exporter, and for kernel fences. ETIME, EINTR.
   */
  async mapAsync(direction: Direction, options: AsyncOptions = {}): Promise<DeviceMapping> {
    this.#checkMap(direction);
    const stack = this.buf.stacks?.here();
    return this.#unended(() => {
      const call = async (): Promise<DeviceMapping> =>
        this.#useKept(direction, stack) ??
        this.#use(await this.#exporter.mapLater(direction, options), direction, stack);
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
    this.#exporter.pin("pin");
    this.#countPin(1);
    this.buf.stacks?.add("pin", this);
  }

  /** The same for exporters of both kinds, with `buf.resv` held by the call. EINTR. */
  async pinAsync(options: AsyncOptions = {}): Promise<void> {
    this.#checkPin();
    const stack = this.buf.stacks?.here();
    await this.#unended(() =>
      withLockAsync(this.buf.resv, this.device, options, async () => {
        await this.#exporter.pinLater();
        if (this.#host.isRevoked) this.#exporter.unpin();
        this.#requireNotRevoked("pin");
        this.#countPin(1);
        this.buf.stacks?.add("pin", this, stack);
      }),
    );
  }

  /** Takes a pin off. Needs `buf.resv` held. EINVAL: not held, or there is no pin. */
  unpin(): void {
    if (this.#pinCount === 0) fail("EINVAL", this.#operation("unpin"), "the importer holds no pin");
    this.#requireHeld("unpin");
    this.#exporter.unpin();
    this.#countPin(-1);
    this.buf.stacks?.remove("pin", this);
    this.#host.onUnused();
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
    const failures: unknown[] = [];
    this.#dropKept(failures);
    this.#isDetached = true;
    this.#host.unlist(this);
    attempt(() => this.#host.ops.detach?.(this.buf, this), failures);
    if (failures.length > 0) throw failures[0]; // OP3
  }

  [Symbol.dispose](): void {
    if (!this.#isDetached) this.detach();
  }

  /** @internal Makes the mapping that attach keeps (A3). */
  keepMapping(): void {
    const keep = (): void => {
      const mapping = this.#exporter.map("bidirectional");
      this.#mappings.keep(mapping, "bidirectional");
    };
    if (!this.buf.isDynamic) keep();
    else {
      this.#locked("attach", () => {
        this.#exporter.pin("attach");
        this.#orUnpin(keep);
      });
    }
  }

  /** @internal The same; the caller holds `buf.resv` if the exporter is dynamic. */
  async keepMappingLater(options: AsyncOptions): Promise<void> {
    await this.#exporter.pinLater();
    const mapping = await this.#exporter.mapLater("bidirectional", options).catch((error) => {
      undo(() => this.#exporter.unpin());
      throw error;
    });
    this.#mappings.keep(mapping, "bidirectional");
  }

  #orUnpin(call: () => void): void {
    try {
      call();
    } catch (error) {
      undo(() => this.#exporter.unpin());
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
    this.#requireNotRevoked("map");
  }

  #countPin(change: 1 | -1): void {
    this.#pinCount += change;
    this.#host.pinCount += change;
  }

  #requireNotRevoked(verb: string): void {
    if (this.#host.isRevoked) fail("ENODEV", this.#operation(verb), "the buffer was revoked");
  }

  #checkPin(): void {
    if (this.#isDetached) fail("EINVAL", this.#operation("pin"), "the attachment was detached");
    if (this.importerOps === null)
      fail("EINVAL", this.#operation("pin"), "only dynamic importers pin; use dynamicAttach()");
    this.#requireNotRevoked("pin");
  }

  /** The kept mapping, if there is one (A3). */
  #useKept(direction: Direction, stack?: string): DeviceMapping | null {
    const { kept, keptDirection } = this.#mappings;
    if (kept === null) return null;
    if (!this.#mappings.suits(direction))
      fail("EBUSY", this.#operation("map"), `it is mapped ${keptDirection} already`);
    this.#mappings.useKept();
    return this.#count(kept, stack);
  }

  /** One user more of a mapping. */
  #count(mapping: DeviceMapping, stack?: string): DeviceMapping {
    this.#host.mapCount += 1;
    this.buf.stacks?.add("mapping", mapping, stack);
    return mapping;
  }

  /** Notes a mapping that the exporter has just made, unless the buffer was revoked meanwhile. */
  #use(mapping: DeviceMapping, direction: Direction, stack?: string): DeviceMapping {
    const mappings = this.#mappings;
    const keeps = this.#host.ops.cacheSgtMapping === true;
    if (this.#host.isRevoked || (keeps && mappings.kept !== null)) {
      this.#exporter.unmap(mapping, direction); // an asynchronous call was faster
      this.#requireNotRevoked("map");
      return this.#useKept(direction, stack) as DeviceMapping;
    }
    if (keeps) {
      mappings.keep(mapping, direction);
      mappings.useKept();
    } else mappings.add(mapping, direction);
    return this.#count(mapping, stack);
  }

  /** Ends the mapping that the attachment keeps, as attach or map made it. */
  #dropKept(failures: unknown[]): void {
    const { kept, keptDirection } = this.#mappings;
    if (kept === null) return;
    const end = (): void => {
      this.#exporter.unmap(kept, keptDirection);
      this.#host.mapCount -= this.mapCount;
      this.buf.stacks?.clear("mapping", kept);
      this.#mappings.dropKept();
      attempt(() => this.#exporter.unpin(), failures);
    };
    if (this.buf.isDynamic) this.#locked("detach", end);
    else end();
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
    if (mapping !== this.#mappings.kept) this.#exporter.unmap(mapping, direction);
    this.#mappings.remove(mapping);
    this.#host.mapCount -= 1;
    this.buf.stacks?.remove("mapping", mapping);
    this.#host.onUnused();
  }
}

/** Runs what must not stop the rest; what it throws goes to `failures`. */
function attempt(call: () => void, failures: unknown[]): void {
  try {
    call();
  } catch (error) {
    failures.push(error);
  }
}
