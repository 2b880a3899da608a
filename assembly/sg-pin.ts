// Pins on all frames of a table.
//
// N6  Bytes of an earlier owner are cleared before a table's frames are pinned for somebody.
//
// Compare pin_user_pages() in the kernel's mm/gup.c.

import { frameClearRun } from "./frames";
import { pinRange, unpinRange } from "./pin";
import { SgEntry } from "./sg-entries";
import { SgTable } from "./sg";

/** Clears and pins all frames of a table, or none. 0, or frameClearRun()'s, pinRange()'s errors. */
export function tablePin(table: SgTable): i32 {
  for (let i: u32 = 0; i < table.origNents; i++) {
    const entry = SgEntry.at(table.entriesAt, i);
    let error = frameClearRun(entry.pfn, entry.pageCount);
    if (error >= 0) error = pinRange(entry.pfn, entry.pageCount);
    if (error >= 0) continue;
    entriesUnpin(table, i);
    return error;
  }
  return 0;
}

/** The opposite of tablePin(). */
export function tableUnpin(table: SgTable): void {
  entriesUnpin(table, table.origNents);
}

function entriesUnpin(table: SgTable, count: u32): void {
  for (let i: u32 = 0; i < count; i++) {
    const entry = SgEntry.at(table.entriesAt, i);
    unpinRange(entry.pfn, entry.pageCount);
  }
}
