// What a dead thread took and no record names any more: found by its stamp, and freed.
//
//   records that live ─► what they name and the dead thread took: stamped anew, by the reaper
//   what still has the dead thread's stamp: nobody's ─► free
//
// K4  While framesLock and slabLock are held, a frame with the dead thread's stamp is named by a
//     live record or by nobody: who frees makes it its own first (page.ts, P5).
//
// The caller has dropped the dead thread's own records (reap.ts).

import { bitmapFree } from "./bitmap";
import { objectNext, objectPayload } from "./check";
import { Mapping } from "./dma-device";
import { Domain, PAGING } from "./iommu";
import { iovaCheck } from "./iova-check";
import { iovaMark, iovaSweep } from "./iova-mark";
import { IovaSpace } from "./iova-space";
import { tableFrame, tableFrames } from "./iova-table";
import {
  DOMAINS_LOCK_AT,
  FRAMES_LOCK_AT,
  FRAME_SHIFT,
  SLAB_LOCK_AT,
  frameAt,
  header,
} from "./layout";
import { lockRare, unlockRare } from "./lock";
import { framesGive } from "./magazine";
import { Movable } from "./movable";
import {
  KIND_DOMAIN,
  KIND_MAPPING,
  KIND_MOVABLE,
  KIND_PIN,
  KIND_POOL,
  KIND_REGION,
  KIND_TABLE,
  ObjectRecord,
  objectFind,
} from "./object";
import { CMA, Frame, OBJECT, OWNED, SLAB, TABLE, wordsFree } from "./page";
import { pgtCheck } from "./pgtable";
import { treeStamp } from "./pgtable-tree";
import { PageTable } from "./pgtable-format";
import { Pool } from "./pool-table";
import { pinSum } from "./pin";
import { Pin } from "./pin-table";
import { poisonFill } from "./quarantine";
import { Region, bitmapBase, bitmapFrames, regionFreed, regionPayload } from "./region";
import { SgEntry, entriesFrames, entriesStamp } from "./sg-entries";
import { SgTable } from "./sg";
import { CACHE_NODES, Slab, SlabRecord, recordFree, recordPlace } from "./slab";
import { threadIndex } from "./thread";

/** Frees what `dead` took and nobody names. Frames freed. */
export function sweep(dead: u32): u32 {
  const areSound = domainsSweep(dead);
  lockRare(SLAB_LOCK_AT);
  lockRare(FRAMES_LOCK_AT);
  for (let index = objectNext(0, 0); index != 0; index = objectNext(index, 0)) {
    recordStamp(ObjectRecord.at(recordPlace(index)).kind, objectPayload(index), dead);
  }
  pinsRecount(dead);
  const freed = framesSweep(dead, areSound);
  header().pinCount = pinSum();
  unlockRare(FRAMES_LOCK_AT);
  nodesSweep(dead);
  unlockRare(SLAB_LOCK_AT);
  return freed + regionsSweep(dead);
}

/** Stamps the frames of [pfn, pfn + count) that `dead` took. */
function framesStamp(pfn: u32, count: u32, dead: u32): void {
  for (let i: u32 = 0; i < count; i++) frameStamp(pfn + i, dead);
}

function frameStamp(pfn: u32, dead: u32): void {
  const frame = Frame.at(pfn);
  if (frame.thread == dead) frame.stamp(threadIndex());
}

