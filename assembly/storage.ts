// Tables that own their frames: what a buffer is made of.
//
//   blocks   the system heap's way: blocks of order 8, then 4, then 0, one entry each, never larger
//   again once one failed
//   region   one run of a CMA region
//
// E1  All frames of such a table were handed out together and go back together; a pinned or mapped
//     table stays whole.
// E2  Bytes that an earlier owner left are cleared by storageClear(), and only in frames that may
//     hold some (page.ts, P4).
//
// Compare drivers/dma-buf/heaps/system_heap.c and cma_heap.c in the kernel.

import { cmaAlloc } from "./cma";
import { cmaRelease } from "./cma-release";
import { EBUSY, EINVAL, ENOMEM, ESTALE } from "./errno";
import { FRAMES_LOCK_AT, FRAME_SHIFT, frameAt, header } from "./layout";
import { lockRare, unlockRare } from "./lock";
import { runAlloc, runFree } from "./magazine";
import { KIND_TABLE, objectFind, objectFree, recordOf } from "./object";
import {
  CMA,
  DIRTY,
  Frame,
  OWNED,
  PINS_MASK,
  Page,
  STATE_MASK,
  wordsChange,
  wordsMatch,
  wordsStamp,
} from "./page";
import { ENTRIES_MAX, SgEntry, entriesAdopt, entriesFree } from "./sg-entries";
import { SgTable, buildingAt, sgTableFromRange, tableBuilt } from "./sg";
import { threadIndex } from "./thread";

const ALL: u32 = 0xffffffff;

/** The next smaller order that the system heap tries. */
function orderBelow(order: u32): u32 {
  return order == 8 ? 4 : 0;
}

/**
 * A table that owns `frameCount` frames below `pfnEnd`, one entry a block, each at a multiple of
 * 2^alignOrder frames and of its own size. Not zeroed. Its handle, or EINVAL, ENOMEM, EAGAIN: then
 * no frame is held.
 */
export function storageAllocBlocks(frameCount: u32, pfnEnd: u32, alignOrder: u32): i32 {
  if (frameCount == 0) return EINVAL;
  if (frameCount >= header().frameCount) return ENOMEM;
  const first = blocksTake(frameCount, pfnEnd, alignOrder);
  if (first < 0) return first;
  const count = blocksCount(first);
  const at = count <= ENTRIES_MAX ? buildingAt(count) : 0;
  if (at != 0) blocksWrite(at, first);
  const handle = at == 0 ? ENOMEM : tableBuilt(at, count, count);
  if (handle < 0) blocksGive(first);
  else SgTable.at(objectFind(handle, KIND_TABLE)).source = OWNED;
  return handle;
}

/**
 * Takes blocks of `frameCount` frames in all, chained in their own links: Page.next is the next
 * block, Page.prev the order. The first, or a negative error with none held.
 */
function blocksTake(frameCount: u32, pfnEnd: u32, alignOrder: u32): i32 {
  let order: u32 = 8;
  let first: u32 = 0;
  let last: u32 = 0;
  let taken: u32 = 0;
  while (taken < frameCount) {
    while ((<u32>1) << order > frameCount - taken) order = orderBelow(order);
    const pfn = runAlloc((<u32>1) << order, max(order, alignOrder), pfnEnd, OWNED);
    if (pfn < 0) {
      if (pfn == ENOMEM && order > 0) {
        order = orderBelow(order);
        continue;
      }
      blocksGive(first);
      return pfn;
    }
    const page = Page.at(pfn);
    page.next = 0;
    page.prev = order;
    if (last == 0) first = pfn;
    else Page.at(last).next = pfn;
    last = pfn;
    taken += (<u32>1) << order;
  }
  return first;
}

function blocksCount(first: u32): u32 {
  let count: u32 = 0;
  for (let pfn = first; pfn != 0; pfn = Page.at(pfn).next) count += 1;
  return count;
}

/** Writes an entry for each block of the chain. */
function blocksWrite(at: usize, first: u32): void {
  let i: u32 = 0;
  let before: u32 = 0;
  for (let pfn = first; pfn != 0; pfn = Page.at(pfn).next) {
    const entry = SgEntry.at(at, i++);
    entry.pfn = pfn;
    entry.offset = 0;
    entry.length = (<u32>1) << (Page.at(pfn).prev + FRAME_SHIFT);
    entry.before = before;
    before += entry.length;
  }
}

function blocksGive(first: u32): void {
  for (let pfn = first; pfn != 0; ) {
    const page = Page.at(pfn);
    const next = page.next;
    runFree(pfn, (<u32>1) << page.prev, OWNED);
    pfn = next;
  }
}

/**
 * A table that owns a run of `frameCount` frames of the region `region`. Not zeroed. Its handle, or
 * cmaAlloc's errors.
 */
export function storageAllocRegion(region: u32, frameCount: u32, alignOrder: u32): i32 {
  const pfn = cmaAlloc(region, frameCount, alignOrder);
  if (pfn < 0) return pfn;
  const handle = sgTableFromRange(pfn, frameCount, ALL);
  if (handle < 0) cmaRelease(region, pfn, frameCount);
  else SgTable.at(objectFind(handle, KIND_TABLE)).source = region;
  return handle;
}

/**
 * Frees the table and its frames. 0, or ESTALE, EINVAL (it owns none), EBUSY (mapped or pinned):
 * then nothing changed.
 */
