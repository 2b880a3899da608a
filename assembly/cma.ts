// Contiguous regions: first-fit runs of frames, placed exactly where Linux places them.
//
//   cmaDeclare ─► free ──cmaAlloc──► handed out ──cmaRelease──► free
//                   └─ lent frames in the way are moved out first (migrate.ts); a pinned one means the next place
//
// C4  The answer is the lowest position that fits: alignment counts from the number that a device
//     sees, not from the region's start, and what a request does not fill of its last bit is
//     released only with that bit.
//
// Cost: bitmap.ts, plus one store per four frames.
//
// Compare cma_alloc() in the kernel's mm/cma.c.

import { bitmapLargestFree } from "./bitmap-count";
import {
  bitmapAlloc,
  bitmapAllocBit,
  bitmapFindFrom,
  bitmapFree,
  bitmapInit,
  bitmapTake,
} from "./bitmap";
import { NONE } from "./bits";
import { EAGAIN, EBUSY, EINVAL, ENOMEM, ENOSPC, ESTALE } from "./errno";
import { faultHits } from "./fault";
import { rangeInsert, rangeTake } from "./free-list";
import {
  FRAMES_LOCK_AT,
  MAX_ORDER,
  MAX_REGIONS,
  MOVABLE_LOCK_AT,
  NOTHING_AT,
  PAGEBLOCK_ORDER,
  STRICT,
  frameAt,
  header,
} from "./layout";
import { lock, lockHard, unlock } from "./lock";
import { runAlloc } from "./magazine";
import { frameEvacuate } from "./migrate";
import { KIND_REGION, objectAlloc, objectFind, objectFree, recordOf } from "./object";
import {
  CMA,
  DIRTY,
  FREE,
  Frame,
  MIGRATE_CMA,
  MIGRATE_MOVABLE,
  MOVABLE,
  OBJECT,
  RESERVED,
  STATE_MASK,
  pageblocksMark,
  wordsChange,
  wordsMatch,
  wordsTake,
} from "./page";
import { must } from "./panic";
import { poisonVerify } from "./quarantine";
import {
  Region,
  RegionSlot,
  bitmapBase,
  bitmapFrames,
  regionEmptied,
  regionFreed,
} from "./region";
import { self, threadIndex } from "./thread";
import { Warm, warmKeep } from "./warm";

const C1: u32 = 6701;

/**
 * Makes a region of the free frames [basePfn, basePfn + frameCount). Its handle, or EINVAL (no
 * whole pageblocks, or no whole bits), EBUSY (a frame is not free), ENOSPC (MAX_REGIONS), ENOMEM,
 * EAGAIN.
 */
export function cmaDeclare(basePfn: u32, frameCount: u32, orderPerBit: u32): i32 {
  const h = header();
  const mask = ((<u32>1) << PAGEBLOCK_ORDER) - 1;
  if (frameCount == 0 || ((basePfn | frameCount) & mask) != 0 || orderPerBit > 31) return EINVAL;
  if ((frameCount & (((<u32>1) << orderPerBit) - 1)) != 0) return EINVAL;
  if (frameCount > h.frameCount || basePfn > h.frameCount - frameCount) return EINVAL;
  if (h.regionCount == MAX_REGIONS) return ENOSPC;

  const bitCount = frameCount >> orderPerBit;
  const base = bitmapBase(basePfn, orderPerBit);
  const frames = bitmapFrames(bitCount, base);
  if (frames > (<u32>1) << MAX_ORDER) return ENOMEM;
  const handle = objectAlloc(KIND_REGION);
  if (handle < 0) return handle;
  const payload = objectFind(handle, KIND_REGION);
  const taken = regionTake(basePfn, frameCount);
  const bitmapPfn = taken < 0 ? taken : runAlloc(frames, 0, NONE, OBJECT);
  if (bitmapPfn < 0) {
    if (taken == 0) regionGive(basePfn, frameCount);
    objectFree(recordOf(payload));
    return bitmapPfn;
  }

  const region = Region.at(payload);
  region.basePfn = basePfn;
  region.frameCount = frameCount;
  region.orderPerBit = orderPerBit;
  region.bitmapAt = frameAt(bitmapPfn);
  bitmapInit(region.bitmapAt, bitCount, base);
  region.lendPfn = basePfn + frameCount;
  region.largestBits = bitCount;
  bitmapFree(region.bitmapAt, 0, bitCount);
  RegionSlot.at(h.regionCount).handle = handle;
  h.regionCount += 1;
  return handle;
}

