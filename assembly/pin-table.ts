// Pins of whole tables, as objects: so that they can be taken off for a thread that died.
//
//   pinAdd ─► MOVING ─► pins on all frames ─► PINNED ──pinRemove──► MOVING ─► pins off ─► gone
//
// N5  A PINNED record stands for one pin on each frame of its table; a MOVING one for a change that
//     has begun. It moves under framesLock.
// N11 How far a MOVING pin of a borrowed table has come is known to the frame: others have pins on
//     its frames too. The frame's word before the change is written before its place, alternately
//     to two cells, so that the one that counts is never half written.
//
// Only tables whose entries never change are pinned like that: those that own their frames
// (storage.ts), and borrowed ones (borrow.ts).

import { NONE } from "./bits";
import { EAGAIN, EINVAL, EOVERFLOW, ESTALE } from "./errno";
import { FRAMES_LOCK_AT, header } from "./layout";
import { lock, lockRare, unlockRare } from "./lock";
import { KIND_PIN, KIND_TABLE, objectAlloc, objectFind, objectFree, recordOf } from "./object";
import { Frame, PIN, PINS_MASK, PINS_MAX, PIN_SHIFT, wordsChange } from "./page";
import { SgEntry, entriesPages } from "./sg-entries";
import { SgTable } from "./sg";
import { lostError, pinError, pinsPut, pinsTake } from "./pin";

const MOVING: u32 = 1;
const PINNED: u32 = 2;

@unmanaged
export class Pin {
  state: u32; // N5
  table: u32; // handle
  next: u32; // N11: the place in the table of the frame that is counted; NONE = not begun
  isLeaving: u32; // whether the pins are being taken off
  even: u32; // N11: the word of the frame with an even place
  odd: u32;

  static at(payload: usize): Pin {
    return changetype<Pin>(payload);
  }

  get isPinned(): bool {
    return this.state == PINNED;
  }

  get isMoving(): bool {
    return this.state == MOVING;
  }
}

/**
 * Pins all frames of a table. The pin's handle, or ESTALE, EINVAL (its entries may change),
 * EOVERFLOW, EAGAIN, ENOMEM: then none is pinned.
 */
export function pinAdd(tableHandle: u32): i32 {
  const tableAt = objectFind(tableHandle, KIND_TABLE);
  if (tableAt == 0) return ESTALE;
  const table = SgTable.at(tableAt);
  if (table.source == 0 && table.pin == 0) return EINVAL;
  const handle = objectAlloc(KIND_PIN);
  if (handle < 0) return handle;
  const payload = objectFind(handle, KIND_PIN);
  Pin.at(payload).table = tableHandle;
  let error: i32 = EAGAIN;
  if (lock(FRAMES_LOCK_AT)) {
    error = pinsBegin(payload, table);
    unlockRare(FRAMES_LOCK_AT);
  }
  if (error == 0) return handle;
  objectFree(recordOf(payload));
  return error;
}

/** Takes a pin off. 0 or ESTALE. */
export function pinRemove(handle: u32): i32 {
  const payload = objectFind(handle, KIND_PIN);
  if (payload == 0) return ESTALE;
  pinTakeOff(payload);
  objectFree(recordOf(payload));
  return 0;
}

/** Takes the pins off that a PINNED record stands for. */
export function pinTakeOff(payload: usize): void {
  const pin = Pin.at(payload);
  const tableAt = objectFind(pin.table, KIND_TABLE);
  lockRare(FRAMES_LOCK_AT);
  if (tableAt != 0) pinsMove(pin, SgTable.at(tableAt), true);
  pin.state = 0;
  unlockRare(FRAMES_LOCK_AT);
}

/** Gives every frame of a table exactly `count` pins. The caller holds framesLock. */
export function pinsSet(table: SgTable, count: u32): void {
  for (let i: u32 = 0; i < table.origNents; i++) {
    const entry = SgEntry.at(table.entriesAt, i);
    wordsChange(entry.pfn, entry.pageCount, ~PINS_MASK, count << PIN_SHIFT);
  }
}

/** Pins a table for a record. 0, or ENOENT, EOVERFLOW. The caller holds framesLock. */
export function pinsBegin(payload: usize, table: SgTable): i32 {
  const error = pinsError(table);
  if (error != 0) return error;
  const pin = Pin.at(payload);
  pinsMove(pin, table, false);
  const lost = lostPinsError(table);
  if (lost != 0) pinsMove(pin, table, true);
  pin.state = lost == 0 ? PINNED : 0;
  return lost;
}

/** Counts the pins of a record, or takes them off (N5). */
function pinsMove(pin: Pin, table: SgTable, isLeaving: bool): void {
  pin.next = NONE;
  pin.isLeaving = <u32>isLeaving;
  pin.state = MOVING;
  if (table.pin == 0) {
    pinsAdd(table, isLeaving);
    return;
  }
  const pages = entriesPages(table.entriesAt, table.origNents);
  if (!isLeaving) header().pinCount += pages; // N12
  pinsCount(pin, table);
  if (isLeaving) header().pinCount -= pages;
}

/** Counts frame by frame, those that have not been counted yet (N11). */
function pinsCount(pin: Pin, table: SgTable): void {
  const delta = pin.isLeaving != 0 ? 0 - PIN : PIN;
  const next = pin.next;
  const before = (next & 1) == 0 ? pin.even : pin.odd;
  let place: u32 = 0;
  for (let i: u32 = 0; i < table.origNents; i++) {
    const entry = SgEntry.at(table.entriesAt, i);
    for (let j: u32 = 0; j < entry.pageCount; j++, place++) {
      const frame = Frame.at(entry.pfn + j);
      const word = frame.word;
      if (next != NONE && (place < next || (place == next && word != before))) continue;
      if ((place & 1) == 0) pin.even = word;
      else pin.odd = word;
      pin.next = place;
      frame.word = word + delta;
    }
  }
}

/**
 * Does the rest of a MOVING pin of a borrowed table, whose thread died holding framesLock; the
 * caller has taken that over (N11).
 */
export function pinsFinish(payload: usize): void {
  const pin = Pin.at(payload);
  const tableAt = objectFind(pin.table, KIND_TABLE);
  if (pin.state != MOVING || tableAt == 0 || SgTable.at(tableAt).pin == 0) return;
  pinsCount(pin, SgTable.at(tableAt));
  pin.state = pin.isLeaving != 0 ? 0 : PINNED;
}

function pinsAdd(table: SgTable, isLeaving: bool): void {
  for (let i: u32 = 0; i < table.origNents; i++) {
    const entry = SgEntry.at(table.entriesAt, i);
    if (isLeaving) pinsTake(entry.pfn, entry.pageCount);
    else pinsPut(entry.pfn, entry.pageCount);
  }
}

function pinsError(table: SgTable): i32 {
  for (let i: u32 = 0; i < table.origNents; i++) {
    const entry = SgEntry.at(table.entriesAt, i);
    const error = pinError(entry.pfn, entry.pageCount, PINS_MAX, EOVERFLOW);
    if (error != 0) return error;
  }
  return 0;
}

function lostPinsError(table: SgTable): i32 {
  for (let i: u32 = 0; i < table.origNents; i++) {
    const entry = SgEntry.at(table.entriesAt, i);
    const error = lostError(entry.pfn, entry.pageCount);
    if (error != 0) return error;
  }
  return 0;
}
