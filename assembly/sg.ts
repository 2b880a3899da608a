// Scatterlists: memory that is not in one piece, as a list of segments.
//
//   entry    byte 0     4        8        12       16        table (object payload)
//                 ├ pfn ─┼ offset ┼ length ┼ before ┤         ├ entriesAt ┼ origNents ┼ lengthBytes ┼ mapCount ┼ source ┤
//
// A list has two readers. The CPU side of a table names frames; the DMA side of a mapping (dma.ts)
// names device pages and
// is a list of its own: `origNents` is what is built and freed, `nents` is what a device walks, and
// neither can be taken
// for the other.
//
// S1  length > 0, offset < FRAME_BYTES, and the bytes [offset, offset + length) lie in consecutive
//     frames from pfn.
// S2  before = the sum of all earlier lengths, so that a byte offset is found by bisection, not by
//     a walk.
// S3  One entry lives in a record of CACHE_NODES, more in a run of frames of state OBJECT.
// S4  A table whose `source` is not 0 owns its frames and gives them back when it is freed.
// S5  mapCount is the number of mappings made of the table; such a table is not freed.
//
// Packing costs one pass: 16 frames are compared with their predecessors at a time, and only the
// breaks are looked at.
//
// Compare lib/scatterlist.c in the kernel.

import { NONE } from "./bits";
import { frameDrop, frameTake, runAlloc, runFree } from "./buddy";
import { EBUSY, EINVAL, ENOMEM, EOVERFLOW, ESTALE } from "./errno";
import { FRAME_BYTES, FRAME_MASK, FRAME_SHIFT, MAX_ORDER, frameAt, header } from "./layout";
import { KIND_TABLE, objectAlloc, objectFind, objectFree, recordOf } from "./object";
import { OBJECT, PfnCell, isFrameRange } from "./page";
import { CACHE_NODES, slabAlloc, slabFree } from "./slab";
import { WORKSPACE_BYTES, workspaceAt } from "./thread";

export const ENTRY_BYTES: u32 = 16;
const ENTRY_SHIFT: u32 = 4;
const ENTRIES_PER_FRAME: u32 = FRAME_BYTES >> ENTRY_SHIFT;
const ENTRIES_MAX: u32 = ENTRIES_PER_FRAME << MAX_ORDER;
const NODE_TRUTH: u32 = 0x53_45_47; // the truth word of a record that holds one entry
const PAGES_MAX: u32 = 0xfffff; // a table holds less than 4 GiB

@unmanaged
export class SgEntry {
  pfn: u32; // first frame, or first device page
  offset: u32; // bytes into it; less than FRAME_BYTES
  length: u32; // bytes
  before: u32; // bytes of all earlier entries

  static at(entriesAt: usize, i: u32): SgEntry {
    return changetype<SgEntry>(entriesAt + ((<usize>i) << ENTRY_SHIFT));
  }

  /** Frames, or device pages, that the entry touches. */
  get pageCount(): u32 {
    return (this.offset + this.length + FRAME_MASK) >> FRAME_SHIFT;
  }

  /** Where the entry's bytes lie, for the CPU side. */
  get byteAt(): usize {
    return frameAt(this.pfn) + this.offset;
  }
}

if (offsetof<SgEntry>() != <usize>ENTRY_BYTES) ERROR("SgEntry is not ENTRY_BYTES long");
if (<usize>(ENTRIES_PER_FRAME * ENTRY_BYTES) != WORKSPACE_BYTES)
  ERROR("the workspace does not hold a frame of entries");

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

// ---- lists of entries

/** Room for `count` entries. Its address, or 0 when memory is out. */
export function entriesAlloc(count: u32): usize {
  if (count == 1) {
    const at = slabAlloc(CACHE_NODES, NODE_TRUTH);
    return at == 0 ? 0 : at + ENTRY_BYTES;
  }
  const pfn =
    count <= ENTRIES_PER_FRAME ? frameTake(OBJECT) : runAlloc(entryFrames(count), 0, NONE, OBJECT);
  return pfn < 0 ? 0 : frameAt(pfn);
}

