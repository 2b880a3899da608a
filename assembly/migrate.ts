// Moving frames: copy the bytes, point the owner at the copy, free the original.
//
//   before   list[i] ─► frame a (MOVABLE, no pins)      frame b (free)
//   after    list[i] ─► frame b (MOVABLE)               frame a (free, or its region's)
//
// Z1  The owner's list names a frame with the right bytes at every moment: the copy is made before
//     the list is changed.
// Z2  A pinned frame does not move; what is in the way stays in the way, and the answer is EBUSY.
//
// The caller holds movableLock.
//
// Compare migrate_pages() and compact_zone() in the kernel's mm/migrate.c and mm/compaction.c.

import { EBUSY, EOVERFLOW, ESTALE } from "./errno";
import { rangeTake } from "./free-list";
import { FRAMES_LOCK_AT, FRAME_BYTES, MOVABLE_LOCK_AT, frameAt, header } from "./layout";
import { lockRare, noMemory, unlockRare } from "./lock";
import { magazineDrain } from "./magazine";
import { Movable, movableFrameDrop, movableFrameTake, movablePinsAdd } from "./movable";
import { KIND_MOVABLE, objectFind } from "./object";
import {
  DIRTY,
  Frame,
  MIGRATE_CMA,
  MOVABLE,
  PIN,
  PINS_MAX,
  Page,
  isListable,
  pageblockType,
} from "./page";
import { regionLend, regionTakeBack } from "./region";
import { threadIndex } from "./thread";

/** Moves the bytes of movable frame `from` to `to`, which is MOVABLE and nobody's yet. */
function frameMove(from: u32, to: u32): void {
  const page = Page.at(from);
  memory.copy(frameAt(to), frameAt(from), FRAME_BYTES);
  Frame.at(to).word = (Frame.at(to).word & ~DIRTY) | (Frame.at(from).word & DIRTY);
  Page.at(to).own(page.owner, page.index);
  Movable.at(objectFind(page.owner, KIND_MOVABLE)).frame(page.index).pfn = to; // Z1
  header().movedFrames += 1;
}

/**
 * Empties movable frame `pfn` into one outside the CMA regions, or, when none is left and it
 * `mayLend`, into one that a region lends; the frame stays marked MOVABLE. 0, EBUSY (Z2) or ENOMEM.
 */
export function frameEvacuate(pfn: u32, mayLend: bool): i32 {
  if (Frame.at(pfn).pins != 0) return EBUSY;
  let to = movableFrameTake(false);
  if (to == 0 && mayLend) to = regionLend();
  if (to == 0) return noMemory();
  frameMove(pfn, to);
  return 0;
}

/**
 * Pins movable memory; `isLongterm` first moves it out of the CMA regions. 0, or ESTALE, ENOMEM,
 * EOVERFLOW.
 */
export function movablePin(handle: u32, isLongterm: u32): i32 {
  lockRare(MOVABLE_LOCK_AT); // before the look: another thread may be freeing it
  const payload = objectFind(handle, KIND_MOVABLE);
  const isGone = payload == 0 || Movable.at(payload).isDying != 0;
  const error = isGone ? ESTALE : pinPutOn(Movable.at(payload), isLongterm != 0);
  unlockRare(MOVABLE_LOCK_AT);
  return error;
}

function pinPutOn(movable: Movable, isLongterm: bool): i32 {
  if (movable.pinCount == PINS_MAX) return EOVERFLOW;
  const error = isLongterm ? leaveRegions(movable) : 0;
  if (error != 0) return error;
  movable.pinCount += 1;
  movablePinsAdd(movable, PIN);
  return 0;
}

/**
 * Moves every lent frame of a movable out of its region. 0, EBUSY (pinned there already) or ENOMEM.
 */
function leaveRegions(movable: Movable): i32 {
  for (let i: u32 = 0; i < movable.frameCount; i++) {
    const pfn = movable.frame(i).pfn;
    if (pageblockType(pfn) != MIGRATE_CMA) continue;
    const error = frameEvacuate(pfn, false);
    if (error != 0) return error;
    regionTakeBack(pfn);
  }
  return 0;
}

/**
 * Moves movable frames outside the CMA regions to the top of memory, so that what is below grows
 * together. Frames moved.
 */
export function compact(): u32 {
  magazineDrain();
  lockRare(MOVABLE_LOCK_AT);
  let moved: u32 = 0;
  let low = header().firstFrame;
  let high = header().backedFrames;
  while (true) {
    while (low < high && !isMovableFrame(low)) low += 1;
    do {
      high -= 1;
    } while (high > low && !isListable(high));
    if (high <= low) break;
    lockRare(FRAMES_LOCK_AT);
    const isTaken = rangeTake(high, 1);
    if (isTaken) Frame.at(high).take(MOVABLE, threadIndex());
    unlockRare(FRAMES_LOCK_AT);
    if (!isTaken) continue;
    frameMove(low, high);
    movableFrameDrop(low);
    moved += 1;
  }
  unlockRare(MOVABLE_LOCK_AT);
  magazineDrain(); // what was left behind may wait in the quarantine
  return moved;
}

function isMovableFrame(pfn: u32): bool {
  const frame = Frame.at(pfn);
  return frame.state == MOVABLE && frame.pins == 0 && pageblockType(pfn) != MIGRATE_CMA;
}
