// Entries of an IO page table: the ARM LPAE descriptors as io-pgtable-arm writes them, and runs.
//
//   63  55 54 53  52  51   50 44 43                12 11  10   9   8  7   6  5   4    2 1    0
//   ├─ 0 ─┼─ XN ─┼ 0 ┼ DBM ┼─ 0 ─┼─ physical frame ──┼ nG ┼ AF ┼─ SH ─┼─ AP ─┼ 0 ┼ attr ─┼ kind ┤
//
//   kind  0  nothing; the whole entry is 0     XN  both bits: not executable
//         1  block                             SH  2 outer, 3 inner shareable
//         3  page, in a table of pages
//            table, in a table above
//
//             stage 1                                      stage 2
//   nG        set                                          not set
//   AP        bit 7: not writable, bit 6: unprivileged     bit 7: may write, bit 6: may read
//   attr      4:2  0 uncached, 1 cached, 2 device          5:2  5 uncached, 15 cached, 1 device
//
// G10 A leaf has AF, one of the two SH values, and nG at stage 1 only; its frame is a multiple of
//     the size it maps. A table has no bits but its frame and its kind.
// G11 The bits are a function of the IOMMU_* protection. At stage 1, WRITE alone reads back as
//     READ | WRITE: it cannot forbid reading.
// G12 DBM stands on writable leaves of tables with dirty bits only, at stage 1. Such a leaf is
//     clean while its bit 7 is set, and a device that writes there resets it.
//
// Compare arm_lpae_prot_to_pte() in drivers/iommu/io-pgtable-arm.c in the kernel.

import { FRAME_MASK, frameAt, header } from "./layout";

const IOMMU_READ: u32 = 1 << 0;
const IOMMU_WRITE: u32 = 1 << 1;
const IOMMU_CACHE: u32 = 1 << 2;
const IOMMU_NOEXEC: u32 = 1 << 3;
const IOMMU_MMIO: u32 = 1 << 4;
const IOMMU_PRIV: u32 = 1 << 5;

export const PROTS: u32 = 64; // combinations of the bits above
export const PTE_BYTES: usize = 8;

const PFN_SHIFT: u64 = 12;
const PFN_MASK: u64 = 0x00000fff_fffff000; // 44-bit addresses
const KIND_MASK: u64 = 3;
const BLOCK: u64 = 1;
const PAGE_OR_TABLE: u64 = 3;
const NOT_BLOCK: u64 = 2; // the bit that a table has and a block has not

const ATTR_CACHED: u64 = 1 << 2;
const ATTR_DEVICE: u64 = 2 << 2;
const ATTR_MASK: u64 = 7 << 2;
const AP_UNPRIVILEGED: u64 = 1 << 6;
const AP_READ_ONLY: u64 = 1 << 7;
const SH_OUTER: u64 = 2 << 8;
const SH_INNER: u64 = 3 << 8;
const SH_MASK: u64 = 3 << 8;
const AF: u64 = 1 << 10;
const NG: u64 = 1 << 11;
const DBM: u64 = 1 << 51;
const XN: u64 = 3 << 53;

const MEMATTR_DEVICE: u64 = 1 << 2; // stage 2, as the next four
const MEMATTR_UNCACHED: u64 = 5 << 2;
const MEMATTR_CACHED: u64 = 15 << 2;
const HAP_READ: u64 = 1 << 6;
const HAP_WRITE: u64 = 1 << 7;
const HAP_SHIFT: u64 = 6;

@unmanaged
export class Entry {
  pte: u64;

  static at(table: usize, index: u32): Entry {
    return changetype<Entry>(table + (<usize>index) * PTE_BYTES);
  }

  /** Only while it points to a table: where we see that table. */
  get table(): usize {
    return pteTableAt(this.pte);
  }

  /** A number that no other entry of any table has. */
  get place(): u32 {
    return <u32>(changetype<usize>(this) >> 3);
  }
}

if (offsetof<Entry>() != PTE_BYTES) ERROR("Entry is not PTE_BYTES long");

// ---- one descriptor

/** Whether `prot` lets a device do anything at all. */
export function isAccess(prot: u32): bool {
  return (prot & (IOMMU_READ | IOMMU_WRITE)) != 0;
}

