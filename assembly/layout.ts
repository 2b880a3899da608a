// The memory map: where everything that the core owns lies in linear memory.
//
//   byte 0        1024      4096     8192  24576    threadsAt  wordsAt   pagesAt   pageblocksAt
//   ├ never used ─┼ Header ─┼ zeros ─┼ u32[] ┼ Chunk[] ┼ Thread[] ┼ u32[] ──┼ Page[] ─┼ u8[] ─────┐
//   ┌──────────────────────────────────────────────────────────────────────────────────────────┘
//   ├ frame `firstFrame` … frame `backedFrames` - 1: handed out by buddy.ts and cma.ts ───────────┤ end
//   ├ frames `backedFrames` … `frameCount` - 1 have a descriptor but no bytes (see L4)
//
// L1  The parts are disjoint, 64-aligned and rise from left to right; `firstFrame` is the first
//     whole frame behind them.
// L2  word[pfn] and page[pfn] describe frame pfn and no other; pageblock[pfn >> PAGEBLOCK_ORDER]
//     its migrate type.
// L3  Only this file and the `at()` of a struct turn an index into an address.
// L4  Frames without bytes exist for maps larger than any Wasm memory; only a CMA region may own
//     them.
// L5  The header is written by one thread, once, before any other joins; bases never change
//     afterwards.
// L6  What every call reads and no call writes lies in the header's first cache line, apart from
//     the counters: a thread that counts does not slow down the others.
// L7  The bytes of frame NOTHING, from NOTHING_AT on, are 0 for ever: what a table leads to that
//     leads nowhere else. So its readers need no case for what is not there.
//
// A frame number (pfn) is an offset: frame pfn holds bytes [pfn * 4096, pfn * 4096 + 4096). A
// device sees `physPfnBase` added to it. Sizes are chosen when the system is opened, and the header
// lies at a constant address, so that a base costs one load.

import { EINVAL, ENOMEM } from "./errno";

export const FRAME_SHIFT: u32 = 12;
export const FRAME_BYTES: u32 = 1 << FRAME_SHIFT;
export const FRAME_MASK: u32 = FRAME_BYTES - 1;

export const MAX_ORDER: u32 = 10; // the largest buddy block, inclusive: 1024 frames
export const PAGEBLOCK_ORDER: u32 = 10; // the unit that carries one migrate type
export const CHUNK_ORDER: u32 = 6; // the unit that carries bits of free frames
export const MIGRATE_TYPES: u32 = 5;

export const HEADER_AT: usize = 1024;
export const NOTHING: u32 = 1; // L7
export const NOTHING_AT: usize = 4096;
export const DIRECTORY_AT: usize = 8192; // u32 for each slab of objects, see slab.ts
export const DIRECTORY_ENTRIES: u32 = 4096;
export const CHUNKS_AT: usize = DIRECTORY_AT + DIRECTORY_ENTRIES * 4; // heads, then the chunks
export const FIRST_CHUNK: u32 = 64;
export const THREAD_BYTES: usize = 8192;
export const WORD_BYTES: usize = 4;
export const PAGE_BYTES: usize = 8;
export const CHUNK_BYTES: usize = 16;
const MAX_THREADS: u32 = 64;
export const MAX_REGIONS: u32 = 16;
export const MISUSES_KEPT: u32 = 16;
export const MAX_PHYS_PFN: u32 = 0xffffffff; // 44-bit physical addresses

export const POISON: u32 = 1; // freed frames are filled with a pattern
export const STRICT: u32 = 2; // and wait in a queue before they are used again
export const PREFAULT: u32 = 4; // all frames are touched when the system is opened

export const MAGIC: u32 = 0x66754264; // "dBuf"
export const ABI_VERSION: u32 = 1;

@unmanaged
export class Header {
  magic: u32; // MAGIC once the rest is valid
  abiVersion: u32;
  frameCount: u32; // frames with a descriptor
  backedFrames: u32; // frames with bytes; <= frameCount
  firstFrame: u32; // the frames below hold this map
  threadCount: u32; // thread slots
  threadsAt: usize;
  wordsAt: usize;
  pagesAt: usize;
  pageblocksAt: usize;
  physPfnBase: u32; // what a device sees as the number of frame 0
  isShared: u32; // 1: several threads may run; 0: locks need no atomics
  freeFlags: u32; // POISON, STRICT: what happens to freed frames
  bounceAt: usize; // the bounce pool's records (bounce.ts); 0 = no pool
  reserveFrames: u32; // listed frames that movable requests leave to all others
  private spare: u32;
  freeFrames: u32; // frames in the buddy's lists; under framesLock
  quarantineFirst: u32; // quarantine.ts, Q1; under framesLock, as the next three
  quarantineLast: u32;
  quarantineCount: u32;
  misuseCount: u32; // writes into frames that nobody held
  objectCount: u32; // live objects; under slabLock
  generation: u32; // of the youngest object; under slabLock
  regionCount: u32;
  movedFrames: u32; // frames ever moved by migration; under movableLock
  fenceContexts: u32; // fence contexts given out; context 0 belongs to nobody
  reservedFrames: u32; // frames that nobody can get: this map, and frames without bytes
  faultNth: u32; // fault.ts: allocations until one fails, 1 for the next
  faultTimes: u32; // how many fail then; 0 = none
  pinCount: u64; // pin.ts, N12; under framesLock
}

