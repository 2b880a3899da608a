// The lists of free frames, by order and migrate type.
//
//   head(type, rank) ─► chunk ─next─► chunk ─► 0    rank 1 … 6: with free frames among its bits
//                                                   rank 7 …  : the first of a block of chunks
//   FREE_RANKS[type]   bit n = the list of rank n is not empty
//
// B1  A chunk with a rank is in the list of that and of its pageblock's type. Its bits and rank are
//     what the words of its frames say (chunk.ts).
// B2  Two free buddies of one order and type are one block, up to MAX_ORDER: of bits by themselves,
//     of chunks because they merge.
// B3  freeFrames is the sum of all frames in the lists; frames in magazines are not in it.
//
// A run within a chunk is taken and given by changing one word, however many blocks it was cut from
// or makes with what is free beside it. The chunk changes its list when its largest block is of
// another order then.
//
// The caller of every function holds framesLock.

import { NONE, lowBits } from "./bits";
import {
  CHUNK_FRAMES,
  Chunk,
  RANK_FULL,
  chunkPfn,
  fitIn,
  numberOf,
  rankOf,
} from "./chunk";
import {
  CHUNK_ORDER,
  FIRST_CHUNK,
  FREE_RANKS_AT,
  MAX_ORDER,
  MIGRATE_TYPES,
  PAGEBLOCK_ORDER,
  header,
} from "./layout";
import { Frame, isListable, pageblockType } from "./page";
import { must } from "./panic";

const B1: u32 = 6601;
const RANKS: u32 = MAX_ORDER + 2;

if (MAX_ORDER > PAGEBLOCK_ORDER) ERROR("buddies may lie in two pageblocks");
if (MIGRATE_TYPES * RANKS >= FIRST_CHUNK) ERROR("the heads of lists reach into the chunks");

@unmanaged
export class FreeRanks {
  mask: u32; // bit n = the list of rank n is not empty

  static at(type: u32): FreeRanks {
    return changetype<FreeRanks>(FREE_RANKS_AT + ((<usize>type) << 2));
  }
}

// ---- lists

/** The number of the record at the head of a list. */
@inline export function headOf(type: u32, rank: u32): u32 {
  return type * RANKS + rank;
}

/** Links a chunk into the list of a rank, which is not empty then. */
@inline function link(number: u32, type: u32, rank: u32): void {
  const head = headOf(type, rank);
  const first = Chunk.at(head).next;
  const chunk = Chunk.at(number);
  chunk.next = first;
  chunk.prev = <u16>head;
  Chunk.at(first).prev = <u16>number; // B7
  Chunk.at(head).next = <u16>number;
}

/** Takes a chunk out of the links of its list. Whether that is empty then. */
@inline function unlink(number: u32, type: u32, rank: u32): bool {
  const chunk = Chunk.at(number);
  const next = chunk.next;
  const prev = chunk.prev;
  Chunk.at(next).prev = prev; // B7
  Chunk.at(prev).next = next;
  return Chunk.at(headOf(type, rank)).next == 0;
}

/** Puts a chunk that is in no list into that of a rank. */
export function listInsert(number: u32, rank: u32): void {
  const type = pageblockType(chunkPfn(number));
  Chunk.at(number).rank = rank;
  link(number, type, rank);
  FreeRanks.at(type).mask |= (<u32>1) << rank;
}

/** Takes a chunk out of its list. */
export function listRemove(number: u32): void {
  const type = pageblockType(chunkPfn(number));
  const rank = Chunk.at(number).rank;
  if (CHECKS) must(rank != 0, B1, chunkPfn(number));
  Chunk.at(number).rank = 0;
  FreeRanks.at(type).mask &= ~((<u32>unlink(number, type, rank)) << rank);
}

/** Gives a free block of whole chunks to the lists, merged with its buddies (B2). */
function blockInsert(pfn: u32, order: u32): void {
  while (order < MAX_ORDER) {
    const buddy = numberOf(pfn ^ ((<u32>1) << order)); // it shares the pageblock
    if (Chunk.at(buddy).rank != order + 1) break;
    listRemove(buddy);
    pfn &= ~((<u32>1) << order);
    order += 1;
  }
  listInsert(numberOf(pfn), order + 1);
}