export function entriesFree(at: usize, count: u32): void {
  if (count == 1) slabFree(at - ENTRY_BYTES);
  else if (count <= ENTRIES_PER_FRAME) frameDrop(<u32>(at >> FRAME_SHIFT));
  else runFree(<u32>(at >> FRAME_SHIFT), entryFrames(count), OBJECT);
}

function entryFrames(count: u32): u32 {
  return (count + ENTRIES_PER_FRAME - 1) / ENTRIES_PER_FRAME;
}

/** Frames that a list of `count` entries holds (S3). */
export function entriesFrames(count: u32): u32 {
  return count == 1 ? 0 : entryFrames(count);
}

/**
 * Cuts a run made for `count` entries down to what `used` of them need (S3). The list's address, or
 * 0.
 */
function entriesShrink(at: usize, count: u32, used: u32): usize {
  if (used == 1) {
    const only = entriesAlloc(1);
    if (only != 0) memory.copy(only, at, ENTRY_BYTES);
    entriesFree(at, count);
    return only;
  }
  const frames = entryFrames(used);
  const rest = entryFrames(count) - frames;
  if (rest > 0) runFree(<u32>(at >> FRAME_SHIFT) + frames, rest, OBJECT);
  return at;
}

/** The entry that holds byte `offset` of a list: offset < the list's length. */
export function entriesBisect(at: usize, count: u32, offset: u32): u32 {
  let low: u32 = 0;
  let high = count;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (SgEntry.at(at, middle).before <= offset) low = middle;
    else high = middle;
  }
  return low;
}

// ---- packing frames

function entryWrite(at: usize, pfn: u32, pages: u32, pagesBefore: u32): void {
  v128.store(
    at,
    i32x4.replace_lane(
      i32x4.replace_lane(i32x4.replace_lane(i32x4.splat(0), 0, pfn), 2, pages << FRAME_SHIFT),
      3,
      pagesBefore << FRAME_SHIFT,
    ),
  );
}

/**
 * Writes the run of frames listed in [fromAt, toAt) as entries of at most `maxPages`; returns where
 * the next goes.
 */
function runWrite(out: usize, listAt: usize, fromAt: usize, toAt: usize, maxPages: u32): usize {
  let pfn = PfnCell.at(fromAt, 0).pfn;
  let pages = <u32>((toAt - fromAt) >> 2);
  let pagesBefore = <u32>((fromAt - listAt) >> 2);
  while (pages > maxPages) {
    entryWrite(out, pfn, maxPages, pagesBefore);
    out += ENTRY_BYTES;
    pfn += maxPages;
    pages -= maxPages;
    pagesBefore += maxPages;
  }
  entryWrite(out, pfn, pages, pagesBefore);
  return out + ENTRY_BYTES;
}

/** 15 single frames, all of which begin a run: entries without a look at each. */
function singlesWrite(out: usize, listAt: usize, at: usize): usize {
  const pagesBefore = <u32>((at - listAt) >> 2);
  for (let i: u32 = 0; i < 15; i++) {
    entryWrite(out, PfnCell.at(at, i).pfn, 1, pagesBefore + i);
    out += ENTRY_BYTES;
  }
  return out;
}

/**
 * Packs the `count` frames listed at `listAt` into entries from `out`, each of at most `maxPages`,
 * and returns how many;
 * 0 when a number is no frame's.
 */
