// Pins: a pinned frame is neither freed nor moved.
//
// N1  A range is pinned and unpinned as a whole; a frame counts the pins of all ranges that cover
//     it.
// N2  Only frames that are handed out are pinned (page.ts, P3), and a count never wraps.
// N12 pinCount is the number of all pins on frames that are not MOVABLE: while it is 0, nobody
//     needs to look at a frame's word to know that it is not pinned. sweep.ts counts again when a
//     thread has died.
//
// The count is the upper part of the frame's word, so that freeing checks state and pins in one
// comparison, and four frames are counted by one addition. Counts change under framesLock.
//
// Compare pin_user_pages() and unpin_user_pages() in the kernel's mm/gup.c.

import { EAGAIN, EINVAL, ENOENT, EOVERFLOW } from "./errno";
import { FRAMES_LOCK_AT, header } from "./layout";
import { lock, lockHard, unlock } from "./lock";
import {
  CACHED,
  FREE,
  Frame,
  MOVABLE,
  PIN,
  PINS_MAX,
  PIN_SHIFT,
  QUARANTINE,
  RESERVED,
  STATE_MASK,
  isFrameRange,
  wordsAdd,
} from "./page";

/**
 * Pins the frames [pfn, pfn + count). 0, or EINVAL, ENOENT (a free frame), EOVERFLOW, EAGAIN: then
 * none is pinned.
 */
export function pinRange(pfn: u32, count: u32): i32 {
  if (!isFrameRange(pfn, count)) return EINVAL;
  if (!lock(FRAMES_LOCK_AT)) return EAGAIN;
  let error = pinError(pfn, count, PINS_MAX, EOVERFLOW);
  if (error == 0) {
    pinsPut(pfn, count);
    error = lostError(pfn, count);
    if (error != 0) pinsTake(pfn, count);
  }
  unlock(FRAMES_LOCK_AT);
  return error;
}

/**
 * Takes one pin off [pfn, pfn + count). 0, or EINVAL (also: a frame without a pin), ENOENT, EAGAIN:
 * then nothing changed.
 */
export function unpinRange(pfn: u32, count: u32): i32 {
  if (!isFrameRange(pfn, count)) return EINVAL;
  lockHard(FRAMES_LOCK_AT);
  const error = pinError(pfn, count, 0, EINVAL);
  if (error == 0) pinsTake(pfn, count);
  unlock(FRAMES_LOCK_AT);
  return error;
}

/** What pinCount must be (N12). Cost: O(frames). */
export function pinSum(): u64 {
  const frameCount = header().frameCount;
  let sum: u64 = 0;
  for (let pfn: u32 = 0; pfn < frameCount; pfn++) {
    const frame = Frame.at(pfn);
    if (frame.state != MOVABLE) sum += frame.pins;
  }
  return sum;
}

/** Counts one more pin on each frame of a range, of which none is MOVABLE (N12). */
export function pinsPut(pfn: u32, count: u32): void {
  header().pinCount += count;
  wordsAdd(pfn, count, PIN);
}

/** Takes one pin off each frame of a range (N12). */
export function pinsTake(pfn: u32, count: u32): void {
  wordsAdd(pfn, count, 0 - PIN);
  header().pinCount -= count;
}

/**
 * ENOENT when one of the frames that were just pinned was freed before its pin was there, which
 * needs no lock (magazine.ts, A3); with the pins there none can be.
 */
export function lostError(pfn: u32, count: u32): i32 {
  return header().isShared == 0 ? 0 : pinError(pfn, count, 0, EINVAL);
}

/** ENOENT when a frame is not handed out, `error` when one has exactly `forbidden` pins, else 0. */
export function pinError(pfn: u32, count: u32, forbidden: u32, error: i32): i32 {
  for (let i: u32 = 0; i < count; i++) {
    const word = atomic.load<u32>(changetype<usize>(Frame.at(pfn + i))); // magazine.ts, A3
    const state = word & STATE_MASK;
    if (state == FREE || state == CACHED || state == RESERVED || state == QUARANTINE) return ENOENT;
    if (state == MOVABLE) return EINVAL; // pinned through its handle (movable.ts, Y3)
    if (word >> PIN_SHIFT == forbidden) return error;
  }
  return 0;
}
