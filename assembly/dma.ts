// The DMA-mapping API: at which addresses a device sees a table.
//
//   table ──dmaMapTable(device)──► mapping: segments { device page, offset, length } ──dmaUnmap──► gone
//              direct   device page = frame + physPfnBase, one segment an entry
//              bounced  the same, of a copy in the bounce pool
//              IOMMU    new device pages, translated page by page; neighbours become one segment
//
// D3  No segment is longer than the device's maxSegmentBytes behind an IOMMU, and none lies beyond
//     its limitPfn.
// D4  Behind an IOMMU neighbours join and entries longer than maxSegmentBytes are cut; a direct
//     device sees the entries, and an untrusted one no joined ones. No join and no cut crosses the
//     device's segment boundary.
//
// Compare kernel/dma/mapping.c, direct.c and drivers/iommu/dma-iommu.c in the kernel.

import { NONE } from "./bits";
import { NO_BOUNDARY, holePages, pagesOf } from "./boundary";
import { bounceEnd, bounceOrder, entryBounce } from "./dma-bounce";
import { shadowClean, shadowDrop, shadowTake } from "./dma-cache";
import {
  CACHED,
  COHERENT,
  COUNTED,
  COUNTING,
  DMA_FROM_DEVICE,
  Device,
  MMIO,
  Mapping,
  ONE_SEGMENT,
  OWNS_TABLE,
  PINS_FRAMES,
  SIMULATED,
  SKIP_CPU_SYNC,
  UNCOUNTED,
  UNTRUSTED,
  mappingInsert,
  mappingRemove,
  protOf,
} from "./dma-device";
import { syncForCpu } from "./dma-sync";
import { EINVAL, EIO, ESTALE } from "./errno";
import { domainMapList, domainUnmapList } from "./iommu-dma";
import { FRAME_MASK, FRAME_SHIFT, header } from "./layout";
import { lockHard, noMemory, unlock } from "./lock";
import {
  KIND_DEVICE,
  KIND_MAPPING,
  KIND_TABLE,
  objectAlloc,
  objectAt,
  objectFree,
  objectIs,
  recordOf,
} from "./object";
import { SgEntry, entriesAlloc, entriesBisect, entriesFree } from "./sg-entries";
import { tableUnpin } from "./sg-pin";
import { SgTable, tableDestroy } from "./sg";

/**
 * Maps a table for a device. `attrs` are of dma-device.ts. The mapping's handle, or EINVAL
 * (direction, or more segments than the device takes), EIO (the device cannot address it
 * and it cannot be bounced), ENOMEM (device pages, tables or records are out), ESTALE: then nothing
 * changed.
 */
export function dmaMapTable(
  deviceHandle: u32,
  tableHandle: u32,
  direction: u32,
  attrs: u32,
): i32 {
  const deviceAt = objectAt(deviceHandle);
  const tablePayload = objectAt(tableHandle);
  if (!objectIs(deviceAt, deviceHandle, KIND_DEVICE)) return ESTALE;
  if (!objectIs(tablePayload, tableHandle, KIND_TABLE)) return ESTALE;
  if (direction > DMA_FROM_DEVICE) return EINVAL;
  const handle = objectAlloc(KIND_MAPPING);
  if (handle < 0) return handle;
  const mappingAt = objectAt(handle);
  const mapping = Mapping.at(mappingAt);
  const device = Device.at(deviceAt);
  const table = SgTable.at(tablePayload);
  mapping.device = deviceHandle;
  mapping.table = tableHandle;
  mapping.direction = direction;
  mapping.attrs = attrs;
  const error =
    device.flags == 0
      ? mapPlain(device, table, mapping, handle)
      : mapFlagged(device, table, mapping, handle);
  if (error != 0) {
    objectFree(recordOf(mappingAt));
    return error;
  }
  lockHard(deviceAt);
  mappingInsert(device, mapping, handle);
  mapping.counted = COUNTING; // D9
  atomic.add<u32>(mapCountAt(tablePayload), 1); // several devices map one table
  mapping.counted = COUNTED;
  unlock(deviceAt);
  return handle;
}

/** Maps for a device without flags. 0, or dmaMapTable()'s errors. */
function mapPlain(device: Device, table: SgTable, mapping: Mapping, handle: u32): i32 {
  if (device.domain == 0) return mapDirect(device, table, mapping, handle);
  return mapTranslated(device, table.entriesAt, table.origNents, mapping, true);
}

