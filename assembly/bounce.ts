// The bounce pool: memory that every device reaches, where bytes that it cannot reach are copied.
//
//   frames at the bottom of memory, state RESERVED
//   ├ BouncePool ┼ BounceSlot[slotCount] ┼ … ┤ slot 0: 2 KiB ┼ slot 1 ┼ …   128 slots = one segment ┤
//
// W2  A slot's `mapping` is 0 (free) or the handle of the mapping that holds it: the truth word.
//     usedSlots counts the slots that are held.
// W3  A run of slots lies in one segment, and crosses no boundary of its device: 256 KiB at most.
// W4  The first slot of a run carries its length and the run that its mapping took next.
//
// Runs are found next-fit, in steps as wide as the alignment asked for: O(1) while there is room,
// O(slots) when there is none. The pool's lock is the innermost of all.
//
// Compare kernel/dma/swiotlb.c in the kernel.

import { EAGAIN, EBUSY, EINVAL, ENOMEM } from "./errno";
import { faultHits } from "./fault";
import { rangeTake } from "./free-list";
import { FRAMES_LOCK_AT, FRAME_BYTES, FRAME_MASK, FRAME_SHIFT, frameAt, header } from "./layout";
import { lock, lockRare, unlockRare } from "./lock";
import { magazineDrain } from "./magazine";
import { DIRTY, RESERVED, wordsChange } from "./page";
import { must } from "./panic";

const W2: u32 = 8702;

export const SLOT_SHIFT: u32 = 11;
export const SLOT_BYTES: u32 = 1 << SLOT_SHIFT;
const SLOT_MASK: u32 = SLOT_BYTES - 1;
export const SEGMENT_SLOTS: u32 = 128;
/** The longest run of bytes that can be bounced. */
export const BOUNCE_MAX_BYTES: u32 = SEGMENT_SLOTS << SLOT_SHIFT;
const SEGMENT_FRAMES: u32 = BOUNCE_MAX_BYTES >> FRAME_SHIFT;
const POOL_BYTES: usize = 64;
const BOUNCE_SLOT_SHIFT: usize = 4;

@unmanaged
class BouncePool {
  lockWord: u32;
  slotCount: u32;
  usedSlots: u32; // W2
  nextSlot: u32; // where the next search begins
  slotsPfn: u32; // the frame of slot 0
  frameCount: u32; // of the pool, its records included
  bytesCopied: u64;

  /** Only while header().bounceAt != 0. */
  static at(address: usize): BouncePool {
    return changetype<BouncePool>(address);
  }
}

if (offsetof<BouncePool>() > POOL_BYTES) ERROR("BouncePool reaches into its slots");

@unmanaged
export class BounceSlot {
  mapping: u32; // W2
  next: u32; // W4: 1 + the first slot of another run of the mapping; 0 = none
  entry: u32; // W4: the entry of the mapping's table that the run stands for
  count: u32; // W4: slots of the run

  static at(i: u32): BounceSlot {
    const slotsAt = header().bounceAt + POOL_BYTES;
    return changetype<BounceSlot>(slotsAt + ((<usize>i) << BOUNCE_SLOT_SHIFT));
  }
}

if (offsetof<BounceSlot>() != (<usize>1) << BOUNCE_SLOT_SHIFT) ERROR("BounceSlot is not 16 bytes");

export function bouncePool(): BouncePool {
  return BouncePool.at(header().bounceAt);
}

/** The address of a slot's bytes. */
export function slotByteAt(slot: u32): usize {
  return frameAt(bouncePool().slotsPfn) + ((<usize>slot) << SLOT_SHIFT);
}

/** Whether a frame holds slots of the pool. */
export function isBounceFrame(pfn: u32): bool {
  if (header().bounceAt == 0) return false;
  const pool = bouncePool();
  return pfn - pool.slotsPfn < pool.slotCount >> (FRAME_SHIFT - SLOT_SHIFT);
}

/**
 * Makes the pool, of at least `bytes` bytes in whole segments, from the lowest frames: once, before
 * anything else is allocated. 0, or EINVAL (0 bytes), EBUSY (there is one), ENOMEM.
 */
export function bounceInit(bytes: u32): i32 {
  const h = header();
  if (bytes == 0) return EINVAL;
  if (h.bounceAt != 0) return EBUSY;
  const segments = (bytes - 1) / BOUNCE_MAX_BYTES + 1;
  const slotCount = segments * SEGMENT_SLOTS;
  const recordBytes = POOL_BYTES + ((<usize>slotCount) << BOUNCE_SLOT_SHIFT);
  const recordFrames = <u32>((recordBytes + FRAME_MASK) >> FRAME_SHIFT);
  const frameCount = recordFrames + segments * SEGMENT_FRAMES;
  if (frameCount >= h.backedFrames - h.firstFrame) return ENOMEM;
  magazineDrain();
  lockRare(FRAMES_LOCK_AT);
  const isTaken = rangeTake(h.firstFrame, frameCount);
  if (isTaken) wordsChange(h.firstFrame, frameCount, DIRTY, RESERVED);
  unlockRare(FRAMES_LOCK_AT);
  if (!isTaken) return ENOMEM;
  h.reservedFrames += frameCount;
  const at = frameAt(h.firstFrame);
  memory.fill(at, 0, (<usize>recordFrames) << FRAME_SHIFT);
  const pool = BouncePool.at(at);
  pool.slotCount = slotCount;
  pool.slotsPfn = h.firstFrame + recordFrames;
  pool.frameCount = frameCount;
  h.bounceAt = at;
  return 0;
}

