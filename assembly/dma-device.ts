// Devices, and the mappings that each of them has.
//
//   device ─firstMapping─► mapping ─next─► mapping ─► 0      newest first
//
// D2  A table's mapCount is the number of mappings that name it; a device's mappingCount is the
//     length of its list.
// D9  A mapping goes from UNCOUNTED to COUNTED and back under its device's lock. One that is
//     COUNTING may be in its table's mapCount or not: its thread is there, or died there (reap.ts).

import { NONE } from "./bits";
import { NO_BOUNDARY } from "./boundary";
import { EAGAIN, EBUSY, EINVAL, EIO, ESTALE } from "./errno";
import { Domain, domainTakesDevices } from "./iommu";
import { ACCESS_READ, ACCESS_WRITE } from "./iommu-access";
import { DOMAINS_LOCK_AT, FRAME_BYTES, FRAME_MASK, FRAME_SHIFT, header } from "./layout";
import { lock, lockRare, unlockRare } from "./lock";
import {
  KIND_DEVICE,
  KIND_DOMAIN,
  KIND_MAPPING,
  PAYLOAD_BYTES,
  objectAlloc,
  objectAt,
  objectFind,
  objectFree,
  objectIs,
  recordOf,
} from "./object";

// Mapping.direction; 0 is both ways.
export const DMA_TO_DEVICE: u32 = 1;
export const DMA_FROM_DEVICE: u32 = 2;

const PROT_CACHE: u32 = 4;
const PROT_MMIO: u32 = 16;
const PROT_PRIV: u32 = 32;

// What a device is, in Device.flags.
const NONCOHERENT: u32 = 1; // it does not see the CPU's cache
export const SIMULATED: u32 = 2; // and the cache is simulated (dma-cache.ts)
export const UNTRUSTED: u32 = 4; // behind an IOMMU it is shown no page that holds other bytes
const FLAGS: u32 = 7;

// What a mapping is made with: the kernel's DMA_ATTR_*, and below what the core adds.
export const SKIP_CPU_SYNC: u32 = 1 << 5;
const PRIVILEGED: u32 = 1 << 9;
export const MMIO: u32 = 1 << 10; // no memory of the system: neither synced nor bounced
export const ONE_SEGMENT: u32 = 1 << 16; // joined beyond maxSegmentBytes and the boundary
export const COHERENT: u32 = 1 << 17; // below the coherent mask; needs no sync, is not bounced
export const OWNS_TABLE: u32 = 1 << 18; // the table goes with the mapping
export const PINS_FRAMES: u32 = 1 << 19; // and its frames are pinned until then
export const CACHED: u32 = 1 << 20; // the device reaches the table's shadow

// Mapping.counted (D9)
export const UNCOUNTED: u32 = 0;
export const COUNTED: u32 = 1;
export const COUNTING: u32 = 2;

const PFN_32BIT: u32 = 0xfffff; // the last device page below 4 GiB

@unmanaged
export class Device {
  lockWord: u32;
  domain: u32; // handle; 0 = no IOMMU
  limitPfn: u32; // the last device page that it can address
  maxSegmentBytes: u32;
  maxSegments: u32;
  firstMapping: u32; // handle; 0 = none
  mappingCount: u32; // D2
  faultCount: u32;
  faultPfn: u32; // of the last fault, while faultCount > 0
  faultAccess: u32;
  boundaryPageMask: u32; // pages between segment boundaries - 1; NO_BOUNDARY
  flags: u8;
  coherentBits: u8; // address bits for coherent memory
  minAlignMask: u16; // bits of an address that bouncing keeps

  static at(payload: usize): Device {
    return changetype<Device>(payload);
  }

  /** The last device page for a mapping with these attributes. */
  limitFor(attrs: u32): u32 {
    return attrs & COHERENT ? lastPfnOf(this.coherentBits) : this.limitPfn;
  }
}

