// The part of the walker that needs only frames: states, blocks, lists and magazines.

import { CHUNK_FRAMES, Chunk, RANK_FULL, blocksIn, chunkPfn } from "./chunk";
import { FreeRanks, headOf } from "./free-list";
import { FRAME_BYTES, MAX_ORDER, MIGRATE_TYPES, NOTHING, frameAt, header } from "./layout";
import {
  CACHED,
  DIRTY,
  FREE,
  Frame,
  Page,
  QUARANTINE,
  RESERVED,
  STATES,
  isListable,
  pageblockType,
} from "./page";
import { pinSum } from "./pin";
import { Thread } from "./thread";

const B: u32 = 6600;
const L: u32 = 7600;
const N: u32 = 7800;
const P: u32 = 8000;
const Q: u32 = 8100;
const T: u32 = 8400;

/** Frames in `state`. */
export function frameCountIn(state: u32): u32 {
  const frameCount = header().frameCount;
  let count: u32 = 0;
  for (let pfn: u32 = 0; pfn < frameCount; pfn++) count += <u32>(Frame.at(pfn).state == state);
  return count;
}

/** The longest run of free frames outside the CMA regions, whatever blocks it is listed as. */
export function largestFreeRun(): u32 {
  let longest: u32 = 0;
  let run: u32 = 0;
  for (let pfn = header().firstFrame; pfn < header().backedFrames; pfn++) {
    run = isListable(pfn) ? run + 1 : 0;
    longest = max(longest, run);
  }
  return longest;
}

/** Frames that migration has moved since the system was opened. */
export function movedFrameCount(): u32 {
  return header().movedFrames;
}

/** Frames with at least one pin. */
export function pinnedFrameCount(): u32 {
  const frameCount = header().frameCount;
  let count: u32 = 0;
  for (let pfn: u32 = 0; pfn < frameCount; pfn++) count += <u32>(Frame.at(pfn).pins != 0);
  return count;
}

export function checkFrames(isDeep: bool): u32 {
  const h = header();
  let free: u32 = 0;
  let reserved: u32 = 0;
  for (let pfn: u32 = 0; pfn < h.frameCount; pfn++) {
    const frame = Frame.at(pfn);
    const state = frame.state;
    if (state >= STATES) return P + 1;
    if (state == RESERVED) reserved += 1;
    const isHeld = state != CACHED && state != RESERVED && state != QUARANTINE;
    if (!isHeld && frame.pins != 0) return P + 3;
    if (pfn < h.firstFrame && state != RESERVED) return L + 1;
    if (!isListable(pfn)) continue;
    if ((frame.word & ~DIRTY) != FREE) return P + 6;
    if (isDeep && !isClean(pfn)) return P + 4;
    free += 1;
  }
  const error = checkChunks();
  if (error != 0) return error;
  if (!holdsZeros(NOTHING)) return L + 7;
  if (reserved != h.reservedFrames) return L + 4;
  if (pinSum() != h.pinCount) return N + 12;
  if (!isQuarantineLinked()) return Q + 1;
  return free == h.freeFrames ? 0 : B + 3;
}

/** Whether the quarantine's links visit as many frames as have its state (Q1). */
function isQuarantineLinked(): bool {
  const h = header();
  let pfn = h.quarantineFirst;
  for (let i: u32 = 0; i < h.quarantineCount; i++) {
    if (pfn >= h.backedFrames || Frame.at(pfn).state != QUARANTINE) return false;
    if (i + 1 == h.quarantineCount && pfn != h.quarantineLast) return false;
    pfn = Page.at(pfn).next;
  }
  return frameCountIn(QUARANTINE) == h.quarantineCount;
}

/** The frames of a chunk that are listable, as bits. */
function listableIn(pfn: u32): u64 {
  const end = min(pfn + CHUNK_FRAMES, header().backedFrames);
  let bits: u64 = 0;
  for (let at = pfn; at < end; at++) bits |= <u64>isListable(at) << <u64>(at - pfn);
  return bits;
}

/** Every chunk has the bits and the rank that its frames give it, or is in a block of such. */
function checkChunks(): u32 {
  const frameCount = header().frameCount;
  let blockEnd: u32 = 0;
  for (let pfn: u32 = 0; pfn < frameCount; pfn += CHUNK_FRAMES) {
    const chunk = Chunk.of(pfn);
    const rank = chunk.rank;
    let bits = listableIn(pfn);
    let expected: u32 = 0;
    while (expected < RANK_FULL && blocksIn(bits, expected) != 0) expected += 1;
    if (expected == RANK_FULL) {
      bits = 0;
      expected = pfn < blockEnd ? 0 : max(rank, RANK_FULL);
    } else if (pfn < blockEnd) {
      return B + 1;
    }
    if (chunk.bits != bits || rank != expected) return B + 1;
    if (rank < RANK_FULL) continue;
    const size = (<u32>1) << (rank - 1);
    if (rank > MAX_ORDER + 1 || (pfn & (size - 1)) != 0) return B + 1;
    if (rank <= MAX_ORDER && Chunk.of(pfn ^ size).rank == rank) return B + 2;
    blockEnd = pfn + size;
  }
  return 0;
}

/** Whether a frame that claims to hold zeros does (P4). */
function isClean(pfn: u32): bool {
  return Frame.at(pfn).isDirty || holdsZeros(pfn);
}

function holdsZeros(pfn: u32): bool {
  let any = i64x2.splat(0);
  for (let at = frameAt(pfn); at < frameAt(pfn) + FRAME_BYTES; at += 16)
    any = v128.or(any, v128.load(at));
  return !v128.any_true(any);
}

/**
 * Every listed chunk has its list's rank, and the lists hold freeFrames in all: so every chunk with
 * a rank is listed.
 */
export function checkLists(): u32 {
  let listed: u32 = 0;
  for (let type: u32 = 0; type < MIGRATE_TYPES; type++) {
    for (let rank: u32 = 1; rank <= MAX_ORDER + 1; rank++) {
      let prev: u32 = headOf(type, rank);
      let number: u32 = Chunk.at(headOf(type, rank)).next;
      if (((FreeRanks.at(type).mask >> rank) & 1) != <u32>(number != 0)) return B + 1;
      while (number != 0) {
        const chunk = Chunk.at(number);
        if (chunk.rank != rank || pageblockType(chunkPfn(number)) != type) return B + 1;
        if (chunk.prev != prev) return B + 1;
        listed += rank < RANK_FULL ? <u32>popcnt(chunk.bits) : (<u32>1) << (rank - 1);
        if (listed > header().freeFrames) return B + 3;
        prev = number;
        number = chunk.next;
      }
    }
  }
  return listed == header().freeFrames ? 0 : B + 3;
}

export function checkThreads(): u32 {
  let cached: u32 = 0;
  for (let index: u32 = 0; index < header().threadCount; index++) {
    const slot = Thread.at(index);
    cached += slot.cachedCount;
    for (let i: u32 = 0; i < slot.cachedCount; i++) {
      const frame = Frame.at(slot.cached(i));
      if (frame.state != CACHED || frame.thread != index) return T + 2;
    }
  }
  return cached == frameCountIn(CACHED) ? 0 : T + 2;
}
