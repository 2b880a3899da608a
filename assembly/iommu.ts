// A domain: the address space of the devices behind an IOMMU.
//
//   device page ──iova.ts: which ranges are taken──┐
//        └──────pgtable.ts: what they translate to─┴──► frame
//
//   domain (object payload)  ├ lockWord ┼ bodyAt ┼ deviceCount ┼ type ┼ through ┼ … ┤
//   body (one frame)         ├ IovaSpace: 64 ┼ PageTable: 576 ┼ … ┼ FlushQueue, from 1024 ┤
//
// I1  A failed call leaves the table as it found it; what it mapped is unmapped again.
// I2  A range of device pages is given back only after its translations are gone; with lazy
//     invalidation, only after the IOTLB has forgotten them too (I11 of flush-queue.ts).
// I3  deviceCount devices use the domain; it is not freed before they leave.
// I4  userCount domains send their devices through this one (`through`); it is not freed before
//     they stop. It has no devices of its own and goes through no other. Both counts change under
//     domainsLock.
// I5  A paging domain has a body.
//
// Device page 0 is never given out, so that 0 can mean "none". A device belongs to the domain that
// its mappings are made in, the default one of its group; attaching the group to another domain
// sets `through`, and the device's accesses go there.
//
// Compare drivers/iommu/iommu.c and dma-iommu.c in the kernel.

import { NONE } from "./bits";
import { EAGAIN, EBUSY, EINVAL, EOPNOTSUPP, ERANGE, ESTALE } from "./errno";
import { FlushQueue, QUEUE_BYTES } from "./flush-queue";
import { Iotlb, iotlbDrop, iotlbInvalidate, iotlbMake, iotlbReplace } from "./iotlb";
import { iovaFini, iovaInit } from "./iova";
import { SPACE_BYTES } from "./iova-space";
import { DOMAINS_LOCK_AT, FRAME_BYTES, FRAME_SHIFT, frameAt, header } from "./layout";
import { lock, lockRare, unlock, unlockRare } from "./lock";
import { frameDrop, frameTake, framesAdopt } from "./magazine";
import {
  KIND_DOMAIN,
  ObjectRecord,
  objectAlloc,
  objectAt,
  objectFind,
  objectFree,
  objectIs,
  recordOf,
} from "./object";
import { OBJECT } from "./page";
import { pgtFini, pgtInitAs, pgtMap, pgtUnmap, pgtUnmapRange } from "./pgtable";
import { PAGE_TABLE_BYTES, STAGE_1_FORMAT } from "./pgtable-format";
import { pgtLookup } from "./pgtable-walk";
import { threadIndex } from "./thread";

export const BLOCKED: u32 = 0; // so is a domain that is being made
export const PAGING: u32 = 1;
export const IDENTITY: u32 = 2;

export const LAZY: u32 = 4; // beside the flags of pgtable-format.ts

const PAGE_TABLE_OFFSET: usize = SPACE_BYTES;
const QUEUE_OFFSET: usize = 1024;

@unmanaged
export class Domain {
  lockWord: u32;
  bodyAt: usize; // a frame; I5; 0 = none
  deviceCount: u32; // I3
  type: u32; // BLOCKED, PAGING, IDENTITY
  through: u32; // handle of the domain that its devices' accesses take; 0 = this one
  userCount: u32; // I4
  isLazy: u32; // unmapped ranges wait in the flush queue
  tlbAt: usize; // Iotlb; 0 = none
  staleCount: u32; // accesses through translations that were gone from the table
  stalePfn: u32; // device page of the last, while staleCount > 0

  static at(payload: usize): Domain {
    return changetype<Domain>(payload);
  }

  get spaceAt(): usize {
    return this.bodyAt;
  }

  get tableAt(): usize {
    return this.bodyAt + PAGE_TABLE_OFFSET;
  }

  get queue(): FlushQueue {
    return FlushQueue.at(this.bodyAt + QUEUE_OFFSET);
  }

  get tlb(): Iotlb {
    return Iotlb.at(this.tlbAt);
  }
}

if (offsetof<Domain>() > 48) ERROR("Domain does not fit into an object's payload");
if (PAGE_TABLE_OFFSET + PAGE_TABLE_BYTES > QUEUE_OFFSET) ERROR("the table reaches into the queue");
if (QUEUE_OFFSET + QUEUE_BYTES > FRAME_BYTES) ERROR("the queue leaves the domain's body");

/** An empty domain: stage 1, 4 KiB pages, 44-bit addresses. Its handle, or ENOMEM, EAGAIN. */
export function iommuDomainAlloc(): i32 {
  return iommuDomainAllocAs(STAGE_1_FORMAT);
}

