/**
 * EvictingBuffer: the dynamic exporter of a buffer that moves between two places.
 *
 *     near ──evict──► far        its heap says when (evicting-heap.ts)
 *     near ◄─validate── far
 *
 * - EB1  The bytes lie in one place, whole.
 * - EB2  They move with `buf.resv` held, when nobody pins them, all fences have signaled, those of
 *        usage bookkeep included, and importers that were told have unmapped. Else they stay.
 * - EB3  Static importers are pinned by the framework, at attach: for them nothing moves.
 *
 * Compare ttm_bo_evict() and ttm_bo_validate() in the kernel's drivers/gpu/drm/ttm/ttm_bo.c.
 *
 * @module
 */

import type { Device } from "../device/device.ts";
import type { DeviceMapping } from "../device/device-mapping.ts";
import type { Direction } from "../direction.ts";
import type { Attachment } from "../dma-buf/attachment.ts";
import { type Conflict, ConflictError } from "../dma-buf/conflict.ts";
import type { DmaBuf } from "../dma-buf/dma-buf.ts";
import type { PixelLayout } from "../dma-buf/formats.ts";
import { type Layout, negotiate } from "../dma-buf/negotiate.ts";
import type { DmaBufOps } from "../dma-buf/ops.ts";
import { conflictsWith } from "../dma-buf/storage-fit.ts";
import { type ErrnoCode, fail } from "../errors.ts";
import type { SgTable } from "../mm/sg-table.ts";
import type { PlacedStorage } from "./placed-storage.ts";

/** Where a buffer of an evicting heap lies. */
export type EvictingPlace = "near" | "far";

/** What a buffer asks of its heap. */
export interface EvictingHost {
  /** The buffer is about to be used: it should come near, and is used last of all. */
  used(ops: EvictingBuffer): void;
  /** Whether storage for this layout can lie in a place. */
  suits(place: EvictingPlace, layout: Layout): boolean;
  /** Moves the buffer, if it may move, to whichever place all its devices can use. */
  moveForDevices(ops: EvictingBuffer): void;
  released(ops: EvictingBuffer): void;
}

/** The ops of a buffer that an evicting heap made. */
export class EvictingBuffer implements DmaBufOps {
  /** The picture in it, wherever it lies. */
  readonly picture: PixelLayout | null;
  readonly #host: EvictingHost;
  #buf: DmaBuf | null = null;
  #place: EvictingPlace = "far";
  #storage: PlacedStorage | null = null;
  #pinCount = 0;

  /** @internal */
  constructor(host: EvictingHost, picture: PixelLayout | null) {
    this.#host = host;
    this.picture = picture;
  }

  /** @internal Gives it its buffer and its first storage. */
  begin(buf: DmaBuf, place: EvictingPlace, storage: PlacedStorage): void {
    this.#buf = buf;
    this.#place = place;
    this.#storage = storage;
  }

  get buf(): DmaBuf {
    return this.#buf ?? fail("ESTALE", "move a buffer", "it has no storage");
  }

  /** Where the bytes lie (EB1). */
  get place(): EvictingPlace {
    return this.#place;
  }

  #live(): PlacedStorage {
    return this.#storage ?? fail("ESTALE", "use a buffer", "it has no storage");
  }

  /** What all attached devices can use; null: there is nothing. */
  layoutForDevices(): Layout | null {
    const { attachments, sizeBytes } = this.buf;
    const devices = attachments.map(({ device }) => device);
    return negotiate(devices, { sizeBytes }).layout;
  }

  /** What keeps the bytes where they are, before importers are told; null: nothing does (EB2). */
  get whyItStays(): string | null {
    if (this.#pinCount > 0) return "an importer pins it";
    if (this.#live().table.pinCount > 0) return "the CPU has it mapped";
    return this.buf.resv.testSignaled("bookkeep") ? null : "fences are pending";
  }

  /** Whether a device has it mapped. */
  get isMapped(): boolean {
    return this.buf.attachments.some(({ mapCount }) => mapCount > 0);
  }

  /**
   * Tells the importers, and moves the bytes to `to`, which is freed if that fails. The caller
   * holds `buf.resv`. False: an importer kept its mapping, and the bytes stay (EB2).
   */
  moveTo(place: EvictingPlace, to: PlacedStorage): boolean {
    const from = this.#live();
    this.buf.moveNotify();
    if (this.whyItStays !== null || from.whyItStays !== null) {
      to.free();
      return false;
    }
    from.moveTo(to);
    this.#storage = to;
    this.#place = place;
    return true;
  }

  canAttach(buf: DmaBuf, device: Device): void {
    const refuse = (code: ErrnoCode, reason: string, conflicts: readonly Conflict[]): never => {
      const operation = `attach ${device.name} to ${buf.name}`;
      throw new ConflictError(code, operation, reason, conflicts, buf.sizeBytes);
    };
    const devices = [...buf.attachments.map((attachment) => attachment.device), device];
    const { layout, conflicts } = negotiate(devices, { sizeBytes: buf.sizeBytes });
    if (layout === null) return void refuse("EINVAL", "no storage suits", conflicts);
    const { existing } = this.#live();
    const own = conflictsWith(device, existing);
    if (own.length === 0 && this.#host.suits(this.#place, layout)) return;
    const all = devices.flatMap((one) => conflictsWith(one, existing));
    const other = this.#place === "near" ? "far" : "near";
    if (!this.#host.suits(other, layout)) refuse("EBUSY", "neither place suits all", all);
    const why = this.whyItStays;
    if (own.length > 0 && why !== null) refuse("EBUSY", `it would have to move, and ${why}`, own);
  }

  attach(buf: DmaBuf, { device }: Attachment): void {
    this.canAttach(buf, device);
  }

  pin(attachment: Attachment): void {
    this.#prepare(attachment);
    this.#pinCount += 1;
  }

  unpin(): void {
    this.#pinCount -= 1;
  }

  map(attachment: Attachment, direction: Direction): DeviceMapping {
    this.#prepare(attachment);
    return this.#live().map(attachment, direction);
  }

  unmap(attachment: Attachment, mapping: DeviceMapping): void {
    this.#live().unmap(attachment, mapping);
  }

  /** Brings the bytes to where the attachment's device can use them, near if they fit. */
  #prepare({ buf, device }: Attachment): void {
    this.#host.used(this);
    if (conflictsWith(device, this.#live().existing).length > 0) this.#host.moveForDevices(this);
    const conflicts = conflictsWith(device, this.#live().existing);
    if (conflicts.length === 0) return;
    const operation = `use ${buf.name} with ${device.name}`;
    const reason = `it lies ${this.#place}, and ${this.whyItStays ?? "there is no room elsewhere"}`;
    throw new ConflictError("EBUSY", operation, reason, conflicts, buf.sizeBytes);
  }

  beginCpuAccess(_: DmaBuf, direction: Direction): void {
    this.#live().sync(direction, false);
  }

  endCpuAccess(_: DmaBuf, direction: Direction): void {
    this.#live().sync(direction, true);
  }

  mmap(): SgTable {
    return this.#live().table;
  }

  vmap(): SgTable {
    return this.#live().table;
  }

  storage(): SgTable | null {
    return this.#storage?.table ?? null;
  }

  layout(): PixelLayout | null {
    return this.picture;
  }

  release(): void {
    this.#storage?.free();
    if (this.#storage !== null) this.#host.released(this);
    this.#storage = null;
  }
}