/** Maps for a device that is untrusted, or sees no cache; its own allocations are whole pages. */
function mapFlagged(device: Device, table: SgTable, mapping: Mapping, handle: u32): i32 {
  const isCached = (device.flags & SIMULATED) != 0 && (mapping.attrs & (COHERENT | MMIO)) == 0;
  if (isCached) {
    const taken = shadowTake(table, mapping);
    if (taken != 0) return taken;
  }
  const isOne = (mapping.attrs & ONE_SEGMENT) != 0;
  const isBouncing = (device.flags & UNTRUSTED) != 0 && device.domain != 0 && !isOne;
  const error = isBouncing
    ? mapUntrusted(device, table, mapping, handle)
    : mapPlain(device, table, mapping, handle);
  if (isCached && error != 0) shadowDrop(table, mapping);
  if (isCached && error == 0 && (mapping.attrs & SKIP_CPU_SYNC) == 0)
    shadowClean(table, 0, table.lengthBytes);
  return error;
}

function mapDirect(device: Device, table: SgTable, mapping: Mapping, handle: u32): i32 {
  const count = table.origNents;
  if (count > device.maxSegments) return EINVAL;
  const limitPfn = device.limitFor(mapping.attrs);
  const first = unreached(limitPfn, table.entriesAt, 0, count);
  const mayBounce = header().bounceAt != 0 && (mapping.attrs & (MMIO | COHERENT)) == 0;
  if (first < count && !mayBounce) return EIO; // D3
  const at = entriesAlloc(count);
  if (at == 0) return noMemory();
  memory.copy(at, table.entriesAt, (<usize>count) << 4);
  for (let i = first; i < count; i = unreached(limitPfn, at, i + 1, count)) {
    const error = entryBounce(device, mapping, handle, i, SgEntry.at(at, i), false);
    if (error == 0) continue;
    bounceEnd(mapping);
    entriesFree(at, count);
    return error;
  }
  if (first < count) bounceOrder(mapping);
  const base = header().physPfnBase;
  for (let i: u32 = 0; i < count; i++) SgEntry.at(at, i).pfn += base;
  mapping.segmentsAt = at;
  mapping.nents = count;
  return 0;
}

/** The first entry from `i` on that reaches beyond the limit; `count` when none does. */
function unreached(limitPfn: u32, entriesAt: usize, i: u32, count: u32): u32 {
  const base = header().physPfnBase;
  for (; i < count; i++) {
    const entry = SgEntry.at(entriesAt, i);
    if (<u64>(base + entry.pfn) + entry.pageCount - 1 > limitPfn) break;
  }
  return i;
}

/** Maps behind an IOMMU; entries that are no whole pages are bounced, and none are joined. */
function mapUntrusted(device: Device, table: SgTable, mapping: Mapping, handle: u32): i32 {
  const count = table.origNents;
  const at = entriesAlloc(count);
  if (at == 0) return noMemory();
  memory.copy(at, table.entriesAt, (<usize>count) << 4);
  let error: i32 = 0;
  for (let i: u32 = 0; i < count && error == 0; i++) {
    const entry = SgEntry.at(at, i);
    const isPartial = ((entry.offset | entry.length) & FRAME_MASK) != 0;
    if (isPartial && (mapping.attrs & MMIO) == 0)
      error = entryBounce(device, mapping, handle, i, entry, true);
  }
  if (error == 0) error = mapTranslated(device, at, count, mapping, false);
  if (error != 0) bounceEnd(mapping);
  else bounceOrder(mapping);
  entriesFree(at, count);
  return error;
}

