// What a request does when the lists of its own migrate type are empty: it takes from another type.
//
//   unmovable    ─► reclaimable, movable          a request of these two claims the whole pageblock if half of it is free or
//   reclaimable  ─► unmovable, movable            holds frames of its own kind: what follows stays together
//   movable      ─► reclaimable, unmovable
//
// B5  A pageblock changes its type only here and in cma.ts, together with the lists of its free
//     blocks (B1).
//
// The chunk with the largest block of the other type gives, so that few pageblocks get mixed; only
// a movable request that may not claim takes the smallest block that fits. CMA and isolated
// pageblocks are nobody's fallback.
//
// Compare __rmqueue_fallback() and steal_suitable_fallback() in the kernel's mm/page_alloc.c.

import { Chunk, numberOf } from "./chunk";
import { blockFind, blockFindIn, listInsert, listRemove, runCut } from "./free-list";
import { CHUNK_ORDER, MAX_ORDER, PAGEBLOCK_ORDER, header } from "./layout";
import {
  FREE,
  Frame,
  MIGRATE_MOVABLE,
  MIGRATE_RECLAIMABLE,
  MIGRATE_UNMOVABLE,
  MOVABLE,
  pageblockType,
  setPageblockType,
} from "./page";

const CLAIM_ORDER: u32 = PAGEBLOCK_ORDER / 2;
const PAGEBLOCK_FRAMES: u32 = (<u32>1) << PAGEBLOCK_ORDER;
const PAGEBLOCK_CHUNKS: u32 = (<u32>1) << (PAGEBLOCK_ORDER - CHUNK_ORDER);

/** The types that a request of `type` falls back to, first the one in the lower byte. */
function fallbacksOf(type: u32): u32 {
  if (type == MIGRATE_UNMOVABLE) return MIGRATE_RECLAIMABLE | (MIGRATE_MOVABLE << 8);
  if (type == MIGRATE_RECLAIMABLE) return MIGRATE_UNMOVABLE | (MIGRATE_MOVABLE << 8);
  return MIGRATE_RECLAIMABLE | (MIGRATE_UNMOVABLE << 8);
}

/**
 * Takes `count` frames of a block of `order` out of another type's lists; 0 when there is none
 * below `pfnEnd`.
 */
export function stealTake(order: u32, count: u32, pfnEnd: u32, type: u32): u32 {
  const fallbacks = fallbacksOf(type);
  for (let from: i32 = MAX_ORDER; from >= <i32>order; from--) {
    for (let shift: u32 = 0; shift <= 8; shift += 8) {
      const other = (fallbacks >> shift) & 255;
      let pfn = blockFindIn(other, from + 1, order, pfnEnd);
      if (pfn == 0) continue;
      const mayClaim = <u32>from >= CLAIM_ORDER || type != MIGRATE_MOVABLE;
      if (mayClaim) pageblockClaim(pfn, type);
      else pfn = blockFind(other, order, pfnEnd); // the smallest that fits
      return runCut(pfn, count);
    }
  }
  return 0;
}

/** Turns the pageblock of `pfn` into `type` if half of it is free or holds frames of that kind. */
function pageblockClaim(pfn: u32, type: u32): void {
  const first = pfn & ~(PAGEBLOCK_FRAMES - 1);
  const end = min(first + PAGEBLOCK_FRAMES, header().backedFrames);
  const wasMovable = pageblockType(pfn) == MIGRATE_MOVABLE;
  let alike: u32 = 0;
  for (let at = first; at < end; at++) {
    const state = Frame.at(at).state;
    if (state == FREE) alike += 1;
    else if (state == MOVABLE) alike += <u32>(type == MIGRATE_MOVABLE);
    else alike += <u32>(type != MIGRATE_MOVABLE && wasMovable);
  }
  if (alike >= PAGEBLOCK_FRAMES / 2) pageblockRetype(first, type);
}

/** Gives the pageblock at `first` another type, and its free blocks to that type's lists (B5). */
export function pageblockRetype(first: u32, type: u32): void {
  const begin = numberOf(first);
  const end = begin + PAGEBLOCK_CHUNKS;
  for (let number = begin; number < end; number++) {
    const rank = Chunk.at(number).rank;
    if (rank == 0) continue;
    listRemove(number);
    Chunk.at(number).rank = rank;
  }
  setPageblockType(first, type);
  for (let number = end; number-- > begin; ) {
    const rank = Chunk.at(number).rank;
    if (rank != 0) listInsert(number, rank);
  }
}
