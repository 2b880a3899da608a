// Fixed-size records cut from single frames.
//
//   a slab = one frame of state SLAB:  ├ Slab header ┼ record 1 ┼ record 2 ┼ … ┤     record size 32 to 512 bytes
//   cache ─► slab ─Page.next─► slab ─► 0      the slabs of one record size that have room
//
// R1  The first word of a record is its truth: 0 = free. Free records that were used before are
//     chained through the second.
// R2  A slab is in its cache's list exactly when it has a free record; a slab without records goes
//     back to the buddy.
// R3  used = records that are handed out; `bump` = records that were ever handed out since the slab
//     was made.
//
// R4  directory[number] names the frame of the object slab with that number: a record of
//     CACHE_OBJECTS has the index number << 6 | place in its slab, which stays below 2^18 however
//     large the memory is. Where no slab has the number it names NOTHING (L7): so every index leads
//     to a record, and is that of no object where there is none.
// R5  The second word of a live object record is its handle: generation << 18 | index, with a
//     generation from 1 to GENERATION_MAX that no two objects that followed each other in a record
//     share. It, the count of references and the owner are there before the truth word says that
//     the object lives.
// R6  The first word of a slab is 0: the record at place 0 is no object either.
// R7  A slab of objects begins as zeros: a forged number finds nothing in what an earlier owner of
//     the frame wrote.
//
// Records behind `bump` are on no list, so a new slab costs no loop over them. All functions take
// slabLock themselves.

import { EAGAIN } from "./errno";
import { faultHits } from "./fault";
import {
  DIRECTORY_AT,
  DIRECTORY_ENTRIES,
  FRAME_BYTES,
  FRAME_MASK,
  FRAME_SHIFT,
  NOTHING,
  NOTHING_AT,
  SLAB_CACHES_AT,
  SLAB_LOCK_AT,
  frameAt,
  header,
} from "./layout";
import { lockHard, lockNoted, refusalNote, unlock } from "./lock";
import { frameClear, frameDrop, frameTake } from "./magazine";
import { Frame, OBJECT, Page, SLAB } from "./page";
import { must } from "./panic";
import { threadIndex } from "./thread";
import { warmForget } from "./warm";

const R1: u32 = 8201;
const R3: u32 = 8203;

// A cache's records are 32 << cache bytes long.
export const CACHE_NODES: u32 = 0; // single sg entries
export const CACHE_OBJECTS: u32 = 1;
export const INDEX_BITS: u32 = 18;
const GENERATION_MAX: u32 = (1 << 13) - 1; // the bits of a positive number above the index
export const CACHES: u32 = 5; // the larger ones belong to iova-space.ts

@unmanaged
export class Slab {
  truth: u32; // R6
  cache: u32;
  used: u32;
  bump: u32; // 1 + records ever handed out: record 0 is this header
  freeAt: usize; // first of the free records below bump; 0 = none
  number: u32; // the directory entry, for slabs of CACHE_OBJECTS

  static of(pfn: u32): Slab {
    return changetype<Slab>(frameAt(pfn));
  }

  get recordShift(): u32 {
    return 5 + this.cache;
  }

  get isNumbered(): bool {
    return this.cache == CACHE_OBJECTS;
  }

  get capacity(): u32 {
    return (FRAME_BYTES >> this.recordShift) - 1;
  }
}

@unmanaged
export class DirectoryEntry {
  private above: u32; // the slab's frame number, counted from NOTHING

  get pfn(): u32 {
    return this.above + NOTHING;
  }

  set pfn(pfn: u32) {
    this.above = pfn - NOTHING;
  }

  get isEmpty(): bool {
    return this.above == 0;
  }

  clear(): void {
    this.above = 0;
  }

  static at(number: u32): DirectoryEntry {
    return changetype<DirectoryEntry>(DIRECTORY_AT + ((<usize>number) << 2));
  }
}

@unmanaged
export class SlabRecord {
  truth: u32; // 0 = free
  nextFreeAt: usize; // only while free
  refs: u32; // of an object record, as the next one
  owner: u32;

  /** Of a live object record, in the word that links free ones. */
  get handle(): u32 {
    return <u32>this.nextFreeAt;
  }

  set handle(value: u32) {
    this.nextFreeAt = value;
  }

  static at(address: usize): SlabRecord {
    return changetype<SlabRecord>(address);
  }
}

@unmanaged
export class SlabCache {
  firstPfn: u32; // first slab with room; 0 = none

  static at(cache: u32): SlabCache {
    return changetype<SlabCache>(SLAB_CACHES_AT + ((<usize>cache) << 2));
  }
}

/**
 * A record of `cache` with `truth` in its first word and zeros behind, up to byte 32 (an object:
 * 64); 0: noMemory() says why.
 */
export function slabAlloc(cache: u32, truth: u32): usize {
  must(truth != 0, R1);
  if (faultHits()) return 0;
  if (!lockNoted(SLAB_LOCK_AT)) return 0;
  const at = recordTake(cache);
  if (at != 0) {
    recordClear(at, cache);
    if (cache == CACHE_OBJECTS) objectCount(at);
    SlabRecord.at(at).truth = truth;
  }
  unlock(SLAB_LOCK_AT);
  return at;
}

