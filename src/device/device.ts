/**
 * Device: somebody who uses buffers at addresses of its own, and the limits of what it can address.
 *
 * Compare `struct device_dma_parameters` and dma_set_mask() in the kernel's
 * include/linux/dma-mapping.h.
 *
 * @module
 */

import { requireObject } from "../arguments.ts";
import type { Core } from "../core/core.ts";
import { checked, type ErrnoCode, fail, requireInteger, textOf } from "../errors.ts";
import { IommuGroup } from "../iommu/iommu-group.ts";
import type { CmaRegion } from "../mm/cma-region.ts";
import type { FramePool } from "../mm/frame-pool.ts";
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
import type { DeviceMemory } from "./device-memory.ts";
import { checkPixels, type PixelLimits } from "./pixel-limits.ts";

/** What a device can address. */
export interface DeviceLimits {
  /** Behind an IOMMU, alone or with a group: any frames can be made to look contiguous. */
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
  /**
   * Without an IOMMU: segments begin at multiples of this + 1, a power of two up to 4 MiB; what is
   * bounced keeps these bits of its address, up to 64 KiB. The kernel's dma_set_min_align_mask().
   */
  readonly minAlignMask: number;
  /** Everything must be one segment, whatever maxSegments says. */
  readonly contiguousOnly: boolean;
  /** Address bits for coherent memory. Default: `dmaMaskBits`. */
  readonly coherentDmaMaskBits: number;
  /** Whether it sees the CPU's cache. */
  readonly coherent: boolean;
  /**
   * Only for a device that is not coherent: its view of memory is kept apart from the CPU's, so
   * that a sync that is missing shows as stale bytes. Costs twice the bytes that are mapped.
   */
  readonly simulatedCache: boolean;
  /**
   * Behind an IOMMU it is shown no page that holds bytes of others: entries that are no whole pages
   * are bounced, and none are joined. Its group must invalidate strictly.
   */
  readonly untrusted: boolean;
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

/** Limits that are given; undefined: the default. */
export type GivenLimits = {
  readonly [Name in keyof Omit<DeviceLimits, "iommu">]?: DeviceLimits[Name] | undefined;
};

/** A device's name and whatever of its limits differs from Linux's defaults. */
export interface DeviceOptions extends GivenLimits {
  readonly name: string;
  /** Whether it is behind an IOMMU, alone; or the group that it shares with other devices. */
  readonly iommu?: boolean | IommuGroup | undefined;
}

/**
 * Linux's defaults: 32 address bits, segments of 64 KiB, as many as there are, a boundary of 4 GiB,
 * no IOMMU; coherent and trusted.
 */
export const defaultLimits: DeviceLimits = {
  iommu: false,
  dmaMaskBits: 32,
  maxSegmentBytes: 64 * KiB,
  maxSegments: NO_PFN,
  segmentBoundaryBytes: 4 * GiB,
  minAlignMask: 0,
  contiguousOnly: false,
  coherentDmaMaskBits: 32,
  coherent: true,
  simulatedCache: false,
  untrusted: false,
  pixels: null,
};

/** @internal What a system lets its devices allocate from. */
export interface DevicePool {
  readonly frames: FramePool;
  readonly regions: readonly CmaRegion[];
  readonly physicalBase: number;
}

const SLOT_BYTES = 2 * KiB; // of the bounce pool
/** Address bits that bouncing keeps at most: a longer alignment leaves no room for bytes. */
const BOUNCE_ALIGN_MAX = 64 * KiB - 1;

/** A device of a system. Made by `system.addDevice()`. */
export class Device {
  readonly name: string;
  readonly dma: DeviceDma;
  /** The devices that it shares an IOMMU's domain with; null: there is no IOMMU. */
  readonly group: IommuGroup | null;
  readonly #core: Core;
  readonly #handle: number;
  readonly #hasOwnGroup: boolean;
  readonly #pool: DevicePool;
  #limits: DeviceLimits;
  #iovaCount = 0;
  #isRemoved = false;

