// CMA regions as records: where they lie, and the frames that they lend.
//
//   region   basePfn                                  basePfn + frameCount
//            ├── bit 0 ──┼── bit 1 ──┼── bit 2 ──┼ … ──┤     a bit stands for 2^orderPerBit frames
//   bitmap   1 = free (bitmap.ts)
//
// C1  A bit is taken exactly when all of its frames have the state CMA. A free bit's frames are
//     FREE, or lent: MOVABLE.
// C2  usedBits is the number of taken bits.
// C3  The frames of a region carry MIGRATE_CMA and are in no buddy list; regions are
//     pageblock-aligned and disjoint.
// C5  lentFrames is the number of the region's frames whose state is MOVABLE.
// C6  No frame of [lendPfn, basePfn + frameCount) is FREE: lending searches downward from there.
// C7  A carve-out (isFixed) lends nothing: its lentFrames is 0.
// C8  largestBits is the longest run of free bits, or NONE when nobody has asked since a bit
//     changed.
//
// Linux puts free CMA frames into the buddy and takes them out again for each run. Here they stay
// where they are, and a movable request borrows single frames from the region's end, so that an
// allocation nobody stands in the way of costs nothing for it.

import { NONE } from "./bits";
import { bitmapBytes, bitmapIsFree } from "./bitmap";
import { FRAME_MASK, FRAME_SHIFT, REGIONS_AT, header } from "./layout";
import { lockRare, unlockRare } from "./lock";
import { KIND_REGION, objectFind } from "./object";
import { FREE, Frame, MOVABLE, wordsFree } from "./page";
import { poisonFill } from "./quarantine";
import { threadIndex } from "./thread";

@unmanaged
export class Region {
  lockWord: u32;
  basePfn: u32;
  frameCount: u32;
  orderPerBit: u32;
  bitmapAt: usize;
  largestBits: u32; // C8
  lentFrames: u32; // C5
  usedBits: u32; // C2
  allocCount: u32; // successful allocations
  failCount: u32; // refused for want of room
  lendPfn: u32; // C6
  isFixed: u32; // C7

  static at(payload: usize): Region {
    return changetype<Region>(payload);
  }

  get bitCount(): u32 {
    return this.frameCount >> this.orderPerBit;
  }
}

@unmanaged
export class RegionSlot {
  handle: u32; // 0 = none

  static at(i: u32): RegionSlot {
    return changetype<RegionSlot>(REGIONS_AT + ((<usize>i) << 2));
  }
}

/** Frames that hold the bitmap of a region of `bitCount` bits whose first has the number `base`. */
export function bitmapFrames(bitCount: u32, base: u32): u32 {
  return <u32>((bitmapBytes(bitCount, base) + FRAME_MASK) >> FRAME_SHIFT);
}

/** The device-side number of a region's first bit. */
export function bitmapBase(basePfn: u32, orderPerBit: u32): u32 {
  return (header().physPfnBase + basePfn) >> orderPerBit;
}

/** The payload of region `i` of the header's list. */
export function regionPayload(i: u32): usize {
  return objectFind(RegionSlot.at(i).handle, KIND_REGION);
}

/** Frames of all regions that are neither handed out nor lent. */
export function regionsFreeFrames(): u32 {
  let free: u32 = 0;
  for (let i: u32 = 0; i < header().regionCount; i++) {
    const region = Region.at(regionPayload(i));
    free += region.frameCount - (region.usedBits << region.orderPerBit) - region.lentFrames;
  }
  return free;
}

/** Lends one free frame with bytes, as MOVABLE; its pfn, or 0 when no region has one. */
export function regionLend(): u32 {
  for (let i: u32 = 0; i < header().regionCount; i++) {
    const payload = regionPayload(i);
    const region = Region.at(payload);
    if (region.basePfn >= header().backedFrames || region.isFixed != 0) continue; // L4, C7
    lockRare(payload);
    const pfn = lendFind(region);
    if (pfn != 0) {
      Frame.at(pfn).take(MOVABLE, threadIndex());
      region.lentFrames += 1;
    }
    unlockRare(payload);
    if (pfn != 0) return pfn;
  }
  return 0;
}

/**
 * The highest free frame below lendPfn whose bit nobody is about to hand out; 0 when there is none.
 */
function lendFind(region: Region): u32 {
  while (region.lendPfn > region.basePfn) {
    const pfn = region.lendPfn - 1;
    const bit = (pfn - region.basePfn) >> region.orderPerBit;
    region.lendPfn = pfn; // C6
    if (Frame.at(pfn).state == FREE && bitmapIsFree(region.bitmapAt, bit, 1)) return pfn;
  }
  return 0;
}

/** Takes a lent frame back, free. */
export function regionTakeBack(pfn: u32): void {
  for (let i: u32 = 0; i < header().regionCount; i++) {
    const payload = regionPayload(i);
    const region = Region.at(payload);
    if (pfn - region.basePfn >= region.frameCount) continue;
    regionEmptied(payload, pfn, true);
    return;
  }
}

/**
 * Lent frame `pfn` is a region's again. `isFree`: also to lend; else its bit is taken by whoever is
 * about to have the frame, or calls regionFreed() instead (C6).
 */
export function regionEmptied(payload: usize, pfn: u32, isFree: bool): void {
  const region = Region.at(payload);
  lockRare(payload);
  if (header().freeFlags != 0) poisonFill(pfn, 1);
  wordsFree(pfn, 1);
  region.lentFrames -= 1;
  if (isFree) regionFreed(region, pfn + 1);
  unlockRare(payload);
}

/**
 * Frames below `pfnEnd` became free: lending looks there again (C6), and the largest run is counted
 * again (C8).
 */
@inline export function regionFreed(region: Region, pfnEnd: u32): void {
  region.largestBits = NONE;
  if (region.lendPfn < pfnEnd) region.lendPfn = pfnEnd; // seldom: no store
}
