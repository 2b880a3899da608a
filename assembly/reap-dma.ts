// What a dead thread mapped: its mappings, shadows, bounce slots and domains, and what it had begun
// to count for others.
//
//   mapping ──► its table's mapCount, its device's list, a shadow, bounce slots
//   device  ──► its domain's deviceCount                        domain ──► another's userCount
//
// K7  A count that the thread was changing when it died is told anew from the records, while nobody
//     can change it: under the lock that it changes under, or all of them.
//
// Called by reap.ts, after the locks that the thread held were repaired.

import { objectNext, objectPayload } from "./check";
import { shadowDrop, shadowFree } from "./dma-cache";
import { CACHED, COUNTED, COUNTING, Device, Mapping, UNCOUNTED } from "./dma-device";
import { Domain } from "./iommu";
import { DOMAINS_LOCK_AT, header } from "./layout";
import { lockHard, lockTakeOver, unlock } from "./lock";
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
  const isOwn = isOwnedBy(payload, dead);
  const isForeign = deviceAt != 0 && !isOwnedBy(deviceAt, dead);
  if (isForeign) lockHard(deviceAt);
  objectFree(recordOf(payload));
  if (isForeign) {
    rebuildDevice(deviceAt);
    unlock(deviceAt);
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
  atomic.store<u32>(mapCountAt, mapsOf(tableAt));
  mapping.counted = UNCOUNTED;
  devicesUnlock();
}

/** Has all mappings stand still: none is counted without its device's lock (K7). */
function devicesLock(): void {
  lockHard(DOMAINS_LOCK_AT); // no device comes or goes
  for (let index = objectNext(0, KIND_DEVICE); index != 0; index = objectNext(index, KIND_DEVICE))
    lockHard(objectPayload(index));
}

function devicesUnlock(): void {
  for (let index = objectNext(0, KIND_DEVICE); index != 0; index = objectNext(index, KIND_DEVICE))
    unlock(objectPayload(index));
  unlock(DOMAINS_LOCK_AT);
}

/** How many mappings of a table are counted. */
function mapsOf(tableAt: usize): u32 {
  let count: u32 = 0;
  for (
    let index = objectNext(0, KIND_MAPPING);
    index != 0;
    index = objectNext(index, KIND_MAPPING)
  ) {
    const mapping = Mapping.at(objectPayload(index));
    count += <u32>(mapping.counted == COUNTED && objectFind(mapping.table, KIND_TABLE) == tableAt);
  }
  return count;
}

/** Counts the users of all shadows. The caller holds shadowLock. */
export function shadowsRecount(): void {
  for (let index = objectNext(0, KIND_TABLE); index != 0; index = objectNext(index, KIND_TABLE)) {
    const payload = objectPayload(index);
    const table = SgTable.at(payload);
    if (table.shadow == 0 && table.shadowUsers == 0) continue;
    table.shadowUsers = cachedMapsOf(payload);
    if (table.shadowUsers == 0 && table.shadow != 0) shadowFree(table);
  }
}

/** How many mappings share the shadow of a table. */
function cachedMapsOf(tableAt: usize): u32 {
  let count: u32 = 0;
  for (
    let index = objectNext(0, KIND_MAPPING);
    index != 0;
    index = objectNext(index, KIND_MAPPING)
  ) {
    const mapping = Mapping.at(objectPayload(index));
    const isCached = (mapping.attrs & CACHED) != 0;
    count += <u32>(isCached && objectFind(mapping.table, KIND_TABLE) == tableAt);
  }
  return count;
}

/** Frees the bounce slots of mappings that are gone. */
export function slotsRepair(dead: u32): void {
  const poolAt = header().bounceAt;
  if (poolAt == 0) return;
  if (!lockTakeOver(poolAt, dead)) lockHard(poolAt);
  rebuildPool();
  unlock(poolAt);
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
  lockHard(DOMAINS_LOCK_AT);
  for (let index = objectNext(0, KIND_DOMAIN); index != 0; index = objectNext(index, KIND_DOMAIN)) {
    const payload = objectPayload(index);
    if (isOwnedBy(payload, dead) && !isUsedByOthers(payload, dead)) domainDrop(payload);
  }
  unlock(DOMAINS_LOCK_AT);
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

function domainDrop(payload: usize): void {
  const through = Domain.at(payload).through;
  objectFree(recordOf(payload));
  if (through != 0) {
    const throughAt = objectFind(through, KIND_DOMAIN);
    if (throughAt != 0) Domain.at(throughAt).userCount -= 1;
  }
}
