// A domain: the address space of the devices behind an IOMMU.
//
//   device page ──iova.ts: which ranges are taken──┐
//        └──────pgtable.ts: what they translate to─┴──► frame
//
//   domain (object payload)  ├ lockWord ┼ bodyPfn ┼ deviceCount ┤      body (one frame)  ├ IovaSpace ┼ PageTable ┤
//
// I1  A failed call leaves the table as it found it; what it mapped is unmapped again.
// I2  A range of device pages is given back only after its translations are gone.
// I3  deviceCount devices use the domain; it is not freed before they leave.
//
// Device page 0 is never given out, so that 0 can mean "none".
//
// Compare drivers/iommu/iommu.c and dma-iommu.c in the kernel.

import { NONE } from "./bits";
import { NO_BOUNDARY, holePages } from "./boundary";
import { EAGAIN, EBUSY, ESTALE } from "./errno";
import { iovaAlloc, iovaFini, iovaFree, iovaInit } from "./iova";
import { FRAME_BYTES, frameAt, header } from "./layout";
import { lock, lockHard, unlock } from "./lock";
import { frameDrop, frameTake } from "./magazine";
import { KIND_DOMAIN, objectAlloc, objectFind, objectFree, recordOf } from "./object";
import { OBJECT } from "./page";
import { pgtFini, pgtInitAs, pgtMap, pgtUnmap } from "./pgtable";
import { ADDRESS_BITS, STAGE_1 } from "./pgtable-format";
import { pgtMapFrames } from "./pgtable-frames";
import { pgtLookup, pgtProt } from "./pgtable-walk";
import { SgEntry } from "./sg-entries";

const PAGE_TABLE_OFFSET: usize = 64;
const PFN_32BIT: u32 = 0xfffff; // the last device page below 4 GiB

@unmanaged
export class Domain {
  lockWord: u32;
  bodyPfn: u32;
  deviceCount: u32; // I3

  static at(payload: usize): Domain {
    return changetype<Domain>(payload);
  }

  get spaceAt(): usize {
    return frameAt(this.bodyPfn);
  }

  get tableAt(): usize {
    return frameAt(this.bodyPfn) + PAGE_TABLE_OFFSET;
  }
}

/** An empty domain: stage 1, 4 KiB pages, 44-bit addresses. Its handle, or ENOMEM, EAGAIN. */
export function iommuDomainAlloc(): i32 {
  return iommuDomainAllocAs(STAGE_1, 0, ADDRESS_BITS, ADDRESS_BITS, 0);
}

/** An empty domain with a table of a format (formatInit()). Its handle, EINVAL, ENOMEM, EAGAIN. */
export function iommuDomainAllocAs(
  stage: u32,
  granuleOrder: u32,
  inputBits: u32,
  outputBits: u32,
  flags: u32,
): i32 {
  const handle = objectAlloc(KIND_DOMAIN);
  if (handle < 0) return handle;
  const payload = objectFind(handle, KIND_DOMAIN);
  const domain = Domain.at(payload);
  const bodyPfn = frameTake(OBJECT);
  let error = bodyPfn < 0 ? bodyPfn : 0;
  if (error == 0) {
    domain.bodyPfn = bodyPfn;
    memory.fill(frameAt(bodyPfn), 0, FRAME_BYTES);
    error = iovaInit(domain.spaceAt, 1);
    if (error == 0) {
      error = pgtInitAs(domain.tableAt, stage, granuleOrder, inputBits, outputBits, flags);
      if (error != 0) iovaFini(domain.spaceAt);
    }
    if (error != 0) frameDrop(bodyPfn);
  }
  if (error == 0) return handle;
  objectFree(recordOf(payload));
  return error;
}

/** Frees a domain with its tables. 0, or ESTALE, EBUSY (a device uses it). */
export function iommuDomainFree(handle: u32): i32 {
  const payload = objectFind(handle, KIND_DOMAIN);
  if (payload == 0) return ESTALE;
  const domain = Domain.at(payload);
  if (domain.deviceCount != 0) return EBUSY;
  pgtFini(domain.tableAt);
  iovaFini(domain.spaceAt);
  frameDrop(domain.bodyPfn);
  objectFree(recordOf(payload));
  return 0;
}

/**
 * Maps `pageCount` device pages from `iovaPfn` to the physical pages from `physPfn`. 0, or ESTALE,
 * EAGAIN, pgtMap's errors.
 */
