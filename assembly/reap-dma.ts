// What a dead thread mapped: its mappings, shadows, bounce slots and domains, and what it had begun
// to count for others.
//
//   mapping ──► its table's mapCount, its device's list, a shadow, bounce slots
//   device  ──► its domain's deviceCount                        domain ──► another's userCount
//
// K7  A count that the thread was changing when it died is told anew from the records, while nobody
//     can change it: under the lock that it changes under, or all of them.
//
// K9  Of a domain that goes on, a dead thread's mapping gives back its device pages and
//     translations as an unmap does; what the thread was doing to it when it died is put right
//     before, from what is written by single stores: page table entries, the ends of ranges
//     (iova-rebuild.ts), the mappings' records (I12).
//
// Called by reap.ts.

import { objectNext, objectPayload } from "./check";
import { shadowDrop, shadowFree } from "./dma-cache";
import { CACHED, COUNTED, COUNTING, Device, Mapping, UNCOUNTED } from "./dma-device";
import { queueRelease } from "./flush-queue";
import { Domain, PAGING } from "./iommu";
import { domainUnmapList } from "./iommu-dma";
import { iotlbInvalidateAll } from "./iotlb";
import { iovaFind } from "./iova";
import { iovaRebuild } from "./iova-rebuild";
import { DOMAINS_LOCK_AT, header } from "./layout";
import { lockRare, lockTakeOver, unlockRare } from "./lock";
import {
  KIND_DEVICE,
  KIND_DOMAIN,
  KIND_MAPPING,
  KIND_TABLE,
  ObjectRecord,
  handleOf,
  objectFind,
  objectFree,
  recordOf,
} from "./object";
import { PageTable } from "./pgtable-format";
import { treeRebuild } from "./pgtable-tree";
import { rebuildDevice, rebuildPool } from "./rebuild";
import { entriesFree } from "./sg-entries";
import { SgTable } from "./sg";

/** Whether `thread` made the object. */
export function isOwnedBy(payload: usize, thread: u32): bool {
  return ObjectRecord.at(recordOf(payload)).owner == thread;
}

// ---- mappings

/** Drops the mappings that the thread made, and those on its devices, which go too. */
export function mappingsDrop(dead: u32): void {
  for (
    let index = objectNext(0, KIND_MAPPING);
    index != 0;
    index = objectNext(index, KIND_MAPPING)
  ) {
    const payload = objectPayload(index);
    const deviceAt = objectFind(Mapping.at(payload).device, KIND_DEVICE);
    const isOnIts = deviceAt != 0 && isOwnedBy(deviceAt, dead);
    if (isOnIts || isOwnedBy(payload, dead)) mappingDrop(payload, deviceAt, dead);
  }
}

function mappingDrop(payload: usize, deviceAt: usize, dead: u32): void {
  const mapping = Mapping.at(payload);
  const tableAt = objectFind(mapping.table, KIND_TABLE);
  const segmentsAt = mapping.segmentsAt;
  const nents = mapping.nents;
  if (tableAt != 0) {
    if ((mapping.attrs & CACHED) != 0) shadowDrop(SgTable.at(tableAt), mapping);
    uncount(mapping, tableAt);
  }
  const domainAt = domainOf(mapping);
  if (mapping.iovaPfn != 0 && domainAt != 0) domainUnmapList(domainAt, mapping);
  const isOwn = isOwnedBy(payload, dead);
  const isForeign = deviceAt != 0 && !isOwnedBy(deviceAt, dead);
  if (isForeign) lockRare(deviceAt);
  objectFree(recordOf(payload));
  if (isForeign) {
    rebuildDevice(deviceAt);
    unlockRare(deviceAt);
  }
  if (!isOwn && nents > 0) entriesFree(segmentsAt, nents);
}

/** Takes a mapping out of its table's count, in which it may be or not (D9). */
function uncount(mapping: Mapping, tableAt: usize): void {
  const mapCountAt = tableAt + offsetof<SgTable>("mapCount");
  if (mapping.counted == COUNTED) {
    mapping.counted = COUNTING;
    atomic.sub<u32>(mapCountAt, 1);
    mapping.counted = UNCOUNTED;
  }
  if (mapping.counted != COUNTING) return;
  devicesLock();
  atomic.store<u32>(mapCountAt, mapsOf(tableAt, false));
  mapping.counted = UNCOUNTED;
  devicesUnlock();
}

/** Has all mappings stand still: none is counted without its device's lock (K7). */
function devicesLock(): void {
  lockRare(DOMAINS_LOCK_AT); // no device comes or goes
  for (let index = objectNext(0, KIND_DEVICE); index != 0; index = objectNext(index, KIND_DEVICE))
    lockRare(objectPayload(index));
}

function devicesUnlock(): void {
  for (let index = objectNext(0, KIND_DEVICE); index != 0; index = objectNext(index, KIND_DEVICE))
    unlockRare(objectPayload(index));
  unlockRare(DOMAINS_LOCK_AT);
}

/** How many mappings of a table are counted; or, if `isCached`, share its shadow. */
function mapsOf(tableAt: usize, isCached: bool): u32 {
  let count: u32 = 0;
  for (
    let index = objectNext(0, KIND_MAPPING);
    index != 0;
    index = objectNext(index, KIND_MAPPING)
  ) {
    const mapping = Mapping.at(objectPayload(index));
    if (objectFind(mapping.table, KIND_TABLE) != tableAt) continue;
    count += <u32>(isCached ? (mapping.attrs & CACHED) != 0 : mapping.counted == COUNTED);
  }
  return count;
}

