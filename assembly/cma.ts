// Contiguous regions: first-fit runs of frames, placed exactly where Linux places them.
//
//   region   basePfn                                  basePfn + frameCount
//            ├── bit 0 ──┼── bit 1 ──┼── bit 2 ──┼ … ──┤     a bit stands for 2^orderPerBit frames
//   bitmap   1 = free (bitmap.ts)
//
// C1  A bit is taken exactly when all of its frames have the state CMA; a free bit's frames are
//     FREE. One decides for all.
// C2  usedBits is the number of taken bits.
// C3  The frames of a region carry MIGRATE_CMA and are in no buddy list; regions are
//     pageblock-aligned and disjoint.
// C4  The answer is the lowest position that fits: alignment counts from the number that a device
//     sees, not from the region's start, and what a request does not fill of its last bit is
//     released only with that bit.
//
// Cost: bitmap.ts, plus one store per four frames.
//
// Compare cma_alloc() and cma_release() in the kernel's mm/cma.c.

import {
  bitmapAlloc,
  bitmapBytes,
  bitmapFree,
  bitmapInit,
  bitmapIsTaken,
  bitmapLargestFree,
} from "./bitmap";
import { NONE } from "./bits";
import { EAGAIN, EBUSY, EINVAL, ENOENT, ENOMEM, ENOSPC, ESTALE } from "./errno";
import { rangeInsert, rangeTake } from "./free-list";
import {
  FRAMES_LOCK_AT,
  FRAME_MASK,
  FRAME_SHIFT,
  MAX_ORDER,
  MAX_REGIONS,
  PAGEBLOCK_ORDER,
  REGIONS_AT,
  frameAt,
  header,
} from "./layout";
import { lock, lockHard, unlock } from "./lock";
import { runAlloc } from "./magazine";
import { KIND_REGION, objectAlloc, objectFind, objectFree, recordOf } from "./object";
import {
  CMA,
  FREE,
  MIGRATE_CMA,
  MIGRATE_MOVABLE,
  OBJECT,
  PINS_MASK,
  RESERVED,
  STATE_MASK,
  pageblocksMark,
  wordsChange,
  wordsFree,
  wordsMatch,
  wordsTake,
} from "./page";
import { must } from "./panic";
import { threadIndex } from "./thread";

const C1: u32 = 6701;

@unmanaged
export class Region {
  lockWord: u32;
  basePfn: u32;
  frameCount: u32;
  orderPerBit: u32;
  bitmapAt: usize;
  bitmapFrames: u32; // frames that hold the bitmap
  bitCount: u32;
  usedBits: u32; // C2
  allocCount: u32; // successful allocations
  failCount: u32; // refused for want of room
  releaseCount: u32;

  static at(payload: usize): Region {
    return changetype<Region>(payload);
  }
}

@unmanaged
export class RegionSlot {
  handle: u32; // 0 = none

  static at(i: u32): RegionSlot {
    return changetype<RegionSlot>(REGIONS_AT + ((<usize>i) << 2));
  }
}

/**
 * Makes a region of the free frames [basePfn, basePfn + frameCount). Its handle, or EINVAL (not
 * pageblock-aligned), EBUSY (a frame is not free), ENOSPC (MAX_REGIONS), ENOMEM, EAGAIN.
 */