/**
 * An empty paging domain with a table of a format (pgtable-format.ts); LAZY among its flags: what
 * the DMA API unmaps waits for a flush. Its handle, or EINVAL, ENOMEM, EAGAIN.
 */
export function iommuDomainAllocAs(format: u32): i32 {
  if (!lock(DOMAINS_LOCK_AT)) return EAGAIN; // while domains are swept, none comes or goes
  const result = domainMake(format);
  unlockRare(DOMAINS_LOCK_AT);
  return result;
}

function domainMake(format: u32): i32 {
  const handle = objectAlloc(KIND_DOMAIN);
  if (handle < 0) return handle;
  const payload = objectFind(handle, KIND_DOMAIN);
  const domain = Domain.at(payload);
  const bodyPfn = frameTake(OBJECT);
  let error = bodyPfn < 0 ? bodyPfn : 0;
  if (error == 0) {
    domain.bodyAt = frameAt(bodyPfn);
    memory.fill(domain.bodyAt, 0, FRAME_BYTES);
    domain.isLazy = <u32>((format & LAZY) != 0);
    error = iovaInit(domain.spaceAt, 1);
    if (error == 0) {
      error = pgtInitAs(domain.tableAt, format);
      if (error != 0) iovaFini(domain.spaceAt);
    }
    if (error != 0) frameDrop(bodyPfn);
  }
  if (error == 0) {
    domain.type = PAGING; // the table is there
    return handle;
  }
  objectFree(recordOf(payload));
  return error;
}

/** A domain of type IDENTITY or BLOCKED, without a table. Its handle, or EINVAL, ENOMEM, EAGAIN. */
export function iommuDomainAllocFixed(type: u32): i32 {
  if (type != IDENTITY && type != BLOCKED) return EINVAL;
  if (!lock(DOMAINS_LOCK_AT)) return EAGAIN;
  const handle = objectAlloc(KIND_DOMAIN);
  if (handle >= 0) Domain.at(objectFind(handle, KIND_DOMAIN)).type = type;
  unlockRare(DOMAINS_LOCK_AT);
  return handle;
}

/** Frees a domain with its tables. 0, or ESTALE, EBUSY (a device uses it). */
export function iommuDomainFree(handle: u32): i32 {
  const payload = objectAt(handle);
  if (!objectIs(payload, handle, KIND_DOMAIN)) return ESTALE;
  const domain = Domain.at(payload);
  lockRare(DOMAINS_LOCK_AT);
  const isFree = (domain.deviceCount | domain.userCount | domain.through) == 0;
  if (isFree) domainDestroy(payload);
  unlockRare(DOMAINS_LOCK_AT);
  return isFree ? 0 : EBUSY;
}

/** Frees a domain that nobody uses. The caller holds domainsLock. */
function domainDestroy(payload: usize): void {
  const domain = Domain.at(payload);
  ObjectRecord.at(recordOf(payload)).owner = threadIndex(); // who frees it (reap-dma.ts)
  if (domain.tlbAt != 0) iotlbDrop(domain.tlb);
  const bodyPfn = <u32>(domain.bodyAt >> FRAME_SHIFT);
  if (domain.type == PAGING) {
    pgtFini(domain.tableAt);
    iovaFini(domain.spaceAt);
  }
  if (bodyPfn != 0) framesAdopt(bodyPfn, 1);
  objectFree(recordOf(payload));
  if (bodyPfn != 0) frameDrop(bodyPfn);
}

/** The address of the domain's payload, for reading its fields; ESTALE. */
export function iommuDomainAt(handle: u32): i32 {
  const payload = objectFind(handle, KIND_DOMAIN);
  return payload == 0 ? ESTALE : <i32>payload;
}

/**
 * Sends the devices of a default domain, which go through the domain `from`, through another; 0 =
 * their own. 0, or ESTALE, EBUSY (they do not go through `from`), EINVAL (a domain with devices of
 * its own).
 */
export function iommuAttach(handle: u32, from: u32, throughHandle: u32): i32 {
  lockRare(DOMAINS_LOCK_AT);
  const result = domainAttach(handle, from, throughHandle);
  unlockRare(DOMAINS_LOCK_AT);
  return result;
}

function domainAttach(handle: u32, from: u32, throughHandle: u32): i32 {
  const payload = objectFind(handle, KIND_DOMAIN);
  const throughAt: usize = throughHandle == 0 ? 0 : objectFind(throughHandle, KIND_DOMAIN);
  if (payload == 0 || (throughHandle != 0 && throughAt == 0)) return ESTALE;
  if (throughAt != 0 && Domain.at(throughAt).deviceCount != 0) return EINVAL; // I4
  const domain = Domain.at(payload);
  if (domain.userCount != 0 || throughAt == payload) return EINVAL; // I4
  if (domain.through != from) return EBUSY;
  if (from != 0) Domain.at(objectFind(from, KIND_DOMAIN)).userCount -= 1;
  if (throughAt != 0) Domain.at(throughAt).userCount += 1;
  domain.through = throughHandle;
  return 0;
}

