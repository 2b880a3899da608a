/**
 * HeapBuffer: the exporter behind every heap. It owns a table of frames, chosen at once or at the
 * first use.
 *
 *     no storage ──first map or mmap: place()──► storage ──release──► frames free
 *
 * - HB1  Storage is chosen once, from the devices attached at that moment, and shows zeros to its
 *        first user.
 * - HB2  A device that could use no storage of this size is refused at attach (EINVAL); one that
 *        cannot use the storage that exists gets EBUSY. Both list the conflicts.
 *
 * Compare drivers/dma-buf/heaps/system_heap.c in the kernel.
 *
 * @module
 */

import type { Core } from "../core/core.ts";
import type { DeviceMapping } from "../device/device-mapping.ts";
import type { Direction } from "../direction.ts";
import type { Attachment } from "../dma-buf/attachment.ts";
import type { DmaBuf } from "../dma-buf/dma-buf.ts";
import {
  conflictsWith,
  describeConflicts,
  type ExistingStorage,
  negotiate,
} from "../dma-buf/negotiate.ts";
import type { DmaBufOps } from "../dma-buf/ops.ts";
import { fail } from "../errors.ts";
import { SgTable } from "../mm/sg-table.ts";
import { addressOf, framesOf } from "../units.ts";

/**
 * Chooses frames for a buffer: the handle of a table that owns them. Throws when there are none.
 */
export type Place = (buf: DmaBuf) => number;

/** The ops of a buffer that a heap made. */
export class HeapBuffer implements DmaBufOps {
  readonly #core: Core;
  readonly #physicalBase: number;
  readonly #place: Place;
  #table: SgTable | null = null;
  #existing: ExistingStorage | null = null;

  /** @internal */
  constructor(core: Core, physicalBase: number, place: Place) {
    this.#core = core;
    this.#physicalBase = physicalBase;
    this.#place = place;
  }

  /** Chooses the storage now, if that did not happen yet (HB1). */
  decide(buf: DmaBuf): SgTable {
    if (this.#table === null) {
      const handle = this.#place(buf);
      this.#core.exports.storageClear(handle);
      this.#table = new SgTable(this.#core, handle, true);
      this.#existing = this.#describe(this.#table, buf.sizeBytes);
    }
    return this.#table;
  }

  storage(): SgTable | null {
    return this.#table;
  }

  attach(buf: DmaBuf, { device }: Attachment): void {
    const operation = `attach ${device.name} to ${buf.name}`;
    if (this.#existing !== null) {
      const conflicts = conflictsWith(device, this.#existing);
      if (conflicts.length > 0)
        fail(
          "EBUSY",
          operation,
          `the storage exists already: ${describeConflicts(conflicts, buf.sizeBytes)}`,
        );
      return;
    }
    const participants = [...buf.attachments.map((attachment) => attachment.device), device];
    const { conflicts } = negotiate(participants, buf.sizeBytes);
    if (conflicts !== null)
      fail("EINVAL", operation, `no storage suits: ${describeConflicts(conflicts, buf.sizeBytes)}`);
  }

  /** What attach() compares a device with; derived once, because storage never changes (HB1). */
  #describe(table: SgTable, sizeBytes: number): ExistingStorage {
    let pfnEnd = 0;
    for (const { pfn, offset, lengthBytes } of table.entries()) {
      pfnEnd = Math.max(pfnEnd, pfn + framesOf(offset + lengthBytes));
    }
    return {
      origNents: table.origNents,
      addressEnd: this.#physicalBase + addressOf(pfnEnd),
      sizeBytes,
    };
  }

  map({ buf, device }: Attachment, direction: Direction): DeviceMapping {
    const isFirst = this.#table === null;
    const table = this.decide(buf);
    try {
      return device.dma.mapSgtable(table, direction);
    } catch (error) {
      if (isFirst) this.release(); // the choice was made for this map alone
      throw error;
    }
  }

  unmap({ device }: Attachment, mapping: DeviceMapping): void {
    device.dma.unmapSgtable(mapping);
  }

  mmap(buf: DmaBuf): SgTable {
    return this.decide(buf);
  }

  vmap(buf: DmaBuf): SgTable {
    return this.decide(buf);
  }

  release(): void {
    this.#table?.free();
    this.#table = null;
    this.#existing = null;
  }
}
