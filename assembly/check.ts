// The walker: re-derives every counter, list and bitmap from the truth words, and says which
// invariant is broken.
//
// A result is 0 or the number of an invariant (panic.ts). rebuild.ts goes over the same truth words
// to restore what is derived. Nothing imports this file but the export list.
//
// It reads without locks: call it while no other thread is inside the core. Cost: O(frames +
// records + table entries).

import { bitmapCheck } from "./bitmap-check";
import { bitmapLargestFree, bitmapTakenCount } from "./bitmap-count";
import { NONE } from "./bits";
import { bitmapIsFree } from "./bitmap";
import { bounceUsedSlots } from "./bounce";
import { checkFrames, checkLists, checkThreads, frameCountIn } from "./check-frames";
import { Buffer } from "./buffer";
import { chainSlots, checkPool, checkShadow, isSharing } from "./check-dma";
import { Device, Mapping } from "./dma-device";
import { Domain, PAGING } from "./iommu";
import { iotlbIsSound } from "./iotlb";
import { iovaFind } from "./iova";
import { iovaCheck } from "./iova-check";
import { IovaSpace } from "./iova-space";
import { tableFrames } from "./iova-table";
import { DIRECTORY_ENTRIES, FRAME_BYTES, NOTHING_AT, frameAt, header } from "./layout";
import { Movable } from "./movable";
import {
  INDEX_MASK,
  KINDS,
  KIND_BUFFER,
  KIND_DEVICE,
  KIND_DOMAIN,
  KIND_MAPPING,
  KIND_MOVABLE,
  KIND_POOL,
  KIND_REGION,
  KIND_TABLE,
  ObjectRecord,
  PAYLOAD_OFFSET,
  objectFind,
} from "./object";
import {
  CMA,
  DIRTY,
  FREE,
  Frame,
  MIGRATE_CMA,
  MOVABLE,
  OBJECT,
  Page,
  SLAB,
  TABLE,
  pageblockType,
} from "./page";
import { pgtCheck, pgtTableFrames } from "./pgtable";
import { pgtLookup } from "./pgtable-walk";
import { Pool } from "./pool-table";
import { Region, bitmapBase, bitmapFrames } from "./region";
import { SgEntry, entriesFrames } from "./sg-entries";
import { SgTable } from "./sg";
import { isHeld, isShareable } from "./share";
import {
  CACHES,
  DirectoryEntry,
  Slab,
  SlabCache,
  SlabRecord,
  recordAt,
  recordIsUsed,
  recordPlace,
} from "./slab";
import { Warm } from "./warm";

const B: u32 = 6600,
  C: u32 = 6700,
  D: u32 = 6800,
  H: u32 = 7200,
  I: u32 = 7300,
  L: u32 = 7600,
  M: u32 = 7700,
  N: u32 = 7800,
  O: u32 = 7900;
const P: u32 = 8000,
  R: u32 = 8200,
  S: u32 = 8300,
  T: u32 = 8400,
  W: u32 = 8700,
  Y: u32 = 8900;

/**
 * 0, or the number of the first broken invariant. `isDeep` also reads the bytes of frames that
 * should hold zeros (P4).
 */
export function check(isDeep: u32): u32 {
  let broken = checkFrames(isDeep != 0);
  if (broken == 0) broken = checkLists();
  if (broken == 0) broken = checkThreads();
  if (broken == 0) broken = checkSlabs();
  if (broken == 0) broken = checkObjects();
  if (broken == 0) broken = checkWarm();
  if (broken == 0) broken = checkPool();
  if (broken == 0) broken = checkUse();
  return broken;
}

// ---- records

