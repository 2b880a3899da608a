// A device's accesses through its domain: translated, checked against the protection, remembered in
// the IOTLB and in dirty bits.
//
//   device page ─► domain ─through─► domain ─► IOTLB ─┬─ hit ─► leaf ─► may it? ─► frame
//                                                     └─ miss ─► page table ─┘
//
// I8  A hit counts, whatever the table says: a translation that is gone from the table but not yet
//     invalidated still lets the device in, and is counted as stale.
// I9  A write through a clean leaf with dirty bits walks the table, which makes it dirty.
//
// Compare the tables' use by drivers/iommu/arm/arm-smmu-v3 in the kernel, and report_iommu_fault().

import { NONE } from "./bits";
import { ESTALE } from "./errno";
import { BLOCKED, Domain, IDENTITY, PAGING } from "./iommu";
import { iotlbFind, iotlbKeep } from "./iotlb";
import { lockHard, unlock } from "./lock";
import { KIND_DOMAIN, objectFind } from "./object";
import { dirtyMark } from "./pgtable-dirty";
import { DIRTY_BITS, PageTable, STAGE_2 } from "./pgtable-format";
import { pageAt } from "./pgtable-walk";
import { pteAllows, pteIsClean, ptePfn, pteWritten } from "./pte";

export const ACCESS_READ: u32 = 1; // also the page table's bits, as the next three
export const ACCESS_WRITE: u32 = 2;
const ACCESS_EXECUTE: u32 = 8; // a read that fetches instructions
const ACCESS_PRIVILEGED: u32 = 32;

const FAULT_TRANSLATION: i32 = 1; // nothing is mapped there
const FAULT_PERMISSION: i32 = 2;
const FAULT_ADDRESS_SIZE: i32 = 3; // beyond the table's width
const FAULT_BLOCKED: i32 = 4;

/** Whether a number is an access: a read, a write or both, fetching or privileged at will. */
export function isAccess(access: u32): bool {
  const known = ACCESS_READ | ACCESS_WRITE | ACCESS_EXECUTE | ACCESS_PRIVILEGED;
  return (access & ~known) == 0 && (access & (ACCESS_READ | ACCESS_WRITE)) != 0;
}

/** The physical page behind `iovaPfn` if `access` is allowed there, else NONE. */
export function domainTranslate(payload: usize, iovaPfn: u32, access: u32): u32 {
  lockHard(payload);
  const domain = Domain.at(payload);
  const phys =
    domain.through == 0 && domain.tlbAt == 0 && domain.type == PAGING
      ? translate(PageTable.at(domain.tableAt), iovaPfn, access)
      : translateAny(domain, iovaPfn, access);
  unlock(payload);
  return phys;
}

/** The common case: a table and nothing else. */
function translate(root: PageTable, iovaPfn: u32, access: u32): u32 {
  const leaf = pageAt(root, iovaPfn);
  return leaf != 0 && isAllowed(root, leaf, access) ? useLeaf(root, iovaPfn, leaf, access) : NONE;
}

function translateAny(domain: Domain, iovaPfn: u32, access: u32): u32 {
  if (domain.through != 0) {
    return domainTranslate(objectFind(domain.through, KIND_DOMAIN), iovaPfn, access);
  }
  if (domain.type == PAGING) return translateCached(domain, iovaPfn, access);
  return domain.type == IDENTITY ? iovaPfn : NONE;
}

function translateCached(domain: Domain, iovaPfn: u32, access: u32): u32 {
  const root = PageTable.at(domain.tableAt);
  const tlb = domain.tlb;
  const kept = iotlbFind(tlb, iovaPfn);
  const isHit = kept != 0 && !((access & ACCESS_WRITE) != 0 && pteIsClean(kept)); // I9
  const leaf = isHit ? kept : pageAt(root, iovaPfn);
  if (leaf == 0) return NONE;
  if (!isAllowed(root, leaf, access)) return NONE;
  if (isHit) {
    const now = pageAt(root, iovaPfn);
    if (now == 0 || ptePfn(now) != ptePfn(leaf) || !isAllowed(root, now, access)) {
      domain.staleCount += 1; // I8
      domain.stalePfn = iovaPfn;
    }
    return ptePfn(leaf);
  }
  const phys = useLeaf(root, iovaPfn, leaf, access);
  iotlbKeep(tlb, iovaPfn, (access & ACCESS_WRITE) != 0 ? pteWritten(leaf) : leaf);
  return phys;
}

function isAllowed(root: PageTable, leaf: u64, access: u32): bool {
  return pteAllows(leaf, access, root.stage == STAGE_2);
}

/** The frame of a leaf; a write makes it dirty. */
function useLeaf(root: PageTable, iovaPfn: u32, leaf: u64, access: u32): u32 {
  if ((root.format & DIRTY_BITS) != 0 && (access & ACCESS_WRITE) != 0) dirtyMark(root, iovaPfn);
  return ptePfn(leaf);
}

/**
 * Why a device of the domain `handle` cannot access `iovaPfn`: 1 nothing is mapped there, 2 the
 * protection forbids it, 3 the address is too wide, 4 the domain is blocked; 0: it can. ESTALE.
 */
export function iommuFaultReason(handle: u32, iovaPfn: u32, access: u32): i32 {
  let payload = objectFind(handle, KIND_DOMAIN);
  if (payload == 0) return ESTALE;
  const through = Domain.at(payload).through;
  if (through != 0) payload = objectFind(through, KIND_DOMAIN);
  const domain = Domain.at(payload);
  if (domain.type == BLOCKED) return FAULT_BLOCKED;
  if (domain.type == IDENTITY) return 0;
  const root = PageTable.at(domain.tableAt);
  if (iovaPfn > root.lastPfn) return FAULT_ADDRESS_SIZE;
  lockHard(payload);
  const leaf = pageAt(root, iovaPfn);
  unlock(payload);
  if (leaf == 0) return FAULT_TRANSLATION;
  return isAllowed(root, leaf, access) ? 0 : FAULT_PERMISSION;
}
