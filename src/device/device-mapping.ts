/**
 * DeviceMapping: the DMA side of a scatterlist, the segments at which one device sees a table.
 *
 * `nents` segments are what a device walks: neighbours that the IOMMU made adjacent are one
 * segment, so `nents` may be less than the table's `origNents`, never more.
 *
 * - DV3  To dispose of a mapping is the unmap that belongs to it: of its kind, or of the attachment
 *        that gave it out, one use less each time. Nothing happens once that was done, nor to the
 *        mapping of a CoherentBuffer or NoncontiguousBuffer, which goes with it.
 *
 * @module
 */

import type { Core } from "../core/core.ts";
import type { Direction } from "../direction.ts";
import { checked, DmaBufError, fail, requireInteger, textOf } from "../errors.ts";
import type { DriverMappings } from "../iommu/driver-mappings.ts";
import { addressOf, offsetOf } from "../units.ts";
import type { DeviceMemory } from "./device-memory.ts";
import { protOf } from "./dma-prot.ts";
import { attrBits } from "./map-attrs.ts";
import { splitSegments } from "./split-segments.ts";

/** One segment as the device sees it. */
export interface DmaSegment {
  /** Device address of the first byte. */
  readonly address: number;
  readonly lengthBytes: number;
}

const TABLE = 1;
const DIRECTION = 2;
const NENTS = 3;
const SEGMENTS_AT = 4;
const IOVA_PFN = 5;
const PAGE_COUNT = 6;
const ATTRS = 9;

/** By which call a mapping was made: it is ended by its opposite. */
export type MappingKind =
  | "page"
  | "single"
  | "sg"
  | "sgtable"
  | "resource"
  | "coherent"
  | "noncontiguous";

/** @internal Who gave a mapping out, and takes it back. */
export interface MappingHolder {
  giveBack(mapping: DeviceMapping): void;
}

/**
 * Memory mapped for a device. Made by the map calls of `device.dma`, ended by the opposite unmap.
 */
export class DeviceMapping {
  /** The core's number for it. */
  readonly handle: number;
  readonly direction: Direction;
  /** By which call it was made. */
  readonly kind: MappingKind;
  /** Segments that the device walks. */
  readonly nents: number;
  readonly lengthBytes: number;
  /** @internal The attachment's side; null: it was made by a call of `device.dma` (DV3). */
  holder: MappingHolder | null = null;
  readonly #core: Core;
  readonly #device: number;
  readonly #memory: DeviceMemory;
  #isEnded = false;

  /** @internal ENOMEM, EINVAL: the driver of the device's domain refuses; then it is ended. */
  constructor(
    core: Core,
    device: number,
    handle: number,
    direction: Direction,
    kind: MappingKind,
    memory: DeviceMemory,
  ) {
    this.#core = core;
    this.kind = kind;
    this.#device = device;
    this.#memory = memory;
    this.handle = handle;
    this.direction = direction;
    this.nents = this.#field(NENTS);
    const { before, length } = this.#segment(this.nents - 1);
    this.lengthBytes = before + length;
    if (memory.group !== null && memory.group.driver !== null) this.#show(memory.group.driver);
  }

