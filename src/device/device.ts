/**
 * Device: somebody who uses buffers at addresses of its own, and the limits of what it can address.
 *
 * Compare `struct device_dma_parameters` and dma_set_mask() in the kernel's
 * include/linux/dma-mapping.h.
 *
 * @module
 */

import type { Core } from "../core/core.ts";
import { checked, fail, requireInteger } from "../errors.ts";
import {
  addressOf,
  FRAME_BYTES,
  formatBytes,
  GiB,
  KiB,
  lastPfnOf,
  NO_PFN,
  PAGEBLOCK_BYTES,
} from "../units.ts";
import { DeviceDma } from "./device-dma.ts";
import { checkPixels, type PixelLimits } from "./pixel-limits.ts";

/** What a device can address. */
export interface DeviceLimits {
  /** Behind an IOMMU of its own: any frames can be made to look contiguous. */
  readonly iommu: boolean;
  /** Address bits, 24 to 64. */
  readonly dmaMaskBits: number;
  /** The longest segment, in bytes; at least 4096. */
  readonly maxSegmentBytes: number;
  /** How many segments one mapping may have. 1: the device needs everything in one run. */
  readonly maxSegments: number;
  /**
   * Behind an IOMMU: no segment crosses a multiple of this, a power of two from 4096 to 4 GiB; no
   * table is longer than that. An entry that would cross one begins at it, and an entry that is
   * longer is cut there. One that is no longer but begins inside a page stays whole, as in Linux.
   */
  readonly segmentBoundaryBytes: number;
  /** Everything must be one segment, whatever maxSegments says. */
  readonly contiguousOnly: boolean;
  /**
   * Without an IOMMU: segments begin at multiples of this + 1, a power of two up to 4 MiB. The
   * kernel's dma_set_min_align_mask().
   */
  readonly minAlignMask: number;
  /** Whether it sees what the CPU wrote, and the CPU what it wrote, without being told. */
  readonly coherent: boolean;
  /** The pictures it can use; null: bytes are bytes to it, and any picture will do. */
  readonly pixels: PixelLimits | null;
}

/** What a device's mappings are like: dma_max_mapping_size() and its neighbours in Linux. */
export interface MappingLimits {
  /** The longest mapping. Infinity: nothing is bounced, so only memory is the limit. */
  readonly maxBytes: number;
  /** Up to this length device addresses are found the short way. Infinity: none are needed. */
  readonly optimalBytes: number;
  /** Entries may join into one segment at multiples of this; 0: they never do. */
  readonly mergeBytes: number;
}

/** A device's name and whatever of its limits differs from Linux's defaults. */
export interface DeviceOptions extends Partial<DeviceLimits> {
  readonly name: string;
}

/**
 * Linux's defaults: 32 address bits, segments of 64 KiB, as many as there are, a boundary of 4 GiB,
 * no IOMMU; coherent, as on a PC.
 */
export const defaultLimits: DeviceLimits = {
  iommu: false,
  dmaMaskBits: 32,
  maxSegmentBytes: 64 * KiB,
  maxSegments: NO_PFN,
  segmentBoundaryBytes: 4 * GiB,
  contiguousOnly: false,
  minAlignMask: 0,
  coherent: true,
  pixels: null,
};

/** Address bits of the offset in a page: with these alone no page but 0 is reached. */
const OFFSET_BITS: number = Math.log2(FRAME_BYTES);

/** A device of a system. Made by `system.addDevice()`. */
export class Device {
  readonly name: string;
  readonly dma: DeviceDma;
  readonly #core: Core;
  readonly #handle: number;
  readonly #domain: number;
  #limits: DeviceLimits;
  #isRemoved = false;

