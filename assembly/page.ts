// One descriptor per frame: the word that is the truth about it, and two links.
//
//   word   31              14 13         8 7   5      4       3        0
//          ├── pins: 18 ──────┼ thread: 6 ──┼ ─ ─ ─ ┼ dirty ┼ state: 4 ┤
//
//   FREE ─► CACHED ─► OWNED ─► CACHED ─► FREE     single frames, through a thread's magazine
//   FREE ─► OWNED | CMA | TABLE | SLAB | OBJECT ─► FREE
//   handed out ─► QUARANTINE ─► FREE               with STRICT (quarantine.ts)
//
// P1  The word is the truth: lists, bitmaps and counters are derived from all words (rebuild.ts
//     does it).
// P2  A frame is handed out exactly when its state is neither FREE, CACHED, RESERVED nor
//     QUARANTINE.
// P3  pins > 0 only while the frame is handed out; a pinned frame is neither freed nor moved.
// P4  A frame that nobody holds without `dirty` holds zeros. On a frame that is handed out, `dirty`
//     means that it still holds what the owner before left; clearing the frame resets it.
// P5  `thread` is who took the frame, for the day on which that thread dies. Who frees the frames
//     of a record makes them its own first, then frees the record, then the frames: at every moment
//     a frame belongs to a live record or is its thread's alone (reap.ts).
//
// P6  A FREE frame carries nothing but `dirty`: so taking it only sets bits.
//
// Ranges of words are changed 16 bytes at a time: taking 64 frames costs 16 stores.

import { PAGEBLOCK_ORDER, PAGE_BYTES, WORD_BYTES, header } from "./layout";

const VECTOR_FRAMES: u32 = 4; // their words fill a vector

export const STATE_MASK: u32 = 15;
export const DIRTY: u32 = 1 << 4;
const THREAD_SHIFT: u32 = 8;
const THREAD_MASK: u32 = 63;
export const PIN_SHIFT: u32 = 14;
export const PIN: u32 = 1 << PIN_SHIFT;
export const PINS_MASK: u32 = ~(PIN - 1);
export const PINS_MAX: u32 = PINS_MASK / PIN;

export const FREE: u32 = 0; // in the buddy, or free in its CMA region
export const CACHED: u32 = 1; // in a thread's magazine
export const RESERVED: u32 = 2; // nobody can get it
export const OWNED: u32 = 3; // handed out by frameAlloc
export const MOVABLE: u32 = 4; // handed out, and may be moved while it is not pinned
export const CMA: u32 = 5; // handed out by a CMA region
export const TABLE: u32 = 6; // an IO page table
export const SLAB: u32 = 7; // cut into records
export const OBJECT: u32 = 8; // belongs to an object: a list of entries, a bitmap, a domain
export const QUARANTINE: u32 = 9; // freed, and kept from new owners for a while
export const STATES: u32 = 10;

export const MIGRATE_UNMOVABLE: u32 = 0;
export const MIGRATE_MOVABLE: u32 = 1;
export const MIGRATE_RECLAIMABLE: u32 = 2;
export const MIGRATE_CMA: u32 = 3;
export const MIGRATE_ISOLATE: u32 = 4;

/** The word of a clean frame that `thread` took for `state`. */
@inline export function wordOf(state: u32, thread: u32): u32 {
  return state | (thread << THREAD_SHIFT);
}

@unmanaged
export class Frame {
  word: u32;

  static at(pfn: u32): Frame {
    return changetype<Frame>(header().wordsAt + <usize>pfn * WORD_BYTES);
  }

  get state(): u32 {
    return this.word & STATE_MASK;
  }

  /** Handed out as `state`, and not pinned. */
  isHeldAs(state: u32): bool {
    return (this.word & (STATE_MASK | PINS_MASK)) == state;
  }

  get isDirty(): bool {
    return (this.word & DIRTY) != 0;
  }

  get pins(): u32 {
    return this.word >> PIN_SHIFT;
  }

  get thread(): u32 {
    return (this.word >> THREAD_SHIFT) & THREAD_MASK;
  }

  set pins(count: u32) {
    this.word = (this.word & ~PINS_MASK) | (count << PIN_SHIFT);
  }

  /** Makes `thread` the one that took the frame. */
  stamp(thread: u32): void {
    this.word = (this.word & ~(THREAD_MASK << THREAD_SHIFT)) | (thread << THREAD_SHIFT);
  }

  /** Whatever it was; keeps the dirty bit. */
  markFree(): void {
    this.word = (this.word & DIRTY) | FREE;
  }

  /** Hands the frame to `state`; keeps the dirty bit. */
  take(state: u32, thread: u32): void {
    this.word = (this.word & DIRTY) | wordOf(state, thread);
  }
}

/** Links of a frame: what they mean depends on who has the frame. */
@unmanaged
export class Page {
  next: u32; // in a list of slabs, or the quarantine; 0 = end
  prev: u32; // 0 = first