if (offsetof<Device>() > PAYLOAD_BYTES) ERROR("a device is longer than an object");

@unmanaged
export class Mapping {
  device: u32; // handle
  table: u32; // handle
  direction: u32;
  nents: u32; // segments
  segmentsAt: usize; // where it is direct, offsets carry ranks (D10)
  iovaPfn: u32; // first device page; 0 = direct
  pageCount: u32; // device pages behind an IOMMU; direct: of the last access (dma-order.ts, D10)
  next: u32; // handle in the device's list
  prev: u32;
  attrs: u32;
  firstRun: u32; // dma-bounce.ts: 1 + the first slot of a bounced entry; 0 = none
  counted: u32; // whether its table's mapCount has it: UNCOUNTED, COUNTING or COUNTED

  static at(payload: usize): Mapping {
    return changetype<Mapping>(payload);
  }
}

if (offsetof<Mapping>() > PAYLOAD_BYTES) ERROR("a mapping is longer than an object");

/** The last device page below 2^bits; page 0 at least. */
function lastPfnOf(bits: u32): u32 {
  return bits >= 44 ? NONE : ((<u32>1) << (max(bits, FRAME_SHIFT) - FRAME_SHIFT)) - 1;
}

/**
 * A device that reaches device pages 0 .. limitPfn, through `domain` (a handle) or directly (0).
 * `boundaryMask` is its segment boundary in bytes - 1, a power of two - 1; all ones = none. So is
 * `minAlignMask`, up to 64 KiB - 1; 0 = none. Coherent memory has addresses of `coherentBits` bits.
 * Its handle or an errno.
 */
export function dmaDeviceAdd(
  domain: u32,
  limitPfn: u32,
  maxSegmentBytes: u32,
  maxSegments: u32,
  boundaryMask: u32,
  flags: u32,
  minAlignMask: u32,
  coherentBits: u32,
): i32 {
  if (flags > FLAGS || coherentBits > 64) return EINVAL;
  if (minAlignMask > 0xffff || (minAlignMask & (minAlignMask + 1)) != 0) return EINVAL;
  if (maxSegmentBytes < FRAME_BYTES || maxSegments == 0) return EINVAL;
  if (boundaryMask < FRAME_MASK || (boundaryMask & (boundaryMask + 1)) != 0) return EINVAL;
  if (!lock(DOMAINS_LOCK_AT)) return EAGAIN;
  const handle = deviceMake(domain);
  unlockRare(DOMAINS_LOCK_AT);
  if (handle < 0) return handle;
  const device = Device.at(objectAt(handle));
  device.limitPfn = limitPfn;
  device.maxSegmentBytes = maxSegmentBytes;
  device.maxSegments = maxSegments;
  device.boundaryPageMask = boundaryMask == NONE ? NO_BOUNDARY : boundaryMask >> FRAME_SHIFT;
  device.flags = <u8>flags;
  device.coherentBits = <u8>coherentBits;
  device.minAlignMask = <u16>minAlignMask;
  return handle;
}

/**
 * A device of a domain, 0 = of none. The caller holds domainsLock. Its handle, or ESTALE, EINVAL,
 * ENOMEM.
 */
function deviceMake(domain: u32): i32 {
  const domainAt: usize = domain == 0 ? 0 : objectFind(domain, KIND_DOMAIN);
  if (domain != 0 && domainAt == 0) return ESTALE;
  if (domainAt != 0 && !domainTakesDevices(domainAt)) return EINVAL;
  const handle = objectAlloc(KIND_DEVICE);
  if (handle < 0 || domainAt == 0) return handle;
  Device.at(objectAt(handle)).domain = domain;
  Domain.at(domainAt).deviceCount += 1;
  return handle;
}

/**
 * Changes the last device page that a device reaches. 0, or ESTALE, EBUSY (mappings are left), EIO:
 * a direct device must reach all frames, or 4 GiB.
 */
