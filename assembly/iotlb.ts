// The IOTLB of a domain: translations that its devices have used, kept until they are invalidated
// or pushed out.
//
//   page   % sets ─► set ─► ways entries, searched one by one
//
//   frame  ├ header: 32 bytes ┼ entry 0 ┼ entry 1 ┼ … ┤        entry  ├ page ┼ stamp ┼ leaf: u64 ┤
//
// I6  An entry is empty (leaf 0), or holds the leaf over its page, moved to that page, in the set
//     of that page; no page is held twice.
// I7  A full set gives up the entry with the oldest stamp: of its last use (LRU) or of its making
//     (FIFO).
//
// It is a model: one entry stands for one page of 4 KiB, also below a block, and only leaves are
// kept. Without one a device walks the tables at each access. The caller holds the domain's lock.
//
// Compare the TLB that drivers/iommu/arm/arm-smmu-v3 invalidates in the kernel.

import { NONE } from "./bits";
import { EINVAL } from "./errno";
import { FRAME_BYTES, FRAME_SHIFT, frameAt } from "./layout";
import { frameDrop, frameTake } from "./magazine";
import { OBJECT } from "./page";
import { pgtLookup } from "./pgtable-walk";

const ENTRY_BYTES: usize = 16;
const HEADER_BYTES: usize = 32;
export const IOTLB_ENTRIES_MAX: u32 = 254; // one frame

@unmanaged
export class Iotlb {
  sets: u32; // a power of two
  ways: u32;
  isLru: u32; // 0: FIFO
  clock: u32; // the youngest stamp
  hitCount: u32;
  missCount: u32;
  evictCount: u32;
  private reserved: u32;

  static at(address: usize): Iotlb {
    return changetype<Iotlb>(address);
  }

  get entryCount(): u32 {
    return this.sets * this.ways;
  }

  /** The first entry of the set that a page belongs to. */
  setOf(iovaPfn: u32): u32 {
    return (iovaPfn & (this.sets - 1)) * this.ways;
  }
}

@unmanaged
class IotlbEntry {
  iovaPfn: u32;
  stamp: u32; // I7
  leaf: u64; // 0 = empty

  static at(tlb: Iotlb, i: u32): IotlbEntry {
    const at = changetype<usize>(tlb) + HEADER_BYTES + <usize>i * ENTRY_BYTES;
    return changetype<IotlbEntry>(at);
  }
}

if (offsetof<Iotlb>() != HEADER_BYTES) ERROR("Iotlb is not HEADER_BYTES long");
if (offsetof<IotlbEntry>() != ENTRY_BYTES) ERROR("IotlbEntry is not ENTRY_BYTES long");
if (HEADER_BYTES + <usize>IOTLB_ENTRIES_MAX * ENTRY_BYTES > FRAME_BYTES)
  ERROR("an IOTLB does not fit into a frame");

/** An empty IOTLB of `sets` (a power of two) times `ways` entries. Its address, EINVAL, ENOMEM. */
export function iotlbMake(sets: u32, ways: u32, isLru: u32): i32 {
  if (sets == 0 || (sets & (sets - 1)) != 0 || ways == 0) return EINVAL;
  if (sets > IOTLB_ENTRIES_MAX || ways > IOTLB_ENTRIES_MAX / sets) return EINVAL;
  const pfn = frameTake(OBJECT);
  if (pfn < 0) return pfn;
  memory.fill(frameAt(pfn), 0, FRAME_BYTES);
  const tlb = Iotlb.at(frameAt(pfn));
  tlb.sets = sets;
  tlb.ways = ways;
  tlb.isLru = isLru;
  return <i32>changetype<usize>(tlb);
}

export function iotlbDrop(tlb: Iotlb): void {
  frameDrop(<u32>(changetype<usize>(tlb) >> FRAME_SHIFT));
}