function mapTranslated(
  device: Device,
  entriesAt: usize,
  count: u32,
  mapping: Mapping,
  joins: bool,
): i32 {
  const isOne = (mapping.attrs & ONE_SEGMENT) != 0;
  const maxBytes = isOne ? NONE : device.maxSegmentBytes;
  const mask = isOne ? NO_BOUNDARY : device.boundaryPageMask;
  const nents = segmentsWrite(0, entriesAt, count, 0, maxBytes, mask, joins);
  if (nents > device.maxSegments) return EINVAL;
  const segmentsAt = entriesAlloc(nents);
  if (segmentsAt == 0) return noMemory();
  const pageCount = pagesOf(entriesAt, count, mask);
  const iovaPfn = domainMapList(
    objectAt(device.domain),
    mapping,
    entriesAt,
    count,
    pageCount,
    device.limitFor(mapping.attrs),
    mask,
    protOf(device, mapping.direction, mapping.attrs),
  );
  if (iovaPfn == 0) {
    entriesFree(segmentsAt, nents);
    return noMemory();
  }
  segmentsWrite(segmentsAt, entriesAt, count, iovaPfn, maxBytes, mask, joins);
  mapping.segmentsAt = segmentsAt;
  mapping.nents = nents;
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
  maxBytes: u32,
  mask: u32,
  joins: bool,
): u32 {
  if (!joins) return segmentsLay(out, entriesAt, count, iovaPfn, maxBytes, mask, false);
  return mask == NO_BOUNDARY
    ? segmentsLay(out, entriesAt, count, iovaPfn, maxBytes, NO_BOUNDARY, true)
    : segmentsLay(out, entriesAt, count, iovaPfn, maxBytes, mask, true);
}

/**
 * An entry joins the segment before it when that ended on a page, the entry begins on one that is
 * no boundary, and both together stay within `maxBytes`; an entry that is longer is cut at pages
 * and boundaries. Without `joins` none joins.
 */
@inline function segmentsLay(
  out: usize,
  entriesAt: usize,
  count: u32,
  iovaPfn: u32,
  maxBytes: u32,
  boundaryPageMask: u32,
  joins: bool,
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
    isWhole = joins && ((offset + entry.length) & FRAME_MASK) == 0;
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

/**
 * Ends a mapping: what the device wrote is synced for the CPU, unless `attrs` has SKIP_CPU_SYNC,
 * and the device reaches nothing through it any more. 0, or ESTALE.
 */
export function dmaUnmap(handle: u32, attrs: u32): i32 {
  const mappingAt = objectAt(handle);
  if (!objectIs(mappingAt, handle, KIND_MAPPING)) return ESTALE;
  const mapping = Mapping.at(mappingAt);
  const deviceAt = objectAt(mapping.device);
  const device = Device.at(deviceAt);
  const tablePayload = objectAt(mapping.table);
  lockHard(deviceAt);
  mappingRemove(device, mapping);
  mapping.counted = COUNTING; // D9
  atomic.sub<u32>(mapCountAt(tablePayload), 1);
  mapping.counted = UNCOUNTED;
  unlock(deviceAt);
  const table = SgTable.at(tablePayload);
  const mustSync = mapping.firstRun != 0 || (mapping.attrs & CACHED) != 0;
  if (mustSync && (attrs & SKIP_CPU_SYNC) == 0)
    syncForCpu(device, mapping, table, 0, table.lengthBytes, mapping.direction);
  if (mapping.iovaPfn != 0)
    domainUnmapList(objectAt(device.domain), mapping);
  bounceEnd(mapping); // behind the translations: the device must not reach freed slots
  entriesFree(mapping.segmentsAt, mapping.nents);
  if ((mapping.attrs & CACHED) != 0) shadowDrop(table, mapping);
  if ((mapping.attrs & OWNS_TABLE) != 0) tableRelease(tablePayload, mapping.attrs);
  objectFree(recordOf(mappingAt));
  return 0;
}

/** Frees a table that came with a mapping, and takes the pins off its frames. */
export function tableRelease(tablePayload: usize, attrs: u32): void {
  if ((attrs & PINS_FRAMES) != 0) tableUnpin(SgTable.at(tablePayload));
  tableDestroy(tablePayload);
}

/** The segment that holds byte `offset` of a mapping, or EINVAL, ESTALE. */
export function dmaSegmentOf(handle: u32, offset: u32): i32 {
  const payload = objectAt(handle);
  if (!objectIs(payload, handle, KIND_MAPPING)) return ESTALE;
  const mapping = Mapping.at(payload);
  const last = SgEntry.at(mapping.segmentsAt, mapping.nents - 1);
  if (offset >= last.before + last.length) return EINVAL;
  return entriesBisect(mapping.segmentsAt, mapping.nents, offset);
}

function mapCountAt(tablePayload: usize): usize {
  return tablePayload + offsetof<SgTable>("mapCount");
}
