// Objects that several threads hold: a bit for each thread that does.
//
//   payload   0                                        40            48
//             ├ fields of the object ──────────────────┼ holders: u64 ┤      bit t = thread t holds it
//
//   objectAlloc ─► holders = creator ──shareImport──► + others ──shareLeave──► … ──last──► 0: free it
//
// H1  holders is the truth about who holds an object; it is not 0 while the object lives, but for
//     the moment in which the last holder frees it. A thread counts its own uses itself.
// H2  It changes under slabLock only: records are made and freed under that lock, so a number is
//     looked up and held in one step, and never names another object in between.
// H3  A number that comes from another thread is not trusted: it must name a record that was
//     handed out, of a kind that is shared, with the right generation.

import { EBADF, ESTALE } from "./errno";
import { SLAB_LOCK_AT } from "./layout";
import { lockRare, unlockRare } from "./lock";
import {
  INDEX_MASK,
  KIND_BUFFER,
  KIND_FENCE,
  KIND_POOL,
  ObjectRecord,
  PAYLOAD_BYTES,
  PAYLOAD_OFFSET,
} from "./object";
import { INDEX_BITS, recordAt, recordFree, recordIsUsed } from "./slab";
import { threadIndex } from "./thread";

export const HOLDERS_OFFSET: usize = 40;

@unmanaged
class Holders {
  mask: u64; // H1

  static at(payload: usize): Holders {
    return changetype<Holders>(payload + HOLDERS_OFFSET);
  }
}

if (HOLDERS_OFFSET + offsetof<Holders>() != PAYLOAD_BYTES)
  ERROR("the holders do not end the payload");

export function isShareable(kind: u32): bool {
  return kind == KIND_FENCE || kind == KIND_BUFFER || kind == KIND_POOL;
}

function bitOf(thread: u32): u64 {
  return <u64>1 << (<u64>thread);
}

/** Makes the calling thread the only holder of an object that nobody else can know yet. */
export function shareBegin(payload: usize): void {
  Holders.at(payload).mask = bitOf(threadIndex());
}

/** Whether anybody holds the object. */
export function isHeld(payload: usize): bool {
  return Holders.at(payload).mask != 0;
}

/** Whether `thread` holds the object. */
export function isHeldBy(payload: usize, thread: u32): bool {
  return (Holders.at(payload).mask & bitOf(thread)) != 0;
}

/**
 * Makes the calling thread a holder of the object of `kind` that a number from another thread
 * names. 0; ESTALE: it is gone; EBADF: it never was such an object's number (H3).
 */
export function shareImport(handle: u32, kind: u32): i32 {
  const index = handle & INDEX_MASK;
  if (handle >> INDEX_BITS == 0 || <i32>handle < 0 || !isShareable(kind)) return EBADF;
  lockRare(SLAB_LOCK_AT);
  const at = recordAt(index);
  let result: i32 = ESTALE;
  if (at == 0 || !recordIsUsed(at)) result = EBADF;
  else if (ObjectRecord.at(at).handle == handle && ObjectRecord.at(at).kind != 0) {
    const holders = Holders.at(at + PAYLOAD_OFFSET);
    if (ObjectRecord.at(at).kind != kind) result = EBADF;
    else if (holders.mask != 0) {
      holders.mask |= bitOf(threadIndex());
      result = 0;
    }
  }
  unlockRare(SLAB_LOCK_AT);
  return result;
}

/**
 * `thread` holds the object no longer. Whether it was the last holder: then the caller frees the
 * object, and nobody can import it any more.
 */
export function shareLeave(payload: usize, thread: u32): bool {
  lockRare(SLAB_LOCK_AT);
  const holders = Holders.at(payload);
  const had = holders.mask;
  holders.mask = had & ~bitOf(thread);
  const isLast = had != 0 && holders.mask == 0;
  if (isLast) ObjectRecord.at(payload - PAYLOAD_OFFSET).owner = thread; // who frees it (reap.ts)
  unlockRare(SLAB_LOCK_AT);
  return isLast;
}

/** The same for an object that is its record alone, which goes with the last holder in one step. */
export function shareRelease(payload: usize, thread: u32): void {
  lockRare(SLAB_LOCK_AT);
  const holders = Holders.at(payload);
  const left = holders.mask & ~bitOf(thread);
  if (left == 0) ObjectRecord.at(payload - PAYLOAD_OFFSET).owner = thread; // who frees it (reap.ts)
  holders.mask = left;
  if (left == 0) recordFree(payload - PAYLOAD_OFFSET);
  unlockRare(SLAB_LOCK_AT);
}

/**
 * The same, but only if nobody else holds the object: whether `thread` was the last holder, and
 * else nothing changes.
 */
export function shareLeaveLast(payload: usize, thread: u32): bool {
  lockRare(SLAB_LOCK_AT);
  const holders = Holders.at(payload);
  const isLast = holders.mask == bitOf(thread);
  if (isLast) holders.mask = 0;
  unlockRare(SLAB_LOCK_AT);
  return isLast;
}

/** Makes `thread` the holder again of an object that could not be freed. */
export function shareReturn(payload: usize, thread: u32): void {
  lockRare(SLAB_LOCK_AT);
  Holders.at(payload).mask |= bitOf(thread);
  unlockRare(SLAB_LOCK_AT);
}