function checkSlabs(): u32 {
  const h = header();
  let withRoom: u32 = 0;
  let objects: u32 = 0;
  for (let pfn: u32 = h.firstFrame; pfn < h.backedFrames; pfn++) {
    if (Frame.at(pfn).state != SLAB) continue;
    const slab = Slab.of(pfn);
    if (slab.cache >= CACHES) return R + 3;
    const used = liveRecords(pfn);
    if (used != slab.used || used == 0) return R + 3;
    if (used < slab.capacity) withRoom += 1;
    if (slab.truth != 0) return R + 6;
    if (slab.isNumbered) {
      objects += used;
      if (DirectoryEntry.at(slab.number).pfn != pfn) return R + 4;
    }
  }
  let listed: u32 = 0;
  for (let cache: u32 = 0; cache < CACHES; cache++) {
    for (let pfn = SlabCache.at(cache).firstPfn; pfn != 0; pfn = Page.at(pfn).next) {
      if (Frame.at(pfn).state != SLAB || Slab.of(pfn).cache != cache || ++listed > withRoom)
        return R + 2;
    }
  }
  if (listed != withRoom) return R + 2;
  return objects == h.objectCount ? 0 : O + 3;
}

function liveRecords(pfn: u32): u32 {
  const slab = Slab.of(pfn);
  let used: u32 = 0;
  for (let i: u32 = 1; i < slab.bump; i++) {
    used += <u32>(SlabRecord.at(frameAt(pfn) + ((<usize>i) << slab.recordShift)).truth != 0);
  }
  return used;
}

/**
 * The next live object record of `kind` behind record index `after`; 0 at the end. 0 as kind: any.
 */
export function objectNext(after: u32, kind: u32): u32 {
  for (let index = after + 1; index < DIRECTORY_ENTRIES << 6; index++) {
    const at = recordAt(index);
    if (at == 0) {
      if ((index & 63) == 0) continue;
      index |= 63; // no slab has this number
      continue;
    }
    const found = recordIsUsed(at) ? ObjectRecord.at(at).kind : 0;
    if (found != 0 && (kind == 0 || found == kind)) return index;
  }
  return 0;
}

/** Whether what is warm is there, and only where it may be (O5). */
function checkWarm(): u32 {
  for (let kind: u32 = 0; kind < KINDS; kind++) {
    const warm = Warm.of(kind);
    if (warm.handle == 0 && warm.at == NOTHING_AT) continue;
    const payload = objectFind(warm.handle, kind);
    if (payload == 0 || CHECKS || header().isShared != 0) return O + 5;
    const at = kind == KIND_DOMAIN ? Domain.at(payload).spaceAt : payload;
    if (at != warm.at) return O + 5;
  }
  return 0;
}

/** The payload of the record with an index that objectNext() gave. */
export function objectPayload(index: u32): usize {
  return recordPlace(index) + PAYLOAD_OFFSET;
}

// ---- objects

function checkObjects(): u32 {
  let mappings: u32 = 0;
  let listed: u32 = 0;
  let bounced: u32 = 0;
  for (let index = objectNext(0, 0); index != 0; index = objectNext(index, 0)) {
    const record = ObjectRecord.at(recordPlace(index));
    const payload = objectPayload(index);
    if ((record.handle & INDEX_MASK) != index || record.handle == index) return R + 5;
    let broken: u32 = record.kind >= KINDS || record.refs == 0 ? O + 1 : 0;
    if (record.kind == KIND_REGION) broken = checkRegion(Region.at(payload));
    if (record.kind == KIND_TABLE) broken = checkTable(payload);
    if (record.kind == KIND_DOMAIN) broken = checkDomain(payload);
    if (record.kind == KIND_MOVABLE) broken = checkMovable(payload, record.handle);
    if (isShareable(record.kind) && !isHeld(payload)) broken = H + 1;
    if (record.kind == KIND_BUFFER && broken == 0) broken = checkBuffer(Buffer.at(payload));
    if (record.kind == KIND_MAPPING) {
      mappings += 1;
      const slots = chainSlots(Mapping.at(payload), record.handle);
      if (slots == 0xffffffff) broken = W + 5;
      else bounced += slots;
    }
    if (record.kind == KIND_DEVICE) {
      const length = checkDevice(Device.at(payload));
      if (length == 0xffffffff) broken = D + 2;
      else listed += length;
    }
    if (broken != 0) return broken;
  }
  if (bounced != bounceUsedSlots()) return W + 5;
  return mappings == listed ? 0 : D + 2;
}