/**
 * A run of `count` slots for entry `entry` of `mapping`. Its address has
 * `alignBits` in the bits of `alignMask`; it begins on a page if `isPageAligned` and these bits let
 * it, and crosses no multiple of `boundarySlots` (a power of two; 0: none). The first slot, or
 * ENOMEM.
 */
export function slotsAlloc(
  mapping: u32,
  entry: u32,
  count: u32,
  isPageAligned: bool,
  alignMask: u32,
  alignBits: u32,
  boundarySlots: u32,
): i32 {
  if (faultHits()) return ENOMEM;
  const pool = bouncePool();
  if (!lock(changetype<usize>(pool))) return EAGAIN;
  const first = slotsFind(pool, count, isPageAligned, alignMask, alignBits, boundarySlots);
  if (first >= 0) {
    const slot = BounceSlot.at(first);
    slot.next = 0;
    slot.entry = entry;
    slot.count = count;
    for (let i: u32 = 0; i < count; i++) BounceSlot.at(first + i).mapping = mapping;
    pool.usedSlots += count;
    pool.nextSlot = <u32>first + count; // slotsFind() begins again behind the last
  }
  unlockRare(changetype<usize>(pool));
  return first;
}

/** The first slot of a free run, or ENOMEM (W3). */
function slotsFind(
  pool: BouncePool,
  count: u32,
  isPageAligned: bool,
  alignMask: u32,
  alignBits: u32,
  boundarySlots: u32,
): i32 {
  if (pool.usedSlots + count > pool.slotCount) return ENOMEM;
  const isPaged = isPageAligned && (alignMask & SLOT_BYTES) == 0; // kept bits go before pages
  const pageStride: u32 = isPaged ? FRAME_BYTES >> SLOT_SHIFT : 1;
  const stride = max(pageStride, (alignMask + SLOT_BYTES) >> SLOT_SHIFT);
  const poolPfn = header().physPfnBase + pool.slotsPfn;
  const poolSlots = poolPfn << (FRAME_SHIFT - SLOT_SHIFT); // only the low bits matter
  let slot = (pool.nextSlot + pageStride - 1) & ~(pageStride - 1);
  for (let tried: u32 = 0; tried < pool.slotCount + stride; ) {
    if (slot >= pool.slotCount) slot = 0;
    const number = poolSlots + slot;
    let step = stride;
    if (((number << SLOT_SHIFT) & alignMask) != alignBits) step = pageStride;
    else if (!isCrossing(number, count, boundarySlots) && isRunFree(slot, count)) return slot;
    slot += step;
    tried += step;
  }
  return ENOMEM;
}

function isCrossing(number: u32, count: u32, boundarySlots: u32): bool {
  return boundarySlots != 0 && (number & (boundarySlots - 1)) + count > boundarySlots;
}

function isRunFree(slot: u32, count: u32): bool {
  if ((slot & (SEGMENT_SLOTS - 1)) + count > SEGMENT_SLOTS) return false;
  for (let i: u32 = 0; i < count; i++) if (BounceSlot.at(slot + i).mapping != 0) return false;
  return true;
}

/** Frees the run that begins at `first`; 1 + the first slot of the mapping's next run, or 0. */
export function slotsFree(first: u32): u32 {
  const pool = bouncePool();
  lockRare(changetype<usize>(pool));
  const slot = BounceSlot.at(first);
  const next = slot.next;
  const count = slot.count;
  must(slot.mapping != 0 && count > 0, W2, first);
  for (let i: u32 = 0; i < count; i++) BounceSlot.at(first + i).mapping = 0;
  slot.count = 0;
  pool.usedSlots -= count;
  unlockRare(changetype<usize>(pool));
  return next;
}

/** Copies bytes to or from the pool, and counts them. */
export function bounceCopy(to: usize, from: usize, bytes: u32): void {
  memory.copy(to, from, bytes);
  atomic.add<u64>(header().bounceAt + offsetof<BouncePool>("bytesCopied"), bytes);
}

/** Bytes that were copied to and from the pool since the system was opened. */
export function bouncedBytes(): f64 {
  return header().bounceAt == 0 ? 0 : <f64>bouncePool().bytesCopied;
}

/** Slots of the pool; 0 without one. */
export function bounceSlotCount(): u32 {
  return header().bounceAt == 0 ? 0 : bouncePool().slotCount;
}

/** Slots that mappings hold. */
export function bounceUsedSlots(): u32 {
  return header().bounceAt == 0 ? 0 : bouncePool().usedSlots;
}
