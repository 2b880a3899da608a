// Single frames: a stack of them for each thread, in front of the buddy.
//
//   buddy ──refill: REFILL_FRAMES──► cached[0 .. cachedCount) ──frameTake──► handed out
//     ◄──────spill: the oldest───────┘                        ◄──frameDrop──┘
//
// A1  No lock to pop or push: the stack belongs to one thread (thread.ts, T1, T2).
// A2  Every frame that is given back is dirty: its owner may have written there.
// A3  On shared memory a single frame is freed by one exchange of its word, without framesLock.
//     Whoever else changes the word of a held frame does so under that lock: if nobody has it after
//     the exchange, nobody acts on what the word was before. Who adds pins looks again afterwards
//     (pin.ts), and a pinned frame's word is not exchanged.

import { NONE } from "./bits";
import { blockTake, runTake, smallOrder } from "./buddy";
import { EAGAIN, EBUSY, EINVAL, ENOENT, ENOMEM } from "./errno";
import { faultHits } from "./fault";
import { frameInsert, rangeInsert } from "./free-list";
import { FRAMES_LOCK_AT, FRAME_BYTES, MAX_ORDER, frameAt, header } from "./layout";
import { lock, lockHard, unlock } from "./lock";
import {
  CACHED,
  DIRTY,
  Frame,
  MIGRATE_UNMOVABLE,
  PINS_MASK,
  STATE_MASK,
  isFrameRange,
  wordOf,
  wordsFree,
  wordsMatch,
  wordsRelease,
  wordsStamp,
  wordsTake,
} from "./page";
import { framesRetire, quarantineDrain } from "./quarantine";
import { MAGAZINE_FRAMES, self, threadIndex } from "./thread";

const REFILL_FRAMES: u32 = MAGAZINE_FRAMES / 2;

function magazineRefill(): i32 {
  if (!lock(FRAMES_LOCK_AT)) return EAGAIN;
  let count = refillTake();
  if (count == 0 && quarantineDrain() != 0) count = refillTake();
  self().cachedCount = count;
  unlock(FRAMES_LOCK_AT);
  return count == 0 ? ENOMEM : <i32>count;
}

/** Fills the empty magazine from the lists; the caller counts the frames. How many. */
function refillTake(): u32 {
  const me = self();
  let count: u32 = 0;
  while (count < REFILL_FRAMES) {
    const order = smallOrder(MIGRATE_UNMOVABLE, REFILL_FRAMES - count);
    const pfn = blockTake(order, NONE, MIGRATE_UNMOVABLE);
    if (pfn == 0) break;
    const size = (<u32>1) << order;
    wordsTake(pfn, size, CACHED, threadIndex());
    // The lowest frame is pushed last and popped first.
    for (let i = size; i > 0; i--) me.setCached(count++, pfn + i - 1);
  }
  return count;
}

/** Gives the oldest frames of the magazine back until `keep` are left. */
function magazineSpill(keep: u32): void {
  const me = self();
  const count = me.cachedCount;
  if (count <= keep) return;
  lockHard(FRAMES_LOCK_AT);
  const spilled = count - keep;
  for (let i: u32 = 0; i < spilled; i++) frameInsert(me.cached(i));
  for (let i: u32 = 0; i < keep; i++) me.setCached(i, me.cached(spilled + i));
  me.cachedCount = keep;
  unlock(FRAMES_LOCK_AT);
}

/** Makes room in a full magazine. */
function spillSlow(): void {
  magazineSpill(REFILL_FRAMES);
}

/** Empties the calling thread's magazine into the lists, and the quarantine. */
export function magazineDrain(): void {
  magazineSpill(0);
  if (header().quarantineCount == 0) return;
  lockHard(FRAMES_LOCK_AT);
  quarantineDrain();
  unlock(FRAMES_LOCK_AT);
}

/** One frame for `state`, from the magazine. The pfn, ENOMEM or EAGAIN. */
export function frameTake(state: u32): i32 {
  return frameTakeFast(state);
}