/** Counts the users of all shadows. The caller holds shadowLock. */
export function shadowsRecount(): void {
  for (let index = objectNext(0, KIND_TABLE); index != 0; index = objectNext(index, KIND_TABLE)) {
    const payload = objectPayload(index);
    const table = SgTable.at(payload);
    if (table.shadow == 0 && table.shadowUsers == 0) continue;
    table.shadowUsers = mapsOf(payload, true);
    if (table.shadowUsers == 0 && table.shadow != 0) shadowFree(table);
  }
}

/** Frees the bounce slots of mappings that are gone. */
export function slotsRepair(dead: u32): void {
  const poolAt = header().bounceAt;
  if (poolAt == 0) return;
  if (!lockTakeOver(poolAt, dead)) lockRare(poolAt);
  rebuildPool();
  unlockRare(poolAt);
}

// ---- domains

/** Counts the devices and users of all domains. The caller holds domainsLock. */
export function domainsRecount(): void {
  for (let index = objectNext(0, KIND_DOMAIN); index != 0; index = objectNext(index, KIND_DOMAIN)) {
    const payload = objectPayload(index);
    const handle = <u32>handleOf(recordOf(payload));
    Domain.at(payload).deviceCount = devicesOf(handle);
    Domain.at(payload).userCount = usersOf(handle);
  }
}

function devicesOf(domain: u32): u32 {
  let count: u32 = 0;
  for (let index = objectNext(0, KIND_DEVICE); index != 0; index = objectNext(index, KIND_DEVICE))
    count += <u32>(Device.at(objectPayload(index)).domain == domain);
  return count;
}

function usersOf(domain: u32): u32 {
  let count: u32 = 0;
  for (let index = objectNext(0, KIND_DOMAIN); index != 0; index = objectNext(index, KIND_DOMAIN))
    count += <u32>(Domain.at(objectPayload(index)).through == domain);
  return count;
}

/** Frees the domains of the thread that nobody else uses. */
export function domainsDrop(dead: u32): void {
  lockRare(DOMAINS_LOCK_AT);
  for (let index = objectNext(0, KIND_DOMAIN); index != 0; index = objectNext(index, KIND_DOMAIN)) {
    const payload = objectPayload(index);
    if (isOwnedBy(payload, dead) && !isUsedByOthers(payload, dead)) domainDrop(payload);
  }
  unlockRare(DOMAINS_LOCK_AT);
}

/** Whether a device or domain of another thread goes through a domain. */
function isUsedByOthers(payload: usize, dead: u32): bool {
  if (Domain.at(payload).deviceCount != 0) return true;
  const handle = <u32>handleOf(recordOf(payload));
  for (let index = objectNext(0, KIND_DOMAIN); index != 0; index = objectNext(index, KIND_DOMAIN)) {
    const other = objectPayload(index);
    if (Domain.at(other).through == handle && !isOwnedBy(other, dead)) return true;
  }
  return false;
}

/**
 * Builds the domains anew in which the thread died, with what all others have there: whose locks it
 * held.
 */
export function domainsRepair(dead: u32): void {
  for (let index = objectNext(0, KIND_DOMAIN); index != 0; index = objectNext(index, KIND_DOMAIN)) {
    const payload = objectPayload(index);
    if (!lockTakeOver(payload, dead)) continue;
    if (Domain.at(payload).type == PAGING) domainRebuild(payload, dead);
    unlockRare(payload);
  }
}

/** A domain's device pages, tables, flush queue and IOTLB. The caller holds its lock. */
function domainRebuild(payload: usize, dead: u32): void {
  const domain = Domain.at(payload);
  treeRebuild(PageTable.at(domain.tableAt));
  if (domain.tlbAt != 0) iotlbInvalidateAll(domain.tlb);
  if (iovaRebuild(domain.spaceAt) != 0) return; // no memory: check() says what is broken
  if (domain.isLazy != 0) queueRelease(domain.queue, domain.spaceAt); // a second time, for some
  for (
    let index = objectNext(0, KIND_MAPPING);
    index != 0;
    index = objectNext(index, KIND_MAPPING)
  ) {
    const at = objectPayload(index);
    const mapping = Mapping.at(at);
    if (!isOwnedBy(at, dead) || mapping.iovaPfn == 0 || domainOf(mapping) != payload) continue;
    if (iovaFind(domain.spaceAt, mapping.iovaPfn) == 0) mapping.iovaPfn = 0; // it was unmapping
  }
}

/** The domain that a mapping's device pages are in; 0: none, or its device is gone. */
function domainOf(mapping: Mapping): usize {
  const deviceAt = objectFind(mapping.device, KIND_DEVICE);
  const domain = deviceAt == 0 ? 0 : Device.at(deviceAt).domain;
  return domain == 0 ? 0 : objectFind(domain, KIND_DOMAIN);
}

function domainDrop(payload: usize): void {
  const through = Domain.at(payload).through;
  objectFree(recordOf(payload));
  if (through != 0) {
    const throughAt = objectFind(through, KIND_DOMAIN);
    if (throughAt != 0) Domain.at(throughAt).userCount -= 1;
  }
}
