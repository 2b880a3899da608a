/**
 * PlacedStorage: frames that a buffer owns, and what devices have mapped of them.
 *
 * - PS1  A device without an IOMMU that takes shorter segments gets the entries cut, in a table
 *        that lives as long as the storage: all devices that need the same cut share it.
 * - PS2  The bytes go from one storage to another whole, or nothing changes.
 *
 * Compare struct system_heap_buffer in the kernel's drivers/dma-buf/heaps/system_heap.c.
 *
 * @module
 */

import type { Core } from "../core/core.ts";
import type { Device, DeviceLimits } from "../device/device.ts";
import type { DeviceMapping } from "../device/device-mapping.ts";
import type { Direction } from "../direction.ts";
import type { Attachment } from "../dma-buf/attachment.ts";
import { FirstMap } from "../dma-buf/first-map.ts";
import type { PixelLayout } from "../dma-buf/formats.ts";
import { pieceBytesOf } from "../dma-buf/negotiate.ts";
import {
  cutEntries,
  describeStorage,
  type ExistingStorage,
  needsCut,
} from "../dma-buf/storage-fit.ts";
import { checked } from "../errors.ts";
import { tableOverList } from "../mm/sg-build.ts";
import { SgTable } from "../mm/sg-table.ts";

/** Frames of one buffer. */
export class PlacedStorage {
  /** What devices look at. */
  readonly existing: ExistingStorage;
  readonly #core: Core;
  readonly #mappings: FirstMap<DeviceMapping, Device> = new FirstMap();
  /** The entries as devices get them that need them cut (PS1), by how they are cut. */
  readonly #cuts: Map<string, SgTable> = new Map();

  /** @internal Takes over the table of `handle`, which owns its frames, as they are. */
  constructor(core: Core, physicalBase: number, handle: number, pixels: PixelLayout | null = null) {
    this.#core = core;
    this.existing = describeStorage(new SgTable(core, handle, "own"), physicalBase, pixels);
  }

  /** Clears what earlier owners left. */
  clear(): this {
    this.#core.exports.storageClear(this.table.handle);
    return this;
  }

  get table(): SgTable {
    return this.existing.table;
  }

  /** What keeps the frames where they are: "it is mapped", "it is pinned"; null: nothing does. */
  get whyItStays(): string | null {
    if (this.#mappings.size > 0) return "it is mapped";
    return this.table.pinCount > 0 ? "it is pinned" : null;
  }

  /** Maps the frames for an attachment's device. Throws what mapSgtable() throws. */
  map({ device }: Attachment, direction: Direction): DeviceMapping {
    const { limits } = device;
    const table = needsCut(limits, this.existing) ? this.#cut(limits) : this.table;
    const mapping = device.dma.mapSgtable(table, direction);
    this.#mappings.set(mapping, device);
    return mapping;
  }

  #cut(limits: DeviceLimits): SgTable {
    const key = `${pieceBytesOf(limits)}/${limits.segmentBoundaryBytes}`;
    const known = this.#cuts.get(key);
    if (known !== undefined) return known;
    const cut = tableOverList(this.#core, [...cutEntries(limits, this.existing)]);
    this.#cuts.set(key, cut);
    return cut;
  }

  /** Ends a mapping. */
  unmap({ device }: Attachment, mapping: DeviceMapping): void {
    device.dma.unmapSgtable(mapping);
    this.#mappings.delete(mapping);
  }

  /** Makes bytes visible, through all mappings: to the devices, or to the CPU. */
  sync(direction: Direction, isForDevice: boolean): void {
    for (const [mapping, device] of this.#mappings)
      device.dma.syncAccess(mapping, direction, isForDevice);
  }

  /**
   * Copies the bytes to another storage and frees this one; counted in `bytesCopied`. When that
   * fails, the other one is freed, and this one is as it was (PS2).
   */
  moveTo(to: PlacedStorage): void {
    try {
      const result = this.#core.exports.storageCopy(to.table.handle, this.table.handle);
      checked(result, "move a buffer", () => "a frame has no bytes");
      this.free();
    } catch (error) {
      to.free();
      throw error;
    }
    this.#core.bytesCopied += to.existing.sizeBytes;
  }

  /** Frees the frames. EBUSY: mapped or pinned. */
  free(): void {
    this.dropCuts();
    this.table.free();
  }

  /** Frees the tables of cut entries; the frames are somebody else's to free. */
  dropCuts(): void {
    for (const cut of this.#cuts.values()) cut.free();
    this.#cuts.clear();
  }
}
