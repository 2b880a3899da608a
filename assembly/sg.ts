// Scatterlists: memory that is not in one piece, as a table of segments.
//
//   table (object payload)   ├ entriesAt ┼ origNents ┼ lengthBytes ┼ mapCount ┼ source ┤
//
// A list has two readers. The CPU side of a table names frames; the DMA side of a mapping (dma.ts)
// names device pages and is a list of its own: `origNents` is what is built and freed, `nents` is
// what a device walks, and neither can be taken for the other.
//
// S4  A table whose `source` is not 0 owns its frames and gives them back when it is freed
//     (storage.ts).
// S5  mapCount is the number of mappings made of the table; such a table is not freed.
//
// Compare lib/scatterlist.c in the kernel.

import { EBUSY, EINVAL, ENOMEM, EOVERFLOW, ESTALE } from "./errno";
import { FRAME_BYTES, FRAME_MASK, FRAME_SHIFT, header } from "./layout";
import { KIND_TABLE, objectAlloc, objectFind, objectFree, recordOf } from "./object";
import { isFrameRange } from "./page";
import {
  ENTRIES_MAX,
  ENTRIES_PER_FRAME,
  ENTRY_SHIFT,
  SgEntry,
  entriesAlloc,
  entriesBisect,
  entriesFree,
  entriesShrink,
} from "./sg-entries";
import { entryWrite, sgPack, sgPackedCount, sgTrim } from "./sg-pack";
import { workspaceAt } from "./thread";

const PAGES_MAX: u32 = 0xfffff; // a table holds less than 4 GiB

@unmanaged
export class SgTable {
  entriesAt: usize;
  origNents: u32; // entries; > 0
  lengthBytes: u32; // S2: before + length of the last entry
  mapCount: u32; // S5
  source: u32; // 0, OWNED, or the handle of a CMA region

  static at(payload: usize): SgTable {
    return changetype<SgTable>(payload);
  }
}

/** An object for a list that is complete. Its handle; ENOMEM frees the list. */
export function tableCreate(entriesAt: usize, count: u32, source: u32): i32 {
  const handle = entriesAt == 0 ? ENOMEM : objectAlloc(KIND_TABLE);
  if (handle < 0) {
    if (entriesAt != 0) entriesFree(entriesAt, count);
    return handle;
  }
  const table = SgTable.at(objectFind(handle, KIND_TABLE));
  const last = SgEntry.at(entriesAt, count - 1);
  table.entriesAt = entriesAt;
  table.origNents = count;
  table.lengthBytes = last.before + last.length;
  table.source = source;
  return handle;
}

/** A table of `count` empty entries, to be filled by the caller. Its handle, or EINVAL, ENOMEM. */
export function sgTableAlloc(count: u32): i32 {
  if (count == 0) return EINVAL;
  if (count > ENTRIES_MAX) return ENOMEM;
  const at = entriesAlloc(count);
  if (at != 0) memory.fill(at, 0, (<usize>count) << ENTRY_SHIFT);
  return tableCreate(at, count, 0);
}

/**
 * A table of the `count` frames listed at `listAt`: the bytes [offset, offset + size) of their
 * concatenation, in segments of at most `maxSegmentBytes` (rounded down to frames). The bytes must
 * reach the last entry. Its handle, or EINVAL, ENOMEM.
 */
export function sgTableFromPages(
  listAt: usize,
  count: u32,
  offset: u32,
  size: u32,
  maxSegmentBytes: u32,
): i32 {
  const maxPages = maxSegmentBytes >> FRAME_SHIFT;
  if (count == 0 || count > PAGES_MAX || offset >= FRAME_BYTES || size == 0 || maxPages == 0)
    return EINVAL;
  if (<u64>offset + size > (<u64>count) << FRAME_SHIFT) return EINVAL;

  const inWorkspace = count <= ENTRIES_PER_FRAME;
  const room = inWorkspace
    ? count
    : count <= ENTRIES_MAX
      ? count
      : sgPackedCount(listAt, count, maxPages);
  const builtAt = inWorkspace ? workspaceAt() : room <= ENTRIES_MAX ? entriesAlloc(room) : 0;
  if (builtAt == 0) return ENOMEM;
  const used = sgPack(builtAt, listAt, count, maxPages);
  // As in Linux, the bytes may end early, but not before the last entry begins.
  if (used == 0 || SgEntry.at(builtAt, used - 1).before > offset + size) {
    if (!inWorkspace) entriesFree(builtAt, room);
    return EINVAL;
  }
  sgTrim(builtAt, used, offset, size);
  if (!inWorkspace) return tableCreate(entriesShrink(builtAt, room, used), used, 0);

  const at = entriesAlloc(used);
  if (at != 0) memory.copy(at, builtAt, (<usize>used) << ENTRY_SHIFT);
  return tableCreate(at, used, 0);
}

/**
 * A table of the frames [pfn, pfn + count), in segments of at most `maxSegmentBytes`. Its handle,
 * or EINVAL, ENOMEM.
 */