  /** The movable that a MOVABLE frame belongs to (movable.ts), as a handle. */
  get owner(): u32 {
    return this.next;
  }

  /** The place of a MOVABLE frame in its owner's list. */
  get index(): u32 {
    return this.prev;
  }

  own(owner: u32, index: u32): void {
    this.next = owner;
    this.prev = index;
  }

  static at(pfn: u32): Page {
    return changetype<Page>(header().pagesAt + <usize>pfn * PAGE_BYTES);
  }
}

if (offsetof<Frame>() != WORD_BYTES) ERROR("Frame is not WORD_BYTES long");
if (offsetof<Page>() != PAGE_BYTES) ERROR("Page is not PAGE_BYTES long");

/** One frame number of a list that a caller keeps in linear memory. */
@unmanaged
export class PfnCell {
  pfn: u32;

  static at(listAt: usize, i: u32): PfnCell {
    return changetype<PfnCell>(listAt + ((<usize>i) << 2));
  }
}

@unmanaged
class Pageblock {
  type: u8;

  static at(pfn: u32): Pageblock {
    return changetype<Pageblock>(header().pageblocksAt + (<usize>pfn >> PAGEBLOCK_ORDER));
  }
}

export function pageblockType(pfn: u32): u32 {
  return Pageblock.at(pfn).type;
}

export function setPageblockType(pfn: u32, type: u32): void {
  Pageblock.at(pfn).type = <u8>type;
}

/** Whether a frame belongs in the lists: it is free, and not a CMA region's. */
export function isListable(pfn: u32): bool {
  return Frame.at(pfn).state == FREE && pageblockType(pfn) != MIGRATE_CMA;
}

/** Gives the pageblocks that [pfn, pfn + count) touches a migrate type. */
export function pageblocksMark(basePfn: u32, frameCount: u32, type: u32): void {
  for (let pfn = basePfn; pfn < basePfn + frameCount; pfn += (<u32>1) << PAGEBLOCK_ORDER)
    setPageblockType(pfn, type);
}

// Ranges, none of which is empty: four vectors at a time, then four that end with the range; they
// may overlap what was done, since each operation gives the same when it is done twice. So few
// branches depend on the length, which changes from call to call.

/** word = (word & keep) | set, for the frames [pfn, pfn + count). */
export function wordsChange(pfn: u32, count: u32, keep: u32, set: u32): void {
  let at = changetype<usize>(Frame.at(pfn));
  const end = at + ((<usize>count) << 2);
  if (count < VECTOR_FRAMES) {
    for (; at < end; at += 4) store<u32>(at, (load<u32>(at) & keep) | set);
    return;
  }
  const keeps = i32x4.splat(keep);
  const sets = i32x4.splat(set);
  const lastAt = end - 16;
  for (; at < lastAt; at += 16) v128.store(at, v128.or(v128.and(v128.load(at), keeps), sets));
  v128.store(lastAt, v128.or(v128.and(v128.load(lastAt), keeps), sets));
}

/** Hands [pfn, pfn + count), which are FREE, to `state`; keeps the dirty bits. */
@inline export function wordsTake(pfn: u32, count: u32, state: u32, thread: u32): void {
  if (count == 1) {
    Frame.at(pfn).take(state, thread);
    return;
  }
  runTake(pfn, count, wordOf(state, thread));
}

function runTake(pfn: u32, count: u32, bits: u32): void {
  let at = changetype<usize>(Frame.at(pfn));
  const end = at + ((<usize>count) << 2);
  if (count < VECTOR_FRAMES) {
    pairOr(at, bits);
    pairOr(end - 8, bits);
    return;
  }
  const vector = i32x4.splat(bits);
  // The last four are read before they are written in part: a load waits for stores it spans.
  const step = lastStep(count);
  const last = lastAt(at, end, count);
  const a = v128.load(last);
  const b = v128.load(last + step);
  const c = v128.load(end - 16 - step);
  const d = v128.load(end - 16);
  for (; at < last; at += 64) {
    vectorOr(at, vector);
    vectorOr(at + 16, vector);
    vectorOr(at + 32, vector);
    vectorOr(at + 48, vector);
  }
  v128.store(last, v128.or(a, vector));
  v128.store(last + step, v128.or(b, vector));
  v128.store(end - 16 - step, v128.or(c, vector));
  v128.store(end - 16, v128.or(d, vector));
}

/** Sets bits in two words. */
@inline function pairOr(at: usize, bits: u32): void {
  store<u64>(at, load<u64>(at) | (<u64>bits * 0x100000001));
}

/** Sets bits in four words. */
@inline function vectorOr(at: usize, vector: v128): void {
  v128.store(at, v128.or(v128.load(at), vector));
}

/** How far the first two of the last four vectors, and the last two, are apart. */
@inline function lastStep(count: u32): usize {
  return select<usize>(0, 16, count < 8);
}

/** Where the last four vectors begin. */
@inline function lastAt(at: usize, end: usize, count: u32): usize {
  return select<usize>(end - 64, at, count > 16);
}

