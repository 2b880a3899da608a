// A thread that died: what it held is released, what its locks protected is rebuilt.
//
//   RUNNING ──threadReap──► DEAD ─► its locks ─► its records ─► its frames ─► FREE
//
// K5  Locks are repaired from right to left (lock.ts, K3): whoever a repair waits for then waits
//     for nobody who is dead.
// K6  A reap can be begun again: each step looks at what is there, and the slot stays DEAD until
//     the last has been done.
// K8  Frames of a dead thread that others have borrowed (borrow.ts) stay pinned and its own, and
//     its slot stays DEAD, until the last of them has been given back.
//
// Whoever calls knows that the thread runs no more. All others may be anywhere in the core
// meanwhile. What is guaranteed afterwards:
//
//   * nobody waits for a lock that the thread held; every list, bitmap and counter is right again;
//   * its frames, tables, devices, domains, mappings, movables and pins are gone, but for the
//     storage of buffers that others hold, and frames that they have borrowed (K8); its magazine
//     is empty;
//   * it holds no buffer, fence or pool: what nobody else holds is free;
//   * its pending fences have ended with EOWNERDEAD, frames of pools that wait for one say so, and
//     its pools are abandoned;
//   * so have the questions that it was asked (link.ts); whom it asked hears that it is gone.
//
// Not covered, and possible with numbers of the core only: pins that it put on frames or movables
// of another thread, and of what it mapped or reserved in another thread's domain page by page, all
// that was done when it died stays.

import { objectNext, objectPayload } from "./check";
import { NONE } from "./bits";
import { Buffer, bufferDestroy, bufferLeave, bufferOrphan } from "./buffer";
import { deviceFree } from "./dma-device";
import { EINVAL, EOWNERDEAD, ESRCH } from "./errno";
import { fenceAbandon, fenceIsPending } from "./fence";
import { frameInsert } from "./free-list";
import {
  DOMAINS_LOCK_AT,
  FRAMES_LOCK_AT,
  MOVABLE_LOCK_AT,
  REAP_LOCK_AT,
  SHADOW_LOCK_AT,
  SLAB_LOCK_AT,
  header,
} from "./layout";
import { linkDrop, linksEnd } from "./link";
import { lockRare, lockTakeOver, lockWake, unlockRare } from "./lock";
import { Movable, movableFrameDrop } from "./movable";
import {
  KIND_BUFFER,
  KIND_DEVICE,
  KIND_DOMAIN,
  KIND_FENCE,
  KIND_LINK,
  KIND_MOVABLE,
  KIND_PIN,
  KIND_POOL,
  KIND_REGION,
  KIND_TABLE,
  ObjectRecord,
  handleOf,
  objectFind,
  objectFree,
  recordOf,
} from "./object";
import { CACHED, Frame, MOVABLE, Page } from "./page";
import { Pin, pinTakeOff, pinsFinish, pinsSet } from "./pin-table";
import { POOL_ABANDONED, POOL_CLOSED, poolDestroy, poolLeave } from "./pool";
import { Pool } from "./pool-table";
import {
  domainsDrop,
  domainsRecount,
  domainsRepair,
  isOwnedBy,
  mappingsDrop,
  shadowsRecount,
  slotsRepair,
} from "./reap-dma";
import { rebuildDevice, rebuildFrames, rebuildRegion, rebuildSlabs } from "./rebuild";
import { regionPayload } from "./region";
import { SgTable } from "./sg";
import { isHeld, isHeldBy, isShareable, shareRelease } from "./share";
import { isLeft, sweep } from "./sweep";
import { DEAD, FREE_SLOT, RESERVED_SLOT, RUNNING, Thread, bellRing, threadIndex } from "./thread";

/**
 * Cleans up after thread `dead`, which runs no more. Frames that it left and nobody needs; or
 * EINVAL (no such thread, or the caller itself), ESRCH (nobody has the slot).
 */
export function threadReap(dead: u32): i32 {
  if (dead >= header().threadCount || dead == threadIndex()) return EINVAL;
  const stateAt = changetype<usize>(Thread.at(dead));
  if (atomic.cmpxchg<u32>(stateAt, RESERVED_SLOT, FREE_SLOT) == RESERVED_SLOT) return 0;
  const was = atomic.cmpxchg<u32>(stateAt, RUNNING, DEAD);
  if (was != RUNNING && was != DEAD) return ESRCH;
  return reapAll(dead);
}

