// A contiguous run outside the CMA regions, made by moving what is in the way.
//
//   pageblocks touched:  any but CMA ──isolate──► ISOLATE ──move frames out, take the run──► movable
//
// X1  Nobody allocates from an isolated pageblock: its free blocks are in lists that no request
//     looks at.
// X2  Whatever happens, every pageblock that was isolated is movable in the end, as in Linux, and
//     frames that moved keep their bytes.
// X3  A frame that cannot move (handed out to anybody but a movable, or pinned) refuses the range
//     before anything moves. What else a pageblock holds does not matter.
//
// Compare alloc_contig_range() in the kernel's mm/page_alloc.c and mm/page_isolation.c.

import { EBUSY, EINVAL } from "./errno";
import { rangeTake } from "./free-list";
import { FRAMES_LOCK_AT, MOVABLE_LOCK_AT, PAGEBLOCK_ORDER, header } from "./layout";
import { lockRare, unlockRare } from "./lock";
import { magazineDrain } from "./magazine";
import { frameEvacuate } from "./migrate";
import { movableFrameDrop } from "./movable";
import {
  FREE,
  Frame,
  MIGRATE_CMA,
  MIGRATE_ISOLATE,
  MIGRATE_MOVABLE,
  MOVABLE,
  OWNED,
  isFrameRange,
  pageblockType,
  wordsTake,
} from "./page";
import { quarantineDrain } from "./quarantine";
import { pageblockRetype } from "./steal";
import { threadIndex } from "./thread";

const PAGEBLOCK_FRAMES: u32 = (<u32>1) << PAGEBLOCK_ORDER;

/**
 * Takes exactly the frames [pfn, pfn + count), moving movable ones away, for frameAlloc's kind of
 * owner. Not zeroed. 0, or EINVAL (not frames with bytes), EBUSY (X3, or a pageblock is isolated or
 * belongs to a CMA region), ENOMEM (nowhere to move to).
 */
export function contigAlloc(pfn: u32, count: u32): i32 {
  if (!isFrameRange(pfn, count) || pfn + count > header().backedFrames) return EINVAL;
  magazineDrain();
  lockRare(MOVABLE_LOCK_AT);
  let error = rangeError(pfn, count);
  if (error == 0) {
    isolate(pfn, count, MIGRATE_ISOLATE);
    error = evacuate(pfn, count);
    if (error == 0) error = take(pfn, count);
    isolate(pfn, count, MIGRATE_MOVABLE); // X2
  }
  unlockRare(MOVABLE_LOCK_AT);
  return error;
}

/** EBUSY when a frame of the range cannot move, or is a CMA region's (X3). */
function rangeError(pfn: u32, count: u32): i32 {
  for (let at = pfn; at < pfn + count; at++) {
    const frame = Frame.at(at);
    const canMove = frame.state == FREE || (frame.state == MOVABLE && frame.pins == 0);
    if (!canMove || pageblockType(at) >= MIGRATE_CMA) return EBUSY; // or isolated
  }
  return 0;
}

/** Gives every pageblock that the range touches another type. */
function isolate(pfn: u32, count: u32, type: u32): void {
  lockRare(FRAMES_LOCK_AT);
  for (let first = pfn & ~(PAGEBLOCK_FRAMES - 1); first < pfn + count; first += PAGEBLOCK_FRAMES) {
    pageblockRetype(first, type);
  }
  unlockRare(FRAMES_LOCK_AT);
}

/** Moves the movable frames of the range out of it. 0, EBUSY or ENOMEM. */
function evacuate(pfn: u32, count: u32): i32 {
  for (let at = pfn; at < pfn + count; at++) {
    if (Frame.at(at).state != MOVABLE) continue;
    const error = frameEvacuate(at, true);
    if (error != 0) return error;
    movableFrameDrop(at);
  }
  return 0;
}

/** Takes the range, now free, out of the lists. 0, or EBUSY. */
function take(pfn: u32, count: u32): i32 {
  lockRare(FRAMES_LOCK_AT);
  quarantineDrain(); // where frames that moved away may wait
  const isTaken = rangeTake(pfn, count);
  if (isTaken) wordsTake(pfn, count, OWNED, threadIndex());
  unlockRare(FRAMES_LOCK_AT);
  return isTaken ? 0 : EBUSY;
}
