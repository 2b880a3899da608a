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
// S14 A table with a `pin` was copied from another thread's (borrow.ts): its entries never change.
// S7  A table of one entry holds it itself, behind its fields; a mapping always has a list of its
//     own.
//
// Compare lib/scatterlist.c in the kernel.

import { EBUSY, EINVAL, ENOMEM, EOVERFLOW, ESTALE } from "./errno";
import { FRAME_BYTES, FRAME_MASK, FRAME_SHIFT, header } from "./layout";
import { noMemory } from "./lock";
import {
  KIND_TABLE,
  PAYLOAD_BYTES,
  objectAlloc,
  objectAt,
  objectFind,
  objectFree,
  objectIs,
  recordOf,
} from "./object";
import { PfnCell, isFrameRange } from "./page";
import {
  ENTRIES_MAX,
  ENTRIES_PER_FRAME,
  ENTRY_BYTES,
  ENTRY_SHIFT,
  SgEntry,
  entriesAdopt,
  entriesAlloc,
  entriesBisect,
  entriesFree,
  entriesShrink,
} from "./sg-entries";
import { entryWrite, sgPack, sgPackedCount, sgTrim } from "./sg-pack";
import { workspaceAt } from "./thread";

const INLINE_OFFSET: usize = 32; // of a single entry in the payload, 16-aligned
const PAGES_MAX: u32 = 0xfffff; // a table holds less than 4 GiB

@unmanaged
export class SgTable {
  entriesAt: usize;
  origNents: u32; // entries; > 0
  lengthBytes: u32; // S2: before + length of the last entry
  mapCount: u32; // S5
  source: u32; // 0, OWNED, or the handle of a CMA region
  shadow: u32; // dma-cache.ts: the handle of a table; 0 = none
  shadowUsers: u32; // mappings that share it
  pin: u32; // S14: the handle of the pin on its frames; 0 = it was not borrowed

  static at(payload: usize): SgTable {
    return changetype<SgTable>(payload);
  }
}

if (offsetof<SgTable>() > INLINE_OFFSET) ERROR("SgTable reaches into its entry");
if (INLINE_OFFSET + <usize>ENTRY_BYTES > PAYLOAD_BYTES) ERROR("the entry leaves the payload");

/**
 * An object for the `count` entries built at `builtAt`, which are copied: one into the object
 * itself (S7). Its handle, or ENOMEM.
 */
export function tableCopy(builtAt: usize, count: u32, source: u32): i32 {
  const handle = objectAlloc(KIND_TABLE);
  if (handle < 0) return handle;
  const payload = objectAt(handle);
  const at = count == 1 ? payload + INLINE_OFFSET : entriesAlloc(count);
  if (at == 0) {
    objectFree(recordOf(payload));
    return noMemory();
  }
  if (count == 1) v128.store(at, v128.load(builtAt));
  else memory.copy(at, builtAt, (<usize>count) << ENTRY_SHIFT);
  tableFill(SgTable.at(payload), at, count, source);
  return handle;
}

/**
 * An object for a list of more than one entry that is complete where it lies. Its handle; ENOMEM
 * frees the list.
 */
function tableAdopt(entriesAt: usize, count: u32): i32 {
  const handle = objectAlloc(KIND_TABLE);
  if (handle < 0) entriesFree(entriesAt, count);
  else tableFill(SgTable.at(objectAt(handle)), entriesAt, count, 0);
  return handle;
}

function tableFill(table: SgTable, entriesAt: usize, count: u32, source: u32): void {
  const last = SgEntry.at(entriesAt, count - 1);
  table.entriesAt = entriesAt;
  table.origNents = count;
  table.lengthBytes = last.before + last.length;
  table.source = source;
}

/** Room to build `count` entries: the workspace, or a run that tableAdopt() can take; 0. */
export function buildingAt(count: u32): usize {
  return count <= ENTRIES_PER_FRAME ? workspaceAt() : entriesAlloc(count);
}

/**
 * The table of what was built in buildingAt(room): `count` of `room` entries. Its handle, or
 * ENOMEM.
 */
export function tableBuilt(builtAt: usize, room: u32, count: u32): i32 {
  if (builtAt == workspaceAt()) return tableCopy(builtAt, count, 0);
  if (count > 1) return tableAdopt(entriesShrink(builtAt, room, count), count);
  const handle = tableCopy(builtAt, 1, 0);
  entriesFree(builtAt, room);
  return handle;
}

/** A table of `count` empty entries, to be filled by the caller. Its handle, or EINVAL, ENOMEM. */
export function sgTableAlloc(count: u32): i32 {
  if (count == 0) return EINVAL;
  if (count > ENTRIES_MAX) return ENOMEM;
  const at = buildingAt(count);
  if (at == 0) return noMemory();
  memory.fill(at, 0, (<usize>count) << ENTRY_SHIFT);
  return tableBuilt(at, count, count);
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

  const room = count <= ENTRIES_MAX ? count : sgPackedCount(listAt, count, maxPages);
  if (room > ENTRIES_MAX) return ENOMEM;
  const builtAt = looksScattered(listAt, count) ? entriesAlloc(room) : buildingAt(room);
  if (builtAt == 0) return noMemory();
  const used = sgPack(builtAt, listAt, count, maxPages);
  // As in Linux, the bytes may end early, but not before the last entry begins.
  if (used == 0 || SgEntry.at(builtAt, used - 1).before > offset + size) {
    if (builtAt != workspaceAt()) entriesFree(builtAt, room);
    return EINVAL;
  }
  sgTrim(builtAt, used, offset, size);
  return tableBuilt(builtAt, room, used);
}