/** Whether devices can be added to a domain: it has a table, and is nobody's way through. */
export function domainTakesDevices(payload: usize): bool {
  const domain = Domain.at(payload);
  return domain.bodyAt != 0 && domain.userCount == 0; // I4
}

// ---- mapping

/**
 * Maps `pageCount` device pages from `iovaPfn` to the physical pages from `physPfn`. 0, or ESTALE,
 * EINVAL (no paging domain), EAGAIN, pgtMap's errors.
 */
export function iommuMap(handle: u32, iovaPfn: u32, physPfn: u32, pageCount: u32, prot: u32): i32 {
  const payload = objectAt(handle);
  if (!objectIs(payload, handle, KIND_DOMAIN)) return ESTALE;
  const domain = Domain.at(payload);
  if (domain.bodyAt == 0) return EINVAL; // I5
  if (!lock(payload)) return EAGAIN;
  if (domain.tlbAt != 0) iotlbReplace(domain.tlb, domain.tableAt, iovaPfn, pageCount);
  const result = pgtMap(domain.tableAt, iovaPfn, physPfn, pageCount, prot);
  unlock(payload);
  return result;
}

/**
 * Unmaps up to the first hole, and has the IOTLB forget it; how many device pages, or ESTALE,
 * EAGAIN.
 */
export function iommuUnmap(handle: u32, iovaPfn: u32, pageCount: u32): i32 {
  const payload = objectAt(handle);
  if (!objectIs(payload, handle, KIND_DOMAIN)) return ESTALE;
  const domain = Domain.at(payload);
  if (domain.bodyAt == 0) return 0; // I5
  if (!lock(payload)) return EAGAIN;
  const unmapped = pgtUnmap(domain.tableAt, iovaPfn, pageCount);
  if (domain.tlbAt != 0) iotlbInvalidate(domain.tlb, iovaPfn, unmapped);
  unlock(payload);
  return unmapped;
}

/** As iommuUnmap(), but the IOTLB may still know the pages until iommuIotlbSync(). */
export function iommuUnmapFast(handle: u32, iovaPfn: u32, pageCount: u32): i32 {
  const payload = objectAt(handle);
  if (!objectIs(payload, handle, KIND_DOMAIN)) return ESTALE;
  const domain = Domain.at(payload);
  if (domain.bodyAt == 0) return 0; // I5
  if (!lock(payload)) return EAGAIN;
  const unmapped = pgtUnmapRange(domain.tableAt, iovaPfn, pageCount);
  unlock(payload);
  return unmapped;
}

/** Has the IOTLB forget a range of device pages. 0, or ESTALE. */
export function iommuIotlbSync(handle: u32, iovaPfn: u32, pageCount: u32): i32 {
  const payload = objectAt(handle);
  if (!objectIs(payload, handle, KIND_DOMAIN)) return ESTALE;
  const domain = Domain.at(payload);
  lockRare(payload);
  if (domain.tlbAt != 0) iotlbInvalidate(domain.tlb, iovaPfn, pageCount);
  unlock(payload);
  return 0;
}

/**
 * Gives a domain an IOTLB of `sets` (a power of two) times `ways` entries, at most
 * IOTLB_ENTRIES_MAX. 0, or ESTALE, EINVAL, EBUSY (it has one), ENOMEM.
 */
export function iommuIotlbMake(handle: u32, sets: u32, ways: u32, isLru: u32): i32 {
  const payload = objectAt(handle);
  if (!objectIs(payload, handle, KIND_DOMAIN)) return ESTALE;
  const domain = Domain.at(payload);
  if (domain.bodyAt == 0) return EINVAL; // I5
  if (domain.tlbAt != 0) return EBUSY;
  const at = iotlbMake(sets, ways, isLru);
  if (at > 0) domain.tlbAt = at;
  return min(at, 0);
}

/** The physical page behind a device page; NONE when nothing maps it or the domain is gone. */
export function iommuIovaToPhys(handle: u32, iovaPfn: u32): u32 {
  const payload = objectAt(handle);
  if (!objectIs(payload, handle, KIND_DOMAIN)) return NONE;
  const domain = Domain.at(payload);
  if (domain.bodyAt == 0) return domain.type == IDENTITY ? iovaPfn : NONE;
  if (header().isShared == 0) return pgtLookup(domain.tableAt, iovaPfn);
  lockRare(payload); // another thread may be dropping the table that the walk goes through
  const phys = pgtLookup(domain.tableAt, iovaPfn);
  unlock(payload);
  return phys;
}
