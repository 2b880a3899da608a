// The walker: re-derives every counter, list and bitmap from the truth words, and says which
// invariant is broken.
//
// A result is 0 or the number of an invariant (panic.ts). rebuild.ts goes over the same truth words
// to restore what is derived. Nothing imports this file but the export list.
//
// It reads without locks: call it while no other thread is inside the core. Cost: O(frames +
// records + table entries).

import { bitmapCheck } from "./bitmap-check";
import { bitmapIsFree, bitmapTakenCount } from "./bitmap";
import { Device, Mapping } from "./dma-device";
import { FreeList } from "./free-list";
import { Domain } from "./iommu";
import { iovaCheck } from "./iova-check";
import { IovaSpace } from "./iova-space";
import {
  DIRECTORY_ENTRIES,
  FRAME_BYTES,
  MAX_ORDER,
  MIGRATE_TYPES,
  frameAt,
  header,
} from "./layout";
import { Movable } from "./movable";
import {
  KINDS,
  KIND_DEVICE,
  KIND_DOMAIN,
  KIND_MAPPING,
  KIND_MOVABLE,
  KIND_REGION,
  KIND_TABLE,
  ObjectRecord,
  PAYLOAD_OFFSET,
  handleOf,
  objectFind,
} from "./object";
import {
  CACHED,
  CMA,
  DIRTY,
  FREE,
  Frame,
  MIGRATE_CMA,
  MOVABLE,
  OBJECT,
  Page,
  RESERVED,
  SLAB,
  STATES,
  TABLE,
  pageblockType,
} from "./page";
import { pgtCheck, pgtTableCount } from "./pgtable";
import { Region, bitmapBase, bitmapFrames } from "./region";
import { SgEntry, entriesFrames } from "./sg-entries";
import { SgTable } from "./sg";
import { CACHES, DirectoryEntry, Slab, SlabCache, SlabRecord, recordAt } from "./slab";
import { Thread } from "./thread";

const B: u32 = 6600,
  C: u32 = 6700,
  D: u32 = 6800,
  I: u32 = 7300,
  L: u32 = 7600,
  M: u32 = 7700,
  O: u32 = 7900;
const P: u32 = 8000,
  R: u32 = 8200,
  S: u32 = 8300,
  T: u32 = 8400,
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
  if (broken == 0) broken = checkUse();
  return broken;
}

/** Frames in `state`. */
export function frameCountIn(state: u32): u32 {
  const frameCount = header().frameCount;
  let count: u32 = 0;
  for (let pfn: u32 = 0; pfn < frameCount; pfn++) count += <u32>(Frame.at(pfn).state == state);
  return count;
}

/** The longest run of free frames outside the CMA regions, whatever blocks it is listed as. */
export function largestFreeRun(): u32 {
  let longest: u32 = 0;
  let run: u32 = 0;
  for (let pfn = header().firstFrame; pfn < header().backedFrames; pfn++) {
    run = Frame.at(pfn).state == FREE && pageblockType(pfn) != MIGRATE_CMA ? run + 1 : 0;
    longest = max(longest, run);
  }
  return longest;
}

/** Frames with at least one pin. */
export function pinnedFrameCount(): u32 {
  const frameCount = header().frameCount;
  let count: u32 = 0;
  for (let pfn: u32 = 0; pfn < frameCount; pfn++) count += <u32>(Frame.at(pfn).pins != 0);
  return count;
}

// ---- frames and the buddy's lists

function checkFrames(isDeep: bool): u32 {
  const h = header();
  let free: u32 = 0;
  let reserved: u32 = 0;
  for (let pfn: u32 = 0; pfn < h.frameCount; pfn++) {
    const frame = Frame.at(pfn);
    const state = frame.state;
    if (state >= STATES) return P + 1;
    if (state == RESERVED) reserved += 1;
    if ((state == CACHED || state == RESERVED) && frame.pins != 0) return P + 3;
    if (pfn < h.firstFrame && state != RESERVED) return L + 1;
    if (state == FREE && pageblockType(pfn) != MIGRATE_CMA) {
      if (!frame.isFreeHead) return B + 1;
      const end = pfn + ((<u32>1) << frame.order);
      if (checkBlock(pfn, frame.order) != 0) return checkBlock(pfn, frame.order);
      free += end - pfn;
      if (isDeep) for (let at = pfn; at < end; at++) if (!isClean(at)) return P + 4;
      pfn = end - 1;
    }
  }
  if (reserved != h.reservedFrames) return L + 4;
  return free == h.freeFrames ? 0 : B + 3;
}

function checkBlock(pfn: u32, order: u32): u32 {
  const size = (<u32>1) << order;
  if (order > MAX_ORDER || (pfn & (size - 1)) != 0 || pfn + size > header().backedFrames)
    return B + 1;
  for (let i: u32 = 1; i < size; i++) if ((Frame.at(pfn + i).word & ~DIRTY) != FREE) return B + 1;
  const buddy = Frame.at(pfn ^ size);
  const canMerge =
    order < MAX_ORDER &&
    (pfn ^ size) < header().backedFrames &&
    pageblockType(pfn ^ size) == pageblockType(pfn);
  return canMerge && buddy.isFreeHead && buddy.order == order ? B + 2 : 0;
}

/** Whether a frame that claims to hold zeros does (P4). */
function isClean(pfn: u32): bool {
  if (Frame.at(pfn).isDirty) return true;
  let any = i64x2.splat(0);
  for (let at = frameAt(pfn); at < frameAt(pfn) + FRAME_BYTES; at += 16)
    any = v128.or(any, v128.load(at));
  return !v128.any_true(any);
}