/** Makes `bits` the free frames of a chunk of which some are taken. */
@inline function bitsChange(number: u32, bits: u64): void {
  const chunk = Chunk.at(number);
  const was = chunk.rank;
  const rank = rankOf(bits);
  chunk.bits = bits;
  if (rank == was) return;
  if (rank == RANK_FULL) {
    chunkFullSlow(number);
    return;
  }
  const type = pageblockType(chunkPfn(number));
  let mask = FreeRanks.at(type).mask;
  if (was != 0) mask &= ~((<u32>unlink(number, type, was)) << was);
  if (rank != 0) {
    link(number, type, rank);
    mask |= (<u32>1) << rank;
  }
  FreeRanks.at(type).mask = mask;
  chunk.rank = rank;
}

/** The same, once for all who are in less of a hurry. */
function bitsChangeSlow(number: u32, bits: u64): void {
  bitsChange(number, bits);
}

/** Makes a chunk of which all frames are free now a block. */
function chunkFullSlow(number: u32): void {
  if (Chunk.at(number).rank != 0) listRemove(number);
  Chunk.at(number).bits = 0;
  blockInsert(chunkPfn(number), CHUNK_ORDER);
}

/** The bits of [pfn, pfn + count), which lie in one chunk. */
@inline function bitsOf(pfn: u32, count: u32): u64 {
  return lowBits(count) << <u64>(pfn & (CHUNK_FRAMES - 1));
}

/** Where the part of [pfn, pfnEnd) ends that lies in the chunk of `pfn`. */
@inline function partEnd(pfn: u32, pfnEnd: u32): u32 {
  return min(pfnEnd, (pfn | (CHUNK_FRAMES - 1)) + 1);
}

// ---- to give

/** Gives the free frames [pfn, pfnEnd) to the lists. */
export function rangeInsert(pfn: u32, pfnEnd: u32): void {
  header().freeFrames += pfnEnd - pfn;
  if (partEnd(pfn, pfnEnd) == pfnEnd) {
    bitsChange(numberOf(pfn), Chunk.of(pfn).bits | bitsOf(pfn, pfnEnd - pfn));
    return;
  }
  rangeInsertSlow(pfn, pfnEnd);
}

/** rangeInsert() for what lies in several chunks. */
function rangeInsertSlow(pfn: u32, pfnEnd: u32): void {
  while (pfn < pfnEnd) {
    const order = min(min(<u32>ctz(pfn), 31 - <u32>clz(pfnEnd - pfn)), MAX_ORDER);
    if (order >= CHUNK_ORDER) {
      blockInsert(pfn, order);
      pfn += (<u32>1) << order;
    } else {
      const end = partEnd(pfn, pfnEnd);
      bitsChangeSlow(numberOf(pfn), Chunk.of(pfn).bits | bitsOf(pfn, end - pfn));
      pfn = end;
    }
  }
}

/** Gives one frame to the lists. */
export function frameInsert(pfn: u32): void {
  Frame.at(pfn).markFree();
  rangeInsert(pfn, pfn + 1);
}

// ---- to find

/** A block of `order` in the list of exactly `rank`, all of it below `pfnEnd`, or 0. */
export function blockFindIn(type: u32, rank: u32, order: u32, pfnEnd: u32): u32 {
  const size = (<u32>1) << order;
  let number: u32 = Chunk.at(headOf(type, rank)).next;
  while (number != 0) {
    const chunk = Chunk.at(number);
    let pfn = chunkPfn(number);
    if (rank < RANK_FULL) {
      let bits = chunk.bits;
      if (pfn + CHUNK_FRAMES > pfnEnd) bits &= pfnEnd > pfn ? lowBits(pfnEnd - pfn) : 0;
      pfn += fitIn(bits, order);
    }
    if (pfn + size <= pfnEnd) return pfn;
    number = chunk.next;
  }
  return 0;
}

/**
 * Takes `count` frames of a block of `order` out of the lists: out of a chunk whose largest block
 * is the smallest that will do, and there of the smallest. 0 when there is no block below `pfnEnd`.
 * Their words say FREE until the caller's do.
 */
