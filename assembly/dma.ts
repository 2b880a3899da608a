// The DMA-mapping API: at which addresses a device sees a table.
//
//   table ──dmaMapTable(device)──► mapping: segments { device page, offset, length } ──dmaUnmap──► gone
//              direct   device page = frame + physPfnBase, one segment an entry
//              IOMMU    new device pages, translated page by page; neighbours become one segment
//
// D3  No segment is longer than the device's maxSegmentBytes behind an IOMMU, and none lies beyond
//     its limitPfn.
// D4  Behind an IOMMU neighbours join and entries longer than maxSegmentBytes are cut; a direct
//     device sees the entries. No join and no cut crosses the device's segment boundary.
//
// Compare kernel/dma/mapping.c, direct.c and drivers/iommu/dma-iommu.c in the kernel.

import { NO_BOUNDARY, holePages, pagesOf } from "./boundary";
import {
  DMA_FROM_DEVICE,
  Device,
  Mapping,
  mappingInsert,
  mappingRemove,
  protOf,
} from "./dma-device";
import { EINVAL, EIO, ENOMEM, ESTALE } from "./errno";
import { domainMapList, domainUnmapList } from "./iommu-dma";
import { FRAME_MASK, FRAME_SHIFT, header } from "./layout";
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
import { SgEntry, entriesAlloc, entriesBisect, entriesFree } from "./sg-entries";
import { SgTable } from "./sg";

/**
 * Maps a table for a device. The mapping's handle, or EINVAL (direction, or more segments than the
 * device takes), EIO (a direct device cannot address it), ENOMEM (device pages, tables or records
 * are out), ESTALE: then nothing changed.
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
  mappingInsert(device, mapping, handle);
  atomic.add<u32>(mapCountAt(tablePayload), 1); // several devices map one table
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
  const count = table.origNents;
  const nents = segmentsWrite(0, entriesAt, count, 0, device);
  if (nents > device.maxSegments) return EINVAL;
  const segmentsAt = entriesAlloc(nents);
  if (segmentsAt == 0) return ENOMEM;
  const pageCount = pagesOf(entriesAt, count, device.boundaryPageMask);
  const iovaPfn = domainMapList(
    objectFind(device.domain, KIND_DOMAIN),
    entriesAt,
    count,
    pageCount,
    device.limitPfn,
    device.boundaryPageMask,
    protOf(mapping.direction),
  );
  if (iovaPfn == 0) {
    entriesFree(segmentsAt, nents);
    return ENOMEM;
  }
  segmentsWrite(segmentsAt, entriesAt, count, iovaPfn, device);
  mapping.segmentsAt = segmentsAt;
  mapping.nents = nents;
  mapping.iovaPfn = iovaPfn;
  mapping.pageCount = pageCount;
  return 0;
}

/**
 * The segments of a list mapped from `iovaPfn` on; iovaPfn 0 stands for any place. Writes to `out`
 * unless it is 0; how many.
 */
function segmentsWrite(
  out: usize,
  entriesAt: usize,
  count: u32,
  iovaPfn: u32,
  device: Device,
): u32 {
  const maxBytes = device.maxSegmentBytes;
  const mask = device.boundaryPageMask;
  return mask == NO_BOUNDARY
    ? segmentsLay(out, entriesAt, count, iovaPfn, maxBytes, NO_BOUNDARY)
    : segmentsLay(out, entriesAt, count, iovaPfn, maxBytes, mask);
}

/**
 * An entry joins the segment before it when that ended on a page, the entry begins on one that is
 * no boundary, and both together stay within `maxBytes`; an entry that is longer is cut at pages
 * and boundaries.
 */
@inline function segmentsLay(
  out: usize,
  entriesAt: usize,
  count: u32,
  iovaPfn: u32,
  maxBytes: u32,
  boundaryPageMask: u32,
): u32 {
  const wholeMax = maxBytes & ~FRAME_MASK;
  const firstPfn = iovaPfn;
  let used: u32 = 0;
  let length: u32 = 0; // of the segment being built
  let isWhole = false; // it ends on a page
  for (let i: u32 = 0; i < count; i++) {
    const entry = SgEntry.at(entriesAt, i);
    const offset = entry.offset;
    let left = entry.length;
    if (boundaryPageMask != NO_BOUNDARY) {
      iovaPfn += holePages(iovaPfn - firstPfn, entry.pageCount, boundaryPageMask); // D6
      isWhole = isWhole && (iovaPfn & boundaryPageMask) != 0;
    }
    if (isWhole && offset == 0 && length <= maxBytes && maxBytes - length >= left) {
      length += left;
      if (out != 0) SgEntry.at(out, used - 1).length = length;
      left = 0;
    }
    while (left > 0) {
      const done = entry.length - left;
      const at = done == 0 ? offset : 0; // only the first piece begins inside a page
      const pfn = iovaPfn + ((offset + done) >> FRAME_SHIFT);
      length = left <= maxBytes ? left : wholeMax - at;
      if (boundaryPageMask != NO_BOUNDARY && entry.length > maxBytes) {
        const pagesLeft = boundaryPageMask + 1 - (pfn & boundaryPageMask);
        length = min(length, (pagesLeft << FRAME_SHIFT) - at);
      }
      used += 1;
      if (out != 0) segmentWrite(out, used - 1, pfn, at, length, entry.before + done);
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
  mappingRemove(device, mapping);
  atomic.sub<u32>(mapCountAt(objectFind(mapping.table, KIND_TABLE)), 1);
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

/** The segment that holds byte `offset` of a mapping, or EINVAL, ESTALE. */
export function dmaSegmentOf(handle: u32, offset: u32): i32 {
  const payload = objectFind(handle, KIND_MAPPING);
  if (payload == 0) return ESTALE;
  const mapping = Mapping.at(payload);
  const last = SgEntry.at(mapping.segmentsAt, mapping.nents - 1);
  if (offset >= last.before + last.length) return EINVAL;
  return entriesBisect(mapping.segmentsAt, mapping.nents, offset);
}

function mapCountAt(tablePayload: usize): usize {
  return tablePayload + offsetof<SgTable>("mapCount");
}