/**
 * Every listed block is a free head of its list's order, and the lists hold freeFrames in all: so
 * every head is listed.
 */
function checkLists(): u32 {
  let listed: u32 = 0;
  for (let type: u32 = 0; type < MIGRATE_TYPES; type++) {
    for (let order: u32 = 0; order <= MAX_ORDER; order++) {
      let prev: u32 = 0;
      for (let pfn = FreeList.at(type, order).first; pfn != 0; pfn = Page.at(pfn).next) {
        const frame = Frame.at(pfn);
        if (!frame.isFreeHead || frame.order != order || pageblockType(pfn) != type) return B + 1;
        if (Page.at(pfn).prev != prev) return B + 1;
        listed += (<u32>1) << order;
        if (listed > header().freeFrames) return B + 3;
        prev = pfn;
      }
    }
  }
  return listed == header().freeFrames ? 0 : B + 3;
}

function checkThreads(): u32 {
  let cached: u32 = 0;
  for (let index: u32 = 0; index < header().threadCount; index++) {
    const slot = Thread.at(index);
    cached += slot.cachedCount;
    for (let i: u32 = 0; i < slot.cachedCount; i++) {
      const frame = Frame.at(slot.cached(i));
      if (frame.state != CACHED || frame.thread != index) return T + 2;
    }
  }
  return cached == frameCountIn(CACHED) ? 0 : T + 2;
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
    const found = isUsed(at) ? ObjectRecord.at(at).kind : 0;
    if (found != 0 && (kind == 0 || found == kind)) return index;
  }
  return 0;
}

/** A record behind its slab's bump was never written. */
function isUsed(at: usize): bool {
  const slab = Slab.of(<u32>(at / FRAME_BYTES));
  return <u32>((at % FRAME_BYTES) >> slab.recordShift) < slab.bump;
}

/** The payload of the record with an index that objectNext() gave. */
export function objectPayload(index: u32): usize {
  return recordAt(index) + PAYLOAD_OFFSET;
}

// ---- objects

function checkObjects(): u32 {
  let mappings: u32 = 0;
  let listed: u32 = 0;
  for (let index = objectNext(0, 0); index != 0; index = objectNext(index, 0)) {
    const record = ObjectRecord.at(recordAt(index));
    const payload = objectPayload(index);
    let broken: u32 = record.kind >= KINDS || record.refs == 0 ? O + 1 : 0;
    if (record.kind == KIND_REGION) broken = checkRegion(Region.at(payload));
    if (record.kind == KIND_TABLE) broken = checkTable(payload);
    if (record.kind == KIND_DOMAIN) broken = checkDomain(payload);
    if (record.kind == KIND_MOVABLE) broken = checkMovable(payload, <u32>handleOf(recordAt(index)));
    if (record.kind == KIND_MAPPING) mappings += 1;
    if (record.kind == KIND_DEVICE) {
      const length = checkDevice(Device.at(payload));
      if (length == 0xffffffff) broken = D + 2;
      else listed += length;
    }
    if (broken != 0) return broken;
  }
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
      if (isFree ? state != FREE && state != MOVABLE : state != CMA) return C + 1;
      if (state == FREE && first + i >= region.lendPfn) return C + 6;
      lent += <u32>(state == MOVABLE);
      if (pageblockType(first + i) != MIGRATE_CMA) return C + 3;
    }
  }
  if (lent != region.lentFrames) return C + 5;
  return bitmapTakenCount(region.bitmapAt) == region.usedBits ? 0 : C + 2;
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
  for (
    let index = objectNext(0, KIND_MAPPING);
    index != 0;
    index = objectNext(index, KIND_MAPPING)
  ) {
    mapped += <u32>(objectFind(Mapping.at(objectPayload(index)).table, KIND_TABLE) == payload);
  }
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
  const broken = iovaCheck(domain.spaceAt);
  return broken != 0 ? broken : pgtCheck(domain.tableAt);
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
  return pgtTableCount(domain.tableAt) + <u32>(IovaSpace.at(domain.spaceAt).control.tableAt != 0);
}

/** Every frame of state OBJECT or TABLE belongs to an object that is alive: nothing leaked. */
function checkUse(): u32 {
  let objectFrames: u32 = 0;
  let tableFrames: u32 = 0;
  let movableFrames: u32 = 0;
  for (let index = objectNext(0, 0); index != 0; index = objectNext(index, 0)) {
    const kind = ObjectRecord.at(recordAt(index)).kind;
    const payload = objectPayload(index);
    if (kind == KIND_REGION) objectFrames += regionFrames(Region.at(payload));
    if (kind == KIND_MOVABLE) {
      objectFrames += Movable.at(payload).listFrames;
      movableFrames += Movable.at(payload).frameCount;
    }
    if (kind == KIND_TABLE) objectFrames += entriesFrames(SgTable.at(payload).origNents);
    if (kind == KIND_MAPPING) objectFrames += entriesFrames(Mapping.at(payload).nents);
    if (kind == KIND_DOMAIN) {
      objectFrames += 1;
      tableFrames += domainTables(Domain.at(payload));
    }
  }
  if (movableFrames != frameCountIn(MOVABLE)) return Y + 1;
  if (objectFrames != frameCountIn(OBJECT)) return S + 3;
  return tableFrames == frameCountIn(TABLE) ? 0 : I + 1;
}
