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
import { FRAME_BYTES, formatBytes, GiB, KiB, lastPfnOf, NO_PFN } from "../units.ts";
import { DeviceDma } from "./device-dma.ts";

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
}

/** A device's name and whatever of its limits differs from Linux's defaults. */
export interface DeviceOptions extends Partial<DeviceLimits> {
  readonly name: string;
}

/** Linux's defaults: 32 address bits, segments of 64 KiB, as many as there are, no IOMMU. */
export const defaultLimits: DeviceLimits = {
  iommu: false,
  dmaMaskBits: 32,
  maxSegmentBytes: 64 * KiB,
  maxSegments: NO_PFN,
};

/** A device of a system. Made by `system.addDevice()`. */
export class Device {
  readonly name: string;
  readonly limits: DeviceLimits;
  readonly dma: DeviceDma;
  readonly #core: Core;
  readonly #handle: number;
  readonly #domain: number;
  #isRemoved = false;

  /** @internal */
  constructor(core: Core, options: DeviceOptions) {
    this.#core = core;
    this.name = options.name;
    this.limits = checkLimits({ ...defaultLimits, ...definedOf(options) }, options.name);
    const { iommu, dmaMaskBits, maxSegmentBytes, maxSegments } = this.limits;
    const operation = `add device ${this.name}`;
    const noMemory = (): string => "no memory is left for its records";
    this.#domain = iommu ? checked(core.exports.iommuDomainAlloc(), operation, noMemory) : 0;
    const result = core.exports.dmaDeviceAdd(
      this.#domain,
      lastPfnOf(dmaMaskBits),
      maxSegmentBytes,
      maxSegments,
    );
    if (result < 0 && this.#domain !== 0) core.exports.iommuDomainFree(this.#domain);
    this.#handle = checked(result, operation, noMemory);
    this.dma = new DeviceDma(core, this.#handle, this.name);
  }

  /** Whether a run of frames is the only thing that this device can use. */
  get needsContiguous(): boolean {
    return !this.limits.iommu && this.limits.maxSegments === 1;
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
  const { iommu, dmaMaskBits, maxSegmentBytes, maxSegments } = limits;
  return { iommu: Boolean(iommu), dmaMaskBits, maxSegmentBytes, maxSegments };
}

/** "no IOMMU, 32 bits, 1 segment of 64 KiB": limits for people. */
export function describeLimits(limits: DeviceLimits): string {
  const { iommu, dmaMaskBits, maxSegments, maxSegmentBytes } = limits;
  const isAny = maxSegments === NO_PFN;
  const count = isAny ? "any number of segments" : `${maxSegments} segment`;
  const segments = isAny || maxSegments === 1 ? count : `${count}s`;
  const space = `${iommu ? "IOMMU" : "no IOMMU"}, ${dmaMaskBits} bits`;
  return `${space}, ${segments} of ${formatBytes(maxSegmentBytes)}`;
}