export function storageFree(handle: u32): i32 {
  const payload = objectFind(handle, KIND_TABLE);
  if (payload == 0) return ESTALE;
  const table = SgTable.at(payload);
  if (table.source == 0) return EINVAL;
  if (table.mapCount != 0) return EBUSY;
  if (!storageAdopt(table)) return EBUSY;
  const source = table.source;
  const count = table.origNents;
  const at = table.entriesAt;
  if (count == 1) {
    const first = SgEntry.at(at, 0);
    const pfn = first.pfn;
    const frames = first.pageCount;
    objectFree(recordOf(payload)); // its only entry goes with it
    runGive(source, pfn, frames);
    return 0;
  }
  entriesAdopt(at, count);
  objectFree(recordOf(payload));
  for (let i: u32 = 0; i < count; i++) {
    const entry = SgEntry.at(at, i);
    runGive(source, entry.pfn, entry.pageCount);
  }
  entriesFree(at, count);
  return 0;
}

/**
 * Makes the table's frames the calling thread's own (page.ts, P5). False: one is pinned. Pins are
 * counted under the same lock.
 */
function storageAdopt(table: SgTable): bool {
  const state = table.source == OWNED ? OWNED : CMA;
  lockRare(FRAMES_LOCK_AT);
  let isFree = true;
  for (let i: u32 = 0; i < table.origNents && isFree; i++) {
    const entry = SgEntry.at(table.entriesAt, i);
    isFree = wordsMatch(entry.pfn, entry.pageCount, STATE_MASK | PINS_MASK, state);
  }
  if (isFree && header().isShared != 0) {
    for (let i: u32 = 0; i < table.origNents; i++) {
      const entry = SgEntry.at(table.entriesAt, i);
      wordsStamp(entry.pfn, entry.pageCount, threadIndex());
    }
  }
  unlockRare(FRAMES_LOCK_AT);
  return isFree;
}

function runGive(source: u32, pfn: u32, frames: u32): void {
  if (source == OWNED) runFree(pfn, frames, OWNED);
  else cmaRelease(source, pfn, frames);
}

/** Clears what earlier owners left in the table's frames. Frames cleared, or ESTALE. */
export function storageClear(handle: u32): i32 {
  const payload = objectFind(handle, KIND_TABLE);
  if (payload == 0) return ESTALE;
  const table = SgTable.at(payload);
  let cleared: u32 = 0;
  for (let i: u32 = 0; i < table.origNents; i++) {
    const entry = SgEntry.at(table.entriesAt, i);
    cleared += rangeClear(entry.pfn, entry.pfn + entry.pageCount);
  }
  return cleared;
}

/**
 * Copies the bytes of the table `from` to the table `to`, which owns its frames and is as long:
 * nothing is left there of earlier owners (E2). 0, or ESTALE, EINVAL: another length, frames of
 * somebody else, or frames without bytes.
 */
export function storageCopy(to: u32, from: u32): i32 {
  const toPayload = objectFind(to, KIND_TABLE);
  const fromPayload = objectFind(from, KIND_TABLE);
  if (toPayload == 0 || fromPayload == 0) return ESTALE;
  const target = SgTable.at(toPayload);
  const source = SgTable.at(fromPayload);
  if (target.source == 0 || target.lengthBytes != source.lengthBytes) return EINVAL;
  if (!hasBytes(target) || !hasBytes(source)) return EINVAL;
  let i: u32 = 0; // the source's entry
  let at: usize = 0; // where its bytes not yet copied begin
  let left: u32 = 0; // and how many they are
  for (let j: u32 = 0; j < target.origNents; j++) {
    const entry = SgEntry.at(target.entriesAt, j);
    for (let done: u32 = 0; done < entry.length; ) {
      if (left == 0) {
        const next = SgEntry.at(source.entriesAt, i++);
        at = frameAt(next.pfn) + next.offset;
        left = next.length;
      }
      const count = min(left, entry.length - done);
      memory.copy(frameAt(entry.pfn) + entry.offset + done, at, count);
      at += count;
      left -= count;
      done += count;
    }
    wordsChange(entry.pfn, entry.pageCount, ~DIRTY, 0);
  }
  return 0;
}

function hasBytes(table: SgTable): bool {
  for (let i: u32 = 0; i < table.origNents; i++) {
    const entry = SgEntry.at(table.entriesAt, i);
    if (entry.pfn + entry.pageCount > header().backedFrames) return false;
  }
  return true;
}

/**
 * Fills runs of dirty frames in [pfn, pfnEnd) with zeros, one memory.fill a run. Frames cleared.
 */
export function rangeClear(pfn: u32, pfnEnd: u32): u32 {
  let cleared: u32 = 0;
  while (pfn < pfnEnd) {
    if (!Frame.at(pfn).isDirty) {
      pfn += 1;
      continue;
    }
    let end = pfn + 1;
    while (end < pfnEnd && Frame.at(end).isDirty) end += 1;
    memory.fill(frameAt(pfn), 0, (<usize>(end - pfn)) << FRAME_SHIFT);
    lockRare(FRAMES_LOCK_AT); // pins are counted in the same words
    wordsChange(pfn, end - pfn, ~DIRTY, 0);
    unlockRare(FRAMES_LOCK_AT);
    cleared += end - pfn;
    pfn = end;
  }
  return cleared;
}