/** Counts a new object and writes its head (R5). */
function objectCount(at: usize): void {
  const h = header();
  h.objectCount += 1;
  h.generation = h.generation == GENERATION_MAX ? 1 : h.generation + 1;
  const record = SlabRecord.at(at);
  record.handle = (h.generation << INDEX_BITS) | recordIndex(at);
  record.refs = 1;
  record.owner = threadIndex();
}

/** memory.fill of so few bytes would cost more than the rest of the allocation. */
function recordClear(at: usize, cache: u32): void {
  const zero = i64x2.splat(0);
  v128.store(at, zero, 0);
  v128.store(at, zero, 16);
  if (cache == CACHE_OBJECTS) {
    v128.store(at, zero, 32);
    v128.store(at, zero, 48);
  }
}

function recordTake(cache: u32): usize {
  const list = SlabCache.at(cache);
  if (list.firstPfn == 0 && !slabCreate(cache)) return 0;
  const pfn = list.firstPfn;
  const slab = Slab.of(pfn);
  let at = slab.freeAt;
  if (at != 0) {
    slab.freeAt = SlabRecord.at(at).nextFreeAt;
  } else {
    at = frameAt(pfn) + ((<usize>slab.bump) << slab.recordShift);
    SlabRecord.at(at).truth = 0; // free until the caller says otherwise, also if it never does
    slab.bump += 1;
  }
  slab.used += 1;
  if (slab.used == slab.capacity) listRemove(cache, pfn); // R2
  return at;
}

function slabCreate(cache: u32): bool {
  const number = cache == CACHE_OBJECTS ? directoryFind() : 0;
  if (number == DIRECTORY_ENTRIES) return false;
  const pfn = frameTake(OBJECT);
  if (pfn < 0) return pfn == EAGAIN && refusalNote();
  if (cache == CACHE_OBJECTS) frameClear(pfn); // R7
  const slab = Slab.of(pfn);
  slab.truth = 0;
  slab.cache = cache;
  slab.used = 0;
  slab.bump = 1;
  slab.freeAt = 0;
  slab.number = number;
  Frame.at(pfn).take(SLAB, threadIndex()); // once its header says what it is
  if (cache == CACHE_OBJECTS) DirectoryEntry.at(number).pfn = pfn;
  slabListInsert(cache, pfn);
  return true;
}

/**
 * The lowest number that no slab has; DIRECTORY_ENTRIES when all are in use. Once in 63 objects.
 */
function directoryFind(): u32 {
  let number: u32 = 0;
  while (number < DIRECTORY_ENTRIES && !DirectoryEntry.at(number).isEmpty) number += 1;
  return number;
}

/** The index of the object record at `at` (R4). */
function recordIndex(at: usize): u32 {
  return (Slab.of(<u32>(at >> FRAME_SHIFT)).number << 6) | <u32>((at & FRAME_MASK) >> 6);
}

/** The object record of `index` < 2^18, or 0 when no slab has it (R4). */
export function recordAt(index: u32): usize {
  if ((index & 63) == 0) return 0; // a slab's header is no record
  return DirectoryEntry.at(index >> 6).isEmpty ? 0 : recordPlace(index);
}

/** Where the record of a handle, or an index, lies; if no slab has it, one that is free (R4). */
@inline export function recordPlace(handle: u32): usize {
  const entry = (handle >> 4) & ((DIRECTORY_ENTRIES - 1) << 2);
  const above = load<u32>(entry, DIRECTORY_AT); // as DirectoryEntry.at() does, with less to add up
  return frameAt(above) + ((<usize>(handle & 63)) << 6) + NOTHING_AT;
}

/** Whether the record at `at` was ever handed out: one behind its slab's bump was never written. */
export function recordIsUsed(at: usize): bool {
  const slab = Slab.of(<u32>(at >> FRAME_SHIFT));
  return <u32>((at & FRAME_MASK) >> slab.recordShift) < slab.bump;
}

/** Frees the record at `at`. */
export function slabFree(at: usize): void {
  lockHard(SLAB_LOCK_AT);
  recordFree(at);
  unlock(SLAB_LOCK_AT);
}

/** The same for who holds slabLock. */
export function recordFree(at: usize): void {
  const pfn = <u32>(at >> FRAME_SHIFT);
  const slab = Slab.of(pfn);
  const record = SlabRecord.at(at);
  must(record.truth != 0, R1);
  must(slab.used > 0, R3);
  if (slab.used == slab.capacity) slabListInsert(slab.cache, pfn);
  if (slab.isNumbered) {
    warmForget(record.truth, record.handle);
    header().objectCount -= 1;
  }
  record.truth = 0;
  record.nextFreeAt = slab.freeAt;
  slab.freeAt = at;
  slab.used -= 1;
  if (slab.used == 0) {
    listRemove(slab.cache, pfn);
    if (slab.isNumbered) DirectoryEntry.at(slab.number).clear();
    frameDrop(pfn);
  }
}

export function slabListInsert(cache: u32, pfn: u32): void {
  const list = SlabCache.at(cache);
  const page = Page.at(pfn);
  page.next = list.firstPfn;
  page.prev = 0;
  if (list.firstPfn != 0) Page.at(list.firstPfn).prev = pfn;
  list.firstPfn = pfn;
}

function listRemove(cache: u32, pfn: u32): void {
  const page = Page.at(pfn);
  if (page.next != 0) Page.at(page.next).prev = page.prev;
  if (page.prev != 0) Page.at(page.prev).next = page.next;
  else SlabCache.at(cache).firstPfn = page.next;
}