/** The same, for who is in a hurry. */
@inline export function frameTakeFast(state: u32): i32 {
  if (faultHits()) return ENOMEM;
  return self().cachedCount == 0 ? refillSlow(state) : topTake(state);
}

/** frameTakeFast() from an empty magazine. */
function refillSlow(state: u32): i32 {
  const refilled = magazineRefill();
  return refilled < 0 ? refilled : topTake(state);
}

/** The frame on top of the magazine, which has one. */
@inline function topTake(state: u32): i32 {
  const me = self();
  const count = me.cachedCount - 1;
  const pfn = me.cached(count);
  me.cachedCount = count;
  Frame.at(pfn).take(state, threadIndex());
  return pfn;
}

/** Gives one frame, whatever it was, to the magazine. The caller has checked it. */
export function frameDrop(pfn: u32): void {
  if (header().freeFlags != 0 && frameRetire(pfn)) return;
  Frame.at(pfn).word = cachedWord();
  magazinePush(pfn);
}

/** The word of a frame in the calling thread's magazine. */
@inline function cachedWord(): u32 {
  return wordOf(CACHED, threadIndex()) | DIRTY; // A2
}

/** Puts a frame that carries cachedWord() on the stack. */
@inline function magazinePush(pfn: u32): void {
  const me = self();
  if (me.cachedCount == MAGAZINE_FRAMES) spillSlow();
  me.setCached(me.cachedCount, pfn);
  me.cachedCount += 1;
}

/** runFree() for one frame: past the lists, and nearly always without their lock (A3). */
@inline function frameFree(pfn: u32, state: u32): i32 {
  const at = changetype<usize>(Frame.at(pfn));
  const was = atomic.load<u32>(at);
  if ((was & (STATE_MASK | PINS_MASK)) != state) {
    return (was & STATE_MASK) == state ? EBUSY : ENOENT;
  }
  if (header().isShared == 0) {
    Frame.at(pfn).word = cachedWord();
  } else if (
    atomic.cmpxchg<u32>(at, was, cachedWord()) != was ||
    atomic.load<u32>(FRAMES_LOCK_AT) != 0
  ) {
    const error = frameFreeSlow(pfn, state);
    if (error != 0) return error;
  }
  magazinePush(pfn);
  return 0;
}

/** The exchange of A3 again, with the lock: what was done is done, unless somebody undid it. */
function frameFreeSlow(pfn: u32, state: u32): i32 {
  lockHard(FRAMES_LOCK_AT);
  const frame = Frame.at(pfn);
  const error = frame.word == cachedWord() ? 0 : runError(pfn, 1, state);
  if (error == 0) frame.word = cachedWord();
  unlock(FRAMES_LOCK_AT);
  return error;
}

/** Poisons a freed frame; whether it waits in the quarantine. */
function frameRetire(pfn: u32): bool {
  lockHard(FRAMES_LOCK_AT);
  const isRetired = framesRetire(pfn, 1);
  unlock(FRAMES_LOCK_AT);
  return isRetired;
}

/** A frame of zeros for `state`. The pfn, ENOMEM or EAGAIN. */
export function frameTakeZeroed(state: u32): i32 {
  const pfn = frameTake(state);
  if (pfn >= 0) frameClear(pfn);
  return pfn;
}

/** Clears a frame that is handed out, unless it holds zeros already (P4). */
export function frameClear(pfn: u32): void {
  const frame = Frame.at(pfn);
  if (!frame.isDirty) return;
  memory.fill(frameAt(pfn), 0, FRAME_BYTES);
  frame.word &= ~DIRTY;
}

// ---- runs: single frames come from the magazine, all others from the buddy

/**
 * An exact run of `count` frames for `state`, its first pfn a multiple of 2^alignOrder, all below
 * `pfnEnd`. Not zeroed. The pfn, or EINVAL, ENOMEM, EAGAIN.
 */
