/**
 * Seats: a device at the frames of pools, attached and mapped at the first sight of each, for as
 * long as the device works.
 *
 * @module
 */

import type { Device, DeviceMapping, Direction, DmaBuf } from "dmabuf";
import { SharedBuffer } from "./shared-buffer.ts";

/** The frames that a device has seen. */
export class Seats {
  readonly #device: Device;
  readonly #buffers: Map<DmaBuf, SharedBuffer> = new Map();

  constructor(device: Device) {
    this.#device = device;
  }

  /** How the device sees a frame. */
  mappingOf(buf: DmaBuf, direction: Direction): DeviceMapping {
    const known = this.#buffers.get(buf);
    const buffer = known ?? new SharedBuffer(buf.get(), [{ device: this.#device, direction }]);
    this.#buffers.set(buf, buffer);
    return buffer.mappingOf(this.#device);
  }

  get all(): readonly SharedBuffer[] {
    return [...this.#buffers.values()];
  }

  /** Gives everything back. */
  release(): void {
    for (const buffer of this.all) buffer.release();
    this.#buffers.clear();
  }
}