function checkRegion(region: Region): u32 {
  if (bitmapCheck(region.bitmapAt) != 0) return M + bitmapCheck(region.bitmapAt);
  let lent: u32 = 0;
  for (let bit: u32 = 0; bit < region.bitCount; bit++) {
    const isFree = bitmapIsFree(region.bitmapAt, bit, 1);
    const first = region.basePfn + (bit << region.orderPerBit);
    for (let i: u32 = 0; i < (<u32>1) << region.orderPerBit; i++) {
      const state = Frame.at(first + i).state;
      if (state == FREE && (Frame.at(first + i).word & ~DIRTY) != FREE) return P + 6;
      if (isFree ? state != FREE && state != MOVABLE : state != CMA) return C + 1;
      if (state == FREE && first + i >= region.lendPfn) return C + 6;
      lent += <u32>(state == MOVABLE);
      if (pageblockType(first + i) != MIGRATE_CMA) return C + 3;
    }
  }
  if (lent != region.lentFrames) return C + 5;
  if (lent != 0 && region.isFixed != 0) return C + 7;
  const largest = region.largestBits;
  if (largest != NONE && largest != bitmapLargestFree(region.bitmapAt)) return C + 8;
  return bitmapTakenCount(region.bitmapAt) == region.usedBits ? 0 : C + 2;
}

/** Its table lives, owns frames and holds all its bytes (N3). */
function checkBuffer(buffer: Buffer): u32 {
  const details = buffer.details;
  const detailsAt: usize = details == 0 ? 0 : objectFind(details, KIND_TABLE);
  if (details != 0 && (detailsAt == 0 || SgTable.at(detailsAt).source == 0)) return N + 9;
  if (buffer.isServed) return 0;
  const tableAt = objectFind(buffer.table, KIND_TABLE);
  if (tableAt == 0) return N + 3;
  const table = SgTable.at(tableAt);
  return table.source != 0 && buffer.sizeBytes <= table.lengthBytes ? 0 : N + 3;
}

function checkEntries(at: usize, count: u32, totalBytes: u32): u32 {
  let before: u32 = 0;
  for (let i: u32 = 0; i < count; i++) {
    const entry = SgEntry.at(at, i);
    if (entry.offset >= FRAME_BYTES) return S + 1;
    if (entry.before != before) return S + 2;
    before += entry.length;
  }
  return before == totalBytes ? 0 : S + 2;
}

function checkTable(payload: usize): u32 {
  const table = SgTable.at(payload);
  let mapped: u32 = 0;
  let sharing: u32 = 0;
  for (
    let index = objectNext(0, KIND_MAPPING);
    index != 0;
    index = objectNext(index, KIND_MAPPING)
  ) {
    const mapping = Mapping.at(objectPayload(index));
    mapped += <u32>(objectFind(mapping.table, KIND_TABLE) == payload);
    sharing += <u32>isSharing(mapping, payload);
  }
  const broken = checkShadow(table, sharing);
  if (broken != 0) return broken;
  return mapped == table.mapCount
    ? checkEntries(table.entriesAt, table.origNents, table.lengthBytes)
    : D + 2;
}

function checkDomain(payload: usize): u32 {
  const domain = Domain.at(payload);
  let devices: u32 = 0;
  for (let index = objectNext(0, KIND_DEVICE); index != 0; index = objectNext(index, KIND_DEVICE)) {
    const handle = Device.at(objectPayload(index)).domain;
    devices += <u32>(handle != 0 && objectFind(handle, KIND_DOMAIN) == payload);
  }
  if (devices != domain.deviceCount) return I + 3;
  let users: u32 = 0;
  for (let index = objectNext(0, KIND_DOMAIN); index != 0; index = objectNext(index, KIND_DOMAIN)) {
    const through = Domain.at(objectPayload(index)).through;
    users += <u32>(through != 0 && objectFind(through, KIND_DOMAIN) == payload);
  }
  if (users != domain.userCount || (users != 0 && (devices | domain.through) != 0)) return I + 4;
  if (domain.through != 0 && objectFind(domain.through, KIND_DOMAIN) == 0) return I + 4;
  if (domain.type != PAGING) return 0;
  if (domain.bodyAt == 0) return I + 5;
  if (domain.tlbAt != 0 && !iotlbIsSound(domain.tlb)) return I + 6;
  if (!queueIsSound(domain)) return I + 10;
  const broken = iovaCheck(domain.spaceAt);
  return broken != 0 ? broken : pgtCheck(domain.tableAt);
}