/** The bits of a leaf that do not depend on where it lies; 0: `prot` allows nothing. */
export function pteAttributes(prot: u32, isStage2: bool, hasDirty: bool): u64 {
  if (!isAccess(prot)) return 0;
  let bits = AF;
  bits |= prot & IOMMU_CACHE ? SH_INNER : SH_OUTER;
  bits |= prot & IOMMU_NOEXEC ? XN : 0;
  if (isStage2) {
    bits |= prot & IOMMU_READ ? HAP_READ : 0;
    bits |= prot & IOMMU_WRITE ? HAP_WRITE : 0;
    const cached = prot & IOMMU_CACHE ? MEMATTR_CACHED : MEMATTR_UNCACHED;
    return bits | (prot & IOMMU_MMIO ? MEMATTR_DEVICE : cached);
  }
  bits |= prot & IOMMU_WRITE ? (hasDirty ? DBM : 0) : AP_READ_ONLY;
  bits |= prot & IOMMU_PRIV ? 0 : AP_UNPRIVILEGED;
  bits |= prot & IOMMU_MMIO ? ATTR_DEVICE : prot & IOMMU_CACHE ? ATTR_CACHED : 0;
  return bits | NG;
}

/** What a leaf permits, as IOMMU_* bits without those for memory types. */
export function pteProt(pte: u64, isStage2: bool): u32 {
  const noexec = (pte & XN) != 0 ? IOMMU_NOEXEC : 0;
  if (isStage2) return (<u32>(pte >> HAP_SHIFT) & (IOMMU_READ | IOMMU_WRITE)) | noexec;
  const isWritable = (pte & AP_READ_ONLY) == 0 || (pte & DBM) != 0;
  const priv = (pte & AP_UNPRIVILEGED) == 0 ? IOMMU_PRIV : 0;
  return IOMMU_READ | (isWritable ? IOMMU_WRITE : 0) | noexec | priv;
}

/** Whether a leaf permits an access: IOMMU_READ, IOMMU_WRITE; IOMMU_NOEXEC fetches; IOMMU_PRIV. */
export function pteAllows(pte: u64, access: u32, isStage2: bool): bool {
  const prot = pteProt(pte, isStage2);
  const wanted = access & (IOMMU_READ | IOMMU_WRITE);
  if ((prot & wanted) != wanted || (access & prot & IOMMU_NOEXEC) != 0) return false;
  return (prot & ~access & IOMMU_PRIV) == 0;
}

/** Whether a leaf with dirty bits says that no device wrote there (G12). */
@inline export function pteIsClean(pte: u64): bool {
  return (pte & (DBM | AP_READ_ONLY)) == (DBM | AP_READ_ONLY);
}

/** Whether a leaf with dirty bits says that a device may have written there. */
export function pteIsDirty(pte: u64): bool {
  return (pte & (DBM | AP_READ_ONLY)) == DBM;
}

/** A clean leaf after a write. */
export function pteWritten(pte: u64): u64 {
  return pteIsClean(pte) ? pte & ~AP_READ_ONLY : pte;
}

/** A leaf whose writes were seen; the same if it is not dirty. */
export function pteCleaned(pte: u64): u64 {
  return pteIsDirty(pte) ? pte | AP_READ_ONLY : pte;
}

/** The kind of a leaf: a page's or a block's. */
export function leafKind(isPage: bool): u64 {
  return isPage ? PAGE_OR_TABLE : BLOCK;
}

/** A page or block from physical frame `physPfn` on. */
export function pteLeaf(physPfn: u32, isPage: bool, attributes: u64): u64 {
  return ((<u64>physPfn) << PFN_SHIFT) | attributes | leafKind(isPage);
}

/** A block as the first of the smaller leaves that cover what it maps. */
export function ptePart(block: u64, isPage: bool): u64 {
  return (block & ~KIND_MASK) | leafKind(isPage);
}

/** The distance between two neighbouring leaves of 2^order pages. */
export function pteStep(order: u32): u64 {
  return ((<u64>1) << PFN_SHIFT) << (<u64>order);
}

export function pteTable(physPfn: u32): u64 {
  return ((<u64>physPfn) << PFN_SHIFT) | PAGE_OR_TABLE;
}

/** Where we see the table that an entry points to. */
export function pteTableAt(pte: u64): usize {
  return (<usize>pte & ~(<usize>FRAME_MASK)) - frameAt(header().physPfnBase);
}

/** Whether the entry of a table above the last level points to a table. */
export function isTable(pte: u64): bool {
  return (pte & NOT_BLOCK) != 0;
}