/** Offsets inside the header for what is an array or needs a cache line of its own. */
export const FRAMES_LOCK_AT: usize = HEADER_AT + 128;
export const SLAB_LOCK_AT: usize = HEADER_AT + 192;
export const SLAB_CACHES_AT: usize = HEADER_AT + 256; // partial slabs by cache: u32 pfn each
export const SHADOW_LOCK_AT: usize = HEADER_AT + 288;
export const REGIONS_AT: usize = HEADER_AT + 320; // handles of the CMA regions: u32 each
export const FREE_RANKS_AT: usize = HEADER_AT + 384; // by type: free-list.ts
export const MOVABLE_LOCK_AT: usize = HEADER_AT + 704;
export const MISUSES_AT: usize = HEADER_AT + 768; // the last frames of misuseCount: u32 pfn each
export const REAP_LOCK_AT: usize = HEADER_AT + 896; // one thread reaps at a time
export const DOMAINS_LOCK_AT: usize = HEADER_AT + 960; // domains come and go under it

export const WARM_AT: usize = HEADER_AT + 1024; // by kind: warm.ts

if (offsetof<Header>("freeFrames") != 64) ERROR("a counter lies in the line of the bases"); // L6
if (offsetof<Header>() > 128) ERROR("Header reaches into the locks");
if (MISUSES_AT + <usize>MISUSES_KEPT * 4 > REAP_LOCK_AT) ERROR("the misuses reach into reapLock");
if (MAX_REGIONS * 4 > 64) ERROR("the regions leave their line");

export function header(): Header {
  return changetype<Header>(HEADER_AT);
}

function lineUp(at: usize): usize {
  return (at + 63) & ~63;
}

/** What the chunks of all pageblocks take, and the heads of their lists. */
export function chunksBytes(frameCount: u32): usize {
  const pageblocks = ((<usize>frameCount - 1) >> PAGEBLOCK_ORDER) + 1;
  return CHUNK_BYTES * ((pageblocks << (PAGEBLOCK_ORDER - CHUNK_ORDER)) + FIRST_CHUNK);
}

/**
 * Writes the header for `frameCount` frames of which the first `backedFrames` have bytes.
 * Returns the first frame behind the map, or EINVAL / ENOMEM with nothing written.
 */
export function layoutInit(
  frameCount: u32,
  backedFrames: u32,
  threadCount: u32,
  physPfnBase: u32,
  isShared: u32,
): i32 {
  if (threadCount == 0 || threadCount > MAX_THREADS || backedFrames > frameCount) return EINVAL;
  if (frameCount > 1 << 21 || physPfnBase % (1 << PAGEBLOCK_ORDER) != 0) return EINVAL;
  if (physPfnBase > MAX_PHYS_PFN - frameCount) return EINVAL;

  const threadsAt = lineUp(CHUNKS_AT + chunksBytes(frameCount));
  const wordsAt = threadsAt + <usize>threadCount * THREAD_BYTES;
  const pagesAt = lineUp(wordsAt + <usize>frameCount * WORD_BYTES);
  const pageblocksAt = lineUp(pagesAt + <usize>frameCount * PAGE_BYTES);
  const end = pageblocksAt + (<usize>frameCount >> PAGEBLOCK_ORDER) + 1;
  const firstFrame = <u32>((end + FRAME_MASK) >> FRAME_SHIFT);
  if (firstFrame >= backedFrames || <u64>backedFrames > (<u64>memory.size()) << 4) return ENOMEM;

  const h = header();
  h.abiVersion = ABI_VERSION;
  h.frameCount = frameCount;
  h.backedFrames = backedFrames;
  h.firstFrame = firstFrame;
  h.threadCount = threadCount;
  h.threadsAt = threadsAt;
  h.wordsAt = wordsAt;
  h.pagesAt = pagesAt;
  h.pageblocksAt = pageblocksAt;
  h.physPfnBase = physPfnBase;
  h.isShared = isShared;
  h.magic = MAGIC; // L5: the rest is valid from here on
  return firstFrame;
}

/** The byte address of frame `pfn`; wraps above 4 GiB, where no frame has bytes. */
export function frameAt(pfn: u32): usize {
  return (<usize>pfn) << FRAME_SHIFT;
}