/** I10: what waits is taken, and nothing is mapped there. */
function queueIsSound(domain: Domain): bool {
  if (domain.isLazy == 0) return domain.queue.count == 0;
  for (let i: u32 = 0; i < domain.queue.count; i++) {
    const pfn = domain.queue.iovaPfn(i);
    if (iovaFind(domain.spaceAt, pfn) == 0 || pgtLookup(domain.tableAt, pfn) != NONE) return false;
  }
  return true;
}

/** The length of a device's list of mappings; 0xffffffff when it is broken. */
function checkDevice(device: Device): u32 {
  let length: u32 = 0;
  let prev: u32 = 0;
  for (let handle = device.firstMapping; handle != 0; ) {
    const payload = objectFind(handle, KIND_MAPPING);
    if (payload == 0 || Mapping.at(payload).prev != prev || ++length > device.mappingCount)
      return 0xffffffff;
    prev = handle;
    handle = Mapping.at(payload).next;
  }
  return length == device.mappingCount ? length : 0xffffffff;
}

/** Frames of state OBJECT that a region holds. */
function regionFrames(region: Region): u32 {
  return bitmapFrames(region.bitCount, bitmapBase(region.basePfn, region.orderPerBit));
}

/** Every frame of a movable names it, and carries its pins (Y1, Y3). */
function checkMovable(payload: usize, handle: u32): u32 {
  const movable = Movable.at(payload);
  for (let i: u32 = 0; i < movable.frameCount; i++) {
    const pfn = movable.frame(i).pfn;
    const page = Page.at(pfn);
    if (Frame.at(pfn).state != MOVABLE || page.owner != handle || page.index != i) return Y + 1;
    if (Frame.at(pfn).pins != movable.pinCount) return Y + 3;
  }
  return 0;
}

/** Frames of state TABLE that a domain holds. */
function domainTables(domain: Domain): u32 {
  return pgtTableFrames(domain.tableAt) + tableFrames(IovaSpace.at(domain.spaceAt));
}

/** Every frame of state OBJECT or TABLE belongs to an object that is alive: nothing leaked. */
function checkUse(): u32 {
  let objectFrames: u32 = 0;
  let tableFrames: u32 = 0;
  let movableFrames: u32 = 0;
  for (let index = objectNext(0, 0); index != 0; index = objectNext(index, 0)) {
    const kind = ObjectRecord.at(recordPlace(index)).kind;
    const payload = objectPayload(index);
    if (kind == KIND_REGION) objectFrames += regionFrames(Region.at(payload));
    if (kind == KIND_MOVABLE) {
      objectFrames += Movable.at(payload).listFrames;
      movableFrames += Movable.at(payload).frameCount;
    }
    if (kind == KIND_POOL) objectFrames += Pool.at(payload).controlFrames;
    if (kind == KIND_TABLE) objectFrames += entriesFrames(SgTable.at(payload).origNents);
    if (kind == KIND_MAPPING) objectFrames += entriesFrames(Mapping.at(payload).nents);
    if (kind == KIND_DOMAIN && Domain.at(payload).bodyAt != 0) {
      objectFrames += 1 + <u32>(Domain.at(payload).tlbAt != 0);
      tableFrames += domainTables(Domain.at(payload));
    }
  }
  if (movableFrames != frameCountIn(MOVABLE)) return Y + 1;
  if (objectFrames != frameCountIn(OBJECT)) return S + 3;
  return tableFrames == frameCountIn(TABLE) ? 0 : I + 1;
}
