// The DMA-mapping API: what a device may touch, and at which addresses.
//
//   table ──dmaMapTable(device)──► mapping: segments { device page, offset, length } ──dmaUnmap──► gone
//              direct   device page = frame + physPfnBase, one segment an entry
//              IOMMU    new device pages, translated page by page; neighbours become one segment
//
//   device:  mappings in a list, newest first        mapping: device, table, direction, segments,
//   device pages
//
// D1  A device reaches exactly the bytes of its live mappings (behind an IOMMU: their whole pages),
//     in the mapping's
//     direction. Anything else is a fault: counted, remembered, refused.
// D2  A table's mapCount is the number of mappings that name it; a device's mappingCount is the
//     length of its list.
// D3  No segment is longer than the device's maxSegmentBytes behind an IOMMU, and none lies beyond
//     its limitPfn.
// D4  Behind an IOMMU neighbours join and entries longer than maxSegmentBytes are cut; a direct
//     device sees the entries.
//
// Compare kernel/dma/mapping.c, direct.c and drivers/iommu/dma-iommu.c in the kernel.

import { NONE } from "./bits";
import { EBUSY, EFAULT, EINVAL, EIO, ENOMEM, ESTALE } from "./errno";
import { FRAME_BYTES, FRAME_MASK, FRAME_SHIFT, header } from "./layout";
import { Domain, domainMapList, domainTranslate, domainUnmapList } from "./iommu";
import { lockHard, unlock } from "./lock";
import {
  KIND_DEVICE,
  KIND_DOMAIN,
  KIND_MAPPING,
  KIND_TABLE,
  objectAlloc,
  objectFind,
  objectFree,
  recordOf,
} from "./object";
import { SgEntry, SgTable, entriesAlloc, entriesBisect, entriesFree } from "./sg";
import { SCRATCH_WORDS, scratchStore } from "./thread";

export const DMA_BIDIRECTIONAL: u32 = 0;
export const DMA_TO_DEVICE: u32 = 1;
export const DMA_FROM_DEVICE: u32 = 2;

export const ACCESS_READ: u32 = 1; // the device reads; also the page table's bit
export const ACCESS_WRITE: u32 = 2;
const PROT_CACHE: u32 = 4;

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

  static at(payload: usize): Device {
    return changetype<Device>(payload);
  }
}

@unmanaged
export class Mapping {
  device: u32; // handle
  table: u32; // handle
  direction: u32;
  nents: u32; // segments
  segmentsAt: usize;
  iovaPfn: u32; // first device page; 0 = direct
  pageCount: u32; // device pages behind an IOMMU
  next: u32; // handle in the device's list
  prev: u32;

  static at(payload: usize): Mapping {
    return changetype<Mapping>(payload);
  }
}

/**
 * A device that reaches device pages 0 .. limitPfn, through `domain` (a handle) or directly (0).
 * Its handle or an errno.
 */
export function dmaDeviceAdd(
  domain: u32,
  limitPfn: u32,
  maxSegmentBytes: u32,
  maxSegments: u32,
): i32 {
  if (maxSegmentBytes < FRAME_BYTES || maxSegments == 0) return EINVAL;
  const domainAt: usize = domain == 0 ? 0 : objectFind(domain, KIND_DOMAIN);
  if (domain != 0 && domainAt == 0) return ESTALE;
  const handle = objectAlloc(KIND_DEVICE);
  if (handle < 0) return handle;
  const device = Device.at(objectFind(handle, KIND_DEVICE));
  device.domain = domain;
  device.limitPfn = limitPfn;
  device.maxSegmentBytes = maxSegmentBytes;
  device.maxSegments = maxSegments;
  if (domainAt != 0) Domain.at(domainAt).deviceCount += 1;
  return handle;
}

