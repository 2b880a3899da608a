// Restores what is derived from the truth words: free lists, magazines, bitmaps, slabs, counters,
// mapping lists.
//
// U1  Afterwards check() finds nothing, whatever state the derived data was in; no truth word has
//     changed but CACHED and QUARANTINE to FREE.
//
// For the day on which a thread died inside the core: who held its locks may have left lists and
// counters half-changed, but never a truth word. Call it while nobody else is inside the core.
// Cost: O(frames + records + table entries).

import { bitmapFree, bitmapInit } from "./bitmap";
import { NONE } from "./bits";
import { BounceSlot, bouncePool } from "./bounce";
import { objectNext, objectPayload } from "./check";
import {
  CACHED as CACHED_MAPPING,
  COUNTED,
  Device,
  Mapping,
  UNCOUNTED,
  mappingInsert,
} from "./dma-device";
import { FreeList, FreeOrders, rangeInsert } from "./free-list";
import { Domain } from "./iommu";
import { iotlbInvalidateAll } from "./iotlb";
import {
  DIRECTORY_ENTRIES,
  FRAMES_LOCK_AT,
  MAX_ORDER,
  MIGRATE_TYPES,
  MOVABLE_LOCK_AT,
  SHADOW_LOCK_AT,
  SLAB_LOCK_AT,
  frameAt,
  header,
} from "./layout";
import { lockRare, unlockRare, unlockDead } from "./lock";
import { framesGive } from "./magazine";
import {
  KIND_DEVICE,
  KIND_DOMAIN,
  KIND_MAPPING,
  KIND_REGION,
  KIND_TABLE,
  ObjectRecord,
  handleOf,
  objectFind,
  recordOf,
} from "./object";
import {
  CACHED,
  CMA,
  FREE,
  Frame,
  MIGRATE_CMA,
  MOVABLE,
  QUARANTINE,
  SLAB,
  pageblockType,
  wordsFree,
} from "./page";
import { poisonFill } from "./quarantine";
import { Region, RegionSlot, bitmapBase } from "./region";
import { SgTable } from "./sg";
import {
  CACHES,
  DirectoryEntry,
  Slab,
  SlabCache,
  SlabRecord,
  recordPlace,
  slabListInsert,
} from "./slab";
import { Thread } from "./thread";

/** Restores everything derived (U1). */
export function rebuild(): void {
  rebuildSlabs(false); // first: it frees slabs without records
  rebuildLocks();
  rebuildFrames(NONE);
  rebuildRegions();
  rebuildMappings();
  rebuildPool();
}

/**
 * The lists, and the magazine of thread `dead`; of all threads, if that is NONE. The caller holds
 * framesLock; the words of other threads' magazines may change meanwhile.
 */
export function rebuildFrames(dead: u32): void {
  const h = header();
  for (let index: u32 = 0; index < h.threadCount; index++)
    if (dead == NONE || index == dead) Thread.at(index).cachedCount = 0;
  for (let type: u32 = 0; type < MIGRATE_TYPES; type++) {
    FreeOrders.at(type).mask = 0;
    for (let order: u32 = 0; order <= MAX_ORDER; order++) FreeList.at(type, order).first = 0;
  }
  h.freeFrames = 0;
  h.quarantineCount = 0;
  for (let pfn = h.firstFrame; pfn < h.backedFrames; pfn++) {
    const frame = Frame.at(pfn);
    const state = frame.state;
    const isDeads = state == CACHED && (dead == NONE || frame.thread == dead);
    const isListed = state == QUARANTINE || (state == FREE && pageblockType(pfn) != MIGRATE_CMA);
    if (isListed || isDeads) frame.unmarkHead();
  }
  let pfn = h.firstFrame;
  while (pfn < h.backedFrames) {
    const end = listableEnd(pfn);
    if (end > pfn) rangeInsert(pfn, end);
    pfn = end + 1;
  }
}