  /** Has the driver map it. Compare how iommu_dma_map_sg() and _page() report its errors. */
  #show(driver: DriverMappings): void {
    const prot = protOf(this.#field(DIRECTION), this.#field(ATTRS), this.#memory.isCoherent());
    try {
      driver.show(this.#field(IOVA_PFN), this.#field(PAGE_COUNT), prot);
    } catch (cause) {
      this.#core.exports.dmaUnmap(this.handle, attrBits.skipCpuSync);
      this.#isEnded = true;
      this.#memory.group?.unmapped(); // its addresses may wait for a flush
      if (!(cause instanceof DmaBufError)) throw cause;
      const isList = this.kind === "sg" || this.kind === "sgtable";
      const code = isList && cause.code !== "ENOMEM" ? "EINVAL" : "ENOMEM";
      fail(code, "map through the domain's driver", `it said ${cause.code}: ${cause.message}`);
    }
  }

  /** @internal Whether it was made for this device: nobody else may end it. */
  isOf(core: Core, device: number): boolean {
    return this.#core.memory === core.memory && this.#device === device;
  }

  /** @internal Whether it belongs to the memory of `device`: another's addresses mean nothing. */
  isBeside(device: { isOn(core: Core): boolean }): boolean {
    return device.isOn(this.#core);
  }

  /** @internal Ends it; nobody reaches it then, not even when its number is given to another. */
  end(attrs: number, operation: string): void {
    const wasEnded = (): string => "it was ended before";
    if (this.#isEnded) fail("ESTALE", operation, wasEnded());
    const group = this.#memory.group;
    if (group !== null && group.driver !== null)
      group.driver.hide(this.#field(IOVA_PFN), this.#field(PAGE_COUNT));
    checked(this.#core.exports.dmaUnmap(this.handle, attrs), operation, wasEnded);
    this.#isEnded = true;
    group?.unmapped();
  }

  /** DV3. */
  [Symbol.dispose](): void {
    if (this.holder !== null) this.holder.giveBack(this);
    else if (!this.#isEnded && this.kind !== "coherent" && this.kind !== "noncontiguous")
      this.end(0, "end a mapping");
  }

  /** Whether unmap has ended it. */
  get isEnded(): boolean {
    return this.#isEnded;
  }

  /** @internal The core's number for the table that is mapped. */
  get tableHandle(): number {
    return this.#field(TABLE);
  }

  #field(index: number): number {
    if (this.#isEnded) fail("ESTALE", "read a mapping", "it was unmapped");
    const at = checked(
      this.#core.exports.dmaMappingAt(this.handle),
      "read a mapping",
      () => "it was unmapped",
    );
    return this.#core.word(at, index);
  }

  #segment(i: number): { address: number; length: number; before: number } {
    const core = this.#core;
    const at = this.#field(SEGMENTS_AT) + i * core.exports.ENTRY_BYTES.value;
    const address = addressOf(core.word(at, 0), offsetOf(core.word(at, 1))); // ranks lie above
    return { address, length: core.word(at, 2), before: core.word(at, 3) };
  }

  /** The device address of the first byte. ESTALE once unmapped. */
  get address(): number {
    return this.#segment(0).address;
  }

  /** Segment `i` of `nents`; EINVAL outside, ESTALE once unmapped. */
  dma(i: number): DmaSegment {
    if (!(Number.isInteger(i) && i >= 0 && i < this.nents)) {
      fail(
        "EINVAL",
        `read segment ${textOf(i)} of a mapping`,
        `the device sees ${this.nents} segments`,
      );
    }
    const { address, length } = this.#segment(i);
    return { address, lengthBytes: length };
  }

  /** All segments, in order. */
  *segments(): Generator<DmaSegment> {
    for (let i = 0; i < this.nents; i++) yield this.dma(i);
  }

  /**
   * The device address of byte `offset` of the mapped bytes, and how many follow it in the same
   * segment.
   */
  at(offset: number): DmaSegment {
    requireInteger(
      offset,
      "offset",
      0,
      this.lengthBytes - 1,
      `find byte ${textOf(offset)} of a mapping`,
    );
    const result = this.#core.exports.dmaSegmentOf(this.handle, offset);
    const i = checked(result, `find byte ${offset} of a mapping`, (code) =>
      code === "ESTALE" ? "it was unmapped" : `it holds ${this.lengthBytes}`,
    );
    const { address, length, before } = this.#segment(i);
    return { address: address + offset - before, lengthBytes: length - (offset - before) };
  }

  /**
   * What the device sees of `sizes` bytes each, one after the other from byte `skip` on. EINVAL:
   * the mapping is too short. Compare sg_split().
   */
  split(sizes: readonly number[], skip = 0): DmaSegment[][] {
    requireInteger(skip, "skip", 0, 2 ** 32 - 1, "split a mapping");
    const result = this.#core.exports.dmaSegmentOf(this.handle, skip);
    const first = checked(result, "split a mapping", (code) =>
      code === "ESTALE" ? "it was unmapped" : `it holds ${this.lengthBytes}`,
    );
    return splitSegments(this.#segmentsFrom(first), sizes, skip - this.#segment(first).before);
  }

  *#segmentsFrom(first: number): Generator<DmaSegment> {
    for (let i = first; i < this.nents; i++) yield this.dma(i);
  }
}
