/**
 * Attachment: a device's interest in a buffer, and what it has mapped of it.
 *
 *     attach ─► attached ──map()──► mapped ──unmap()──► attached ─► detach()
 *
 * - A1  An attachment is in its buffer's list from the exporter's consent until detach.
 * - A2  It may hold several mappings; each is unmapped once, and it is not detached before (EBUSY).
 *
 * Compare `struct dma_buf_attachment` and dma_buf_map_attachment() in the kernel's
 * drivers/dma-buf/dma-buf.c.
 *
 * @module
 */

import type { Device } from "../device/device.ts";
import { DeviceMapping } from "../device/device-mapping.ts";
import { type Direction, directionNumber } from "../direction.ts";
import { fail } from "../errors.ts";
import { requireSignaled } from "../fence/fence.ts";
import type { DmaBuf } from "./dma-buf.ts";
import type { DmaBufOps } from "./ops.ts";

/** A device attached to a buffer. Made by `buf.attach(device)`. */
export class Attachment {
  readonly buf: DmaBuf;
  readonly device: Device;
  /** For the exporter's own use. */
  priv: unknown = null;
  readonly #ops: DmaBufOps;
  readonly #mappings: Set<DeviceMapping> = new Set();
  readonly #unlist: () => void;
  #isDetached = false;

  /** @internal */
  constructor(buf: DmaBuf, device: Device, ops: DmaBufOps, unlist: () => void) {
    this.buf = buf;
    this.device = device;
    this.#ops = ops;
    this.#unlist = unlist;
  }

  /** Live mappings. */
  get mapCount(): number {
    return this.#mappings.size;
  }

  get isDetached(): boolean {
    return this.#isDetached;
  }

  /**
   * Makes the buffer reachable for the device. The first map of a buffer decides its storage.
   * EINVAL: detached, or the direction; EAGAIN: a kernel fence is pending; and what the exporter
   * throws.
   */
  map(direction: Direction): DeviceMapping {
    const operation = `map ${this.buf.name} for ${this.device.name}`;
    if (this.#isDetached) fail("EINVAL", operation, "the attachment was detached");
    directionNumber(direction, operation);
    requireSignaled(this.buf.resv.fences("kernel"), operation);
    const mapping = this.#ops.map(this, direction);
    if (isPromise(mapping))
      fail("EWOULDBLOCK", operation, `the exporter ${this.buf.exporterName} maps asynchronously`);
    if (!(mapping instanceof DeviceMapping)) {
      fail("ENOMEM", operation, `the exporter ${this.buf.exporterName} gave no mapping`);
    }
    this.#mappings.add(mapping);
    return mapping;
  }

  /** Ends a mapping. EINVAL: it is not one of this attachment's live mappings. */
  unmap(mapping: DeviceMapping): void {
    if (!this.#mappings.has(mapping)) {
      fail(
        "EINVAL",
        `unmap ${this.buf.name} for ${this.device.name}`,
        "the mapping is not alive on this attachment",
      );
    }
    this.#ops.unmap(this, mapping, mapping.direction);
    this.#mappings.delete(mapping);
  }

  /** Ends the attachment. EBUSY: mappings are left; EINVAL: detached before. */
  detach(): void {
    const operation = `detach ${this.device.name} from ${this.buf.name}`;
    if (this.#isDetached) fail("EINVAL", operation, "it was detached before");
    if (this.mapCount > 0)
      fail("EBUSY", operation, `${this.mapCount} mappings are alive; unmap them first`);
    this.#isDetached = true;
    this.#unlist();
    this.#ops.detach?.(this.buf, this);
  }

  [Symbol.dispose](): void {
    if (!this.#isDetached) this.detach();
  }
}

function isPromise(value: unknown): boolean {
  return typeof (value as { then?: unknown } | null)?.then === "function";
}
