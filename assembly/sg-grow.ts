// Tables that grow: frames that become known in batches, appended to what is there.
//
//   table   (5, 2) (9, 1)     + frames 10 11 3     ─►   (5, 2) (9, 3) (3, 1)
//
// S8  A table that may not grow, or for which memory is out, is left as it was: all checks come
//     first, and new entries are written behind the last one that counts.
// S9  A batch joins the last entry only where that ends on a frame, its first frame follows, and
//     the entry stays within the batch's segment limit.
//
// A list has no room in reserve (sg-entries.ts, S3): it is copied when it needs another frame, once
// for 256 entries. Compare sg_alloc_append_table_from_pages() in the kernel's lib/scatterlist.c.

import { EBUSY, EINVAL, ENOMEM, EOVERFLOW, ESTALE } from "./errno";
import { FRAME_MASK, FRAME_SHIFT, header } from "./layout";
import { noMemory } from "./lock";
import { KIND_TABLE, objectAt, objectIs } from "./object";
import { PfnCell } from "./page";
import {
  ENTRIES_MAX,
  ENTRY_SHIFT,
  SgEntry,
  entriesAlloc,
  entriesFrames,
  entriesFree,
} from "./sg-entries";
import { sgPack, sgPackedCount } from "./sg-pack";
import { SgTable, sgTableFromPages } from "./sg";

/**
 * Appends the first `size` bytes of the `count` frames listed at `listAt` to the table, in segments
 * of at most `maxSegmentBytes`. A handle of 0 makes a new table, as sgTableFromPages() does, whose
 * bytes begin at `offset`; otherwise `offset` must be 0. The bytes must reach the last new entry.
 *
 * The table's handle; or EINVAL (also: it owns its frames, or its last entry is empty), EBUSY
 * (mapped), EOVERFLOW (4 GiB in all), ENOMEM, ESTALE.
 */
export function sgTableAppend(
  handle: u32,
  listAt: usize,
  count: u32,
  offset: u32,
  size: u32,
  maxSegmentBytes: u32,
): i32 {
  if (handle == 0) return sgTableFromPages(listAt, count, offset, size, maxSegmentBytes);
  const payload = objectAt(handle);
  if (!objectIs(payload, handle, KIND_TABLE)) return ESTALE;
  const table = SgTable.at(payload);
  if (table.mapCount != 0) return EBUSY;
  const maxPages = maxSegmentBytes >> FRAME_SHIFT;
  if (count == 0 || offset != 0 || size == 0 || maxPages == 0) return EINVAL;
  if (table.source != 0 || table.pin != 0) return EINVAL;
  if (<u64>size > (<u64>count) << FRAME_SHIFT) return EINVAL;
  const last = SgEntry.at(table.entriesAt, table.origNents - 1);
  if (last.length == 0) return EINVAL;
  if (<u64>table.lengthBytes + size > 0xffffffff) return EOVERFLOW;

  const joined = joinedCount(last, listAt, count, maxPages);
  if (joined > 0 && PfnCell.at(listAt, joined - 1).pfn >= header().frameCount) return EINVAL;
  if (joined < count) {
    const restAt = listAt + ((<usize>joined) << 2);
    const joinedBytes = joined << FRAME_SHIFT;
    return entriesAppend(table, handle, joinedBytes, restAt, count - joined, size, maxPages);
  }
  last.length += size;
  table.lengthBytes += size;
  return <i32>handle;
}

/** How many listed frames join the entry (S9). */
function joinedCount(last: SgEntry, listAt: usize, count: u32, maxPages: u32): u32 {
  const bytesEnd = <u64>last.offset + last.length;
  const maxBytes = maxPages << FRAME_SHIFT;
  if ((<u32>bytesEnd & FRAME_MASK) != 0 || last.length >= maxBytes) return 0;
  const pfnEnd = last.pfn + <u32>(bytesEnd >> FRAME_SHIFT);
  const most = min(count, (maxBytes - last.length) >> FRAME_SHIFT);
  let joined: u32 = 0;
  while (joined < most && PfnCell.at(listAt, joined).pfn == pfnEnd + joined) joined += 1;
  return joined;
}

/**
 * Lets the last entry grow by `joinedBytes`, and appends the `count` frames at `listAt` behind it:
 * `size` bytes in all. The handle, or EINVAL, ENOMEM: then nothing changed (S8).
 */
function entriesAppend(
  table: SgTable,
  handle: u32,
  joinedBytes: u32,
  listAt: usize,
  count: u32,
  size: u32,
  maxPages: u32,
): i32 {
  const had = table.origNents;
  const added = sgPackedCount(listAt, count, maxPages);
  if (added > ENTRIES_MAX - had) return ENOMEM;
  const total = had + added;
  const hasRoom = had > 1 && entriesFrames(had) == entriesFrames(total);
  const at = hasRoom ? table.entriesAt : entriesAlloc(total);
  if (at == 0) return noMemory();
  const newAt = at + ((<usize>had) << ENTRY_SHIFT);
  const areFrames = sgPack(newAt, listAt, count, maxPages) == added;
  const last = SgEntry.at(at, total - 1);
  if (!areFrames || joinedBytes + last.before >= size) {
    if (!hasRoom) entriesFree(at, total);
    return EINVAL;
  }

  if (!hasRoom) {
    memory.copy(at, table.entriesAt, (<usize>had) << ENTRY_SHIFT);
    tableReplace(table, at);
  }
  SgEntry.at(at, had - 1).length += joinedBytes;
  last.length = size - joinedBytes - last.before;
  const bytesBefore = table.lengthBytes + joinedBytes;
  for (let i = had; i < total; i++) SgEntry.at(at, i).before += bytesBefore;
  table.origNents = total;
  table.lengthBytes += size;
  return <i32>handle;
}

/** Frees the list of a table, unless the table itself holds it (sg.ts, S7), and names another. */
function tableReplace(table: SgTable, entriesAt: usize): void {
  if (table.origNents > 1) entriesFree(table.entriesAt, table.origNents);
  table.entriesAt = entriesAt;
}
