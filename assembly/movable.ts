// Movable memory: a handle whose bytes may lie anywhere, and may be moved while nobody has pinned
// them.
//
//   movable (object payload)  ├ listAt ┼ frameCount ┼ pinCount ┼ isDying ┤      list: u32 pfn for each frame
//                                 │ pfn                 ▲ Page.owner, Page.index
//                                 └───► frame: MOVABLE ─┘
//
//   movableAlloc ─► unpinned ──movablePin──► pinned ──movableUnpin──► unpinned ──movableFree──► gone
//                                              └──movableFree──► dying ──last movableUnpin──► gone
//
// Y1  list[index] of the movable that Page.owner names is the frame: each points at the other.
// Y2  A frame moves only while its pins are 0, under movableLock; who holds a pin may keep its
//     address.
// Y3  pinCount is the number of pins of the whole movable; freeing it meanwhile waits for the last
//     (isDying).
// Y4  A frame is cleared before its first owner can see it.
//
// Frames come from CMA regions when those hold more than half of all free frames, else from movable
// pageblocks, then from CMA regions, then from other types (steal.ts); the last reserveFrames are
// left to others.
//
// Compare __rmqueue() in the kernel's mm/page_alloc.c and the pinning rules of mm/gup.c.

import { NONE } from "./bits";
import { EAGAIN, EINVAL, ENOMEM, ESTALE } from "./errno";
import { listTake, rangeInsert } from "./free-list";
import {
  FRAMES_LOCK_AT,
  FRAME_MASK,
  FRAME_SHIFT,
  MOVABLE_LOCK_AT,
  frameAt,
  header,
} from "./layout";
import { lock, lockNoted, lockRare, noMemory, unlockRare } from "./lock";
import { frameClear, magazineDrain, runAlloc, runDrop } from "./magazine";
import { KIND_MOVABLE, objectAlloc, objectFind, objectFree, recordOf } from "./object";
import {
  Frame,
  MIGRATE_CMA,
  MIGRATE_MOVABLE,
  MOVABLE,
  OBJECT,
  PIN,
  Page,
  PfnCell,
  pageblockType,
  wordsFree,
} from "./page";
import { framesRetire } from "./quarantine";
import { regionLend, regionTakeBack, regionsFreeFrames } from "./region";
import { stealTake } from "./steal";
import { self, threadIndex } from "./thread";

@unmanaged
export class Movable {
  listAt: usize;
  frameCount: u32;
  pinCount: u32; // Y3
  isDying: u32; // 1: freed while pinned

  static at(payload: usize): Movable {
    return changetype<Movable>(payload);
  }

  /** Frame `i` of frameCount. */
  frame(i: u32): PfnCell {
    return PfnCell.at(this.listAt, i);
  }

  get listFrames(): u32 {
    return (this.frameCount * 4 + FRAME_MASK) >> FRAME_SHIFT;
  }
}

/** The movable of `handle` unless it is gone or dying; 0. */
function movableFind(handle: u32): usize {
  const payload = objectFind(handle, KIND_MOVABLE);
  return payload != 0 && Movable.at(payload).isDying == 0 ? payload : 0;
}

// ---- frames

/**
 * A frame for movable memory: its pfn, marked MOVABLE, or 0: noMemory() says why. `mayLend`: also
 * out of a CMA region.
 */
export function movableFrameTake(mayLend: bool): u32 {
  if (mayLend && regionsFreeFrames() > header().freeFrames) {
    const lent = regionLend();
    if (lent != 0) return lent;
  }
  if (!lockNoted(FRAMES_LOCK_AT)) return 0;
  const h = header();
  const isAllowed = h.freeFrames > h.reserveFrames;
  let pfn = isAllowed ? listTake(MIGRATE_MOVABLE, 0, 1, NONE) : 0;
  if (pfn == 0 && isAllowed && !(mayLend && regionsFreeFrames() > 0))
    pfn = stealTake(0, 1, NONE, MIGRATE_MOVABLE);
  if (pfn != 0) Frame.at(pfn).take(MOVABLE, threadIndex());
  unlockRare(FRAMES_LOCK_AT);
  if (pfn == 0 && mayLend) pfn = regionLend();
  if (pfn != 0 || (self().cachedCount | h.quarantineCount) == 0) return pfn;
  magazineDrain(); // its frames may be what is lacking
  return movableFrameTake(mayLend);
}