/** Stamps what a live record names. */
function recordStamp(kind: u32, payload: usize, dead: u32): void {
  if (kind == KIND_TABLE) {
    const table = SgTable.at(payload);
    listStamp(table.entriesAt, table.origNents, dead, table.origNents == 1);
    if (table.source == 0) return;
    for (let i: u32 = 0; i < table.origNents; i++) {
      const entry = SgEntry.at(table.entriesAt, i);
      framesStamp(entry.pfn, entry.pageCount, dead);
    }
  } else if (kind == KIND_MAPPING) {
    listStamp(Mapping.at(payload).segmentsAt, Mapping.at(payload).nents, dead, false);
  } else if (kind == KIND_POOL) {
    const pool = Pool.at(payload);
    if (pool.controlAt != 0) framesStamp(pfnAt(pool.controlAt), pool.controlFrames, dead);
  } else if (kind == KIND_MOVABLE) {
    const movable = Movable.at(payload);
    if (movable.listAt != 0) framesStamp(pfnAt(movable.listAt), movable.listFrames, dead);
  } else if (kind == KIND_REGION) {
    const region = Region.at(payload);
    const base = bitmapBase(region.basePfn, region.orderPerBit);
    framesStamp(pfnAt(region.bitmapAt), bitmapFrames(region.bitCount, base), dead);
  } else if (kind == KIND_DOMAIN) {
    const domain = Domain.at(payload);
    if (domain.bodyAt != 0) frameStamp(pfnAt(domain.bodyAt), dead);
    if (domain.tlbAt != 0) frameStamp(pfnAt(domain.tlbAt), dead);
  }
}

function listStamp(at: usize, count: u32, dead: u32, isInline: bool): void {
  if (at == 0 || count == 0 || isInline) return;
  if (count == 1) entriesStamp(at, dead);
  else framesStamp(pfnAt(at), entriesFrames(count), dead);
}

function pfnAt(at: usize): u32 {
  return <u32>(at >> FRAME_SHIFT);
}

/**
 * Leaves on the frames that still carry the stamp the pins of borrowers only (borrow.ts): those
 * that the dead thread put on its own are nobody's.
 */
function pinsRecount(dead: u32): void {
  const h = header();
  for (let pfn = h.firstFrame; pfn < h.backedFrames; pfn++)
    if (isLeft(pfn, dead)) Frame.at(pfn).pins = 0;
  for (let index = objectNext(0, KIND_PIN); index != 0; index = objectNext(index, KIND_PIN)) {
    const pin = Pin.at(objectPayload(index));
    const tableAt: usize = pin.isPinned ? objectFind(pin.table, KIND_TABLE) : 0;
    if (tableAt == 0) continue;
    const table = SgTable.at(tableAt);
    for (let i: u32 = 0; i < table.origNents; i++) {
      const entry = SgEntry.at(table.entriesAt, i);
      for (let j: u32 = 0; j < entry.pageCount; j++)
        if (isLeft(entry.pfn + j, dead)) Frame.at(entry.pfn + j).pins += 1;
    }
  }
}

/** Whether a frame was handed out to `dead`, and no record that lives has it. */
export function isLeft(pfn: u32, dead: u32): bool {
  const frame = Frame.at(pfn);
  return frame.thread == dead && (frame.state == OWNED || frame.state == CMA);
}

/**
 * Frees the frames that still carry the stamp, unless they are pinned; slabs are everybody's.
 * Frames freed.
 */
function framesSweep(dead: u32, withTables: bool): u32 {
  const h = header();
  let freed: u32 = 0;
  for (let pfn = h.firstFrame; pfn < h.backedFrames; pfn++) {
    const frame = Frame.at(pfn);
    const state = frame.state;
    if (frame.thread != dead || (frame.pins != 0 && state == OWNED)) continue;
    if (state == SLAB) {
      frame.stamp(threadIndex());
    } else if (state == OWNED || state == OBJECT || (state == TABLE && withTables)) {
      framesGive(pfn, 1);
      freed += 1;
    }
  }
  return freed;
}

/** Frees the single entries that still carry the stamp. The caller holds slabLock. */
function nodesSweep(dead: u32): void {
  const h = header();
  for (let pfn = h.firstFrame; pfn < h.backedFrames; pfn++) {
    if (Frame.at(pfn).state != SLAB || Slab.of(pfn).cache != CACHE_NODES) continue;
    const shift = Slab.of(pfn).recordShift;
    const bump = Slab.of(pfn).bump;
    for (let i: u32 = 1; i < bump && Frame.at(pfn).state == SLAB; i++) {
      const at = frameAt(pfn) + ((<usize>i) << shift);
      if (SlabRecord.at(at).truth == dead + 1) recordFree(at);
    }
  }
}