/**
 * Cleans up after all threads that are dead: `first`, and those whose frames it had borrowed, or
 * which have been given back (K8). Frames that came back from `first`.
 */
export function reapAll(first: u32): u32 {
  const count = header().threadCount;
  const freed = first < count ? reapOne(first) : 0;
  for (let index: u32 = 0; index < count; index++) {
    const isDead = atomic.load<u32>(changetype<usize>(Thread.at(index))) == DEAD;
    if (isDead && index != first) reapOne(index);
  }
  return freed;
}

function reapOne(dead: u32): u32 {
  const stateAt = changetype<usize>(Thread.at(dead));
  locksWake();
  if (!lockTakeOver(REAP_LOCK_AT, dead)) lockRare(REAP_LOCK_AT); // it may have died reaping
  let freed: u32 = 0;
  if (atomic.load<u32>(stateAt) == DEAD) {
    locksRepair(dead);
    servedEnd(dead, true);
    recordsDrop(dead);
    freed = sweep(dead);
    heldDrop(dead, POOL_ABANDONED);
    ownersChange(dead);
    bellsRing();
    if (!isLending(dead)) atomic.store<u32>(stateAt, FREE_SLOT);
  }
  unlockRare(REAP_LOCK_AT);
  return freed;
}

/** A thread that leaves lets go of what it shares and holds. */
export function threadForgets(): void {
  servedEnd(threadIndex(), false);
  heldDrop(threadIndex(), POOL_CLOSED);
  bellsRing();
}

/** What the thread served is served no more, and everybody who asks it is answered. */
function servedEnd(thread: u32, isDead: bool): void {
  for (let index = objectNext(0, KIND_BUFFER); index != 0; index = objectNext(index, KIND_BUFFER))
    bufferOrphan(objectPayload(index), thread, isDead);
  linksEnd();
}

/** Has all threads look whether somebody whom they serve is gone. */
function bellsRing(): void {
  for (let index: u32 = 0; index < header().threadCount; index++) {
    if (Thread.at(index).state == RUNNING) bellRing(index);
  }
}

/** Whether others have borrowed frames of the dead thread's (K8). */
function isLending(dead: u32): bool {
  const h = header();
  for (let pfn = h.firstFrame; pfn < h.backedFrames; pfn++)
    if (Frame.at(pfn).pins != 0 && isLeft(pfn, dead)) return true;
  return false;
}

// ---- locks (K5)

/** Lets everybody look at the locks again (lockWake). */
function locksWake(): void {
  lockWake(FRAMES_LOCK_AT);
  lockWake(SLAB_LOCK_AT);
  lockWake(MOVABLE_LOCK_AT);
  lockWake(SHADOW_LOCK_AT);
  if (header().bounceAt != 0) lockWake(header().bounceAt);
  lockWake(DOMAINS_LOCK_AT);
  lockWake(REAP_LOCK_AT);
  for (let index = objectNext(0, 0); index != 0; index = objectNext(index, 0)) {
    const kind = ObjectRecord.at(recordOf(objectPayload(index))).kind;
    if (kind == KIND_REGION || kind == KIND_DOMAIN || kind == KIND_DEVICE)
      lockWake(objectPayload(index));
  }
}

function locksRepair(dead: u32): void {
  if (lockTakeOver(FRAMES_LOCK_AT, dead)) {
    rebuildFrames(dead);
    for (let index = objectNext(0, KIND_PIN); index != 0; index = objectNext(index, KIND_PIN))
      pinsFinish(objectPayload(index));
  } else {
    magazineReturn(dead);
  }
  unlockRare(FRAMES_LOCK_AT);
  if (lockTakeOver(SLAB_LOCK_AT, dead)) {
    rebuildSlabs();
    unlockRare(SLAB_LOCK_AT);
  }
  for (let i: u32 = 0; i < header().regionCount; i++) {
    const payload = regionPayload(i);
    if (!lockTakeOver(payload, dead)) continue;
    if (Thread.at(dead).busyRegion != payload) rebuildRegion(payload);
    unlockRare(payload);
  }
  if (lockTakeOver(SHADOW_LOCK_AT, dead)) {
    shadowsRecount();
    unlockRare(SHADOW_LOCK_AT);
  }
  movablesRepair(dead);
  regionBusyRepair(dead);
  domainsRepair(dead);
  for (let index = objectNext(0, KIND_DEVICE); index != 0; index = objectNext(index, KIND_DEVICE)) {
    const payload = objectPayload(index);
    if (!lockTakeOver(payload, dead)) continue;
    rebuildDevice(payload);
    unlockRare(payload);
  }
  if (lockTakeOver(DOMAINS_LOCK_AT, dead)) {
    domainsRecount();
    unlockRare(DOMAINS_LOCK_AT);
  }
}

