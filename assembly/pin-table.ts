// Pins of whole tables, as objects: so that they can be taken off for a thread that died.
//
//   pinAdd ─► MOVING ─► pins on all frames ─► PINNED ──pinRemove──► MOVING ─► pins off ─► gone
//
// N5  A PINNED record stands for one pin on each frame of its table; a MOVING one for a change that
//     has begun. It moves under framesLock.
//
// Only tables that own their frames are pinned like that: their entries never change (storage.ts).

import { EAGAIN, EINVAL, EOVERFLOW, ESTALE } from "./errno";
import { FRAMES_LOCK_AT } from "./layout";
import { lock, lockHard, unlock } from "./lock";
import { KIND_PIN, KIND_TABLE, objectAlloc, objectFind, objectFree, recordOf } from "./object";
import { PIN, PINS_MASK, PINS_MAX, PIN_SHIFT, wordsAdd, wordsChange } from "./page";
import { SgEntry } from "./sg-entries";
import { SgTable } from "./sg";
import { lostError, pinError } from "./pin";

const MOVING: u32 = 1;
const PINNED: u32 = 2;

@unmanaged
export class Pin {
  state: u32; // N5
  table: u32; // handle

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
 * Pins all frames of a table that owns them. The pin's handle, or ESTALE, EINVAL (it owns none),
 * EOVERFLOW, EAGAIN, ENOMEM: then none is pinned.
 */
export function pinAdd(tableHandle: u32): i32 {
  const tableAt = objectFind(tableHandle, KIND_TABLE);
  if (tableAt == 0) return ESTALE;
  const table = SgTable.at(tableAt);
  if (table.source == 0) return EINVAL;
  const handle = objectAlloc(KIND_PIN);
  if (handle < 0) return handle;
  const payload = objectFind(handle, KIND_PIN);
  const pin = Pin.at(payload);
  pin.table = tableHandle;
  let error: i32 = EAGAIN;
  if (lock(FRAMES_LOCK_AT)) {
    error = pinsError(table);
    if (error == 0) {
      pin.state = MOVING;
      pinsAdd(table, PIN);
      error = lostPinsError(table);
      if (error != 0) pinsAdd(table, 0 - PIN);
      pin.state = error == 0 ? PINNED : 0;
    }
    unlock(FRAMES_LOCK_AT);
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
  lockHard(FRAMES_LOCK_AT);
  pin.state = MOVING;
  if (tableAt != 0) pinsAdd(SgTable.at(tableAt), 0 - PIN);
  pin.state = 0;
  unlock(FRAMES_LOCK_AT);
}

/** Gives every frame of a table exactly `count` pins. The caller holds framesLock. */
export function pinsSet(table: SgTable, count: u32): void {
  for (let i: u32 = 0; i < table.origNents; i++) {
    const entry = SgEntry.at(table.entriesAt, i);
    wordsChange(entry.pfn, entry.pageCount, ~PINS_MASK, count << PIN_SHIFT);
  }
}

function pinsAdd(table: SgTable, delta: u32): void {
  for (let i: u32 = 0; i < table.origNents; i++) {
    const entry = SgEntry.at(table.entriesAt, i);
    wordsAdd(entry.pfn, entry.pageCount, delta);
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