/**
 * Whether a list begins as one without neighbours: then its many entries are built where they stay,
 * which saves copying them. A wrong guess costs a frame taken and given back.
 */
function looksScattered(listAt: usize, count: u32): bool {
  return count > 64 && PfnCell.at(listAt, 1).pfn != PfnCell.at(listAt, 0).pfn + 1;
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
  const at = buildingAt(entries);
  if (at == 0) return noMemory();
  for (let i: u32 = 0; i < entries; i++) {
    const done = i * maxPages;
    entryWrite(at + ((<usize>i) << ENTRY_SHIFT), pfn + done, min(maxPages, count - done), done);
  }
  return tableBuilt(at, entries, entries);
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

  const at = buildingAt(count);
  if (at == 0) return noMemory();
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
  return tableBuilt(at, count, count);
}

/**
 * A table of one entry: the bytes [offset, offset + length) of the page `pfn`, which need not be
 * memory. Its handle, or ENOMEM.
 */
export function tableOfRun(pfn: u32, offset: u32, length: u32): i32 {
  const at = workspaceAt();
  const entry = SgEntry.at(at, 0);
  entry.pfn = pfn + (offset >> FRAME_SHIFT);
  entry.offset = offset & FRAME_MASK;
  entry.length = length;
  entry.before = 0;
  return tableCopy(at, 1, 0);
}

/**
 * How many leading entries hold `length` bytes; 0 for 0. Or EINVAL (the table is shorter), ESTALE.
 */
export function sgNentsForLen(handle: u32, length: u32): i32 {
  const payload = objectAt(handle);
  if (!objectIs(payload, handle, KIND_TABLE)) return ESTALE;
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
 * (it owns frames, or was borrowed).
 */
export function sgTableFree(handle: u32): i32 {
  const payload = objectAt(handle);
  if (!objectIs(payload, handle, KIND_TABLE)) return ESTALE;
  const table = SgTable.at(payload);
  if (table.mapCount != 0) return EBUSY;
  if (table.source != 0 || table.pin != 0) return EINVAL;
  tableDestroy(payload);
  return 0;
}

/** Frees the entries and the object. */
export function tableDestroy(payload: usize): void {
  const table = SgTable.at(payload);
  const at = table.entriesAt;
  const count = table.origNents;
  if (count > 1) entriesAdopt(at, count);
  objectFree(recordOf(payload));
  if (count > 1) entriesFree(at, count);
}

/**
 * Copies `length` bytes between the table, from byte `skip` on, and linear memory at `bufferAt`.
 * Bytes copied, less when the table ends before; or ESTALE, EINVAL (the buffer leaves memory, or
 * a frame has no bytes: then none is copied).
 */
export function sgCopy(handle: u32, skip: u32, bufferAt: usize, length: u32, isToBuffer: u32): i32 {
  const payload = objectAt(handle);
  if (!objectIs(payload, handle, KIND_TABLE)) return ESTALE;
  if (<u64>bufferAt + length > (<u64>header().backedFrames) << FRAME_SHIFT) return EINVAL;
  return runsVisit(SgTable.at(payload), skip, length, bufferAt, isToBuffer ? COPY_OUT : COPY_IN);
}

/**
 * Fills `length` bytes of the table with zeros, from byte `skip` on. Bytes filled, less when the
 * table ends before; or ESTALE, EINVAL (a frame without bytes: then none is filled).
 */
export function sgZero(handle: u32, skip: u32, length: u32): i32 {
  const payload = objectAt(handle);
  if (!objectIs(payload, handle, KIND_TABLE)) return ESTALE;
  return runsVisit(SgTable.at(payload), skip, length, 0, FILL);
}

const COPY_OUT: u32 = 0; // of the table, into the buffer
const COPY_IN: u32 = 1;
const FILL: u32 = 2; // with zeros

/** Does `what` to the bytes from `skip` on, run by run. Bytes done, or EINVAL: then none is. */
function runsVisit(table: SgTable, skip: u32, length: u32, bufferAt: usize, what: u32): i32 {
  if (skip >= table.lengthBytes || length == 0) return 0;
  const total = min(length, table.lengthBytes - skip);
  let i = entriesBisect(table.entriesAt, table.origNents, skip);
  if (!hasBytes(table, i, skip + total)) return EINVAL;
  let into = skip - SgEntry.at(table.entriesAt, i).before;
  for (let left = total; left > 0; i++, into = 0) {
    const entry = SgEntry.at(table.entriesAt, i);
    const bytes = min(left, entry.length - into);
    if (what == FILL) memory.fill(entry.byteAt + into, 0, bytes);
    else if (what == COPY_OUT) memory.copy(bufferAt, entry.byteAt + into, bytes);
    else memory.copy(entry.byteAt + into, bufferAt, bytes);
    bufferAt += bytes;
    left -= bytes;
  }
  return total;
}

/** Whether all frames from entry `i` on, up to byte `end`, have bytes (layout.ts, L4). */
function hasBytes(table: SgTable, i: u32, end: u32): bool {
  const backedFrames = header().backedFrames;
  if (backedFrames == header().frameCount) return true;
  for (; i < table.origNents; i++) {
    const entry = SgEntry.at(table.entriesAt, i);
    if (entry.before >= end) break;
    if (entry.pfn + entry.pageCount > backedFrames) return false;
  }
  return true;
}