/** Takes framesLock and puts the frames of a magazine into the lists. */
function magazineReturn(dead: u32): void {
  lockRare(FRAMES_LOCK_AT);
  Thread.at(dead).cachedCount = 0;
  const h = header();
  for (let pfn = h.firstFrame; pfn < h.backedFrames; pfn++) {
    const frame = Frame.at(pfn);
    if (frame.state == CACHED && frame.thread == dead) frameInsert(pfn);
  }
}

/** Drops the frames that no movable names, or one of the dead thread's. */
function movablesRepair(dead: u32): void {
  const wasHeld = lockTakeOver(MOVABLE_LOCK_AT, dead);
  if (!wasHeld) lockRare(MOVABLE_LOCK_AT);
  const h = header();
  for (let pfn = h.firstFrame; pfn < h.backedFrames; pfn++) {
    const frame = Frame.at(pfn);
    if (frame.state != MOVABLE) continue;
    const movable = movableOf(pfn, dead);
    if (movable == 0) movableFrameDrop(pfn);
    else if (wasHeld) frame.pins = Movable.at(movable).pinCount;
  }
  unlockRare(MOVABLE_LOCK_AT);
}

/** The movable that has frame `pfn` (movable.ts, Y1) and is not the dead thread's; 0. */
function movableOf(pfn: u32, dead: u32): usize {
  const page = Page.at(pfn);
  const payload = objectFind(page.owner, KIND_MOVABLE);
  if (payload == 0 || isOwnedBy(payload, dead)) return 0;
  const movable = Movable.at(payload);
  return page.index < movable.frameCount && movable.frame(page.index).pfn == pfn ? payload : 0;
}

/**
 * Frees the bits that the thread had taken without their frames. Others that are between the two
 * steps must be through: their bits look the same.
 */
function regionBusyRepair(dead: u32): void {
  const payload = Thread.at(dead).busyRegion;
  while (payload != 0) {
    lockRare(MOVABLE_LOCK_AT);
    lockRare(payload);
    const isAlone = !isBusyElsewhere(payload, dead);
    if (isAlone) rebuildRegion(payload);
    unlockRare(payload);
    unlockRare(MOVABLE_LOCK_AT);
    if (!isAlone) continue;
    Thread.at(dead).busyRegion = 0;
    return;
  }
}

function isBusyElsewhere(payload: usize, dead: u32): bool {
  for (let index: u32 = 0; index < header().threadCount; index++) {
    if (index == dead || Thread.at(index).state != RUNNING) continue;
    if (Thread.at(index).busyRegion == payload) return true;
  }
  return false;
}

// ---- records

/** Frees the records that the thread made for itself; what they named is swept afterwards. */
function recordsDrop(dead: u32): void {
  for (let index = objectNext(0, KIND_PIN); index != 0; index = objectNext(index, KIND_PIN)) {
    const payload = objectPayload(index);
    if (isOwnedBy(payload, dead)) pinDrop(payload);
  }
  mappingsDrop(dead);
  for (let index = objectNext(0, 0); index != 0; index = objectNext(index, 0)) {
    const payload = objectPayload(index);
    if (!isOwnedBy(payload, dead)) continue;
    const kind = ObjectRecord.at(recordOf(payload)).kind;
    if (kind == KIND_DEVICE) deviceFree(payload);
    else if (kind == KIND_MOVABLE) objectFree(recordOf(payload));
    else if (kind == KIND_TABLE && !isKept(payload, dead)) objectFree(recordOf(payload));
  }
  domainsDrop(dead);
  slotsRepair(dead);
}