/** Marks [pfn, pfn + count) free and dirty: somebody may have written there. */
@inline export function wordsFree(pfn: u32, count: u32): void {
  if (count == 1) Frame.at(pfn).word = FREE | DIRTY;
  else runFree(pfn, count);
}

function runFree(pfn: u32, count: u32): void {
  let at = changetype<usize>(Frame.at(pfn));
  const end = at + ((<usize>count) << 2);
  if (count < VECTOR_FRAMES) {
    const pair = <u64>(FREE | DIRTY) * 0x100000001;
    store<u64>(at, pair);
    store<u64>(end - 8, pair);
    return;
  }
  for (; at + 64 < end; at += 64) vectorsFree(at, 16, at + 64);
  vectorsFree(lastAt(at, end, count), lastStep(count), end);
}

/** Frees the words of four vectors: two from `at` on, two up to `end`. */
@inline function vectorsFree(at: usize, step: usize, end: usize): void {
  const vector = i32x4.splat(FREE | DIRTY);
  v128.store(at, vector);
  v128.store(at + step, vector);
  v128.store(end - 16 - step, vector);
  v128.store(end - 16, vector);
}

/** Makes `thread` the one that took [pfn, pfn + count). The caller holds framesLock. */
export function wordsStamp(pfn: u32, count: u32, thread: u32): void {
  wordsChange(pfn, count, ~(THREAD_MASK << THREAD_SHIFT), thread << THREAD_SHIFT);
}

/** Whether (word & mask) == value for every frame of [pfn, pfn + count). */
@inline export function wordsMatch(pfn: u32, count: u32, mask: u32, value: u32): bool {
  return count == 1 ? (Frame.at(pfn).word & mask) == value : runMatch(pfn, count, mask, value);
}

function runMatch(pfn: u32, count: u32, mask: u32, value: u32): bool {
  let at = changetype<usize>(Frame.at(pfn));
  const end = at + ((<usize>count) << 2);
  if (count < VECTOR_FRAMES) {
    const pair = <u64>value * 0x100000001;
    const differs = (load<u64>(at) ^ pair) | (load<u64>(end - 8) ^ pair);
    return (differs & (<u64>mask * 0x100000001)) == 0;
  }
  const values = i32x4.splat(value);
  let differs = i32x4.splat(0);
  for (; at + 64 < end; at += 64) {
    differs = v128.or(differs, differsOf(at, 16, at + 64, values));
  }
  differs = v128.or(differs, differsOf(lastAt(at, end, count), lastStep(count), end, values));
  return !v128.any_true(v128.and(differs, i32x4.splat(mask)));
}

/**
 * Marks [pfn, pfn + count) free and dirty if all of it is held as `state` and not pinned:
 * wordsMatch() and wordsFree() in one. False: nothing changed.
 */
export function wordsRelease(pfn: u32, count: u32, state: u32): bool {
  const mask = STATE_MASK | PINS_MASK;
  if (count < VECTOR_FRAMES) {
    if (!wordsMatch(pfn, count, mask, state)) return false;
    wordsFree(pfn, count);
    return true;
  }
  const first = changetype<usize>(Frame.at(pfn));
  const end = first + ((<usize>count) << 2);
  const values = i32x4.splat(state);
  let differs = i32x4.splat(0);
  let at = first;
  for (; at + 64 < end; at += 64) {
    differs = v128.or(differs, differsOf(at, 16, at + 64, values));
  }
  const step = lastStep(count);
  at = lastAt(at, end, count);
  differs = v128.or(differs, differsOf(at, step, end, values));
  if (v128.any_true(v128.and(differs, i32x4.splat(mask)))) return false;
  vectorsFree(at, step, end);
  for (at = first; at + 64 < end; at += 64) vectorsFree(at, 16, at + 64);
  return true;
}

/** Where the words of four vectors differ from `values`: two from `at` on, two up to `end`. */
@inline function differsOf(at: usize, step: usize, end: usize, values: v128): v128 {
  return v128.or(
    v128.or(v128.xor(v128.load(at), values), v128.xor(v128.load(at + step), values)),
    v128.or(v128.xor(v128.load(end - 16 - step), values), v128.xor(v128.load(end - 16), values)),
  );
}

/** Adds `delta` to every word of [pfn, pfn + count): how pins are counted. */
export function wordsAdd(pfn: u32, count: u32, delta: u32): void {
  let at = changetype<usize>(Frame.at(pfn));
  const end = at + ((<usize>count) << 2);
  const deltas = i32x4.splat(delta);
  for (; at + 16 <= end; at += 16) v128.store(at, i32x4.add(v128.load(at), deltas));
  for (; at < end; at += 4) store<u32>(at, load<u32>(at) + delta);
}

/** Whether [pfn, pfn + count) are frames of this system. */
export function isFrameRange(pfn: u32, count: u32): bool {
  const frameCount = header().frameCount;
  return count > 0 && count <= frameCount && pfn <= frameCount - count;
}
