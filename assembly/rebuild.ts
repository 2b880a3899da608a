// Restores what is derived from the truth words: free lists and a magazine, slabs, a region's
// bitmap, a device's list of mappings, bounce slots.
//
// U1  Afterwards check() finds nothing in the part that was rebuilt, whatever state it was in; no
//     truth word has changed but CACHED, QUARANTINE, and SLAB without records, to FREE.
//
// For the day on which a thread died inside the core: who held a lock may have left what it
// protects half-changed, but never a truth word. reap.ts takes the lock over before it calls.
// Cost: O(frames), O(records), or for a region O(its frames).

import { bitmapFree, bitmapInit } from "./bitmap";
import { NONE } from "./bits";
import { BounceSlot, bouncePool } from "./bounce";
import { objectNext, objectPayload } from "./check";
import { Device, Mapping, UNCOUNTED, mappingInsert } from "./dma-device";
import { FreeRanks, rangeInsert } from "./free-list";
import {
  CHUNKS_AT,
  DIRECTORY_ENTRIES,
  FRAMES_LOCK_AT,
  MIGRATE_TYPES,
  chunksBytes,
  frameAt,
  header,
} from "./layout";
import { lockRare, unlockRare } from "./lock";
import { framesGive } from "./magazine";
import { KIND_MAPPING, handleOf, objectFind, recordOf } from "./object";
import {
  CACHED,
  CMA,
  Frame,
  MOVABLE,
  QUARANTINE,
  SLAB,
  isListable,
} from "./page";
import { Region, bitmapBase } from "./region";
import { CACHES, DirectoryEntry, Slab, SlabCache, SlabRecord, slabListInsert } from "./slab";
import { Thread } from "./thread";

/**
 * The lists, with the magazine of thread `dead` and the quarantine in them. The caller holds
 * framesLock; the words of other threads' magazines may change meanwhile.
 */
export function rebuildFrames(dead: u32): void {
  const h = header();
  Thread.at(dead).cachedCount = 0;
  for (let type: u32 = 0; type < MIGRATE_TYPES; type++) FreeRanks.at(type).mask = 0;
  memory.fill(CHUNKS_AT, 0, chunksBytes(h.frameCount));
  h.freeFrames = 0;
  h.quarantineCount = 0;
  for (let pfn = h.firstFrame; pfn < h.backedFrames; pfn++) {
    const frame = Frame.at(pfn);
    const state = frame.state;
    const isDeads = state == CACHED && frame.thread == dead;
    if (state == QUARANTINE || isDeads) frame.markFree();
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
  while (pfn < end && isListable(pfn)) pfn += 1;
  return pfn;
}

/**
 * Slabs and their lists. The caller holds slabLock; others may look objects up meanwhile. The lists
 * of frames are sound, and get the frames of empty slabs.
 */
export function rebuildSlabs(): void {
  const h = header();
  for (let cache: u32 = 0; cache < CACHES; cache++) SlabCache.at(cache).firstPfn = 0;
  for (let number: u32 = 0; number < DIRECTORY_ENTRIES; number++) {
    const entry = DirectoryEntry.at(number);
    if (!entry.isEmpty && !isSlabOf(entry.pfn, number)) entry.clear();
  }
  h.objectCount = 0;
  for (let pfn = h.firstFrame; pfn < h.backedFrames; pfn++) {
    if (Frame.at(pfn).state == SLAB) rebuildSlab(pfn);
  }
}

function isSlabOf(pfn: u32, number: u32): bool {
  if (Frame.at(pfn).state != SLAB) return false;
  return Slab.of(pfn).isNumbered && Slab.of(pfn).number == number;
}

function rebuildSlab(pfn: u32): void {
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
    lockRare(FRAMES_LOCK_AT);
    framesGive(pfn, 1);
    unlockRare(FRAMES_LOCK_AT);
    return;
  }
  if (slab.used < slab.capacity) slabListInsert(slab.cache, pfn);
  if (slab.isNumbered) {
    DirectoryEntry.at(slab.number).pfn = pfn;
    header().objectCount += slab.used;
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