/**
 * A carve-out: a region whose free frames are never lent, so that every run of it is there at once.
 * Its handle, or cmaDeclare's errors.
 */
export function carveoutDeclare(basePfn: u32, frameCount: u32, orderPerBit: u32): i32 {
  const handle = cmaDeclare(basePfn, frameCount, orderPerBit);
  if (handle >= 0) Region.at(objectFind(handle, KIND_REGION)).isFixed = 1; // C7
  return handle;
}

/**
 * Moves the frames from the buddy, or from those without bytes, to the region (C3). 0, EBUSY or
 * EAGAIN.
 */
function regionTake(basePfn: u32, frameCount: u32): i32 {
  const h = header();
  if (!lock(FRAMES_LOCK_AT)) return EAGAIN;
  let isTaken: bool;
  if (basePfn >= h.backedFrames) {
    isTaken = wordsMatch(basePfn, frameCount, STATE_MASK, RESERVED);
    if (isTaken) {
      wordsChange(basePfn, frameCount, 0, FREE);
      h.reservedFrames -= frameCount;
    }
  } else {
    isTaken = rangeTake(basePfn, frameCount);
  }
  if (isTaken) pageblocksMark(basePfn, frameCount, MIGRATE_CMA);
  unlock(FRAMES_LOCK_AT);
  return isTaken ? 0 : EBUSY;
}

function regionGive(basePfn: u32, frameCount: u32): void {
  const h = header();
  lockHard(FRAMES_LOCK_AT);
  pageblocksMark(basePfn, frameCount, MIGRATE_MOVABLE);
  if (basePfn >= h.backedFrames) {
    wordsChange(basePfn, frameCount, 0, RESERVED);
    h.reservedFrames += frameCount;
  } else {
    rangeInsert(basePfn, basePfn + frameCount);
  }
  unlock(FRAMES_LOCK_AT);
}

/**
 * The first run of `frameCount` frames whose device-side number is a multiple of 2^alignOrder. Not
 * zeroed. The pfn, or EINVAL, ENOMEM, ESTALE (no such region), EAGAIN.
 */
export function cmaAlloc(handle: u32, frameCount: u32, alignOrder: u32): i32 {
  const warm = Warm.of(KIND_REGION);
  const payload = handle == warm.handle ? warm.at : regionFindSlow(handle);
  if (payload == NOTHING_AT) return ESTALE;
  const region = Region.at(payload);
  if (((frameCount - 1) | alignOrder | region.orderPerBit | header().freeFlags) != 0) {
    return allocRun(payload, frameCount, alignOrder);
  }
  if (faultHits()) return ENOMEM;
  if (!lock(payload)) return EAGAIN;
  const bit = bitmapAllocBit(region.bitmapAt);
  if (bit == NONE) return allocFails(payload);
  const pfn = region.basePfn + bit;
  if (region.lentFrames != 0 && Frame.at(pfn).state != FREE) return allocLent(payload, bit, 1, 0);
  handOut(region, pfn, 1, 1);
  unlock(payload);
  return pfn;
}

/**
 * The payload of a region that is not the one named last, and is from now on; NOTHING_AT if there
 * is no such region.
 */
export function regionFindSlow(handle: u32): usize {
  const payload = objectFind(handle, KIND_REGION);
  if (payload == 0) return NOTHING_AT;
  warmKeep(KIND_REGION, handle, payload);
  return payload;
}

/** cmaAlloc() for any request. */
function allocRun(payload: usize, frameCount: u32, alignOrder: u32): i32 {
  const region = Region.at(payload);
  if (frameCount - 1 >= region.frameCount || alignOrder > 31) return EINVAL;
  if (faultHits()) return ENOMEM;
  if (!lock(payload)) return EAGAIN;
  const orderPerBit = region.orderPerBit;
  const bits = ((frameCount - 1) >> orderPerBit) + 1;
  const bitOrder = alignOrder > orderPerBit ? alignOrder - orderPerBit : 0;
  const bit = bitmapAlloc(region.bitmapAt, bits, bitOrder);
  if (bit == NONE) return allocFails(payload);
  const pfn = region.basePfn + (bit << orderPerBit);
  const frames = bits << orderPerBit;
  if (region.lentFrames != 0 && !wordsMatch(pfn, frames, STATE_MASK, FREE)) {
    return allocLent(payload, bit, bits, bitOrder);
  }
  runHandOut(region, pfn, bits);
  unlock(payload);
  return pfn;
}

/** Ends a request for which there is no room, with the region's lock. */
function allocFails(payload: usize): i32 {
  Region.at(payload).failCount += 1;
  unlock(payload);
  return ENOMEM;
}

