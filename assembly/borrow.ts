// Tables that a thread borrows from another one: which frames they name, and a pin on those.
//
//   lender's table   (5, 2) (9, 1)  ──tableBorrow──►  borrower's copy (5, 2) (9, 1) ─► pin: 5 6 9
//
// N8  The copy is taken, and its frames are pinned, in one step with the look at the lender's
//     table: while that lives, its frames are somebody's.
// N10 What is borrowed stays when the lender dies: pinned frames are freed when the last borrower
//     has given them back (reap.ts).

import { NONE } from "./bits";
import { EBADF, EBUSY, EOPNOTSUPP, ESTALE } from "./errno";
import { FRAMES_LOCK_AT, SLAB_LOCK_AT } from "./layout";
import { lockRare, unlockRare } from "./lock";
import {
  KIND_PIN,
  KIND_TABLE,
  objectAlloc,
  objectFind,
  objectFree,
  recordOf,
} from "./object";
import { isFrameRange } from "./page";
import { Pin, pinTakeOff, pinsBegin } from "./pin-table";
import { reapAll } from "./reap";
import { ENTRY_SHIFT, SgEntry } from "./sg-entries";
import { SgTable, sgTableAlloc, tableDestroy } from "./sg";

/**
 * A copy of another thread's table for the calling thread, with its frames pinned. Its handle; or
 * ESTALE: there is no such table, or it changes; EINVAL: its frames may move; EOPNOTSUPP: it names
 * what is no memory; ENOMEM; EAGAIN; EOVERFLOW.
 */
export function tableBorrow(handle: u32): i32 {
  const lentAt = objectFind(handle, KIND_TABLE);
  if (lentAt == 0) return ESTALE;
  const copy = sgTableAlloc(SgTable.at(lentAt).origNents);
  if (copy < 0) return copy;
  const copyAt = objectFind(copy, KIND_TABLE);
  const pin = objectAlloc(KIND_PIN);
  let error = pin;
  if (pin >= 0) {
    const pinAt = objectFind(pin, KIND_PIN);
    Pin.at(pinAt).table = copy;
    SgTable.at(copyAt).pin = pin;
    error = borrow(handle, copyAt, pinAt);
    if (error == 0) return copy;
    objectFree(recordOf(pinAt));
  }
  tableDestroy(copyAt);
  return error;
}

/** Fills the copy and pins its frames (N8). 0, or an error. */
function borrow(handle: u32, copyAt: usize, pinAt: usize): i32 {
  const table = SgTable.at(copyAt);
  lockRare(SLAB_LOCK_AT); // records stay as they are
  lockRare(FRAMES_LOCK_AT);
  const lentAt = objectFind(handle, KIND_TABLE);
  let error: i32 = ESTALE;
  if (lentAt != 0 && SgTable.at(lentAt).origNents == table.origNents) {
    error = entriesCopy(lentAt, table);
    if (error == 0) error = pinsBegin(pinAt, table);
  }
  unlockRare(FRAMES_LOCK_AT);
  unlockRare(SLAB_LOCK_AT);
  return error;
}

function entriesCopy(lentAt: usize, table: SgTable): i32 {
  const lent = SgTable.at(lentAt);
  for (let i: u32 = 0; i < lent.origNents; i++) {
    const entry = SgEntry.at(lent.entriesAt, i);
    if (entry.length != 0 && !isFrameRange(entry.pfn, entry.pageCount)) return EOPNOTSUPP;
  }
  memory.copy(table.entriesAt, lent.entriesAt, (<usize>lent.origNents) << ENTRY_SHIFT);
  table.lengthBytes = lent.lengthBytes;
  return 0;
}

/**
 * Gives a borrowed table back: its frames are unpinned, and free if their owner has died and nobody
 * else has borrowed them. 0, or ESTALE, EBADF (it was not borrowed), EBUSY (mapped).
 */
export function tableReturn(handle: u32): i32 {
  const payload = objectFind(handle, KIND_TABLE);
  if (payload == 0) return ESTALE;
  const table = SgTable.at(payload);
  if (table.mapCount != 0) return EBUSY;
  const pinAt = table.pin == 0 ? <usize>0 : objectFind(table.pin, KIND_PIN);
  if (pinAt == 0) return EBADF;
  pinTakeOff(pinAt);
  objectFree(recordOf(pinAt));
  tableDestroy(payload);
  reapAll(NONE);
  return 0;
}