/** Removes a device. 0, or ESTALE, EBUSY (mappings are left). */
export function dmaDeviceRemove(handle: u32): i32 {
  const payload = objectFind(handle, KIND_DEVICE);
  if (payload == 0) return ESTALE;
  const device = Device.at(payload);
  if (device.mappingCount != 0) return EBUSY;
  if (device.domain != 0) Domain.at(objectFind(device.domain, KIND_DOMAIN)).deviceCount -= 1;
  objectFree(recordOf(payload));
  return 0;
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

// ---- map

/**
 * Maps a table for a device. The mapping's handle, or EINVAL (direction, or more segments than the
 * device takes), EIO (a
 * direct device cannot address it), ENOMEM (device pages, tables or records are out), ESTALE: then
 * nothing changed.
 */
export function dmaMapTable(deviceHandle: u32, tableHandle: u32, direction: u32): i32 {
  const deviceAt = objectFind(deviceHandle, KIND_DEVICE);
  const tablePayload = objectFind(tableHandle, KIND_TABLE);
  if (deviceAt == 0 || tablePayload == 0) return ESTALE;
  if (direction > DMA_FROM_DEVICE) return EINVAL;
  const handle = objectAlloc(KIND_MAPPING);
  if (handle < 0) return handle;
  const mappingAt = objectFind(handle, KIND_MAPPING);
  const mapping = Mapping.at(mappingAt);
  mapping.device = deviceHandle;
  mapping.table = tableHandle;
  mapping.direction = direction;

  const device = Device.at(deviceAt);
  const table = SgTable.at(tablePayload);
  const error =
    device.domain == 0 ? mapDirect(device, table, mapping) : mapTranslated(device, table, mapping);
  if (error != 0) {
    objectFree(recordOf(mappingAt));
    return error;
  }
  lockHard(deviceAt);
  listInsert(device, mapping, handle);
  table.mapCount += 1;
  unlock(deviceAt);
  return handle;
}

function mapDirect(device: Device, table: SgTable, mapping: Mapping): i32 {
  const count = table.origNents;
  if (count > device.maxSegments) return EINVAL;
  const base = header().physPfnBase;
  for (let i: u32 = 0; i < count; i++) {
    const entry = SgEntry.at(table.entriesAt, i);
    if (base + entry.pfn + entry.pageCount - 1 > device.limitPfn) return EIO; // D3
  }
  const at = entriesAlloc(count);
  if (at == 0) return ENOMEM;
  memory.copy(at, table.entriesAt, (<usize>count) << 4);
  for (let i: u32 = 0; i < count; i++) SgEntry.at(at, i).pfn += base;
  mapping.segmentsAt = at;
  mapping.nents = count;
  return 0;
}

function mapTranslated(device: Device, table: SgTable, mapping: Mapping): i32 {
  const entriesAt = table.entriesAt;
  const nents = segmentsWrite(0, entriesAt, table.origNents, 0, device.maxSegmentBytes);
  if (nents > device.maxSegments) return EINVAL;
  const segmentsAt = entriesAlloc(nents);
  if (segmentsAt == 0) return ENOMEM;
  const pageCount = pagesOf(entriesAt, table.origNents);
  const domainAt = objectFind(device.domain, KIND_DOMAIN);
  const prot = protOf(mapping.direction);
  const iovaPfn = domainMapList(
    domainAt,
    entriesAt,
    table.origNents,
    pageCount,
    device.limitPfn,
    prot,
  );
  if (iovaPfn == 0) {
    entriesFree(segmentsAt, nents);
    return ENOMEM;
  }
  segmentsWrite(segmentsAt, entriesAt, table.origNents, iovaPfn, device.maxSegmentBytes);
  mapping.segmentsAt = segmentsAt;
  mapping.nents = nents;
  mapping.iovaPfn = iovaPfn;
  mapping.pageCount = pageCount;
  return 0;
}

function protOf(direction: u32): u32 {
  const access =
    direction == DMA_TO_DEVICE
      ? ACCESS_READ
      : direction == DMA_FROM_DEVICE
        ? ACCESS_WRITE
        : ACCESS_READ | ACCESS_WRITE;
  return access | PROT_CACHE;
}

/** Device pages that the entries need, each rounded out to whole pages. */
function pagesOf(entriesAt: usize, count: u32): u32 {
  let pages: u32 = 0;
  for (let i: u32 = 0; i < count; i++) pages += SgEntry.at(entriesAt, i).pageCount;
  return pages;
}

/**
 * The segments of a list mapped page after page from `iovaPfn`. An entry joins the segment before
 * it when that ended on a
 * page, the entry begins on one, and both together stay within `maxBytes`; an entry that is longer
 * is cut at pages.
 * Writes to `out` unless it is 0; how many.
 */
function segmentsWrite(out: usize, entriesAt: usize, count: u32, iovaPfn: u32, maxBytes: u32): u32 {
  const wholeMax = maxBytes & ~FRAME_MASK;
  let used: u32 = 0;
  let length: u32 = 0; // of the segment being built
  let isWhole = false; // it ends on a page
  for (let i: u32 = 0; i < count; i++) {
    const entry = SgEntry.at(entriesAt, i);
    const offset = entry.offset;
    let left = entry.length;
    if (isWhole && offset == 0 && length <= maxBytes && maxBytes - length >= left) {
      length += left;
      if (out != 0) SgEntry.at(out, used - 1).length = length;
      left = 0;
    }
    while (left > 0) {
      const done = entry.length - left;
      const at = done == 0 ? offset : 0; // only the first piece begins inside a page
      length = left <= maxBytes ? left : wholeMax - at;
      used += 1;
      if (out != 0)
        segmentWrite(
          out,
          used - 1,
          iovaPfn + ((offset + done) >> FRAME_SHIFT),
          at,
          length,
          entry.before + done,
        );
      left -= length;
    }
    isWhole = ((offset + entry.length) & FRAME_MASK) == 0;
    iovaPfn += entry.pageCount;
  }
  return used;
}

function segmentWrite(out: usize, i: u32, pfn: u32, offset: u32, length: u32, before: u32): void {
  const segment = SgEntry.at(out, i);
  segment.pfn = pfn;
  segment.offset = offset;
  segment.length = length;
  segment.before = before;
}

// ---- unmap

/** Ends a mapping: the device reaches nothing through it any more. 0, or ESTALE. */
export function dmaUnmap(handle: u32): i32 {
  const mappingAt = objectFind(handle, KIND_MAPPING);
  if (mappingAt == 0) return ESTALE;
  const mapping = Mapping.at(mappingAt);
  const deviceAt = objectFind(mapping.device, KIND_DEVICE);
  const device = Device.at(deviceAt);
  lockHard(deviceAt);
  listRemove(device, mapping);
  SgTable.at(objectFind(mapping.table, KIND_TABLE)).mapCount -= 1;
  unlock(deviceAt);
  unmapSegments(device, mapping);
  objectFree(recordOf(mappingAt));
  return 0;
}

function unmapSegments(device: Device, mapping: Mapping): void {
  if (mapping.iovaPfn != 0)
    domainUnmapList(objectFind(device.domain, KIND_DOMAIN), mapping.iovaPfn, mapping.pageCount);
  entriesFree(mapping.segmentsAt, mapping.nents);
}

function listInsert(device: Device, mapping: Mapping, handle: u32): void {
  const next = device.firstMapping;
  mapping.next = next;
  mapping.prev = 0;
  if (next != 0) Mapping.at(objectFind(next, KIND_MAPPING)).prev = handle;
  device.firstMapping = handle;
  device.mappingCount += 1;
}

function listRemove(device: Device, mapping: Mapping): void {
  if (mapping.next != 0) Mapping.at(objectFind(mapping.next, KIND_MAPPING)).prev = mapping.prev;
  if (mapping.prev != 0) Mapping.at(objectFind(mapping.prev, KIND_MAPPING)).next = mapping.next;
  else device.firstMapping = mapping.next;
  device.mappingCount -= 1;
}

// ---- the device's own accesses

/**
 * Translates `lengthBytes` bytes from a device address for `access`, and writes spans { byte
 * address, length } to the
 * scratch words, neighbours merged. How many spans: when they fill the scratch words the caller
 * goes on behind them. Or
 * EFAULT (D1), EINVAL, ESTALE.
 */
export function dmaSpans(
  deviceHandle: u32,
  devicePfn: u32,
  offset: u32,
  lengthBytes: u32,
  access: u32,
): i32 {
  const payload = objectFind(deviceHandle, KIND_DEVICE);
  if (payload == 0) return ESTALE;
  if (offset >= FRAME_BYTES || lengthBytes == 0 || access - 1 > 2) return EINVAL;
  const device = Device.at(payload);
  let spans: u32 = 0;
  let spanAt: u32 = 0;
  let spanBytes: u32 = 0;
  while (lengthBytes > 0) {
    const extent =
      device.domain == 0
        ? extentDirect(device, devicePfn, offset, access)
        : extentTranslated(device, devicePfn, offset, access);
    if (extent == 0) return fault(device, devicePfn, access);
    const at = <u32>(extent >> 32);
    const bytes = min(<u32>extent, lengthBytes);
    if (spans > 0 && at == spanAt + spanBytes) {
      spanBytes += bytes;
    } else {
      if (2 * spans == SCRATCH_WORDS) break;
      spans += 1;
      spanAt = at;
      spanBytes = bytes;
    }
    scratchStore(2 * spans - 2, spanAt);
    scratchStore(2 * spans - 1, spanBytes);
    lengthBytes -= bytes;
    const next = <u64>offset + bytes;
    devicePfn += <u32>(next >> FRAME_SHIFT);
    offset = <u32>next & FRAME_MASK;
  }
  return spans;
}

function fault(device: Device, devicePfn: u32, access: u32): i32 {
  device.faultCount += 1;
  device.faultPfn = devicePfn;
  device.faultAccess = access;
  return EFAULT;
}

/**
 * Byte address << 32 | length of what lies at a device address of a device behind an IOMMU; 0 =
 * nothing it may touch.
 */
function extentTranslated(device: Device, devicePfn: u32, offset: u32, access: u32): u64 {
  if (devicePfn > device.limitPfn) return 0;
  const phys = domainTranslate(objectFind(device.domain, KIND_DOMAIN), devicePfn, access);
  return phys == NONE ? 0 : extent(phys, offset, FRAME_BYTES - offset);
}

/** The same for a direct device: the segment of a live mapping that holds the address. */
function extentDirect(device: Device, devicePfn: u32, offset: u32, access: u32): u64 {
  const address = ((<u64>devicePfn) << FRAME_SHIFT) + offset;
  let handle = device.firstMapping;
  while (handle != 0) {
    const mapping = Mapping.at(objectFind(handle, KIND_MAPPING));
    if ((protOf(mapping.direction) & access) == access) {
      for (let i: u32 = 0; i < mapping.nents; i++) {
        const segment = SgEntry.at(mapping.segmentsAt, i);
        const into = address - (((<u64>segment.pfn) << FRAME_SHIFT) + segment.offset); // huge when below
        if (into < <u64>segment.length)
          return extent(devicePfn, offset, segment.length - <u32>into);
      }
    }
    handle = mapping.next;
  }
  return 0;
}

function extent(physPfn: u32, offset: u32, bytes: u32): u64 {
  const pfn = physPfn - header().physPfnBase;
  if (pfn >= header().backedFrames) return 0; // no memory there
  return ((<u64>((pfn << FRAME_SHIFT) + offset)) << 32) | bytes;
}

/** The segment that holds byte `offset` of a mapping, or EINVAL, ESTALE. */
export function dmaSegmentOf(handle: u32, offset: u32): i32 {
  const payload = objectFind(handle, KIND_MAPPING);
  if (payload == 0) return ESTALE;
  const mapping = Mapping.at(payload);
  const last = SgEntry.at(mapping.segmentsAt, mapping.nents - 1);
  if (offset >= last.before + last.length) return EINVAL;
  return entriesBisect(mapping.segmentsAt, mapping.nents, offset);
}
