// What happens to freed frames in a system that was opened to find mistakes: they are poisoned, and
// wait before somebody gets them again.
//
//   poison   handed out ──free──► 0xaa … 0xaa ─────────────────────────────────────────────► FREE
//   strict   handed out ──free──► 0xaa … 0xaa ──► QUARANTINE: first ─Page.next─► … last ───► FREE
//                                                                     └─ verified when they leave
//
// Q1  The frames of state QUARANTINE are linked from quarantineFirst to quarantineLast, the oldest
//     first; quarantineCount is their number.
// Q2  With POISON, every byte of a frame that nobody holds is poison if the frame is dirty, and
//     zero if it is not: whoever breaks it wrote into memory that was not his.
// Q3  The queue never makes a request fail: it is emptied before the answer is ENOMEM.
//
// Frames of a CMA region do not wait, so that placement stays as it is; with STRICT they are
// verified when they are handed out again.

import { NONE } from "./bits";
import { frameInsert } from "./free-list";
import {
  FRAMES_LOCK_AT,
  FRAME_BYTES,
  FRAME_SHIFT,
  MISUSES_AT,
  MISUSES_KEPT,
  POISON,
  STRICT,
  frameAt,
  header,
} from "./layout";
import { lockRare, unlockRare } from "./lock";
import { CACHED, DIRTY, FREE, Frame, Page, PfnCell, QUARANTINE, wordsChange } from "./page";

const POISON_BYTE: u8 = 0xaa;
const QUARANTINE_MIN: u32 = 64;

// ---- poison

/** Fills frames that are being freed. */
export function poisonFill(pfn: u32, count: u32): void {
  if (pfn >= header().backedFrames) return; // L4
  memory.fill(frameAt(pfn), POISON_BYTE, (<usize>count) << FRAME_SHIFT);
}

/** Whether a frame that nobody holds has the bytes it must have (Q2). */
function isIntact(pfn: u32): bool {
  const expected = i8x16.splat(Frame.at(pfn).isDirty ? POISON_BYTE : 0);
  let differs = i64x2.splat(0);
  for (let at = frameAt(pfn); at < frameAt(pfn) + FRAME_BYTES; at += 16)
    differs = v128.or(differs, v128.xor(v128.load(at), expected));
  return !v128.any_true(differs);
}

/** Notes a frame that somebody wrote to, and makes it whole again. The caller holds framesLock. */
function misuseNote(pfn: u32): void {
  const h = header();
  PfnCell.at(MISUSES_AT, h.misuseCount % MISUSES_KEPT).pfn = pfn;
  h.misuseCount += 1;
  memory.fill(frameAt(pfn), Frame.at(pfn).isDirty ? POISON_BYTE : 0, FRAME_BYTES);
}

/** Verifies frames of a region that are about to be handed out. */
export function poisonVerify(pfn: u32, count: u32): void {
  if (pfn >= header().backedFrames) return; // L4
  lockRare(FRAMES_LOCK_AT);
  for (let i: u32 = 0; i < count; i++) if (!isIntact(pfn + i)) misuseNote(pfn + i);
  unlockRare(FRAMES_LOCK_AT);
}

/**
 * The first frame from `pfn` on that nobody holds and somebody wrote to (Q2), noted and made whole;
 * NONE when there is none, and without POISON.
 */
export function poisonNext(pfn: u32): u32 {
  const h = header();
  if ((h.freeFlags & POISON) == 0) return NONE;
  lockRare(FRAMES_LOCK_AT);
  pfn = max(pfn, h.firstFrame);
  while (pfn < h.backedFrames && !(isNobodys(pfn) && !isIntact(pfn))) pfn += 1;
  const isFound = pfn < h.backedFrames;
  if (isFound) misuseNote(pfn);
  unlockRare(FRAMES_LOCK_AT);
  return isFound ? pfn : NONE;
}

function isNobodys(pfn: u32): bool {
  const state = Frame.at(pfn).state;
  return state == FREE || state == CACHED || state == QUARANTINE;
}

/** Frames that were found written to while nobody held them, since the system was opened. */
export function misuseCount(): u32 {
  return header().misuseCount;
}

/** The frame of misuse `i`, one of the last MISUSES_KEPT. */
export function misusePfn(i: u32): u32 {
  return PfnCell.at(MISUSES_AT, i % MISUSES_KEPT).pfn;
}

// ---- the queue: the caller holds framesLock

/**
 * Poisons frames that are being freed. Whether they wait in the queue: else the caller puts them
 * where free frames go.
 */
export function framesRetire(pfn: u32, count: u32): bool {
  poisonFill(pfn, count);
  if ((header().freeFlags & STRICT) == 0) return false;
  wordsChange(pfn, count, 0, QUARANTINE | DIRTY);
  for (let i: u32 = 0; i < count; i++) quarantinePush(pfn + i);
  const limit = max(QUARANTINE_MIN, header().backedFrames >> 6);
  while (header().quarantineCount > limit) quarantinePop();
  return true;
}

function quarantinePush(pfn: u32): void {
  const h = header();
  Page.at(pfn).next = 0;
  if (h.quarantineCount == 0) h.quarantineFirst = pfn;
  else Page.at(h.quarantineLast).next = pfn;
  h.quarantineLast = pfn;
  h.quarantineCount += 1;
}

/** Verifies the oldest frame and gives it to the lists. */
function quarantinePop(): void {
  const h = header();
  const pfn = h.quarantineFirst;
  h.quarantineFirst = Page.at(pfn).next;
  h.quarantineCount -= 1;
  if (!isIntact(pfn)) misuseNote(pfn);
  frameInsert(pfn);
}

/** Empties the queue into the lists. How many frames there were. */
export function quarantineDrain(): u32 {
  const count = header().quarantineCount;
  while (header().quarantineCount != 0) quarantinePop();
  return count;
}