  /** @internal `standsFor`: what it says of itself, for another thread's device. */
  constructor(
    core: Core,
    options: DeviceOptions,
    pool: DevicePool,
    standsFor: DeviceLimits | null = null,
  ) {
    this.#core = core;
    this.#pool = pool;
    requireObject(options, "the options", "add a device");
    this.name = options.name;
    this.#limits = checkLimits(limitsOf(options), options.name);
    const { dmaMaskBits, maxSegmentBytes, segmentBoundaryBytes } = this.#limits;
    const { minAlignMask, coherentDmaMaskBits } = this.#limits;
    const operation = `add device ${this.name}`;
    const noMemory = (): string => "no memory is left for its records";
    this.#hasOwnGroup = options.iommu === true;
    this.group = groupOf(core, options);
    if (this.#limits.untrusted && this.group?.invalidation === "lazy")
      fail("EINVAL", operation, "an untrusted device needs a group with strict invalidation");
    const result = core.exports.dmaDeviceAdd(
      this.group?.handle ?? 0,
      lastPfnOf(dmaMaskBits),
      Math.min(maxSegmentBytes, segmentBoundaryBytes), // the core cuts only what is too long
      segmentsOf(this.#limits),
      segmentBoundaryBytes - 1,
      flagsOf(this.#limits),
      Math.min(minAlignMask, BOUNCE_ALIGN_MAX),
      coherentDmaMaskBits,
    );
    if (result < 0 && this.#hasOwnGroup) this.group?.free();
    this.#handle = checked(result, operation, noMemory);
    this.dma = new DeviceDma(core, this.#handle, this.name, this.#memory());
    this.group?.join(this);
    if (standsFor !== null) this.#limits = standsFor;
  }

  /**
   * @internal A device of this thread that stands for one of another thread: exporters see that
   * one's name and limits, and what they map for it is mapped as it is, at once and without a copy.
   * EINVAL: the limits.
   */
  static standIn(core: Core, name: string, limits: DeviceLimits, pool: DevicePool): Device {
    const any = { name, dmaMaskBits: 64, maxSegmentBytes: 4 * GiB - 1 };
    return new Device(core, any, pool, checkLimits(limits, name));
  }

  #memory(): DeviceMemory {
    return {
      frames: this.#pool.frames,
      regions: () => this.#pool.regions,
      physicalBase: this.#pool.physicalBase,
      coherentBits: () => this.#limits.coherentDmaMaskBits,
      maskBits: () => this.#limits.dmaMaskBits,
      isCoherent: () => this.#limits.coherent,
      canLink: () => !this.#limits.untrusted && !this.#limits.simulatedCache,
      count: (delta) => {
        this.#iovaCount += delta;
      },
      group: this.group,
    };
  }

  get limits(): DeviceLimits {
    return this.#limits;
  }

  /** What its mappings are like. */
  get mappingLimits(): MappingLimits {
    this.#core.requireJoined(`describe the mappings of ${this.name}`);
    const { iommu } = this.#limits;
    const optimalBytes = addressOf(this.#core.exports.OPTIMAL_PAGES.value);
    return {
      maxBytes: this.#mayBounce() ? this.#bounceMaxBytes() : Infinity,
      optimalBytes: iommu ? optimalBytes : Infinity,
      mergeBytes: iommu ? FRAME_BYTES : 0,
    };
  }

  /** Whether something that is mapped for it may need the bounce pool. */
  #mayBounce(): boolean {
    const { iommu, untrusted, dmaMaskBits } = this.#limits;
    if (this.#core.exports.bounceSlotCount() === 0) return false;
    if (iommu) return untrusted;
    return 2 ** dmaMaskBits < this.#pool.physicalBase + this.#core.u8.length;
  }

  /** Compare swiotlb_max_mapping_size(). */
  #bounceMaxBytes(): number {
    const kept = Math.min(this.#limits.minAlignMask, BOUNCE_ALIGN_MAX);
    const slots = Math.ceil(kept / SLOT_BYTES);
    return this.#core.exports.BOUNCE_MAX_BYTES.value - slots * SLOT_BYTES;
  }

  /**
   * Changes how many address bits the device has, 0 to 64, as dma_set_mask() does. EIO: without an
   * IOMMU they must reach all of the memory, or 4 GiB; EBUSY: something is mapped for the device.
   */
  setDmaMask(bits: number): void {
    const operation = `give device ${this.name} ${textOf(bits)} address bits`;
    requireInteger(bits, "the address bits", 0, 64, operation);
    const limitPfn = lastPfnOf(bits);
    checked(this.#core.exports.dmaDeviceSetLimit(this.#handle, limitPfn), operation, maskReason);
    this.#limits = { ...this.#limits, dmaMaskBits: bits };
  }

  /** The same for coherent memory, as dma_set_coherent_mask() does. EIO, EBUSY. */
  setCoherentDmaMask(bits: number): void {
    const operation = `give device ${this.name} ${textOf(bits)} coherent address bits`;
    requireInteger(bits, "the address bits", 0, 64, operation);
    const result = this.#core.exports.dmaDeviceSetCoherentBits(this.#handle, bits);
    checked(result, operation, maskReason);
    this.#limits = { ...this.#limits, coherentDmaMaskBits: bits };
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

  /** @internal Why it cannot be removed now; null: it can. */
  get whyItStays(): string | null {
    if (this.#iovaCount > 0) return "device addresses are reserved for it; free them first";
    return this.dma.mappingCount > 0 ? MAPPED : null;
  }

  /** Removes the device. EBUSY: something is mapped for it; ESTALE: it was removed before. */
  remove(): void {
    const operation = `remove device ${this.name}`;
    if (this.#isRemoved) fail("ESTALE", operation, "it was removed before");
    const { whyItStays } = this;
    if (whyItStays !== null) fail("EBUSY", operation, whyItStays);
    const faultCount = this.dma.faultCount;
    checked(this.#core.exports.dmaDeviceRemove(this.#handle), operation, () => MAPPED);
    this.group?.leave(this);
    if (this.#hasOwnGroup) this.group?.dissolve();
    this.dma.retire(faultCount);
    this.#isRemoved = true;
  }

  [Symbol.dispose](): void {
    if (!this.#isRemoved) this.remove();
  }
}

/** The group that a device asks for. EINVAL: it is another system's. */
function groupOf(core: Core, { iommu = false, name }: DeviceOptions): IommuGroup | null {
  if (typeof iommu === "boolean") return iommu ? new IommuGroup(core, { name }) : null;
  if (!(iommu instanceof IommuGroup) || !iommu.isOn(core)) {
    fail("EINVAL", `add device ${name}`, "iommu must be true, false, or a group of this system");
  }
  return iommu;
}

/** How many segments one mapping may have, all told. */
export function segmentsOf({ contiguousOnly, maxSegments }: DeviceLimits): number {
  return contiguousOnly ? 1 : maxSegments;
}

/** The options that are given over the defaults: `undefined` means the default. */
function limitsOf(options: DeviceOptions): DeviceLimits {
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  const iommu = Boolean(options.iommu);
  const limits: DeviceLimits = { ...defaultLimits, ...Object.fromEntries(given), iommu };
  return options.coherentDmaMaskBits === undefined
    ? { ...limits, coherentDmaMaskBits: limits.dmaMaskBits }
    : limits;
}

const MAPPED = "something is mapped for it; unmap it first";

function maskReason(code: ErrnoCode): string {
  if (code === "EBUSY") return MAPPED;
  return code === "EIO" ? "they do not reach all of the memory" : "it was removed";
}

/** What it is, as the core's flags (assembly/dma-device.ts). */
function flagsOf({ coherent, simulatedCache, untrusted }: DeviceLimits): number {
  const flags = [!coherent, simulatedCache, untrusted];
  return flags.reduce((sum, isSet, i) => sum + (isSet ? 2 ** i : 0), 0);
}

function checkLimits(limits: DeviceLimits, name: string): DeviceLimits {
  if (typeof name !== "string" || name === "") fail("EINVAL", "add a device", "it needs a name");
  const operation = `add device ${name}`;
  requireInteger(limits.dmaMaskBits, "dmaMaskBits", 24, 64, operation);
  requireInteger(limits.maxSegmentBytes, "maxSegmentBytes", FRAME_BYTES, 4 * GiB - 1, operation);
  requireInteger(limits.maxSegments, "maxSegments", 1, NO_PFN, operation);
  const { iommu, dmaMaskBits, maxSegmentBytes, maxSegments, segmentBoundaryBytes } = limits;
  requireInteger(segmentBoundaryBytes, "segmentBoundaryBytes", FRAME_BYTES, 4 * GiB, operation);
  if (!Number.isInteger(Math.log2(segmentBoundaryBytes))) {
    fail("EINVAL", operation, "segmentBoundaryBytes must be a power of two");
  }
  const { minAlignMask, coherentDmaMaskBits, simulatedCache } = limits;
  requireInteger(minAlignMask, "minAlignMask", 0, PAGEBLOCK_BYTES - 1, operation);
  if (!Number.isInteger(Math.log2(minAlignMask + 1)))
    fail("EINVAL", operation, "minAlignMask must be a power of two minus 1");
  requireInteger(coherentDmaMaskBits, "coherentDmaMaskBits", 24, 64, operation);
  if (simulatedCache && limits.coherent)
    fail("EINVAL", operation, "a coherent device sees the CPU's cache: none is simulated for it");
  return {
    iommu: Boolean(iommu),
    dmaMaskBits,
    maxSegmentBytes,
    maxSegments,
    segmentBoundaryBytes,
    minAlignMask,
    contiguousOnly: Boolean(limits.contiguousOnly),
    coherentDmaMaskBits,
    coherent: Boolean(limits.coherent),
    simulatedCache: Boolean(simulatedCache),
    untrusted: Boolean(limits.untrusted),
    pixels: limits.pixels === null ? null : checkPixels(limits.pixels, operation),
  };
}

/** "no IOMMU, 32 bits, 1 segment of 64 KiB": limits for people. */
export function describeLimits(limits: DeviceLimits): string {
  requireObject(limits, "the limits", "describe limits");
  const { iommu, dmaMaskBits, maxSegmentBytes, segmentBoundaryBytes } = limits;
  const most = segmentsOf(limits);
  const numbers = { dmaMaskBits, maxSegmentBytes, segmentBoundaryBytes, maxSegments: most };
  for (const [name, value] of Object.entries(numbers))
    if (typeof value !== "number")
      fail("EINVAL", "describe limits", `${name} must be a number, and is ${textOf(value)}`);
  const isAny = most === NO_PFN;
  const count = isAny ? "any number of segments" : `${most} segment`;
  const segments = isAny || most === 1 ? count : `${count}s`;
  const space = `${iommu ? "IOMMU" : "no IOMMU"}, ${dmaMaskBits} bits`;
  const isBounded = segmentBoundaryBytes < defaultLimits.segmentBoundaryBytes;
  const boundary = isBounded ? `, a boundary of ${formatBytes(segmentBoundaryBytes)}` : "";
  const words = [
    limits.coherent ? "" : ", not coherent",
    limits.untrusted ? ", untrusted" : "",
  ].join("");
  return `${space}, ${segments} of ${formatBytes(maxSegmentBytes)}${boundary}${words}`;
}