function pinDrop(payload: usize): void {
  const pin = Pin.at(payload);
  const tableAt = objectFind(pin.table, KIND_TABLE);
  if (pin.isPinned) {
    pinTakeOff(payload);
  } else if (pin.isMoving && tableAt != 0) {
    lockRare(FRAMES_LOCK_AT);
    pinsSet(SgTable.at(tableAt), pinsOf(pin.table)); // it died while it counted
    unlockRare(FRAMES_LOCK_AT);
  }
  objectFree(recordOf(payload));
}

/** How many pins a table has. */
function pinsOf(table: u32): u32 {
  let count: u32 = 0;
  for (let index = objectNext(0, KIND_PIN); index != 0; index = objectNext(index, KIND_PIN)) {
    const pin = Pin.at(objectPayload(index));
    count += <u32>(pin.table == table && pin.isPinned);
  }
  return count;
}

/** Whether a table of the thread's outlives it: others hold its buffer, or use it. */
function isKept(payload: usize, dead: u32): bool {
  if (SgTable.at(payload).mapCount != 0) return true;
  const handle = <u32>handleOf(recordOf(payload));
  for (let index = objectNext(0, KIND_TABLE); index != 0; index = objectNext(index, KIND_TABLE))
    if (SgTable.at(objectPayload(index)).shadow == handle) return true;
  for (let index = objectNext(0, KIND_BUFFER); index != 0; index = objectNext(index, KIND_BUFFER)) {
    const buffer = objectPayload(index);
    if (objectFind(Buffer.at(buffer).table, KIND_TABLE) == payload) return true;
    if (objectFind(Buffer.at(buffer).details, KIND_TABLE) == payload) return true;
  }
  return false;
}

/** Lets go of the buffers, fences, pools and links that a thread has; its own fences end. */
function heldDrop(thread: u32, poolState: u32): void {
  for (let index = objectNext(0, KIND_POOL); index != 0; index = objectNext(index, KIND_POOL))
    fencesMark(objectPayload(index), thread);
  for (let index = objectNext(0, 0); index != 0; index = objectNext(index, 0)) {
    const payload = objectPayload(index);
    const kind = ObjectRecord.at(recordOf(payload)).kind;
    if (isShareable(kind) && !isHeld(payload)) {
      // It died while it freed the last hold (share.ts, H2).
      if (isOwnedBy(payload, thread)) lastFree(kind, payload);
    } else if (kind == KIND_FENCE) {
      if (isOwnedBy(payload, thread)) fenceAbandon(payload, EOWNERDEAD);
      if (isHeldBy(payload, thread)) shareRelease(payload, thread);
    } else if (kind == KIND_POOL) {
      if (isHeldBy(payload, thread)) poolLeave(payload, thread, poolState);
    } else if (kind == KIND_BUFFER) {
      if (isHeldBy(payload, thread)) bufferLeave(payload, thread);
    } else if (kind == KIND_LINK) {
      if (isOwnedBy(payload, thread)) linkDrop(payload);
    }
  }
}

/** Says on a pool's frames that `thread` will not signal their fences: their records may go. */
function fencesMark(payload: usize, thread: u32): void {
  if (!isHeldBy(payload, thread)) return; // nobody frees the pool meanwhile
  const pool = Pool.at(payload);
  for (let i: u32 = 0; i < pool.frameCount; i++) {
    const frame = pool.frame(i);
    const fence = objectFind(frame.fence, KIND_FENCE);
    if (fence != 0 && isOwnedBy(fence, thread) && fenceIsPending(fence)) frame.fence = NONE;
  }
}

function lastFree(kind: u32, payload: usize): void {
  if (kind == KIND_BUFFER) bufferDestroy(payload);
  else if (kind == KIND_POOL) poolDestroy(payload);
  else objectFree(recordOf(payload));
}

/** What outlives the thread belongs to the reaper: the next one with the index is another. */
function ownersChange(dead: u32): void {
  for (let index = objectNext(0, 0); index != 0; index = objectNext(index, 0)) {
    const record = ObjectRecord.at(recordOf(objectPayload(index)));
    if (record.owner == dead) record.owner = threadIndex();
  }
}
