/**
 * AttachmentUses: what a device has of the buffer that it is attached to: mappings and pins.
 *
 *     map() ─► mapping ─► unmap()        now: exporters that answer at once
 *     mapAsync() ………… unmapAsync()       after waiting: for the lock, the exporter, kernel fences
 *
 * - AU1  Calls of a dynamic importer need `buf.resv` held; the unlocked and the async forms hold it
 *        themselves.
 * - AU2  A mapping or a pin is there from the exporter's answer until the exporter has ended it.
 * - AU3  While an asynchronous call has not ended, the attachment is not detached; detachAsync()
 *        waits for those that were interrupted.
 *
 * Compare dma_buf_map_attachment() and dma_buf_pin() in the kernel's drivers/dma-buf/dma-buf.c.
 *
 * @module
 */

import { requireObject } from "../arguments.ts";
import type { Device } from "../device/device.ts";
import type { DeviceMapping } from "../device/device-mapping.ts";
import { type Direction, isDirection, refuseDirection } from "../direction.ts";
import { fail } from "../errors.ts";
import { countOf } from "../units.ts";
import { type AsyncOptions, requireHeld, withLock, withLockAsync } from "./buffer-lock.ts";
import type { DmaBuf } from "./dma-buf.ts";
import type { Endings } from "./endings.ts";
import type { ExporterCalls } from "./exporter-calls.ts";
import { MappingSet, type MappingUse } from "./mapping-set.ts";
import { isPromise } from "./maybe-promise.ts";
import type { AttachOps, DmaBufOps } from "./ops.ts";
import { undo, undoLater } from "./report.ts";
import { TimeLimit } from "./time-limit.ts";

/** How an asynchronous unmap waits, and what the exporter is told. */
export interface UnmapOptions extends AsyncOptions {
  /** As for unmap(): that of map(), if it is not given. */
  readonly direction?: Direction | undefined;
}

/** @internal What a buffer does for its attachments. */
export interface AttachmentHost {
  readonly ops: DmaBufOps;
  readonly endings: Endings;
  /** Live mappings and pins of all attachments. */
  mapCount: number;
  pinCount: number;
  /** Nothing is mapped or pinned any more. */
  readonly isRevoked: boolean;
  /** A mapping or a pin has gone. */
  onUnused(): void;
}

/** An asynchronous call, and what is there when it has ended, whatever its caller was told. */
interface UnfinishedCall {
  readonly limit: TimeLimit<AsyncOptions>;
  readonly ended: Promise<unknown>;
}

/** The mappings and pins of one attachment. */
export abstract class AttachmentUses {
  readonly buf: DmaBuf;
  readonly device: Device;
  /** The callbacks of a dynamic importer; null: it is static, and its mappings do not move. */
  readonly importerOps: AttachOps | null;
  readonly #host: AttachmentHost;
  /** @internal */
  protected readonly set: MappingSet = new MappingSet();
  /** @internal */
  protected abstract readonly exporter: ExporterCalls;
  #pinCount = 0;
  /** Null until there is one (AU3). */
  #unfinished: Set<UnfinishedCall> | null = null;

  /** @internal */
  constructor(buf: DmaBuf, device: Device, host: AttachmentHost, importerOps: AttachOps | null) {
    this.buf = buf;
    this.device = device;
    this.#host = host;
    this.importerOps = importerOps;
  }

  /** Mappings that map() gave out and unmap() did not get back. */
  get mapCount(): number {
    return this.set.useCount;
  }

  /** The mappings that it has, those that map() gave out and the one that it keeps. */
  get mappings(): readonly MappingUse[] {
    return this.set.all;
  }

  /** Whether the attachment keeps a mapping of its own. */
  get isKeepingMapping(): boolean {
    return this.set.kept !== null;
  }

  /** Pins that are held through it. */
  get pinCount(): number {
    return this.#pinCount;
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
    return this.#mapNow(direction);
  }

  /** With `buf.resv` held by the call: EDEADLK, EAGAIN. A kept mapping has its own direction. */
  mapUnlocked(direction: Direction): DeviceMapping {
    this.#checkMap(direction);
    return this.#locked("map", () => this.#mapNow(direction));
  }