/** The end of the run of free frames outside CMA regions that begins at `pfn`. */
function listableEnd(pfn: u32): u32 {
  const end = header().backedFrames;
  while (pfn < end && Frame.at(pfn).state == FREE && pageblockType(pfn) != MIGRATE_CMA) pfn += 1;
  return pfn;
}

/**
 * Slabs and their lists. The caller holds slabLock; others may look objects up meanwhile.
 * `isListing`: the lists of frames are sound, and get the frames of empty slabs.
 */
export function rebuildSlabs(isListing: bool): void {
  const h = header();
  for (let cache: u32 = 0; cache < CACHES; cache++) SlabCache.at(cache).firstPfn = 0;
  for (let number: u32 = 0; number < DIRECTORY_ENTRIES; number++) {
    const entry = DirectoryEntry.at(number);
    if (!entry.isEmpty && !isSlabOf(entry.pfn, number)) entry.clear();
  }
  h.objectCount = 0;
  for (let pfn = h.firstFrame; pfn < h.backedFrames; pfn++) {
    if (Frame.at(pfn).state == SLAB) rebuildSlab(pfn, isListing);
  }
}

function isSlabOf(pfn: u32, number: u32): bool {
  if (Frame.at(pfn).state != SLAB) return false;
  return Slab.of(pfn).isNumbered && Slab.of(pfn).number == number;
}

function rebuildSlab(pfn: u32, isListing: bool): void {
  const slab = Slab.of(pfn);
  slab.used = 0;
  slab.freeAt = 0;
  for (let i: u32 = 1; i < slab.bump; i++) {
    const at = frameAt(pfn) + ((<usize>i) << slab.recordShift);
    const record = SlabRecord.at(at);
    if (record.truth != 0) {
      slab.used += 1;
    } else {
      record.nextFreeAt = slab.freeAt;
      slab.freeAt = at;
    }
  }
  if (slab.used == 0) {
    // Its last record went when the thread died.
    if (slab.isNumbered && DirectoryEntry.at(slab.number).pfn == pfn)
      DirectoryEntry.at(slab.number).clear();
    if (isListing) {
      lockRare(FRAMES_LOCK_AT);
      framesGive(pfn, 1);
      unlockRare(FRAMES_LOCK_AT);
    } else {
      if (header().freeFlags != 0) poisonFill(pfn, 1);
      wordsFree(pfn, 1);
    }
    return;
  }
  if (slab.used < slab.capacity) slabListInsert(slab.cache, pfn);
  if (slab.isNumbered) {
    DirectoryEntry.at(slab.number).pfn = pfn;
    header().objectCount += slab.used;
  }
}

/** Opens every lock: whoever held one is gone. */
function rebuildLocks(): void {
  unlockDead(FRAMES_LOCK_AT);
  unlockDead(SLAB_LOCK_AT);
  unlockDead(MOVABLE_LOCK_AT);
  unlockDead(SHADOW_LOCK_AT);
  if (header().bounceAt != 0) unlockDead(header().bounceAt);
  for (let index = objectNext(0, 0); index != 0; index = objectNext(index, 0)) {
    const kind = ObjectRecord.at(recordPlace(index)).kind;
    const hasLock = kind == KIND_REGION || kind == KIND_DOMAIN || kind == KIND_DEVICE;
    if (hasLock) unlockDead(objectPayload(index));
  }
}

function rebuildRegions(): void {
  header().regionCount = 0;
  for (let index = objectNext(0, KIND_REGION); index != 0; index = objectNext(index, KIND_REGION)) {
    const payload = objectPayload(index);
    rebuildRegion(payload);
    RegionSlot.at(header().regionCount).handle = handleOf(recordOf(payload));
    header().regionCount += 1;
  }
}