export function listTake(type: u32, order: u32, count: u32, pfnEnd: u32): u32 {
  const ranks = FreeRanks.at(type).mask & (~(<u32>1) << order);
  if (ranks == 0) return 0;
  const rank = <u32>ctz(ranks);
  if (pfnEnd != NONE) {
    const pfn = blockFind(type, order, pfnEnd);
    return pfn == 0 ? 0 : runCut(pfn, count);
  }
  const number: u32 = Chunk.at(headOf(type, rank)).next;
  if (rank >= RANK_FULL) return blockCut(number, count);
  const bits = Chunk.at(number).bits;
  const at = fitIn(bits, order);
  header().freeFrames -= count;
  bitsChange(number, bits & ~(lowBits(count) << <u64>at));
  return chunkPfn(number) + at;
}

/** A block of `order` below `pfnEnd`, out of the smallest that there are, or 0. */
export function blockFind(type: u32, order: u32, pfnEnd: u32): u32 {
  let ranks = FreeRanks.at(type).mask & (~(<u32>1) << order);
  while (ranks != 0) {
    const pfn = blockFindIn(type, <u32>ctz(ranks), order, pfnEnd);
    if (pfn != 0) return pfn;
    ranks &= ranks - 1;
  }
  return 0;
}

// ---- to take

/**
 * Takes the first `count` frames of a block that blockFind() found out of the lists. Their words
 * say FREE until the caller's do.
 */
export function runCut(pfn: u32, count: u32): u32 {
  if (Chunk.of(pfn).rank >= RANK_FULL) return blockCut(numberOf(pfn), count);
  bitsTake(pfn, count);
  return pfn;
}

/** Takes [pfn, pfn + count), which are bits of one chunk. */
function bitsTake(pfn: u32, count: u32): void {
  header().freeFrames -= count;
  bitsChangeSlow(numberOf(pfn), Chunk.of(pfn).bits & ~bitsOf(pfn, count));
}

/** Takes the first `count` frames of a block of whole chunks: the rest goes back. */
function blockCut(number: u32, count: u32): u32 {
  const pfn = chunkPfn(number);
  let order = Chunk.at(number).rank - 1;
  listRemove(number);
  while (order > CHUNK_ORDER && count <= (<u32>1) << (order - 1)) {
    order -= 1;
    listInsert(numberOf(pfn + ((<u32>1) << order)), order + 1);
  }
  const size = (<u32>1) << order;
  header().freeFrames -= size;
  if (count < size) rangeInsert(pfn + count, pfn + size);
  return pfn;
}

/** A chunk of which at most `count` frames are free, in blocks of up to `order`; 0 = none. */
export function chunkFind(type: u32, order: u32, count: u32): u32 {
  if (order >= CHUNK_ORDER) return 0;
  const number: u32 = Chunk.at(headOf(type, order + 1)).next;
  return <u32>popcnt(Chunk.at(number).bits) <= count ? number : 0;
}

/** Takes all that is free in a chunk: its bits. */
export function chunkTake(number: u32): u64 {
  const bits = Chunk.at(number).bits;
  header().freeFrames -= <u32>popcnt(bits);
  bitsChangeSlow(number, 0);
  return bits;
}

/**
 * Takes exactly [pfn, pfn + count) out of the lists; false, with nothing changed, unless all of it
 * is listed.
 */
export function rangeTake(pfn: u32, count: u32): bool {
  const pfnEnd = pfn + count;
  for (let at = pfn; at < pfnEnd; at++) if (!isListable(at)) return false;
  for (let at = pfn; at < pfnEnd; ) {
    const head = blockOf(at);
    let end = partEnd(at, pfnEnd);
    if (head == 0) {
      bitsTake(at, end - at);
    } else {
      const first = chunkPfn(head);
      end = first + ((<u32>1) << (Chunk.at(head).rank - 1));
      listRemove(head);
      header().freeFrames -= end - first;
      if (first < at) rangeInsert(first, at);
      if (pfnEnd < end) rangeInsert(pfnEnd, end);
    }
    at = end;
  }
  return true;
}

/** The number of the first chunk of the larger block that holds `pfn`, or 0. */
function blockOf(pfn: u32): u32 {
  for (let order = CHUNK_ORDER; order <= MAX_ORDER; order++) {
    const head = numberOf(pfn & (~(<u32>0) << order));
    if (Chunk.at(head).rank > order) return head;
  }
  return 0;
}
