// The part of the walker that needs only frames: states, blocks, lists and magazines.

import { FreeList } from "./free-list";
import { FRAME_BYTES, MAX_ORDER, MIGRATE_TYPES, frameAt, header } from "./layout";
import {
  CACHED,
  DIRTY,
  FREE,
  Frame,
  MIGRATE_CMA,
  Page,
  QUARANTINE,
  RESERVED,
  STATES,
  pageblockType,
} from "./page";
import { Thread } from "./thread";

const B: u32 = 6600;
const L: u32 = 7600;
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
    run = Frame.at(pfn).state == FREE && pageblockType(pfn) != MIGRATE_CMA ? run + 1 : 0;
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
    if (state == FREE && pageblockType(pfn) != MIGRATE_CMA) {
      if (!frame.isFreeHead) return B + 1;
      const end = pfn + ((<u32>1) << frame.order);
      if (checkBlock(pfn, frame.order) != 0) return checkBlock(pfn, frame.order);
      free += end - pfn;
      if (isDeep) for (let at = pfn; at < end; at++) if (!isClean(at)) return P + 4;
      pfn = end - 1;
    }
  }
  if (reserved != h.reservedFrames) return L + 4;
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

function checkBlock(pfn: u32, order: u32): u32 {
  const size = (<u32>1) << order;
  if (order > MAX_ORDER || (pfn & (size - 1)) != 0 || pfn + size > header().backedFrames)
    return B + 1;
  for (let i: u32 = 1; i < size; i++) if ((Frame.at(pfn + i).word & ~DIRTY) != FREE) return B + 1;
  const buddy = Frame.at(pfn ^ size);
  const canMerge =
    order < MAX_ORDER &&
    (pfn ^ size) < header().backedFrames &&
    pageblockType(pfn ^ size) == pageblockType(pfn);
  return canMerge && buddy.isFreeHead && buddy.order == order ? B + 2 : 0;
}

/** Whether a frame that claims to hold zeros does (P4). */
function isClean(pfn: u32): bool {
  if (Frame.at(pfn).isDirty) return true;
  let any = i64x2.splat(0);
  for (let at = frameAt(pfn); at < frameAt(pfn) + FRAME_BYTES; at += 16)
    any = v128.or(any, v128.load(at));
  return !v128.any_true(any);
}

/**
 * Every listed block is a free head of its list's order, and the lists hold freeFrames in all: so
 * every head is listed.
 */
export function checkLists(): u32 {
  let listed: u32 = 0;
  for (let type: u32 = 0; type < MIGRATE_TYPES; type++) {
    for (let order: u32 = 0; order <= MAX_ORDER; order++) {
      let prev: u32 = 0;
      for (let pfn = FreeList.at(type, order).first; pfn != 0; pfn = Page.at(pfn).next) {
        const frame = Frame.at(pfn);
        if (!frame.isFreeHead || frame.order != order || pageblockType(pfn) != type) return B + 1;
        if (Page.at(pfn).prev != prev) return B + 1;
        listed += (<u32>1) << order;
        if (listed > header().freeFrames) return B + 3;
        prev = pfn;
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