export function cmaDeclare(basePfn: u32, frameCount: u32, orderPerBit: u32): i32 {
  const h = header();
  const mask = ((<u32>1) << PAGEBLOCK_ORDER) - 1;
  if (frameCount == 0 || ((basePfn | frameCount) & mask) != 0 || orderPerBit > PAGEBLOCK_ORDER)
    return EINVAL;
  if (frameCount > h.frameCount || basePfn > h.frameCount - frameCount) return EINVAL;
  if (h.regionCount == MAX_REGIONS) return ENOSPC;

  const bitCount = frameCount >> orderPerBit;
  const bitmapBase = (h.physPfnBase + basePfn) >> orderPerBit;
  const bitmapFrames = <u32>((bitmapBytes(bitCount, bitmapBase) + FRAME_MASK) >> FRAME_SHIFT);
  if (bitmapFrames > (<u32>1) << MAX_ORDER) return ENOMEM;
  const handle = objectAlloc(KIND_REGION);
  if (handle < 0) return handle;
  const payload = objectFind(handle, KIND_REGION);
  const taken = regionTake(basePfn, frameCount);
  const bitmapPfn = taken < 0 ? taken : runAlloc(bitmapFrames, 0, NONE, OBJECT);
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
  region.bitmapFrames = bitmapFrames;
  region.bitCount = bitCount;
  bitmapInit(region.bitmapAt, bitCount, bitmapBase);
  bitmapFree(region.bitmapAt, 0, bitCount);
  RegionSlot.at(h.regionCount).handle = handle;
  h.regionCount += 1;
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
  const payload = objectFind(handle, KIND_REGION);
  if (payload == 0) return ESTALE;
  const region = Region.at(payload);
  if (frameCount - 1 >= region.frameCount || alignOrder > 31) return EINVAL;
  const orderPerBit = region.orderPerBit;
  const bits = ((frameCount - 1) >> orderPerBit) + 1;
  const bitOrder = alignOrder > orderPerBit ? alignOrder - orderPerBit : 0;

  if (!lock(payload)) return EAGAIN;
  const bit = bitmapAlloc(region.bitmapAt, bits, bitOrder);
  if (bit == NONE) {
    region.failCount += 1;
    unlock(payload);
    return ENOMEM;
  }
  const pfn = region.basePfn + (bit << orderPerBit);
  must(wordsMatch(pfn, bits << orderPerBit, STATE_MASK | PINS_MASK, FREE), C1, pfn);
  wordsTake(pfn, bits << orderPerBit, CMA, threadIndex());
  region.usedBits += bits;
  region.allocCount += 1;
  unlock(payload);
  return pfn;
}

/**
 * Releases [pfn, pfn + frameCount), all of it handed out by this region; a part of an allocation
 * may go. 0, or EINVAL (outside), ENOENT (not handed out: also a second release), EBUSY (pinned),
 * ESTALE.
 */
export function cmaRelease(handle: u32, pfn: u32, frameCount: u32): i32 {
  const payload = objectFind(handle, KIND_REGION);
  if (payload == 0) return ESTALE;
  const region = Region.at(payload);
  const offset = pfn - region.basePfn;
  if (offset >= region.frameCount || frameCount - 1 >= region.frameCount - offset) return EINVAL;
  const orderPerBit = region.orderPerBit;
  const bit = offset >> orderPerBit;
  const bits = ((frameCount - 1) >> orderPerBit) + 1;
  const first = region.basePfn + (bit << orderPerBit);
  const frames = bits << orderPerBit;

  lockHard(payload);
  if (!wordsMatch(first, frames, STATE_MASK | PINS_MASK, CMA)) {
    const isHeld = wordsMatch(first, frames, STATE_MASK, CMA);
    unlock(payload);
    return isHeld ? EBUSY : ENOENT;
  }
  must(bitmapIsTaken(region.bitmapAt, bit, bits), C1, pfn);
  wordsFree(first, frames);
  bitmapFree(region.bitmapAt, bit, bits);
  region.usedBits -= bits;
  region.releaseCount += 1;
  unlock(payload);
  return 0;
}

/**
 * The longest run of free frames: what the largest request without alignment could be. ESTALE,
 * EAGAIN.
 */
export function cmaLargestFree(handle: u32): i32 {
  const payload = objectFind(handle, KIND_REGION);
  if (payload == 0) return ESTALE;
  if (!lock(payload)) return EAGAIN;
  const region = Region.at(payload);
  const bits = bitmapLargestFree(region.bitmapAt);
  unlock(payload);
  return bits << region.orderPerBit;
}

/** The address of the region's payload, for reading its fields; ESTALE. */
export function cmaRegionAt(handle: u32): i32 {
  const payload = objectFind(handle, KIND_REGION);
  return payload == 0 ? ESTALE : <i32>payload;
}