/** Gives a movable frame back to where it came from. */
export function movableFrameDrop(pfn: u32): void {
  if (pageblockType(pfn) == MIGRATE_CMA) {
    regionTakeBack(pfn);
    return;
  }
  lockRare(FRAMES_LOCK_AT);
  if (header().freeFlags == 0 || !framesRetire(pfn, 1)) {
    wordsFree(pfn, 1);
    rangeInsert(pfn, pfn + 1);
  }
  unlockRare(FRAMES_LOCK_AT);
}

// ---- the handle

/**
 * Movable memory of `frameCount` frames, all zero. Its handle, or EINVAL, ENOMEM, EAGAIN: then
 * nothing is held.
 */
export function movableAlloc(frameCount: u32): i32 {
  if (frameCount == 0 || frameCount >= header().frameCount)
    return frameCount == 0 ? EINVAL : ENOMEM;
  const handle = objectAlloc(KIND_MOVABLE);
  if (handle < 0) return handle;
  const payload = objectFind(handle, KIND_MOVABLE);
  const movable = Movable.at(payload);
  movable.frameCount = frameCount;
  const listPfn = runAlloc(movable.listFrames, 0, NONE, OBJECT);
  if (listPfn < 0) {
    objectFree(recordOf(payload));
    return listPfn;
  }
  movable.listAt = frameAt(listPfn);
  if (!lock(MOVABLE_LOCK_AT)) {
    const listFrames = movable.listFrames;
    objectFree(recordOf(payload));
    runDrop(listPfn, listFrames, OBJECT);
    return EAGAIN;
  }
  const taken = framesTake(movable, handle);
  unlockRare(MOVABLE_LOCK_AT);
  return taken ? handle : noMemory();
}

function framesTake(movable: Movable, handle: u32): bool {
  for (let i: u32 = 0; i < movable.frameCount; i++) {
    const pfn = movableFrameTake(true);
    if (pfn == 0) {
      const listFrames = movable.listFrames;
      movable.frameCount = i; // what was taken goes back
      movableRelease(objectFind(handle, KIND_MOVABLE), listFrames);
      return false;
    }
    frameClear(pfn); // Y4
    movable.frame(i).pfn = pfn;
    Page.at(pfn).own(handle, i);
  }
  return true;
}

/**
 * Frees the memory, now or, while it is pinned, with the last unpin. 0 freed, 1 deferred, or
 * ESTALE.
 */
export function movableFree(handle: u32): i32 {
  lockRare(MOVABLE_LOCK_AT); // before the look: another thread may be freeing it
  const payload = movableFind(handle);
  let result = ESTALE;
  if (payload != 0) {
    const movable = Movable.at(payload);
    const isDeferred = movable.pinCount > 0;
    if (isDeferred) movable.isDying = 1;
    else movableRelease(payload, movable.listFrames);
    result = <i32>isDeferred;
  }
  unlockRare(MOVABLE_LOCK_AT);
  return result;
}

function movableRelease(payload: usize, listFrames: u32): void {
  const movable = Movable.at(payload);
  for (let i: u32 = 0; i < movable.frameCount; i++) movableFrameDrop(movable.frame(i).pfn);
  runDrop(<u32>(movable.listAt >> FRAME_SHIFT), listFrames, OBJECT);
  objectFree(recordOf(payload));
}

/** The address of the movable's payload, for reading its list while it is pinned; ESTALE. */
export function movableAt(handle: u32): i32 {
  const payload = objectFind(handle, KIND_MOVABLE);
  return payload == 0 ? ESTALE : <i32>payload;
}

// ---- pins, for pin-movable: the caller holds movableLock

/** Adds `delta` pins to each frame. */
export function movablePinsAdd(movable: Movable, delta: u32): void {
  for (let i: u32 = 0; i < movable.frameCount; i++) Frame.at(movable.frame(i).pfn).word += delta;
}

/**
 * Takes one pin off the whole; the last one frees a dying movable. 0, or ESTALE, EINVAL (it has
 * none).
 */
export function movableUnpin(handle: u32): i32 {
  lockRare(MOVABLE_LOCK_AT);
  const payload = objectFind(handle, KIND_MOVABLE);
  const result = payload == 0 ? ESTALE : pinTakeOff(payload);
  unlockRare(MOVABLE_LOCK_AT);
  return result;
}

function pinTakeOff(payload: usize): i32 {
  const movable = Movable.at(payload);
  if (movable.pinCount == 0) return EINVAL;
  movable.pinCount -= 1;
  movablePinsAdd(movable, 0 - PIN);
  if (movable.pinCount == 0 && movable.isDying != 0) movableRelease(payload, movable.listFrames);
  return 0;
}
