/**
 * SharedBuffer: a buffer with the devices that pass it on, attached and mapped for the whole run.
 *
 *     buf ─► attach every device ─► map every device ─► … jobs … ─► unmap, detach, put
 *                                     └ the first map chooses storage that suits them all
 *
 * @module
 */

import type { Attachment, Device, DeviceMapping, Direction, DmaBuf } from "dmabuf";

/** A device that will use a buffer, and what for. */
export interface User {
  readonly device: Device;
  readonly direction: Direction;
}

interface Seat {
  readonly attachment: Attachment;
  readonly mapping: DeviceMapping;
}

/** A buffer, mapped for its users. */
export class SharedBuffer {
  readonly buf: DmaBuf;
  readonly #seats: readonly Seat[];

  /** For exactly these users. Takes over the caller's reference. */
  constructor(buf: DmaBuf, users: readonly User[]) {
    this.buf = buf;
    const attached = users.map(({ device, direction }) => ({
      attachment: this.buf.attach(device),
      direction,
    }));
    this.#seats = attached.map(({ attachment, direction }) => ({
      attachment,
      mapping: attachment.map(direction),
    }));
  }

  /** Who uses it, and how each sees it. */
  get mappings(): readonly { readonly device: Device; readonly mapping: DeviceMapping }[] {
    return this.#seats.map(({ attachment, mapping }) => ({ device: attachment.device, mapping }));
  }

  /** The mapping of one of its users. */
  mappingOf(device: Device): DeviceMapping {
    const seat = this.#seats.find(({ attachment }) => attachment.device === device);
    if (seat === undefined) throw new Error(`Cannot use ${this.buf.name} as ${device.name}`);
    return seat.mapping;
  }

  /** Gives everything back. */
  release(): void {
    for (const { attachment, mapping } of this.#seats) {
      attachment.unmap(mapping);
      attachment.detach();
    }
    this.buf.put();
  }
}