/** The leaf that is kept for a page, or 0. */
export function iotlbFind(tlb: Iotlb, iovaPfn: u32): u64 {
  const entry = entryOf(tlb, iovaPfn);
  if (entry === null) {
    tlb.missCount += 1;
    return 0;
  }
  tlb.hitCount += 1;
  if (tlb.isLru != 0) entry.stamp = nextStamp(tlb);
  return entry.leaf;
}

/** Keeps the leaf of a page, in the place of what was kept for it or of the oldest (I7). */
export function iotlbKeep(tlb: Iotlb, iovaPfn: u32, leaf: u64): void {
  let entry = entryOf(tlb, iovaPfn);
  if (entry === null) {
    entry = oldestOf(tlb, tlb.setOf(iovaPfn));
    if (entry.leaf != 0) tlb.evictCount += 1;
    entry.stamp = nextStamp(tlb);
  }
  entry.iovaPfn = iovaPfn;
  entry.leaf = leaf;
}

/** Forgets the pages [iovaPfn, iovaPfn + pageCount). */
export function iotlbInvalidate(tlb: Iotlb, iovaPfn: u32, pageCount: u32): void {
  pagesForget(tlb, iovaPfn, pageCount, 0);
}

/**
 * Before a map of the pages [iovaPfn, iovaPfn + pageCount): forgets those that the table at
 * `tableAt` has, which the map replaces or leaves to be found again. What is stale stays so.
 */
export function iotlbReplace(tlb: Iotlb, tableAt: usize, iovaPfn: u32, pageCount: u32): void {
  pagesForget(tlb, iovaPfn, pageCount, tableAt);
}

function pagesForget(tlb: Iotlb, iovaPfn: u32, pageCount: u32, tableAt: usize): void {
  const isShort = pageCount < tlb.sets;
  const count = isShort ? pageCount : tlb.entryCount;
  for (let i: u32 = 0; i < count; i++) {
    const entry = isShort ? entryOf(tlb, iovaPfn + i) : IotlbEntry.at(tlb, i);
    if (entry === null || entry.iovaPfn - iovaPfn >= pageCount) continue;
    if (tableAt == 0 || pgtLookup(tableAt, entry.iovaPfn) != NONE) entry.leaf = 0;
  }
}

/** Forgets everything. */
export function iotlbInvalidateAll(tlb: Iotlb): void {
  for (let i: u32 = 0; i < tlb.entryCount; i++) IotlbEntry.at(tlb, i).leaf = 0;
}

/** Whether I6 holds. */
export function iotlbIsSound(tlb: Iotlb): bool {
  for (let i: u32 = 0; i < tlb.entryCount; i++) {
    const entry = IotlbEntry.at(tlb, i);
    if (entry.leaf != 0 && entryOf(tlb, entry.iovaPfn) !== entry) return false;
  }
  return true;
}

function entryOf(tlb: Iotlb, iovaPfn: u32): IotlbEntry | null {
  const first = tlb.setOf(iovaPfn);
  for (let i: u32 = 0; i < tlb.ways; i++) {
    const entry = IotlbEntry.at(tlb, first + i);
    if (entry.iovaPfn == iovaPfn && entry.leaf != 0) return entry;
  }
  return null;
}

/** An empty entry of the set that begins at entry `first`, or the one with the oldest stamp. */
function oldestOf(tlb: Iotlb, first: u32): IotlbEntry {
  let oldest = IotlbEntry.at(tlb, first);
  for (let i: u32 = 0; i < tlb.ways; i++) {
    const entry = IotlbEntry.at(tlb, first + i);
    if (entry.leaf == 0) return entry;
    if (entry.stamp < oldest.stamp) oldest = entry;
  }
  return oldest;
}

/** A stamp younger than all others; when the clock comes round, everything is forgotten. */
function nextStamp(tlb: Iotlb): u32 {
  tlb.clock += 1;
  if (tlb.clock == 0) iotlbInvalidateAll(tlb);
  return tlb.clock;
}
