// Lists of frames at device pages of their own: what the DMA-mapping API does with a domain.
//
//   list ──rangeAlloc──► device pages ──pgtMapFrames──► translations         domainMapList
//   gone ◄──iovaFree──── device pages ◄──rangeUnmap──── translations         domainUnmapList
//            └─ lazy: through the flush queue (flush-queue.ts)
//
// I12  A mapping names its device pages from the moment at which they are taken until they are
//     given back or wait in the flush queue: all under the domain's lock, so that the record says
//     what a dead thread had (reap-dma.ts).
//
// The caller knows that the domain lives; each function takes its lock. Upholds I1 and I2.
//
// Compare iommu_dma_map_sg() and __iommu_dma_unmap() in drivers/iommu/dma-iommu.c in the kernel.

import { NO_BOUNDARY, holePages } from "./boundary";
import { ESTALE } from "./errno";
import { Mapping } from "./dma-device";
import { queueAdd, queueRelease } from "./flush-queue";
import { Domain } from "./iommu";
import { iotlbInvalidate, iotlbInvalidateAll } from "./iotlb";
import { iovaAlloc, iovaFree, iovaSettle } from "./iova";
import { lockHard, unlock } from "./lock";
import {
  KIND_DOMAIN,
  objectAt,
  objectIs,
} from "./object";
import { pgtUnmapRange } from "./pgtable";
import { pgtMapFrames } from "./pgtable-frames";
import { SgEntry } from "./sg-entries";

/** The longest range that the kernel takes from its caches: what dma_opt_mapping_size() says. */
export const OPTIMAL_PAGES: u32 = 32;

const PFN_32BIT: u32 = 0xfffff; // the last device page below 4 GiB

/**
 * Device pages for `pageCount` pages, below 4 GiB if it can be (as Linux prefers); 0 = none. The
 * caller holds the lock.
 */
function rangeAlloc(domain: Domain, pageCount: u32, limitPfn: u32): u32 {
  if (limitPfn > PFN_32BIT) {
    const low = rangeBelow(domain, pageCount, PFN_32BIT);
    if (low != 0) return low;
  }
  return rangeBelow(domain, pageCount, limitPfn);
}

function rangeBelow(domain: Domain, pageCount: u32, limitPfn: u32): u32 {
  return iovaAlloc(domain.spaceAt, pageCount, limitPfn, true);
}

function rangeFree(domain: Domain, iovaPfn: u32): void {
  iovaFree(domain.spaceAt, iovaPfn);
}

/**
 * Maps a whole list at `pageCount` new device pages, with holes where the boundary asks for them,
 * and says in the mapping which they are (I12). Their first, or 0: no range below the limit, no
 * frame for a table, or the lock refused.
 */
export function domainMapList(
  payload: usize,
  mapping: Mapping,
  entriesAt: usize,
  count: u32,
  pageCount: u32,
  limitPfn: u32,
  boundaryPageMask: u32,
  prot: u32,
): u32 {
  const domain = Domain.at(payload);
  lockHard(payload);
  let iovaPfn = rangeAlloc(domain, pageCount, limitPfn);
  if (iovaPfn == 0 && domainFlush(domain) != 0) iovaPfn = rangeAlloc(domain, pageCount, limitPfn);
  if (iovaPfn != 0) {
    mapping.pageCount = pageCount;
    mapping.iovaPfn = iovaPfn;
    iovaSettle(domain.spaceAt);
    const error =
      boundaryPageMask == NO_BOUNDARY
        ? pgtMapFrames(domain.tableAt, iovaPfn, entriesAt, count, prot)
        : runsMap(domain.tableAt, iovaPfn, entriesAt, count, boundaryPageMask, prot);
    if (domain.tlbAt != 0) iotlbInvalidate(domain.tlb, iovaPfn, pageCount); // of tables it replaced
    if (error != 0) {
      rangeFree(domain, iovaPfn);
      mapping.iovaPfn = 0;
      iovaPfn = 0;
    }
  }
  unlock(payload);
  return iovaPfn;
}

/** Maps a list run by run, from one hole to the next. 0, or pgtMapFrames()'s errors (I1). */
function runsMap(
  tableAt: usize,
  iovaPfn: u32,
  entriesAt: usize,
  count: u32,
  boundaryPageMask: u32,
  prot: u32,
): i32 {
  let first: u32 = 0; // entry of the run
  let runAt: u32 = iovaPfn;
  let at: u32 = iovaPfn; // behind entry i - 1
  let error: i32 = 0;
  for (let i: u32 = 0; i <= count && error == 0; i++) {
    const pages = i < count ? SgEntry.at(entriesAt, i).pageCount : 0;
    const hole = holePages(at - iovaPfn, pages, boundaryPageMask);
    if (hole != 0 || i == count) {
      const firstAt = changetype<usize>(SgEntry.at(entriesAt, first));
      error = pgtMapFrames(tableAt, runAt, firstAt, i - first, prot);
      first = i;
      runAt = at + hole;
    }
    at += hole + pages;
  }
  if (error != 0) rangeUnmap(tableAt, iovaPfn, at - iovaPfn);
  return error;
}

/** Undoes domainMapList(). */
export function domainUnmapList(payload: usize, mapping: Mapping): void {
  const domain = Domain.at(payload);
  const iovaPfn = mapping.iovaPfn;
  const pageCount = mapping.pageCount;
  lockHard(payload);
  rangeUnmap(domain.tableAt, iovaPfn, pageCount);
  if (domain.isLazy != 0) {
    if (domain.queue.isFull) domainFlush(domain);
    queueAdd(domain.queue, iovaPfn, pageCount);
  } else {
    if (domain.tlbAt != 0) iotlbInvalidate(domain.tlb, iovaPfn, pageCount);
    rangeFree(domain, iovaPfn); // I2
  }
  mapping.iovaPfn = 0; // I12
  unlock(payload);
}

/** Has the IOTLB forget everything, and gives back the ranges that waited for it. How many. */
function domainFlush(domain: Domain): u32 {
  if (domain.isLazy == 0 || domain.queue.count == 0) return 0;
  if (domain.tlbAt != 0) iotlbInvalidateAll(domain.tlb);
  return queueRelease(domain.queue, domain.spaceAt); // I2
}

/** Empties the flush queue of a domain. How many ranges were given back, or ESTALE. */
export function iommuFlushQueue(handle: u32): i32 {
  const payload = objectAt(handle);
  if (!objectIs(payload, handle, KIND_DOMAIN)) return ESTALE;
  lockHard(payload);
  const count = domainFlush(Domain.at(payload));
  unlock(payload);
  return count;
}

/** How many ranges wait in the flush queue of a domain, or ESTALE. */
export function iommuQueuedCount(handle: u32): i32 {
  const payload = objectAt(handle);
  if (!objectIs(payload, handle, KIND_DOMAIN)) return ESTALE;
  const domain = Domain.at(payload);
  return domain.isLazy == 0 ? 0 : domain.queue.count;
}

/** Unmaps what is mapped of a range, on both sides of holes too. */
function rangeUnmap(tableAt: usize, iovaPfn: u32, pageCount: u32): void {
  for (let done: u32 = 0; done < pageCount; done += 1) // the page that stopped it, or the end
    done += pgtUnmapRange(tableAt, iovaPfn + done, pageCount - done);
}