export function sgTableFromRange(pfn: u32, count: u32, maxSegmentBytes: u32): i32 {
  const maxPages = maxSegmentBytes >> FRAME_SHIFT;
  if (!isFrameRange(pfn, count) || count > PAGES_MAX || maxPages == 0) return EINVAL;
  const entries = (count - 1) / maxPages + 1;
  if (entries > ENTRIES_MAX) return ENOMEM;
  const at = entriesAlloc(entries);
  if (at == 0) return ENOMEM;
  for (let i: u32 = 0; i < entries; i++) {
    const done = i * maxPages;
    entryWrite(at + ((<usize>i) << ENTRY_SHIFT), pfn + done, min(maxPages, count - done), done);
  }
  return tableCreate(at, entries, 0);
}

/**
 * A table of the `count` segments listed at `listAt` as { pfn, offset, length, - }; an offset may
 * pass the first frame. Its handle, or EINVAL (length 0, or outside memory), EOVERFLOW (4 GiB in
 * all), ENOMEM.
 */
export function sgTableFromList(listAt: usize, count: u32): i32 {
  if (count == 0) return EINVAL;
  if (count > ENTRIES_MAX) return ENOMEM;
  let total: u64 = 0;
  for (let i: u32 = 0; i < count; i++) {
    const segment = SgEntry.at(listAt, i);
    const bytesEnd = <u64>segment.offset + segment.length;
    if (
      segment.length == 0 ||
      !isFrameRange(segment.pfn, <u32>((bytesEnd + FRAME_MASK) >> FRAME_SHIFT))
    )
      return EINVAL;
    total += segment.length;
  }
  if (total > 0xffffffff) return EOVERFLOW;

  const at = entriesAlloc(count);
  if (at == 0) return ENOMEM;
  let before: u32 = 0;
  for (let i: u32 = 0; i < count; i++) {
    const segment = SgEntry.at(listAt, i);
    const entry = SgEntry.at(at, i);
    entry.pfn = segment.pfn + (segment.offset >> FRAME_SHIFT);
    entry.offset = segment.offset & FRAME_MASK;
    entry.length = segment.length;
    entry.before = before;
    before += segment.length;
  }
  return tableCreate(at, count, 0);
}

/**
 * How many leading entries hold `length` bytes; 0 for 0. Or EINVAL (the table is shorter), ESTALE.
 */
export function sgNentsForLen(handle: u32, length: u32): i32 {
  const payload = objectFind(handle, KIND_TABLE);
  if (payload == 0) return ESTALE;
  const table = SgTable.at(payload);
  if (length == 0) return 0;
  if (length > table.lengthBytes) return EINVAL;
  return entriesBisect(table.entriesAt, table.origNents, length - 1) + 1;
}

/** The address of the table's payload, for reading its fields and entries; ESTALE. */
export function sgTableAt(handle: u32): i32 {
  const payload = objectFind(handle, KIND_TABLE);
  return payload == 0 ? ESTALE : <i32>payload;
}

/**
 * Frees the table of `handle` and its entries, not the frames. 0, or ESTALE, EBUSY (mapped), EINVAL
 * (it owns frames).
 */
export function sgTableFree(handle: u32): i32 {
  const payload = objectFind(handle, KIND_TABLE);
  if (payload == 0) return ESTALE;
  const table = SgTable.at(payload);
  if (table.mapCount != 0) return EBUSY;
  if (table.source != 0) return EINVAL;
  tableDestroy(payload);
  return 0;
}

/** Frees the entries and the object. */
export function tableDestroy(payload: usize): void {
  const table = SgTable.at(payload);
  entriesFree(table.entriesAt, table.origNents);
  objectFree(recordOf(payload));
}

/**
 * Copies `length` bytes between the table, from byte `skip` on, and linear memory at `bufferAt`.
 * Bytes copied, less when the table ends before; or ESTALE, EINVAL (the buffer leaves memory).
 */
export function sgCopy(handle: u32, skip: u32, bufferAt: usize, length: u32, isToBuffer: u32): i32 {
  const payload = objectFind(handle, KIND_TABLE);
  if (payload == 0) return ESTALE;
  if (<u64>bufferAt + length > (<u64>header().backedFrames) << FRAME_SHIFT) return EINVAL;
  const table = SgTable.at(payload);
  if (skip >= table.lengthBytes) return 0;
  const total = min(length, table.lengthBytes - skip);
  let i = entriesBisect(table.entriesAt, table.origNents, skip);
  let into = skip - SgEntry.at(table.entriesAt, i).before;
  for (let left = total; left > 0; i++, into = 0) {
    const entry = SgEntry.at(table.entriesAt, i);
    const bytes = min(left, entry.length - into);
    if (isToBuffer) memory.copy(bufferAt, entry.byteAt + into, bytes);
    else memory.copy(entry.byteAt + into, bufferAt, bytes);
    bufferAt += bytes;
    left -= bytes;
  }
  return total;
}