export function ptePfn(pte: u64): u32 {
  return <u32>(pte >> PFN_SHIFT);
}

/** G10 for the entry of a table that points to tables. */
export function isSoundTable(pte: u64): bool {
  return (pte & ~PFN_MASK) == PAGE_OR_TABLE;
}

/** G10 and G12 for a leaf of 2^order pages. */
export function isSoundLeaf(pte: u64, order: u32, isPage: bool, isStage2: bool): bool {
  const memory = isStage2 ? MEMATTR_CACHED : ATTR_MASK | DBM;
  const free = PFN_MASK | memory | AP_UNPRIVILEGED | AP_READ_ONLY | SH_MASK | XN;
  if ((pte & ~free) != (leafKind(isPage) | AF | (isStage2 ? 0 : NG))) return false;
  if ((ptePfn(pte) & ((1 << order) - 1)) != 0) return false;
  if ((pte & SH_OUTER) == 0) return false; // both SH values have that bit
  return (pte & XN) == 0 || (pte & XN) == XN;
}

// ---- runs of entries in one table

/**
 * Writes `count` entries as entriesFill() does; false, with nothing written, unless all of them
 * were empty.
 */
@inline export function entriesMap(at: usize, count: u32, first: u64, step: u64): bool {
  if (count == 1) {
    const entry = changetype<Entry>(at);
    if (entry.pte != 0) return false;
    entry.pte = first;
    return true;
  }
  if (!areEmpty(at, count)) return false;
  entriesFill(at, count, first, step);
  return true;
}

/** Whether `count` entries from `at` on say that nothing is there. */
@inline export function areEmpty(at: usize, count: u32): bool {
  const end = at + ((<usize>count) << 3);
  let seen = i64x2.splat(0);
  for (; at + 64 <= end; at += 64) {
    const front = v128.or(v128.load(at), v128.load(at, 16));
    seen = v128.or(seen, v128.or(front, v128.or(v128.load(at, 32), v128.load(at, 48))));
  }
  let rest: u64 = 0;
  for (; at < end; at += 8) rest |= changetype<Entry>(at).pte;
  return rest == 0 && !v128.any_true(seen);
}

/** Writes `count` entries: `first`, then each `step` more than the one before. */
@inline export function entriesFill(at: usize, count: u32, first: u64, step: u64): void {
  const end = at + ((<usize>count) << 3);
  if (at + 16 <= end) {
    const steps = i64x2.splat(step << 1);
    let pair = i64x2.replace_lane(i64x2.splat(first), 1, first + step);
    first += step * (count & ~1);
    for (; at + 64 <= end; at += 64) {
      const second = i64x2.add(pair, steps);
      const third = i64x2.add(second, steps);
      const fourth = i64x2.add(third, steps);
      v128.store(at, pair);
      v128.store(at, second, 16);
      v128.store(at, third, 32);
      v128.store(at, fourth, 48);
      pair = i64x2.add(fourth, steps);
    }
    for (; at + 16 <= end; at += 16) {
      v128.store(at, pair);
      pair = i64x2.add(pair, steps);
    }
  }
  if (at < end) changetype<Entry>(at).pte = first;
}

/** Empties [at, end) up to the first entry that is no leaf of that kind; returns where it is. */
@inline export function leavesClear(at: usize, end: usize, kind: u64): usize {
  const zeros = i64x2.splat(0);
  for (; at + 64 <= end; at += 64) {
    const front = kindsDiffer(v128.load(at), v128.load(at, 16), kind);
    const back = kindsDiffer(v128.load(at, 32), v128.load(at, 48), kind);
    if (v128.any_true(v128.and(v128.or(front, back), i64x2.splat(KIND_MASK)))) break;
    v128.store(at, zeros);
    v128.store(at, zeros, 16);
    v128.store(at, zeros, 32);
    v128.store(at, zeros, 48);
  }
  for (; at < end; at += PTE_BYTES) {
    if ((changetype<Entry>(at).pte & KIND_MASK) != kind) break;
    changetype<Entry>(at).pte = 0;
  }
  return at;
}

/** Has ones among the low bits of a lane where an entry of two pairs is not of a kind. */
@inline function kindsDiffer(one: v128, other: v128, kind: u64): v128 {
  return kind == PAGE_OR_TABLE // which are all the bits there are
    ? v128.not(v128.and(one, other))
    : v128.or(v128.xor(one, i64x2.splat(kind)), v128.xor(other, i64x2.splat(kind)));
}