  /** @internal */
  constructor(core: Core, options: DeviceOptions) {
    this.#core = core;
    this.name = options.name;
    this.#limits = checkLimits({ ...defaultLimits, ...definedOf(options) }, options.name);
    const { iommu, dmaMaskBits, maxSegmentBytes, segmentBoundaryBytes } = this.#limits;
    const operation = `add device ${this.name}`;
    const noMemory = (): string => "no memory is left for its records";
    this.#domain = iommu ? checked(core.exports.iommuDomainAlloc(), operation, noMemory) : 0;
    const result = core.exports.dmaDeviceAdd(
      this.#domain,
      lastPfnOf(dmaMaskBits),
      Math.min(maxSegmentBytes, segmentBoundaryBytes), // the core cuts only what is too long
      segmentsOf(this.#limits),
      segmentBoundaryBytes - 1,
    );
    if (result < 0 && this.#domain !== 0) core.exports.iommuDomainFree(this.#domain);
    this.#handle = checked(result, operation, noMemory);
    this.dma = new DeviceDma(core, this.#handle, this.name);
  }

  get limits(): DeviceLimits {
    return this.#limits;
  }

  /** What its mappings are like. */
  get mappingLimits(): MappingLimits {
    const { iommu } = this.#limits;
    const optimalBytes = addressOf(this.#core.exports.BLOCK_PAGES_MAX.value);
    return {
      maxBytes: Infinity,
      optimalBytes: iommu ? optimalBytes : Infinity,
      mergeBytes: iommu ? FRAME_BYTES : 0,
    };
  }

  /**
   * Changes how many address bits the device has, 0 to 64, as dma_set_mask() does. EIO: without an
   * IOMMU they must reach all of the memory, or 4 GiB; EBUSY: something is mapped for the device.
   */
  setDmaMask(bits: number): void {
    const operation = `give device ${this.name} ${bits} address bits`;
    requireInteger(bits, "the address bits", 0, 64, operation);
    const limitPfn = lastPfnOf(Math.max(bits, OFFSET_BITS));
    checked(this.#core.exports.dmaDeviceSetLimit(this.#handle, limitPfn), operation, (code) => {
      if (code === "EBUSY") return "buffers are mapped for it; unmap them first";
      return code === "EIO" ? "they do not reach all of the memory" : "it was removed";
    });
    this.#limits = { ...this.#limits, dmaMaskBits: bits };
  }

  /** Whether a run of frames is the only thing that this device can use. */
  get needsContiguous(): boolean {
    return !this.limits.iommu && segmentsOf(this.limits) === 1;
  }

  /**
   * @internal Whether it belongs to the memory of `core`: another system's numbers mean nothing.
   */
  isOn(core: Core): boolean {
    return this.#core.memory === core.memory;
  }

  get isRemoved(): boolean {
    return this.#isRemoved;
  }

  /** Removes the device. EBUSY: something is mapped for it; ESTALE: it was removed before. */
  remove(): void {
    const operation = `remove device ${this.name}`;
    if (this.#isRemoved) fail("ESTALE", operation, "it was removed before");
    const faultCount = this.dma.faultCount;
    checked(
      this.#core.exports.dmaDeviceRemove(this.#handle),
      operation,
      () => "buffers are mapped for it; unmap them first",
    );
    if (this.#domain !== 0) this.#core.exports.iommuDomainFree(this.#domain);
    this.dma.retire(faultCount);
    this.#isRemoved = true;
  }

  [Symbol.dispose](): void {
    if (!this.#isRemoved) this.remove();
  }
}

/** How many segments one mapping may have, all told. */
export function segmentsOf({ contiguousOnly, maxSegments }: DeviceLimits): number {
  return contiguousOnly ? 1 : maxSegments;
}

/** The options that are given: `undefined` means the default. */
function definedOf(options: DeviceOptions): DeviceOptions {
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  return Object.fromEntries(given) as unknown as DeviceOptions;
}

function checkLimits(limits: DeviceLimits, name: string): DeviceLimits {
  const operation = `add device ${name}`;
  if (typeof name !== "string" || name === "") fail("EINVAL", "add a device", "it needs a name");
  requireInteger(limits.dmaMaskBits, "dmaMaskBits", 24, 64, operation);
  requireInteger(limits.maxSegmentBytes, "maxSegmentBytes", FRAME_BYTES, 4 * GiB - 1, operation);
  requireInteger(limits.maxSegments, "maxSegments", 1, NO_PFN, operation);
  const { iommu, dmaMaskBits, maxSegmentBytes, maxSegments, segmentBoundaryBytes } = limits;
  requireInteger(segmentBoundaryBytes, "segmentBoundaryBytes", FRAME_BYTES, 4 * GiB, operation);
  if (!Number.isInteger(Math.log2(segmentBoundaryBytes))) {
    fail("EINVAL", operation, "segmentBoundaryBytes must be a power of two");
  }
  const { minAlignMask, contiguousOnly, coherent, pixels } = limits;
  requireInteger(minAlignMask, "minAlignMask", 0, PAGEBLOCK_BYTES - 1, operation);
  if (!Number.isInteger(Math.log2(minAlignMask + 1))) {
    fail("EINVAL", operation, "minAlignMask must be a power of two minus 1");
  }
  const sizes = { maxSegmentBytes, maxSegments, segmentBoundaryBytes, minAlignMask };
  const flags = { contiguousOnly: Boolean(contiguousOnly), coherent: Boolean(coherent) };
  const checked = pixels === null ? null : checkPixels(pixels, operation);
  return { iommu: Boolean(iommu), dmaMaskBits, ...sizes, ...flags, pixels: checked };
}

/** "no IOMMU, 32 bits, 1 segment of 64 KiB": limits for people. */
export function describeLimits(limits: DeviceLimits): string {
  const { iommu, dmaMaskBits, maxSegmentBytes, segmentBoundaryBytes } = limits;
  const most = segmentsOf(limits);
  const isAny = most === NO_PFN;
  const count = isAny ? "any number of segments" : `${most} segment`;
  const segments = isAny || most === 1 ? count : `${count}s`;
  const space = `${iommu ? "IOMMU" : "no IOMMU"}, ${dmaMaskBits} bits`;
  const isBounded = segmentBoundaryBytes < defaultLimits.segmentBoundaryBytes;
  const boundary = isBounded ? `, a boundary of ${formatBytes(segmentBoundaryBytes)}` : "";
  return `${space}, ${segments} of ${formatBytes(maxSegmentBytes)}${boundary}`;
}