  /**
   * The same for exporters of both kinds, after waiting: for `buf.resv` where the importer or the
   * exporter is dynamic, for the exporter, and for kernel fences. ETIME, EINTR.
   */
  async mapAsync(direction: Direction, options: AsyncOptions = {}): Promise<DeviceMapping> {
    this.#checkMap(direction);
    const stack = this.buf.stacks?.here();
    return this.#later("map", options, this.#needsLock, (limit) =>
      this.#mapLater(direction, limit, stack),
    );
  }

  /**
   * Ends a mapping. `direction` is what the exporter is told; that of map(), if it is not given.
   * EINVAL: it is not one of this attachment's live mappings, or a dynamic importer does not hold
   * `buf.resv`; EWOULDBLOCK: the exporter ends it later; EALREADY: it has begun to.
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
   * The same for exporters of both kinds, after waiting as mapAsync() does. ETIME, EINTR: what the
   * exporter has begun goes on, and the mapping ends with it.
   */
  async unmapAsync(mapping: DeviceMapping, options: UnmapOptions = {}): Promise<void> {
    requireObject(options, "the options", this.#operation("unmap"));
    this.#requireUsed(mapping, options.direction);
    const { endings } = this.#host;
    const begun = endings.takeOver(mapping);
    if (begun === undefined) endings.requireNone(mapping, () => this.#operation("unmap"));
    await this.#later("unmap", options, begun === undefined && this.#needsLock, (limit) => {
      if (begun !== undefined) return limit.ended(begun);
      const direction = this.#requireUsed(mapping, options.direction); // after the wait
      const isKept = mapping === this.set.kept;
      const ended = isKept ? undefined : this.exporter.unmap(mapping, direction, limit.rest);
      return limit.ended(endings.later(mapping, ended, () => this.#forget(mapping)));
    });
  }

  /**
   * Keeps the storage where it is, for uses that cannot be told to stop. Needs `buf.resv` held.
   * EINVAL: not held, a static importer, detached; EWOULDBLOCK; and what the exporter throws.
   */
  pin(): void {
    this.#checkPin();
    this.#requireHeld("pin");
    this.exporter.pin("pin");
    this.#addPin();
  }

  /** The same for exporters of both kinds, with `buf.resv` held by the call. ETIME, EINTR. */
  async pinAsync(options: AsyncOptions = {}): Promise<void> {
    this.#checkPin();
    const stack = this.buf.stacks?.here();
    await this.#later("pin", options, true, async (limit) => {
      await this.exporter.pinLater(limit);
      if (this.#host.isRevoked) await undoLater(() => this.exporter.unpin());
      this.#requireNotRevoked("pin");
      this.#addPin(stack);
    });
  }

  /**
   * Takes a pin off. Needs `buf.resv` held. EINVAL: not held, or there is no pin; EWOULDBLOCK,
   * EALREADY as unmap().
   */
  unpin(): void {
    this.#requirePin();
    this.#requireHeld("unpin");
    const { endings } = this.#host;
    const operation = (): string => this.#operation("unpin");
    endings.requireNone(this.exporter, operation);
    const ended = this.exporter.unpin();
    if (isPromise(ended)) endings.refuse(this.exporter, ended, () => this.#dropPin(), operation);
    this.#dropPin();
  }

  /** The same for exporters of both kinds, with `buf.resv` held by the call. As unmapAsync(). */
  async unpinAsync(options: AsyncOptions = {}): Promise<void> {
    this.#requirePin();
    const { endings } = this.#host;
    const { exporter } = this;
    const begun = endings.takeOver(exporter);
    await this.#later("unpin", options, begun === undefined, async (limit) => {
      if (begun !== undefined) return limit.ended(begun);
      const other = endings.of(exporter);
      if (other !== undefined) await limit.settled(other);
      this.#requirePin(); // after the wait
      await limit.ended(endings.later(exporter, exporter.unpin(limit.rest), () => this.#dropPin()));
    });
  }

  /** Whether it is not attached any more, or about not to be. */
  protected abstract get isEnding(): boolean;

  /** Throws EBUSY while the importer has something left (AU3). */
  protected requireUnused(operation: () => string): void {
    const { ownCount: mapping } = this.set;
    if (mapping + this.#pinCount + (this.#unfinished?.size ?? 0) === 0) return;
    const uses = { mapping, pin: this.#pinCount, "asynchronous call": this.#unfinished?.size ?? 0 };
    for (const [what, count] of Object.entries(uses))
      if (count > 0) fail("EBUSY", operation(), `it has ${countOf(count, what)} left to end first`);
  }

  /** The ends of the calls that were interrupted, and that nobody waits for (AU3). */
  protected get interrupted(): Promise<unknown>[] {
    const calls = [...(this.#unfinished ?? [])].filter(({ limit }) => limit.isGivenUp);
    return calls.map(({ ended }) => ended);
  }

  #operation(verb: string): string {
    return `${verb} ${this.buf.name} for ${this.device.name}`;
  }

  /** AU1. */
  #requireHeld(verb: string): void {
    const { resv } = this.buf;
    if (resv.isLocked && resv.holder === null) return;
    requireHeld(resv, this.device, () => this.#operation(verb));
  }

  #locked<T>(verb: string, call: () => T): T {
    return withLock(this.buf.resv, this.device, () => this.#operation(verb), call);
  }

  get #needsLock(): boolean {
    return this.importerOps !== null || this.buf.isDynamic;
  }

  /** Runs an asynchronous call, all of whose waits have one limit (AU3). */
  #later<T>(
    verb: string,
    options: AsyncOptions,
    needsLock: boolean,
    call: (limit: TimeLimit<AsyncOptions>) => Promise<T>,
  ): Promise<T> {
    const limit = new TimeLimit(options, this.#operation(verb));
    return limit.run(() => {
      const { resv } = this.buf;
      const inTurn = async (): Promise<T> => call(limit);
      const result = needsLock ? withLockAsync(resv, this.device, limit, inTurn) : inTurn();
      const unfinished = { limit, ended: result.catch(() => {}) };
      this.#unfinished ??= new Set();
      this.#unfinished.add(unfinished);
      return result.finally(() => this.#unfinished?.delete(unfinished));
    });
  }

  #checkMap(direction: Direction): void {
    if (this.isEnding) fail("EINVAL", this.#operation("map"), "the attachment was detached");
    if (!isDirection(direction)) refuseDirection(direction, this.#operation("map"));
    this.#requireNotRevoked("map");
  }

  #requireNotRevoked(verb: string): void {
    if (this.#host.isRevoked) fail("ENODEV", this.#operation(verb), "the buffer was revoked");
  }

  #mapNow(direction: Direction): DeviceMapping {
    const kept = this.#useKept(direction);
    if (kept !== null) return kept;
    const mapping = this.exporter.map(direction);
    if (this.#use(mapping, direction)) return mapping;
    undo(() => this.exporter.unmap(mapping, direction));
    return this.#useInstead(direction);
  }

  async #mapLater(
    direction: Direction,
    limit: TimeLimit<AsyncOptions>,
    stack: string | undefined,
  ): Promise<DeviceMapping> {
    const kept = this.#useKept(direction, stack);
    if (kept !== null) return kept;
    const mapping = await this.exporter.mapLater(direction, limit);
    if (this.#use(mapping, direction, stack)) return mapping;
    await undoLater(() => this.exporter.unmap(mapping, direction));
    return this.#useInstead(direction, stack);
  }

  /** The kept mapping, if there is one. */
  #useKept(direction: Direction, stack?: string): DeviceMapping | null {
    const { kept, keptDirection } = this.set;
    if (kept === null) return null;
    if (!this.set.suits(direction))
      fail("EBUSY", this.#operation("map"), `it is mapped ${keptDirection} already`);
    this.set.useKept();
    this.#count(kept, stack);
    return kept;
  }

  /** One user more of a mapping. */
  #count(mapping: DeviceMapping, stack?: string): void {
    this.#host.mapCount += 1;
    this.buf.stacks?.add("mapping", mapping, stack);
  }

  /** Notes what the exporter has made; false if an asynchronous call or a revoke was faster. */
  #use(mapping: DeviceMapping, direction: Direction, stack?: string): boolean {
    const keeps = this.#host.ops.cacheSgtMapping === true;
    if (this.#host.isRevoked || (keeps && this.set.kept !== null)) return false;
    if (keeps) {
      this.set.keep(mapping, direction);
      this.set.useKept();
    } else this.set.add(mapping, direction);
    this.#count(mapping, stack);
    return true;
  }

  /** After a map() that was not faster. */
  #useInstead(direction: Direction, stack?: string): DeviceMapping {
    this.#requireNotRevoked("map");
    return this.#useKept(direction, stack) as DeviceMapping;
  }

  /** Throws EINVAL unless `mapping` was given out; the direction that the exporter is told. */
  #requireUsed(mapping: DeviceMapping, direction: Direction | undefined): Direction {
    const asked = this.set.directionOf(mapping);
    if (asked === undefined)
      fail("EINVAL", this.#operation("unmap"), "the mapping is not alive on this attachment");
    if (direction === undefined) return asked;
    if (!isDirection(direction)) refuseDirection(direction, this.#operation("unmap"));
    return direction;
  }

  #unmapNow(mapping: DeviceMapping, direction: Direction): void {
    if (mapping !== this.set.kept) {
      const { endings } = this.#host;
      if (endings.size > 0) endings.requireNone(mapping, () => this.#operation("unmap"));
      const ended = this.exporter.unmap(mapping, direction);
      if (isPromise(ended)) this.#refuseUnmap(mapping, ended);
    }
    this.#forget(mapping);
  }

  #refuseUnmap(mapping: DeviceMapping, ended: Promise<void>): never {
    const forget = (): void => this.#forget(mapping);
    return this.#host.endings.refuse(mapping, ended, forget, () => this.#operation("unmap"));
  }

  /** AU2. */
  #forget(mapping: DeviceMapping): void {
    this.set.remove(mapping);
    this.#host.mapCount -= 1;
    this.buf.stacks?.remove("mapping", mapping);
    this.#host.onUnused();
  }

  #checkPin(): void {
    if (this.isEnding) fail("EINVAL", this.#operation("pin"), "the attachment was detached");
    if (this.importerOps === null)
      fail("EINVAL", this.#operation("pin"), "only dynamic importers pin; use dynamicAttach()");
    this.#requireNotRevoked("pin");
  }

  #requirePin(): void {
    if (this.#pinCount === 0) fail("EINVAL", this.#operation("unpin"), "the importer holds no pin");
  }

  #addPin(stack?: string): void {
    this.#pinCount += 1;
    this.#host.pinCount += 1;
    this.buf.stacks?.add("pin", this, stack);
  }

  #dropPin(): void {
    this.#pinCount -= 1;
    this.#host.pinCount -= 1;
    this.buf.stacks?.remove("pin", this);
    this.#host.onUnused();
  }
}