/** Frees the frames of regions that still carry the stamp. */
function regionsSweep(dead: u32): u32 {
  let freed: u32 = 0;
  for (let i: u32 = 0; i < header().regionCount; i++) {
    const payload = regionPayload(i);
    const region = Region.at(payload);
    const bitFrames = (<u32>1) << region.orderPerBit;
    lockRare(payload);
    for (let bit: u32 = 0; bit < region.bitCount; bit++) {
      const pfn = region.basePfn + (bit << region.orderPerBit);
      if (Frame.at(pfn).state != CMA || Frame.at(pfn).thread != dead) continue;
      if (isPinned(pfn, bitFrames)) continue;
      if (header().freeFlags != 0) poisonFill(pfn, bitFrames);
      wordsFree(pfn, bitFrames);
      bitmapFree(region.bitmapAt, bit, 1);
      region.usedBits -= 1;
      regionFreed(region, pfn + bitFrames);
      freed += bitFrames;
    }
    unlockRare(payload);
  }
  return freed;
}

function isPinned(pfn: u32, count: u32): bool {
  for (let i: u32 = 0; i < count; i++) if (Frame.at(pfn + i).pins != 0) return true;
  return false;
}

// ---- domains

/**
 * Stamps all tables as the dead thread's: whoever made those that are no domain's any more, their
 * frames are to go.
 */
function tablesStamp(dead: u32): void {
  const h = header();
  lockRare(FRAMES_LOCK_AT);
  for (let pfn = h.firstFrame; pfn < h.backedFrames; pfn++)
    if (Frame.at(pfn).state == TABLE) Frame.at(pfn).stamp(dead);
  unlockRare(FRAMES_LOCK_AT);
}

/** Marks and stamps what a domain has. */
function domainMark(domain: Domain, dead: u32): void {
  iovaMark(domain.spaceAt);
  treeStamp(PageTable.at(domain.tableAt), dead);
  const space = IovaSpace.at(domain.spaceAt);
  for (let i = tableFrames(space); i > 0; i--) frameStamp(tableFrame(space, i - 1), dead);
}

/**
 * Frees the device ranges and page tables that no domain has. All domains stand still meanwhile:
 * none is made or freed without domainsLock. False: a domain is not sound, so nothing was freed.
 */
function domainsSweep(dead: u32): bool {
  let areSound = true;
  lockRare(DOMAINS_LOCK_AT);
  for (let index = objectNext(0, KIND_DOMAIN); index != 0; index = objectNext(index, KIND_DOMAIN))
    lockRare(objectPayload(index));
  for (let index = objectNext(0, KIND_DOMAIN); index != 0; index = objectNext(index, KIND_DOMAIN)) {
    const domain = Domain.at(objectPayload(index));
    if (domain.type != PAGING) continue;
    if (iovaCheck(domain.spaceAt) != 0 || pgtCheck(domain.tableAt) != 0) areSound = false;
  }
  if (areSound) {
    tablesStamp(dead);
    for (
      let index = objectNext(0, KIND_DOMAIN);
      index != 0;
      index = objectNext(index, KIND_DOMAIN)
    ) {
      const domain = Domain.at(objectPayload(index));
      if (domain.type == PAGING) domainMark(domain, dead);
    }
  }
  iovaSweep(areSound);
  for (let index = objectNext(0, KIND_DOMAIN); index != 0; index = objectNext(index, KIND_DOMAIN))
    unlockRare(objectPayload(index));
  unlockRare(DOMAINS_LOCK_AT);
  return areSound;
}