export function runAlloc(count: u32, alignOrder: u32, pfnEnd: u32, state: u32): i32 {
  if (count == 1 && alignOrder == 0 && pfnEnd == NONE) return frameTake(state);
  return runAllocOf(MIGRATE_UNMOVABLE, count, alignOrder, pfnEnd, state);
}

/**
 * A run out of the pageblocks of a migrate type. The pfn, or EINVAL, ENOMEM, EAGAIN.
 */
export function runAllocOf(type: u32, count: u32, alignOrder: u32, pfnEnd: u32, state: u32): i32 {
  if (count == 0 || count > (<u32>1) << MAX_ORDER || alignOrder > MAX_ORDER) return EINVAL;
  if (faultHits()) return ENOMEM;
  if (!lock(FRAMES_LOCK_AT)) return EAGAIN;
  const pfn = runTake(count, alignOrder, pfnEnd, type);
  if (pfn != 0) wordsTake(pfn, count, state, threadIndex());
  unlock(FRAMES_LOCK_AT);
  if (pfn != 0) return pfn;
  if ((self().cachedCount | header().quarantineCount) == 0) return ENOMEM;
  magazineDrain(); // its frames may be what the run lacks
  return runAllocOf(type, count, alignOrder, pfnEnd, state);
}

/**
 * Frees [pfn, pfn + count), all of which must be unpinned and handed out as `state`: else EINVAL,
 * EBUSY or ENOENT.
 */
export function runFree(pfn: u32, count: u32, state: u32): i32 {
  return runFreeFast(pfn, count, state);
}

/** The same, for who is in a hurry. */
@inline export function runFreeFast(pfn: u32, count: u32, state: u32): i32 {
  if (!isFrameRange(pfn, count)) return EINVAL;
  if (count == 1 && header().freeFlags == 0) return frameFree(pfn, state);
  return runFreeSlow(pfn, count, state);
}

/** runFree() for more than one frame, and for frames that are poisoned. */
function runFreeSlow(pfn: u32, count: u32, state: u32): i32 {
  lockHard(FRAMES_LOCK_AT); // pins are counted under it: none comes between check and words
  let error: i32 = 0;
  if (header().freeFlags == 0 && wordsRelease(pfn, count, state)) {
    rangeInsert(pfn, pfn + count);
  } else {
    error = runError(pfn, count, state);
    if (error == 0) framesGive(pfn, count);
  }
  unlock(FRAMES_LOCK_AT);
  return error;
}

/**
 * Frees a run that only the core ever knew, so that nobody has pinned it: a single frame needs no
 * lock.
 */
export function runDrop(pfn: u32, count: u32, state: u32): void {
  if (count == 1) frameDrop(pfn);
  else runFree(pfn, count, state);
}

/** Gives frames of the buddy's back, whatever they were. The caller holds framesLock. */
export function framesGive(pfn: u32, count: u32): void {
  if (header().freeFlags != 0 && framesRetire(pfn, count)) return;
  wordsFree(pfn, count);
  rangeInsert(pfn, pfn + count);
}

/**
 * Makes frames that a record names the calling thread's own, before the record goes (page.ts, P5).
 */
export function framesAdopt(pfn: u32, count: u32): void {
  if (header().isShared == 0 || Frame.at(pfn).thread == threadIndex()) return;
  lockHard(FRAMES_LOCK_AT);
  wordsStamp(pfn, count, threadIndex());
  unlock(FRAMES_LOCK_AT);
}

/**
 * Why the frames [pfn, pfn + count) cannot be freed: ENOENT (not handed out as `state`), EBUSY
 * (pinned); 0.
 */
function runError(pfn: u32, count: u32, state: u32): i32 {
  if (wordsMatch(pfn, count, STATE_MASK | PINS_MASK, state)) return 0;
  return wordsMatch(pfn, count, STATE_MASK, state) ? EBUSY : ENOENT;
}