export function dmaDeviceSetLimit(handle: u32, limitPfn: u32): i32 {
  const payload = objectAt(handle);
  if (!objectIs(payload, handle, KIND_DEVICE)) return ESTALE;
  const device = Device.at(payload);
  if (device.mappingCount != 0) return EBUSY;
  if (device.domain == 0 && !isEnough(limitPfn)) return EIO;
  device.limitPfn = limitPfn;
  return 0;
}

/** The same for the address bits of coherent memory. */
export function dmaDeviceSetCoherentBits(handle: u32, bits: u32): i32 {
  const payload = objectAt(handle);
  if (!objectIs(payload, handle, KIND_DEVICE)) return ESTALE;
  const device = Device.at(payload);
  if (device.mappingCount != 0) return EBUSY;
  if (device.domain == 0 && !isEnough(lastPfnOf(bits))) return EIO;
  device.coherentBits = <u8>min(bits, 64);
  return 0;
}

/** Whether a direct device may have no more than this. Compare dma_direct_supported(). */
function isEnough(limitPfn: u32): bool {
  return limitPfn >= min(header().physPfnBase + header().frameCount - 1, PFN_32BIT);
}

/** Removes a device. 0, or ESTALE, EBUSY (mappings are left). */
export function dmaDeviceRemove(handle: u32): i32 {
  const payload = objectAt(handle);
  if (!objectIs(payload, handle, KIND_DEVICE)) return ESTALE;
  const device = Device.at(payload);
  if (device.mappingCount != 0) return EBUSY;
  deviceFree(payload);
  return 0;
}

/** Frees a device, which its domain has no more. */
export function deviceFree(payload: usize): void {
  lockRare(DOMAINS_LOCK_AT);
  const domain = Device.at(payload).domain;
  if (domain != 0) Domain.at(objectAt(domain)).deviceCount -= 1;
  objectFree(recordOf(payload));
  unlockRare(DOMAINS_LOCK_AT);
}

/** The address of the device's payload, for reading its fields; ESTALE. */
export function dmaDeviceAt(handle: u32): i32 {
  const payload = objectFind(handle, KIND_DEVICE);
  return payload == 0 ? ESTALE : <i32>payload;
}

/** The address of the mapping's payload, for reading its fields and segments; ESTALE. */
export function dmaMappingAt(handle: u32): i32 {
  const payload = objectFind(handle, KIND_MAPPING);
  return payload == 0 ? ESTALE : <i32>payload;
}

export function mappingInsert(device: Device, mapping: Mapping, handle: u32): void {
  const next = device.firstMapping;
  mapping.next = next;
  mapping.prev = 0;
  if (next != 0) Mapping.at(objectAt(next)).prev = handle;
  device.firstMapping = handle;
  device.mappingCount += 1;
}

export function mappingRemove(device: Device, mapping: Mapping): void {
  if (mapping.next != 0) Mapping.at(objectAt(mapping.next)).prev = mapping.prev;
  if (mapping.prev != 0) Mapping.at(objectAt(mapping.prev)).next = mapping.next;
  else device.firstMapping = mapping.next;
  device.mappingCount -= 1;
}

/** What a mapping in this direction lets the device do: READ and WRITE bits. */
export function accessOf(direction: u32): u32 {
  if (direction == DMA_TO_DEVICE) return ACCESS_READ;
  return direction == DMA_FROM_DEVICE ? ACCESS_WRITE : ACCESS_READ | ACCESS_WRITE;
}

/** The same as protection in a page table. Compare dma_info_to_prot(). */
export function protOf(device: Device, direction: u32, attrs: u32): u32 {
  const privileged: u32 = attrs & PRIVILEGED ? PROT_PRIV : 0;
  const cached: u32 = device.flags & NONCOHERENT ? 0 : PROT_CACHE;
  return accessOf(direction) | privileged | (attrs & MMIO ? PROT_MMIO : cached);
}
