// A list of scattered frames into an IO page table, as one range of device pages.
//
//   segments   ├ frames 7, 8 ┼ frame 3 ┼ frames 512 .. 1023 ┤
//   iovaPfn ─► ├─── 4K 4K ───┼── 4K ───┼─────── 2M ─────────┤
//
// G6  A list is mapped whole or not at all, as G5 has it for a range.
//
// Single frames that follow each other are written where the one before ended, without a walk.
//
// The caller holds the domain's lock. Compare iommu_map_sg() in drivers/iommu/iommu.c.

import { EEXIST, ERANGE } from "./errno";
import { FRAME_BYTES, FRAME_MASK, FRAME_SHIFT, header } from "./layout";
import { INDEX_BITS, batchesMap, batchesUnmap, isWithin, lastIndex, runMap } from "./pgtable";
import { PageTable, STRICT_MAP, tableKey } from "./pgtable-format";
import { isUnmapped } from "./pgtable-walk";
import { Entry, PTE_BYTES, pteLeaf } from "./pte";

/** Some bytes of consecutive frames, as a scatterlist has them. */
@unmanaged
class Segment {
  pfn: u32; // ours, not physical
  offset: u32; // bytes into frame `pfn`; less than FRAME_BYTES
  length: u32; // bytes
  before: u32; // not used here

  static at(listAt: usize, i: u32): Segment {
    return changetype<Segment>(listAt + <usize>i * offsetof<Segment>());
  }

  /** The frames that the bytes touch. */
  get pageCount(): u32 {
    return <u32>((<u64>this.offset + this.length + FRAME_MASK) >> FRAME_SHIFT);
  }
}

if (offsetof<Segment>() != 16) ERROR("Segment is not 16 bytes long");

/**
 * Maps the frames of `segmentCount` segments, each rounded out to whole frames, one behind the
 * other from `iovaPfn` on. 0, EEXIST, EINVAL, ERANGE, ENOMEM or EAGAIN.
 */
export function pgtMapFrames(
  rootAt: usize,
  iovaPfn: u32,
  segmentsAt: usize,
  segmentCount: u32,
  prot: u32,
): i32 {
  if (segmentCount == 0) return 0;
  const root = PageTable.at(rootAt);
  const attributes = root.attributesOf(prot);
  if (attributes == 0) return inaccessible(root, iovaPfn, segmentsAt, segmentCount);
  if (!isListFree(root, iovaPfn, segmentsAt, segmentCount)) return EEXIST;
  const physPfnBase = header().physPfnBase;
  // [at, atEnd) are the entries from `iova` on in its table of pages, as far as that is known.
  let at: usize = 0;
  let atEnd: usize = 0;
  let iova = iovaPfn;
  let error: i32 = 0;
  for (let i: u32 = 0; i < segmentCount; i++) {
    const segment = Segment.at(segmentsAt, i);
    const physPfn = segment.pfn + physPfnBase;
    const pages = segment.pageCount;
    if (pages == 1 && at != atEnd && physPfn <= root.lastPhysPfn) {
      const entry = changetype<Entry>(at);
      error = entry.pte != 0 ? EEXIST : 0;
      if (error < 0) break;
      entry.pte = pteLeaf(physPfn, true, attributes);
      at += PTE_BYTES;
    } else if (pages != 0) {
      error =
        iova < iovaPfn && root.isGranular(physPfn | pages)
          ? ERANGE
          : runMap(root, iova, physPfn, pages, attributes);
      if (error < 0) break;
      const isKnown = root.lastKey == tableKey(iova + pages, 0, INDEX_BITS);
      at = isKnown ? changetype<usize>(Entry.at(root.lastAt, lastIndex(iova + pages, 0))) : 0;
      atEnd = isKnown ? root.lastAt + FRAME_BYTES : 0;
    }
    iova += pages;
  }
  if (error < 0) batchesUnmap(root, iovaPfn, iova - iovaPfn); // G6
  return error;
}

/** What a list is refused with that allows no access: what its first run is. */
function inaccessible(root: PageTable, iovaPfn: u32, segmentsAt: usize, segmentCount: u32): i32 {
  for (let i: u32 = 0; i < segmentCount; i++) {
    const segment = Segment.at(segmentsAt, i);
    const physPfn = segment.pfn + header().physPfnBase;
    if (segment.pageCount != 0) return batchesMap(root, iovaPfn, physPfn, segment.pageCount, 0);
  }
  return 0;
}

/** Whether the whole range of a list may be written: with STRICT_MAP, only where nothing is. */
function isListFree(root: PageTable, iovaPfn: u32, segmentsAt: usize, segmentCount: u32): bool {
  if ((root.format & STRICT_MAP) == 0) return true;
  let pages: u64 = 0;
  for (let i: u32 = 0; i < segmentCount; i++) pages += Segment.at(segmentsAt, i).pageCount;
  if (pages == 0 || pages > <u64>root.lastPfn) return true; // ERANGE is found where it ends
  const pageCount = <u32>pages;
  return !isWithin(iovaPfn, pageCount, root.lastPfn) || isUnmapped(root, iovaPfn, pageCount);
}