/**
 * Marks `frames` frames, which are free and whose `bits` bits are taken, as handed out. The caller
 * holds the region's lock.
 */
@inline function handOut(region: Region, pfn: u32, frames: u32, bits: u32): void {
  if (CHECKS) must(wordsMatch(pfn, frames, ~DIRTY, FREE), C1, pfn);
  lockHard(FRAMES_LOCK_AT); // pins are counted under it, and a run's words are written twice
  wordsTake(pfn, frames, CMA, threadIndex());
  unlock(FRAMES_LOCK_AT);
  region.usedBits += bits;
  region.allocCount += 1;
  region.largestBits = NONE; // C8
}

/** The same for a run, which is looked at first if the system is strict. */
@inline function runHandOut(region: Region, pfn: u32, bits: u32): void {
  const frames = bits << region.orderPerBit;
  if ((header().freeFlags & STRICT) != 0) poisonVerify(pfn, frames);
  handOut(region, pfn, frames, bits);
}

/**
 * Ends a request in whose run lent frames lie, with the region's lock. The bits [bit, bit + bits)
 * are taken. The pfn, or allocBusy's errors.
 */
function allocLent(payload: usize, bit: u32, bits: u32, bitOrder: u32): i32 {
  self().busyRegion = payload; // for the day on which this thread dies in there
  unlock(payload);
  const result = allocBusy(payload, bit, bits, bitOrder);
  self().busyRegion = 0;
  return result;
}

/**
 * Goes on when lent frames lie in the run: moves them out, or tries the next place behind a pinned
 * one. The bits [bit, bit + bits) are taken. The pfn, or EBUSY (every place has a pinned frame),
 * ENOMEM.
 */
function allocBusy(payload: usize, bit: u32, bits: u32, bitOrder: u32): i32 {
  const region = Region.at(payload);
  const mask = ((<u32>1) << bitOrder) - 1;
  const offset = bitmapBase(region.basePfn, region.orderPerBit) & mask;
  lockHard(MOVABLE_LOCK_AT);
  let result: i32 = EBUSY;
  while (bit != NONE) {
    const pfn = region.basePfn + (bit << region.orderPerBit);
    const error = runEvacuate(payload, pfn, bits << region.orderPerBit);
    lockHard(payload);
    if (error == 0) {
      runHandOut(region, pfn, bits);
      result = pfn;
    } else {
      bitmapFree(region.bitmapAt, bit, bits);
      regionFreed(region, pfn + (bits << region.orderPerBit));
      result = error;
    }
    bit = NONE;
    if (error == EBUSY) {
      bit = bitmapFindFrom(
        region.bitmapAt,
        ((pfn - region.basePfn) >> region.orderPerBit) + mask + 1,
        bits,
        mask,
        offset,
      );
      if (bit != NONE) bitmapTake(region.bitmapAt, bit, bits);
    }
    if (error != 0 && bit == NONE) region.failCount += 1;
    unlock(payload);
  }
  unlock(MOVABLE_LOCK_AT);
  return result;
}

/**
 * Moves the lent frames of [pfn, pfn + frames), whose bits are taken, elsewhere. 0, EBUSY (one is
 * pinned: none was moved) or ENOMEM.
 */
function runEvacuate(payload: usize, pfn: u32, frames: u32): i32 {
  for (let i: u32 = 0; i < frames; i++) if (Frame.at(pfn + i).pins != 0) return EBUSY;
  for (let i: u32 = 0; i < frames; i++) {
    if (Frame.at(pfn + i).state != MOVABLE) continue;
    const error = frameEvacuate(pfn + i, true);
    if (error != 0) return error;
    regionEmptied(payload, pfn + i, false);
  }
  return 0;
}

/**
 * The longest run of free frames: what the largest request without alignment could be. O(1) until
 * the region changes, then one walk over its bitmap. ESTALE, EAGAIN.
 */
export function cmaLargestFree(handle: u32): i32 {
  const payload = objectFind(handle, KIND_REGION);
  if (payload == 0) return ESTALE;
  if (!lock(payload)) return EAGAIN;
  const region = Region.at(payload);
  if (region.largestBits == NONE) region.largestBits = bitmapLargestFree(region.bitmapAt);
  const bits = region.largestBits;
  unlock(payload);
  return bits << region.orderPerBit;
}

/** The address of the region's payload, for reading its fields; ESTALE. */
export function cmaRegionAt(handle: u32): i32 {
  const payload = objectFind(handle, KIND_REGION);
  return payload == 0 ? ESTALE : <i32>payload;
}
