// The simulated cache: what a device that does not see the CPU's cache finds in memory.
//
//   the table's frames          what the CPU reads and writes: its cache
//        │ ▲
//   clean▼ │invalidate
//   shadow  ├ memory: what such devices read and write ┼ seen: the frames when they last agreed ┤
//           byte 0 of the table                          byte 0 + half
//
// W8  A table has a shadow exactly while a mapping with CACHED names it; all of them share it, so
//     that one device finds what another wrote. A mapping gets and loses CACHED under shadowLock.
// W9  Frames and shadow change towards each other only in map, unmap and sync. What the CPU wrote
//     since they last agreed is what differs from `seen`: only that is cleaned. A line of 8 bytes,
//     at a multiple of 8 in the table, is cleaned as a whole; bytes of a line that is cut, singly.
//
// A shadow begins as zeros: memory into which nothing was ever written back. It costs twice the
// table's bytes, and clean() reads all of them; it is for finding a sync that is missing.
//
// Compare arch_sync_dma_for_device() and arch_sync_dma_for_cpu() in the kernel's
// arch/arm64/mm/dma-mapping.c: clean at map whatever the direction, invalidate unless the device
// only read.

import { NONE } from "./bits";
import { CACHED, Mapping } from "./dma-device";
import { EINVAL, ENOMEM } from "./errno";
import { FRAME_MASK, FRAME_SHIFT, SHADOW_LOCK_AT, header } from "./layout";
import { lockRare, unlockRare } from "./lock";
import { KIND_TABLE, ObjectRecord, objectFind, recordOf } from "./object";
import { SgEntry, entriesBisect } from "./sg-entries";
import { SgTable } from "./sg";
import { storageAllocBlocks, storageClear, storageFree } from "./storage";
import { threadIndex } from "./thread";

const SHADOW_PAGES_MAX: u32 = 0x7ffff; // two halves stay below 4 GiB

@unmanaged
class Line {
  bytes: u64;

  static at(address: usize): Line {
    return changetype<Line>(address);
  }
}

@unmanaged
class Cell {
  byte: u8;

  static at(address: usize): Cell {
    return changetype<Cell>(address);
  }
}

function halfPages(table: SgTable): u32 {
  return <u32>((<u64>table.lengthBytes + FRAME_MASK) >> FRAME_SHIFT);
}

/** Makes a mapping of the table one with CACHED (W8). 0, or EINVAL (no bytes there), ENOMEM. */
export function shadowTake(table: SgTable, mapping: Mapping): i32 {
  const pages = halfPages(table);
  if (pages > SHADOW_PAGES_MAX) return ENOMEM;
  for (let i: u32 = 0; i < table.origNents; i++) {
    const entry = SgEntry.at(table.entriesAt, i);
    if (entry.pfn + entry.pageCount > header().backedFrames) return EINVAL;
  }
  lockRare(SHADOW_LOCK_AT);
  let shadow: i32 = table.shadow;
  if (shadow == 0) {
    shadow = storageAllocBlocks(2 * pages, NONE, 0);
    if (shadow > 0) storageClear(shadow);
  }
  if (shadow > 0) {
    table.shadow = shadow;
    table.shadowUsers += 1;
    mapping.attrs |= CACHED;
  }
  unlockRare(SHADOW_LOCK_AT);
  return shadow > 0 ? 0 : shadow;
}

/** The opposite of shadowTake(). */
export function shadowDrop(table: SgTable, mapping: Mapping): void {
  lockRare(SHADOW_LOCK_AT);
  mapping.attrs &= ~CACHED;
  table.shadowUsers -= 1;
  if (table.shadowUsers == 0) shadowFree(table);
  unlockRare(SHADOW_LOCK_AT);
}

/** Frees the shadow of a table, whoever made it. The caller holds the lock. */
export function shadowFree(table: SgTable): void {
  const shadow = table.shadow;
  ObjectRecord.at(recordOf(objectFind(shadow, KIND_TABLE))).owner = threadIndex(); // who frees it
  table.shadow = 0;
  storageFree(shadow);
}

/** Byte address << 32 | bytes in a run of byte `position` of a list. */
function runAt(table: SgTable, position: u32): u64 {
  const entry = SgEntry.at(
    table.entriesAt,
    entriesBisect(table.entriesAt, table.origNents, position),
  );
  const into = position - entry.before;
  return ((<u64>(entry.byteAt + into)) << 32) | (entry.length - into);
}

/** Where devices find byte `position` of a table with a shadow: byte address << 32 | bytes. */
export function shadowRun(table: SgTable, position: u32): u64 {
  return runAt(SgTable.at(objectFind(table.shadow, KIND_TABLE)), position);
}

/** Writes back what the CPU wrote to the bytes [from, from + length) of the table (W9). */
export function shadowClean(table: SgTable, from: u32, length: u32): void {
  reconcile(table, from, length, true);
}

/** Lets the CPU see the bytes [from, from + length) as devices do; what it wrote there is lost. */
export function shadowInvalidate(table: SgTable, from: u32, length: u32): void {
  reconcile(table, from, length, false);
}

function reconcile(table: SgTable, from: u32, length: u32, isClean: bool): void {
  const shadow = SgTable.at(objectFind(table.shadow, KIND_TABLE));
  const half = halfPages(table) << FRAME_SHIFT;
  for (let at = from; at < from + length; ) {
    const cpu = runAt(table, at);
    const memoryRun = runAt(shadow, at);
    const seen = runAt(shadow, half + at);
    const runs = min(<u32>cpu, min(<u32>memoryRun, <u32>seen));
    const bytes = min(from + length - at, runs);
    const cpuAt = <usize>(cpu >> 32);
    const memoryAt = <usize>(memoryRun >> 32);
    const seenAt = <usize>(seen >> 32);
    if (isClean) {
      linesClean(cpuAt, memoryAt, seenAt, at, bytes);
    } else {
      memory.copy(cpuAt, memoryAt, bytes);
      memory.copy(seenAt, memoryAt, bytes);
    }
    at += bytes;
  }
}

/** Cleans `bytes` bytes, the first of which is byte `at` of the table. */
function linesClean(cpuAt: usize, memoryAt: usize, seenAt: usize, at: u32, bytes: u32): void {
  const head = min(bytes, (0 - at) & 7);
  const bodyEnd = head + ((bytes - head) & ~7);
  bytesClean(cpuAt, memoryAt, seenAt, 0, head);
  for (let i = head; i < bodyEnd; i += 8) {
    const line = Line.at(cpuAt + i).bytes;
    if (line == Line.at(seenAt + i).bytes) continue;
    Line.at(memoryAt + i).bytes = line;
    Line.at(seenAt + i).bytes = line;
  }
  bytesClean(cpuAt, memoryAt, seenAt, bodyEnd, bytes);
}

function bytesClean(cpuAt: usize, memoryAt: usize, seenAt: usize, i: u32, end: u32): void {
  for (; i < end; i++) {
    const byte = Cell.at(cpuAt + i).byte;
    if (byte == Cell.at(seenAt + i).byte) continue;
    Cell.at(memoryAt + i).byte = byte;
    Cell.at(seenAt + i).byte = byte;
  }
}
