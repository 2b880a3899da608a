// Splitting a table: some of its bytes, in order, as tables of their own.
//
//   table     ├──── entry ────┼─ entry ─┼──── entry ────┤
//   skip ─────────►├ size 0 ──┼─ size 0 ┤├─ size 1 ─┤          the rest belongs to no output
//
// S10  An output holds exactly the bytes asked for, and no entry of it is empty.
// S11  Outputs name the same frames as the table and own none; the table stays as it is.
// S12  All outputs are made, or none.
//
// Linux hangs the rest of the list onto the last output when that ends inside an entry, and begins
// with an empty entry when `skip` ends with one. Compare lib/sg_split.c in the kernel.

import { EINVAL, ESTALE } from "./errno";
import { FRAME_MASK, FRAME_SHIFT } from "./layout";
import { KIND_TABLE, objectAt, objectIs } from "./object";
import { ENTRY_SHIFT, SgEntry, entriesBisect } from "./sg-entries";
import { SgTable, tableCopy, tableDestroy } from "./sg";

/** One output in the caller's list: the size that is asked for, then the table that holds it. */
@unmanaged
class SplitCell {
  word: u32;

  static at(listAt: usize, i: u32): SplitCell {
    return changetype<SplitCell>(listAt + ((<usize>i) << 2));
  }
}

/**
 * Replaces the `count` sizes listed at `listAt` by tables of so many bytes each, taken one after
 * the other from byte `skip` on. 0, or ESTALE, EINVAL (no size, a size of 0, or the table is too
 * short), ENOMEM: then the list is as it was.
 */
export function sgSplit(handle: u32, skip: u32, listAt: usize, count: u32): i32 {
  const payload = objectAt(handle);
  if (!objectIs(payload, handle, KIND_TABLE)) return ESTALE;
  const table = SgTable.at(payload);
  if (count == 0) return EINVAL;
  let end: u64 = skip;
  for (let i: u32 = 0; i < count; i++) {
    const size = SplitCell.at(listAt, i).word;
    if (size == 0) return EINVAL;
    end += size;
  }
  if (end > table.lengthBytes) return EINVAL;

  for (let i: u32 = 0; i < count; i++) {
    const cell = SplitCell.at(listAt, i);
    const size = cell.word;
    const output = tableSlice(table, skip, size);
    if (output < 0) {
      splitUndo(listAt, i);
      return output;
    }
    cell.word = output;
    skip += size;
  }
  return 0;
}

/** A table of the bytes [from, from + size) of a table that has them. Its handle, or ENOMEM. */
function tableSlice(table: SgTable, from: u32, size: u32): i32 {
  const first = entriesBisect(table.entriesAt, table.origNents, from);
  const last = entriesBisect(table.entriesAt, table.origNents, from + size - 1);
  const count = last - first + 1;
  const handle = tableCopy(table.entriesAt + ((<usize>first) << ENTRY_SHIFT), count, 0);
  if (handle < 0) return handle;

  const slice = SgTable.at(objectAt(handle));
  const into = from - SgEntry.at(slice.entriesAt, 0).before;
  for (let i: u32 = 1; i < count; i++) SgEntry.at(slice.entriesAt, i).before -= from;
  const entry = SgEntry.at(slice.entriesAt, 0);
  const offset = <u64>entry.offset + into;
  entry.pfn += <u32>(offset >> FRAME_SHIFT);
  entry.offset = <u32>offset & FRAME_MASK;
  entry.length -= into;
  entry.before = 0;
  const end = SgEntry.at(slice.entriesAt, count - 1);
  end.length = size - end.before;
  slice.lengthBytes = size;
  return handle;
}

/** Puts the sizes back in place of the first `count` outputs, and frees those (S12). */
function splitUndo(listAt: usize, count: u32): void {
  for (let i: u32 = 0; i < count; i++) {
    const cell = SplitCell.at(listAt, i);
    const payload = objectAt(cell.word);
    cell.word = SgTable.at(payload).lengthBytes;
    tableDestroy(payload);
  }
}
