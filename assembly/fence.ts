// Fences: one-way flags that say "this DMA operation has finished", shared by all threads.
//
//   state   0 pending ──fenceSignal(0)──► 1 signaled
//              └────────fenceSignal(error)──► error < 0
//
//   payload  ├ state ┼ context ┼ seqno ┼ reserved ┼ timestampMs: f64 ┼ … ┼ holders (share.ts) ┤
//
// F1  The state leaves 0 once and never changes again; the timestamp is written before it.
// F2  The state word is also the futex: whoever waits sleeps on it.
// F6  Only the thread that made a fence signals it. When that thread is gone, reap.ts does.
//
// Compare drivers/dma-buf/dma-fence.c in the kernel.

import { EBUSY, EINVAL, EPERM, ESTALE } from "./errno";
import { Header, header } from "./layout";
import {
  KIND_FENCE,
  ObjectRecord,
  objectAlloc,
  objectAt,
  objectFind,
  objectIs,
  recordOf,
} from "./object";
import { isHeldBy, shareBegin, shareRelease } from "./share";
import { threadIndex } from "./thread";

const PENDING: i32 = 0;
const SIGNALED: i32 = 1;
const ERRNO_MIN: i32 = -4095;

@unmanaged
export class Fence {
  state: i32; // F1
  context: u32;
  seqno: u32;
  private reserved: u32;
  timestampMs: f64; // when it signaled; 0 while pending

  static at(payload: usize): Fence {
    return changetype<Fence>(payload);
  }
}

/** `count` consecutive fence contexts that nobody else has; the first. */
export function fenceContextAlloc(count: u32): u32 {
  return (
    1 + atomic.add<u32>(changetype<usize>(header()) + offsetof<Header>("fenceContexts"), count)
  );
}

/** A pending fence. Its handle, or ENOMEM. */
export function fenceAlloc(context: u32, seqno: u32): i32 {
  const handle = objectAlloc(KIND_FENCE);
  if (handle < 0) return handle;
  const payload = objectAt(handle);
  const fence = Fence.at(payload);
  fence.context = context;
  fence.seqno = seqno;
  shareBegin(payload);
  return handle;
}

/**
 * Completes a fence with 0 or a negative errno and wakes who waits. 1, 0 if it was complete
 * already, or ESTALE, EINVAL, EPERM: it is another thread's (F6).
 */
export function fenceSignal(handle: u32, error: i32, nowMs: f64): i32 {
  const payload = objectAt(handle);
  if (!objectIs(payload, handle, KIND_FENCE)) return ESTALE;
  if (error > 0 || error < ERRNO_MIN) return EINVAL;
  const fence = Fence.at(payload);
  if (atomic.load<i32>(payload) != PENDING) return 0;
  if (ObjectRecord.at(recordOf(payload)).owner != threadIndex()) return EPERM;
  fence.timestampMs = nowMs;
  if (atomic.cmpxchg<i32>(payload, PENDING, error == 0 ? SIGNALED : error) != PENDING) return 0;
  if (header().isShared != 0) atomic.notify(payload, -1); // F2; a lone thread does not sleep
  return 1;
}

/** 0 pending, 1 signaled, or the error it ended with; ESTALE when the fence is gone. */
export function fenceStatus(handle: u32): i32 {
  const payload = objectFind(handle, KIND_FENCE);
  return payload == 0 ? ESTALE : atomic.load<i32>(payload);
}

/**
 * When the fence signaled, in milliseconds of the clock that its signaller used; 0 while pending or
 * gone.
 */
export function fenceTimestampMs(handle: u32): f64 {
  const payload = objectFind(handle, KIND_FENCE);
  return payload == 0 ? 0 : Fence.at(payload).timestampMs;
}

/** The address of the fence's payload, for reading its fields and sleeping on its state; ESTALE. */
export function fenceAt(handle: u32): i32 {
  const payload = objectFind(handle, KIND_FENCE);
  return payload == 0 ? ESTALE : <i32>payload;
}

/**
 * Gives up the calling thread's hold on a fence; the last one frees it. 0, or ESTALE (also: this
 * thread does not hold it), EBUSY: it is pending, and this thread is the one to signal it.
 */
export function fenceFree(handle: u32): i32 {
  const payload = objectAt(handle);
  if (!objectIs(payload, handle, KIND_FENCE)) return ESTALE;
  if (!isHeldBy(payload, threadIndex())) return ESTALE;
  const isOwner = ObjectRecord.at(recordOf(payload)).owner == threadIndex();
  if (isOwner && atomic.load<i32>(payload) == PENDING) return EBUSY;
  shareRelease(payload, threadIndex());
  return 0;
}

/** Whether nobody has signaled the fence yet. */
export function fenceIsPending(payload: usize): bool {
  return atomic.load<i32>(payload) == PENDING;
}

/** Ends the fence of a thread that is gone, if it is pending, and wakes who waits (F6). */
export function fenceAbandon(payload: usize, error: i32): void {
  if (atomic.cmpxchg<i32>(payload, PENDING, error) == PENDING) atomic.notify(payload, -1);
}
