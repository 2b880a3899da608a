// Fences: one-way flags that say "this DMA operation has finished", shared by all threads.
//
//   state   0 pending ──fenceSignal(0)──► 1 signaled
//              └────────fenceSignal(error)──► error < 0
//
//   payload  ├ state ┼ context ┼ seqno ┼ reserved ┼ timestampMs: f64 ┤
//
// F1  The state leaves 0 once and never changes again; the timestamp is written before it.
// F2  The state word is also the futex: whoever waits sleeps on it.
//
// Compare drivers/dma-buf/dma-fence.c in the kernel.

import { EBUSY, EINVAL, ESTALE } from "./errno";
import { Header, header } from "./layout";
import { KIND_FENCE, objectAlloc, objectFind, objectFree, recordOf } from "./object";

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
  const fence = Fence.at(objectFind(handle, KIND_FENCE));
  fence.context = context;
  fence.seqno = seqno;
  return handle;
}

/**
 * Completes a fence with 0 or a negative errno and wakes who waits. 1, 0 if it was complete
 * already, or ESTALE, EINVAL.
 */
export function fenceSignal(handle: u32, error: i32, nowMs: f64): i32 {
  const payload = objectFind(handle, KIND_FENCE);
  if (payload == 0) return ESTALE;
  if (error > 0 || error < ERRNO_MIN) return EINVAL;
  const fence = Fence.at(payload);
  if (atomic.load<i32>(payload) != PENDING) return 0;
  fence.timestampMs = nowMs;
  if (atomic.cmpxchg<i32>(payload, PENDING, error == 0 ? SIGNALED : error) != PENDING) return 0;
  atomic.notify(payload, -1); // F2
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

/** Frees a fence that has signaled. 0, or ESTALE, EBUSY (pending). */
export function fenceFree(handle: u32): i32 {
  const payload = objectFind(handle, KIND_FENCE);
  if (payload == 0) return ESTALE;
  if (Fence.at(payload).state == PENDING) return EBUSY;
  objectFree(recordOf(payload));
  return 0;
}