/** A region's bitmap and counters. The caller holds its lock. */
export function rebuildRegion(payload: usize): void {
  const region = Region.at(payload);
  const base = bitmapBase(region.basePfn, region.orderPerBit);
  bitmapInit(region.bitmapAt, region.bitCount, base);
  region.lendPfn = region.basePfn + region.frameCount;
  region.lentFrames = lentFrames(region);
  region.usedBits = region.bitCount;
  region.largestBits = NONE;
  for (let bit: u32 = 0; bit < region.bitCount; bit++) {
    if (Frame.at(region.basePfn + (bit << region.orderPerBit)).state == CMA) continue;
    bitmapFree(region.bitmapAt, bit, 1);
    region.usedBits -= 1;
  }
}

/** A device's list of mappings. The caller holds its lock. */
export function rebuildDevice(payload: usize): void {
  const device = Device.at(payload);
  const deviceHandle = <u32>handleOf(recordOf(payload));
  device.firstMapping = 0;
  device.mappingCount = 0;
  for (
    let index = objectNext(0, KIND_MAPPING);
    index != 0;
    index = objectNext(index, KIND_MAPPING)
  ) {
    const mappingAt = objectPayload(index);
    const mapping = Mapping.at(mappingAt);
    if (mapping.device != deviceHandle || mapping.counted == UNCOUNTED) continue;
    mappingInsert(device, mapping, handleOf(recordOf(mappingAt)));
  }
}

function rebuildMappings(): void {
  for (let index = objectNext(0, KIND_TABLE); index != 0; index = objectNext(index, KIND_TABLE)) {
    SgTable.at(objectPayload(index)).mapCount = 0;
    SgTable.at(objectPayload(index)).shadowUsers = 0;
  }
  for (let index = objectNext(0, KIND_DOMAIN); index != 0; index = objectNext(index, KIND_DOMAIN)) {
    const domain = Domain.at(objectPayload(index));
    domain.deviceCount = 0;
    domain.userCount = 0;
    if (domain.tlbAt != 0) iotlbInvalidateAll(domain.tlb);
  }
  for (let index = objectNext(0, KIND_DOMAIN); index != 0; index = objectNext(index, KIND_DOMAIN)) {
    const through = Domain.at(objectPayload(index)).through;
    if (through != 0) Domain.at(objectFind(through, KIND_DOMAIN)).userCount += 1;
  }
  for (let index = objectNext(0, KIND_DEVICE); index != 0; index = objectNext(index, KIND_DEVICE)) {
    const device = Device.at(objectPayload(index));
    device.firstMapping = 0;
    device.mappingCount = 0;
    if (device.domain != 0) Domain.at(objectFind(device.domain, KIND_DOMAIN)).deviceCount += 1;
  }
  for (
    let index = objectNext(0, KIND_MAPPING);
    index != 0;
    index = objectNext(index, KIND_MAPPING)
  ) {
    const payload = objectPayload(index);
    const mapping = Mapping.at(payload);
    const device = Device.at(objectFind(mapping.device, KIND_DEVICE));
    mappingInsert(device, mapping, handleOf(recordOf(payload)));
    mapping.counted = COUNTED;
    const table = SgTable.at(objectFind(mapping.table, KIND_TABLE));
    table.mapCount += 1;
    table.shadowUsers += <u32>((mapping.attrs & CACHED_MAPPING) != 0);
  }
}

/** Frees the slots of mappings that are gone, and counts the others. The caller holds its lock. */
export function rebuildPool(): void {
  if (header().bounceAt == 0) return;
  const pool = bouncePool();
  pool.usedSlots = 0;
  for (let i: u32 = 0; i < pool.slotCount; i++) {
    const slot = BounceSlot.at(i);
    if (objectFind(slot.mapping, KIND_MAPPING) == 0) slot.mapping = 0;
    pool.usedSlots += <u32>(slot.mapping != 0);
  }
}

function lentFrames(region: Region): u32 {
  let lent: u32 = 0;
  for (let i: u32 = 0; i < region.frameCount; i++) {
    lent += <u32>(Frame.at(region.basePfn + i).state == MOVABLE);
  }
  return lent;
}
