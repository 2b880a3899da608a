// Dirty tracking of a domain: what its devices wrote to since somebody last asked.
//
// The bits are those of the table's leaves (pgtable-dirty.ts); clearing them has the IOTLB forget
// the range, so that the next write finds a clean leaf (I9 of iommu-access.ts).
//
// Compare iommu_dirty_ops in the kernel's include/linux/iommu.h, of later kernels.

import { EINVAL, EOPNOTSUPP, ESTALE } from "./errno";
import { Domain } from "./iommu";
import { iotlbInvalidate } from "./iotlb";
import { lockRare, unlockRare } from "./lock";
import { KIND_DOMAIN, objectFind } from "./object";
import { isWithin } from "./pgtable";
import { DIRTY_BITS_MAX, dirtyClear, dirtyRead } from "./pgtable-dirty";
import { DIRTY_BITS, PageTable } from "./pgtable-format";

/**
 * Writes a bit for each granule of a range to the scratch words, 1 = a device may have written
 * there. How many are 1, or ESTALE, EOPNOTSUPP (the table has no dirty bits), EINVAL (an empty
 * range, one that leaves the domain, of more than DIRTY_BITS_MAX granules, or not of whole ones).
 */
export function iommuReadDirty(handle: u32, iovaPfn: u32, pageCount: u32): i32 {
  const payload = objectFind(handle, KIND_DOMAIN);
  const error = dirtyError(payload, iovaPfn, pageCount);
  if (error != 0) return error;
  const root = PageTable.at(Domain.at(payload).tableAt);
  if (pageCount >> root.granuleOrder > DIRTY_BITS_MAX) return EINVAL;
  lockRare(payload);
  const count = dirtyRead(root, iovaPfn, pageCount);
  unlockRare(payload);
  return count;
}

/** A range counts as clean from now on, also for the IOTLB. 0, or iommuReadDirty()'s errors. */
export function iommuClearDirty(handle: u32, iovaPfn: u32, pageCount: u32): i32 {
  const payload = objectFind(handle, KIND_DOMAIN);
  const error = dirtyError(payload, iovaPfn, pageCount);
  if (error != 0) return error;
  const domain = Domain.at(payload);
  lockRare(payload);
  dirtyClear(PageTable.at(domain.tableAt), iovaPfn, pageCount);
  if (domain.tlbAt != 0) iotlbInvalidate(domain.tlb, iovaPfn, pageCount);
  unlockRare(payload);
  return 0;
}

function dirtyError(payload: usize, iovaPfn: u32, pageCount: u32): i32 {
  if (payload == 0) return ESTALE;
  const domain = Domain.at(payload);
  if (domain.bodyAt == 0) return EOPNOTSUPP;
  const root = PageTable.at(domain.tableAt);
  if ((root.format & DIRTY_BITS) == 0) return EOPNOTSUPP;
  if (pageCount == 0 || !root.isGranular(iovaPfn | pageCount)) return EINVAL;
  return isWithin(iovaPfn, pageCount, root.lastPfn) ? 0 : EINVAL;
}