function pack(out: usize, listAt: usize, count: u32, maxPages: u32): u32 {
  const first = out;
  const end = listAt + ((<usize>count) << 2);
  const one = i32x4.splat(1);
  let largest = i32x4.splat(0);
  let runAt = listAt;
  let at = listAt + 4;
  for (; at + 64 <= end; at += 64) {
    const f0 = v128.load(at),
      f1 = v128.load(at, 16),
      f2 = v128.load(at, 32),
      f3 = v128.load(at, 48);
    largest = i32x4.max_u(largest, i32x4.max_u(i32x4.max_u(f0, f1), i32x4.max_u(f2, f3)));
    const b0 = i32x4.ne(f0, i32x4.add(v128.load(at - 4), one));
    const b1 = i32x4.ne(f1, i32x4.add(v128.load(at + 12), one));
    const b2 = i32x4.ne(f2, i32x4.add(v128.load(at + 28), one));
    const b3 = i32x4.ne(f3, i32x4.add(v128.load(at + 44), one));
    if (!v128.any_true(v128.or(v128.or(b0, b1), v128.or(b2, b3)))) continue;
    let breaks = <u32>(
      i8x16.bitmask(
        i8x16.narrow_i16x8_s(i16x8.narrow_i32x4_s(b0, b1), i16x8.narrow_i32x4_s(b2, b3)),
      )
    );
    if (breaks == 0xffff) {
      out = runWrite(out, listAt, runAt, at, maxPages);
      out = singlesWrite(out, listAt, at);
      runAt = at + 60;
      continue;
    }
    do {
      const breakAt = at + ((<usize>ctz(breaks)) << 2);
      out = runWrite(out, listAt, runAt, breakAt, maxPages);
      runAt = breakAt;
      breaks &= breaks - 1;
    } while (breaks != 0);
  }
  let last = max(laneMax(largest), PfnCell.at(listAt, 0).pfn);
  for (; at < end; at += 4) {
    const pfn = PfnCell.at(at, 0).pfn;
    last = max(last, pfn);
    if (pfn == PfnCell.at(at - 4, 0).pfn + 1) continue;
    out = runWrite(out, listAt, runAt, at, maxPages);
    runAt = at;
  }
  out = runWrite(out, listAt, runAt, end, maxPages);
  return last < header().frameCount ? <u32>((out - first) >> ENTRY_SHIFT) : 0;
}

function laneMax(v: v128): u32 {
  return max(
    max(<u32>i32x4.extract_lane(v, 0), <u32>i32x4.extract_lane(v, 1)),
    max(<u32>i32x4.extract_lane(v, 2), <u32>i32x4.extract_lane(v, 3)),
  );
}

/** Entries that `count` listed frames need: for lists too long for an upper bound. */
function packedCount(listAt: usize, count: u32, maxPages: u32): u32 {
  let entries: u32 = 1;
  let pages: u32 = 1;
  for (let i: u32 = 1; i < count; i++) {
    if (PfnCell.at(listAt, i).pfn == PfnCell.at(listAt, i - 1).pfn + 1 && pages < maxPages) {
      pages += 1;
    } else {
      entries += 1;
      pages = 1;
    }
  }
  return entries;
}

/**
 * Cuts `offset` bytes off the front and everything behind `size` bytes off the end of whole pages.
 */
function trim(at: usize, count: u32, offset: u32, size: u32): void {
  if (offset != 0) {
    const first = SgEntry.at(at, 0);
    first.offset = offset;
    first.length -= offset;
    for (let i: u32 = 1; i < count; i++) SgEntry.at(at, i).before -= offset;
  }
  const last = SgEntry.at(at, count - 1);
  last.length = size - last.before;
}

// ---- tables

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
 * concatenation, in segments
 * of at most `maxSegmentBytes` (rounded down to frames). Exactly the frames that the bytes need
 * must be listed.
 * Its handle, or EINVAL, ENOMEM.
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
  if (
    <u64>offset + size > (<u64>count) << FRAME_SHIFT ||
    offset + size <= (count - 1) << FRAME_SHIFT
  )
    return EINVAL;

  const inWorkspace = count <= ENTRIES_PER_FRAME;
  const room = inWorkspace
    ? count
    : count <= ENTRIES_MAX
      ? count
      : packedCount(listAt, count, maxPages);
  const builtAt = inWorkspace ? workspaceAt() : room <= ENTRIES_MAX ? entriesAlloc(room) : 0;
  if (builtAt == 0) return ENOMEM;
  const used = pack(builtAt, listAt, count, maxPages);
  if (used == 0) {
    if (!inWorkspace) entriesFree(builtAt, room);
    return EINVAL;
  }
  trim(builtAt, used, offset, size);
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
 * pass the first frame.
 * Its handle, or EINVAL (length 0, or outside memory), EOVERFLOW (4 GiB in all), ENOMEM.
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
 * Bytes copied, less when the
 * table ends before; or ESTALE, EINVAL (the buffer leaves memory).
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
