// Device addresses by hand: ranges for who maps pages himself.
//
//   iommuIovaAlloc ──► range ──iommuMap, iommuUnmap──► range ──iommuIovaFree──►
//        └─ the page freed last, of the domain named last: a few loads and a store
//
// The fast paths are what recentTake() and pageGive() of iova-block.ts do; a domain found by
// Warm.of() needs no lock (O5). They leave `pending` alone, which is for the day on which a thread
// dies and others live on.

import { NONE } from "./bits";
import { EAGAIN, EINVAL, ESTALE } from "./errno";
import { Domain } from "./iommu";
import { iovaAlloc, iovaFree, iovaReserve, iovaSettle } from "./iova";
import { IovaSpace } from "./iova-space";
import { blockNear } from "./iova-table";
import { lock, unlock } from "./lock";
import { KIND_DOMAIN, objectAt, objectIs } from "./object";
import { Warm, warmKeep } from "./warm";

/**
 * A free range of device pages up to `limitPfn`; aligned to its size if asked. The first page, or
 * 0.
 */
export function iommuIovaAlloc(
  handle: u32,
  pageCount: u32,
  limitPfn: u32,
  isSizeAligned: u32,
): u32 {
  const warm = Warm.of(KIND_DOMAIN);
  if (handle != warm.handle) return allocSlow(handle, pageCount, limitPfn, isSizeAligned);
  if (pageCount != 1) return allocSlow(handle, pageCount, limitPfn, isSizeAligned);
  const space = IovaSpace.at(warm.at);
  const pfn = space.recent(0);
  if (pfn - 1 >= limitPfn) return allocSlow(handle, pageCount, limitPfn, isSizeAligned); // 0, too
  space.setRecent(0, 0);
  return pfn;
}

function allocSlow(handle: u32, pageCount: u32, limitPfn: u32, isSizeAligned: u32): u32 {
  const payload = objectAt(handle);
  if (!objectIs(payload, handle, KIND_DOMAIN)) return 0;
  const spaceAt = Domain.at(payload).spaceAt;
  if (spaceAt == 0) return 0; // I5
  warmKeep(KIND_DOMAIN, handle, spaceAt);
  if (!lock(payload)) return 0;
  const pfn = iovaAlloc(spaceAt, pageCount, limitPfn, isSizeAligned != 0);
  iovaSettle(spaceAt); // the number is its record
  unlock(payload);
  return pfn;
}

/**
 * Gives back the range that holds device page `pfn`; its page count, 0 if nobody has it, or ESTALE,
 * EAGAIN.
 */
export function iommuIovaFree(handle: u32, pfn: u32): i32 {
  const warm = Warm.of(KIND_DOMAIN);
  if (handle != warm.handle) return freeSlow(handle, pfn);
  const space = IovaSpace.at(warm.at);
  const block = blockNear(space, pfn);
  if (!block.hasSingle(pfn)) return freeSlow(handle, pfn);
  if (!block.isTakenSingle(pfn)) return freeSlow(handle, pfn);
  if (space.recent(0) != 0) return freeSlow(handle, pfn);
  space.setRecent(0, pfn);
  return 1;
}

function freeSlow(handle: u32, pfn: u32): i32 {
  const payload = objectAt(handle);
  if (!objectIs(payload, handle, KIND_DOMAIN)) return ESTALE;
  const spaceAt = Domain.at(payload).spaceAt;
  if (spaceAt == 0) return 0;
  warmKeep(KIND_DOMAIN, handle, spaceAt);
  if (!lock(payload)) return EAGAIN;
  const pages = iovaFree(spaceAt, pfn);
  unlock(payload);
  return pages;
}

/**
 * Keeps `pageCount` device pages from `iovaPfn` on from being given out. 0, or ESTALE, EINVAL,
 * ENOMEM, EAGAIN.
 */
export function iommuIovaReserve(handle: u32, iovaPfn: u32, pageCount: u32): i32 {
  const payload = objectAt(handle);
  if (!objectIs(payload, handle, KIND_DOMAIN)) return ESTALE;
  if (Domain.at(payload).bodyAt == 0 || pageCount == 0) return EINVAL;
  if (pageCount - 1 > NONE - iovaPfn) return EINVAL;
  if (!lock(payload)) return EAGAIN;
  const result = iovaReserve(Domain.at(payload).spaceAt, iovaPfn, iovaPfn + pageCount);
  unlock(payload);
  return result;
}