export function iommuMap(handle: u32, iovaPfn: u32, physPfn: u32, pageCount: u32, prot: u32): i32 {
  const payload = objectFind(handle, KIND_DOMAIN);
  if (payload == 0) return ESTALE;
  if (!lock(payload)) return EAGAIN;
  const result = pgtMap(Domain.at(payload).tableAt, iovaPfn, physPfn, pageCount, prot);
  unlock(payload);
  return result;
}

/** Unmaps up to the first hole; how many device pages, or ESTALE, EAGAIN. */
export function iommuUnmap(handle: u32, iovaPfn: u32, pageCount: u32): i32 {
  const payload = objectFind(handle, KIND_DOMAIN);
  if (payload == 0) return ESTALE;
  if (!lock(payload)) return EAGAIN;
  const unmapped = pgtUnmap(Domain.at(payload).tableAt, iovaPfn, pageCount);
  unlock(payload);
  return unmapped;
}

/** The physical page behind a device page; NONE when nothing maps it or the domain is gone. */
export function iommuIovaToPhys(handle: u32, iovaPfn: u32): u32 {
  const payload = objectFind(handle, KIND_DOMAIN);
  if (payload == 0) return NONE;
  if (header().isShared == 0) return pgtLookup(Domain.at(payload).tableAt, iovaPfn);
  lockHard(payload); // another thread may be dropping the table that the walk goes through
  const phys = pgtLookup(Domain.at(payload).tableAt, iovaPfn);
  unlock(payload);
  return phys;
}

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
  const payload = objectFind(handle, KIND_DOMAIN);
  if (payload == 0 || pageCount == 0 || !lock(payload)) return 0;
  const pfn = iovaAlloc(Domain.at(payload).spaceAt, pageCount, limitPfn, isSizeAligned != 0);
  unlock(payload);
  return pfn;
}

/**
 * Gives back the range that holds device page `pfn`; its page count, 0 if nobody has it, or ESTALE,
 * EAGAIN.
 */
export function iommuIovaFree(handle: u32, pfn: u32): i32 {
  const payload = objectFind(handle, KIND_DOMAIN);
  if (payload == 0) return ESTALE;
  if (!lock(payload)) return EAGAIN;
  const pages = iovaFree(Domain.at(payload).spaceAt, pfn);
  unlock(payload);
  return pages;
}

// ---- for dma.ts: the domain's payload is known to live

/**
 * Device pages for `pageCount` pages, below 4 GiB if it can be (as Linux prefers); 0 = none. The
 * caller holds the lock.
 */
function rangeAlloc(domain: Domain, pageCount: u32, limitPfn: u32): u32 {
  if (limitPfn > PFN_32BIT) {
    const low = iovaAlloc(domain.spaceAt, pageCount, PFN_32BIT, true);
    if (low != 0) return low;
  }
  return iovaAlloc(domain.spaceAt, pageCount, limitPfn, true);
}

/**
 * Maps a whole list at `pageCount` new device pages, with holes where the boundary asks for them;
 * their first, or 0: no range below the limit, no frame for a table, or the lock refused.
 */
export function domainMapList(
  payload: usize,
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
  if (iovaPfn != 0) {
    const error =
      boundaryPageMask == NO_BOUNDARY
        ? pgtMapFrames(domain.tableAt, iovaPfn, entriesAt, count, prot)
        : runsMap(domain.tableAt, iovaPfn, entriesAt, count, boundaryPageMask, prot);
    if (error != 0) {
      iovaFree(domain.spaceAt, iovaPfn);
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
export function domainUnmapList(payload: usize, iovaPfn: u32, pageCount: u32): void {
  const domain = Domain.at(payload);
  lockHard(payload);
  rangeUnmap(domain.tableAt, iovaPfn, pageCount);
  iovaFree(domain.spaceAt, iovaPfn); // I2
  unlock(payload);
}

/** Unmaps what is mapped of a range, on both sides of holes too. */
function rangeUnmap(tableAt: usize, iovaPfn: u32, pageCount: u32): void {
  for (let done: u32 = 0; done < pageCount; done += 1) // the page that stopped it, or the end
    done += pgtUnmap(tableAt, iovaPfn + done, pageCount - done);
}

/**
 * The physical page behind `iovaPfn` if `access` (READ, WRITE bits) is allowed there, else NONE.
 */
export function domainTranslate(payload: usize, iovaPfn: u32, access: u32): u32 {
  const tableAt = Domain.at(payload).tableAt;
  lockHard(payload);
  const isAllowed = (pgtProt(tableAt, iovaPfn) & access) == access;
  const phys = isAllowed ? pgtLookup(tableAt, iovaPfn) : NONE;
  unlock(payload);
  return phys;
}
