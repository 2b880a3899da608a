// Frame pools: buffers that go from producers to consumers and come back, whatever thread each
// of them runs on.
//
//   word of a frame (u64)   47       40 39     32 31          16 15           0
//                           ├ unused ───┼ writer ┼ held: 16 ────┼ pending: 16 ─┤   a bit for each consumer
//
//   0 free ──poolAcquire──► writer ──poolPublish──► pending ──poolTake──► held ──poolRelease──► 0 free
//              └──────poolAbandon──► 0                 └──a newer one, for who wants the latest──► 0
//
// J1  The word is the truth about a frame and is changed by one CAS: 0 = free; either a writer has
//     it (thread + 1), or consumers have it pending or held.
// J2  A consumer that takes the latest has at most one frame pending; all others get every frame,
//     those of one producer in the order in which it published them.
// J3  Who writes has a frame alone: it waits for those who read, and those who write take turns by
//     index; nobody takes a frame that a consumer writes.
// J4  freeEvent is counted up when a frame becomes free, publishEvent when one may have become
//     takeable; both are futexes. Who waits reads the counter, looks, and sleeps on what it read:
//     no wake-up is lost.

import { NONE } from "./bits";
import { EAGAIN, EINVAL, ENOSPC, EOWNERDEAD, EPERM, EPIPE, ESTALE } from "./errno";
import { FRAME_SHIFT, frameAt } from "./layout";
import { framesAdopt, runAlloc, runFree } from "./magazine";
import {
  KIND_POOL,
  ObjectRecord,
  objectAlloc,
  objectFind,
  objectFree,
  recordOf,
} from "./object";
import { OBJECT } from "./page";
import {
  CONSUMER_LATEST,
  CONSUMER_WRITES,
  POOL_CONSUMERS,
  POOL_FRAMES_MAX,
  Pool,
  PoolConsumer,
  poolFind,
  poolFrames,
} from "./pool-table";
import { shareBegin, shareLeave } from "./share";
import { threadIndex } from "./thread";

const PENDING_MASK: u64 = 0xffff;
const HELD_SHIFT: u64 = 16;
const WRITER_SHIFT: u64 = 32;

const OPEN: u32 = 0;
const CLOSED: u32 = 1;
const ABANDONED: u32 = 2; // its owner died

function bump(eventAt: usize): void {
  atomic.add<u32>(eventAt, 1);
  atomic.notify(eventAt, -1);
}

function freeEventAt(payload: usize): usize {
  return payload + offsetof<Pool>("freeEvent");
}

function publishEventAt(payload: usize): usize {
  return payload + offsetof<Pool>("publishEvent");
}

function consumersAt(payload: usize): usize {
  return payload + offsetof<Pool>("consumers");
}

// ---- the pool

/**
 * A pool of `count` frames, 1 to POOL_FRAMES_MAX, without buffers yet. Its handle, or EINVAL,
 * ENOMEM, EAGAIN.
 */
export function poolAlloc(count: u32): i32 {
  if (count == 0 || count > POOL_FRAMES_MAX) return EINVAL;
  const handle = objectAlloc(KIND_POOL);
  if (handle < 0) return handle;
  const payload = objectFind(handle, KIND_POOL);
  const pool = Pool.at(payload);
  const pfn = runAlloc(poolFrames(count), 0, NONE, OBJECT);
  if (pfn < 0) {
    objectFree(recordOf(payload));
    return pfn;
  }
  memory.fill(frameAt(pfn), 0, (<usize>poolFrames(count)) << FRAME_SHIFT);
  pool.controlAt = frameAt(pfn);
  pool.frameCount = count;
  shareBegin(payload);
  return handle;
}

/** Lets nobody acquire any more; what is published can still be taken. 0, ESTALE, EPERM. */
export function poolClose(handle: u32): i32 {
  const payload = poolFind(handle);
  if (payload == 0) return ESTALE;
  if (ObjectRecord.at(recordOf(payload)).owner != threadIndex()) return EPERM;
  poolEnd(payload, CLOSED);
  return 0;
}

function poolEnd(payload: usize, state: u32): void {
  atomic.cmpxchg<u32>(payload + offsetof<Pool>("state"), OPEN, state);
  bump(freeEventAt(payload));
  bump(publishEventAt(payload));
}

/**
 * Gives up the calling thread's hold on a pool, with its consumers and what they hold; the last one
 * frees it. 0 or ESTALE.
 */
export function poolFree(handle: u32): i32 {
  const payload = poolFind(handle);
  if (payload == 0) return ESTALE;
  poolLeave(payload, threadIndex(), CLOSED);
  return 0;
}

/**
 * `thread` has nothing to do with the pool any more: what it wrote or held is free, and its
 * consumers are gone. `state` is how a pool that it made ends.
 */
export function poolLeave(payload: usize, thread: u32, state: u32): void {
  const pool = Pool.at(payload);
  for (let i: u32 = 0; i < POOL_CONSUMERS; i++) {
    if (pool.consumer(i).thread == thread + 1) consumerRemove(payload, i);
  }
  for (let i: u32 = 0; i < pool.frameCount; i++) {
    const at = pool.frame(i).wordAt;
    const written = <u64>(thread + 1) << WRITER_SHIFT;
    if (atomic.cmpxchg<u64>(at, written, 0) == written) bump(freeEventAt(payload));
  }
  if (ObjectRecord.at(recordOf(payload)).owner == thread) poolEnd(payload, state);
  if (shareLeave(payload, thread)) poolDestroy(payload);
}

/** How a pool ends whose owner died, or left. */
export const POOL_ABANDONED: u32 = ABANDONED;
export const POOL_CLOSED: u32 = CLOSED;

/** Frees a pool that nobody holds. */
export function poolDestroy(payload: usize): void {
  const pool = Pool.at(payload);
  const at = pool.controlAt;
  const frames = pool.controlFrames;
  framesAdopt(<u32>(at >> FRAME_SHIFT), frames);
  objectFree(recordOf(payload));
  runFree(<u32>(at >> FRAME_SHIFT), frames, OBJECT);
}

// ---- consumers

/** A consumer for the calling thread. Its index, or ESTALE, EPIPE (closed), ENOSPC. */
export function poolConsumerAdd(handle: u32, flags: u32): i32 {
  const payload = poolFind(handle);
  if (payload == 0) return ESTALE;
  const pool = Pool.at(payload);
  if (pool.state != OPEN) return pool.state == ABANDONED ? EOWNERDEAD : EPIPE;
  for (let i: u32 = 0; i < POOL_CONSUMERS; i++) {
    const consumer = pool.consumer(i);
    const threadAt = changetype<usize>(consumer);
    if (atomic.cmpxchg<u32>(threadAt, 0, threadIndex() + 1) != 0) continue;
    consumer.flags = flags;
    consumer.taken = 0;
    consumer.dropped = 0;
    const bit = (<u32>1) << i;
    const writersAt = payload + offsetof<Pool>("writers");
    const latestAt = payload + offsetof<Pool>("latest");
    if ((flags & CONSUMER_WRITES) != 0) atomic.or<u32>(writersAt, bit);
    else atomic.and<u32>(writersAt, ~bit);
    if ((flags & CONSUMER_LATEST) != 0) atomic.or<u32>(latestAt, bit);
    else atomic.and<u32>(latestAt, ~bit);
    atomic.or<u32>(consumersAt(payload), bit); // published to from here on
    return i;
  }
  return ENOSPC;
}

/** Removes a consumer of the calling thread; what it had is free. 0, ESTALE or EPERM. */
export function poolConsumerRemove(handle: u32, i: u32): i32 {
  const payload = consumerFind(handle, i);
  if (payload == 0) return ESTALE;
  consumerRemove(payload, i);
  return 0;
}

/** The pool's payload if consumer `i` is the calling thread's; 0. */
function consumerFind(handle: u32, i: u32): usize {
  const payload = poolFind(handle);
  if (payload == 0 || i >= POOL_CONSUMERS) return 0;
  return Pool.at(payload).consumer(i).thread == threadIndex() + 1 ? payload : 0;
}

function consumerRemove(payload: usize, i: u32): void {
  const pool = Pool.at(payload);
  atomic.and<u32>(consumersAt(payload), ~((<u32>1) << i));
  for (let f: u32 = 0; f < pool.frameCount; f++) bitsClear(payload, f, usesOf((<u32>1) << i));
  pool.consumer(i).thread = 0;
}

/** The bits of a word that tell of the consumers of a mask. */
function usesOf(consumers: u32): u64 {
  return <u64>consumers | (<u64>consumers << HELD_SHIFT);
}

/** Takes bits out of a frame's word, and wakes whom that concerns. Whether one of them was set. */
function bitsClear(payload: usize, f: u32, bits: u64): bool {
  const was = atomic.and<u64>(Pool.at(payload).frame(f).wordAt, ~bits);
  if ((was & bits) == 0) return false;
  if ((was & ~bits) == 0) bump(freeEventAt(payload));
  else bump(publishEventAt(payload)); // who writes may have waited for it (J3)
  return true;
}

// ---- frames

/**
 * The free frame that was published longest ago, for the calling thread to write. Its index, or
 * EAGAIN (none is free), EPIPE, EOWNERDEAD, ESTALE.
 */
export function poolAcquire(handle: u32, nowMs: f64): i32 {
  const payload = poolFind(handle);
  if (payload == 0) return ESTALE;
  const pool = Pool.at(payload);
  while (true) {
    if (atomic.load<u32>(payload + offsetof<Pool>("state")) != OPEN)
      return pool.state == ABANDONED ? EOWNERDEAD : EPIPE;
    const i = oldestFree(pool);
    if (i < 0) return EAGAIN;
    const frame = pool.frame(i);
    const mine = <u64>(threadIndex() + 1) << WRITER_SHIFT;
    if (atomic.cmpxchg<u64>(frame.wordAt, 0, mine) != 0) continue; // another producer has it
    frame.sinceMs = nowMs;
    return i;
  }
  return EAGAIN;
}

function oldestFree(pool: Pool): i32 {
  let found: i32 = -1;
  for (let i: u32 = 0; i < pool.frameCount; i++) {
    if (atomic.load<u64>(pool.frame(i).wordAt) != 0) continue;
    if (found < 0 || <i32>(pool.frame(i).seqno - pool.frame(found).seqno) < 0) found = i;
  }
  return found;
}

/** Whether the calling thread writes frame `i`. */
function isWriter(pool: Pool, i: u32): bool {
  if (i >= pool.frameCount) return false;
  return atomic.load<u64>(pool.frame(i).wordAt) == <u64>(threadIndex() + 1) << WRITER_SHIFT;
}

/**
 * Takes the fence that consumer `i` left on a frame that the calling thread writes. Its handle, 0:
 * none; or EINVAL, EPERM, ESTALE.
 */
export function poolReleaseFence(handle: u32, f: u32, i: u32): i32 {
  const payload = poolFind(handle);
  if (payload == 0) return ESTALE;
  if (i >= POOL_CONSUMERS) return EINVAL;
  if (!isWriter(Pool.at(payload), f)) return EPERM;
  const cell = Pool.at(payload).frame(f).release(i);
  const fence = cell.handle;
  cell.handle = 0;
  return fence;
}

/** Gives a frame back unpublished. 0, ESTALE or EPERM. */
export function poolAbandon(handle: u32, i: u32): i32 {
  const payload = poolFind(handle);
  if (payload == 0) return ESTALE;
  const pool = Pool.at(payload);
  if (!isWriter(pool, i)) return EPERM;
  atomic.store<u64>(pool.frame(i).wordAt, 0);
  bump(freeEventAt(payload));
  return 0;
}

/**
 * Publishes a frame to the consumers of a mask, as far as they are there; `fence` says when its
 * bytes may be read, 0 = at once. How many get it; 0: it is free again. Or ESTALE, EPERM.
 */
export function poolPublish(handle: u32, i: u32, targets: u32, fence: u32, nowMs: f64): i32 {
  const payload = poolFind(handle);
  if (payload == 0) return ESTALE;
  const pool = Pool.at(payload);
  if (!isWriter(pool, i)) return EPERM;
  const frame = pool.frame(i);
  const to = targets & atomic.load<u32>(consumersAt(payload));
  const seqno = atomic.add<u32>(payload + offsetof<Pool>("seqno"), 1) + 1;
  frame.seqno = seqno;
  frame.fence = fence;
  frame.sinceMs = nowMs;
  atomic.store<u64>(frame.wordAt, <u64>to);
  const gone = to & ~atomic.load<u32>(consumersAt(payload));
  if (gone != 0) bitsClear(payload, i, <u64>gone); // who left meanwhile will never take it
  if ((to & pool.latest) != 0) olderDrop(payload, i, to & pool.latest);
  bump(to == 0 ? freeEventAt(payload) : publishEventAt(payload));
  return popcnt<u32>(to);
}

/** Takes what is pending and older than frame `i` from consumers that want the latest (J2). */
function olderDrop(payload: usize, i: u32, consumers: u32): void {
  const pool = Pool.at(payload);
  const seqno = pool.frame(i).seqno;
  for (let f: u32 = 0; f < pool.frameCount; f++) {
    if (f == i || <i32>(pool.frame(f).seqno - seqno) >= 0) continue;
    const pending = <u32>(atomic.load<u64>(pool.frame(f).wordAt) & PENDING_MASK) & consumers;
    for (let left = pending; left != 0; left &= left - 1) {
      const c = <u32>ctz(left);
      const countAt = changetype<usize>(pool.consumer(c)) + offsetof<PoolConsumer>("dropped");
      if (bitsClear(payload, f, <u64>1 << (<u64>c))) atomic.add<u32>(countAt, 1);
    }
  }
}

/**
 * The next frame for consumer `i` of the calling thread: its oldest, or its latest. Its index, or
 * EAGAIN (none, or others use it), EPIPE or EOWNERDEAD (none will come), ESTALE.
 */
export function poolTake(handle: u32, i: u32, nowMs: f64): i32 {
  const payload = consumerFind(handle, i);
  if (payload == 0) return ESTALE;
  const pool = Pool.at(payload);
  const bit = <u64>1 << (<u64>i);
  while (true) {
    const state = atomic.load<u32>(payload + offsetof<Pool>("state"));
    const f = nextPending(pool, i, bit);
    if (f < 0) return state == OPEN ? EAGAIN : state == CLOSED ? EPIPE : EOWNERDEAD;
    const frame = pool.frame(f);
    const word = atomic.load<u64>(frame.wordAt);
    if ((word & bit) == 0) continue; // a later one has replaced it
    if (!mayTake(pool, i, word)) return EAGAIN;
    const held = (word & ~bit) | (bit << HELD_SHIFT);
    frame.release(i).handle = 0;
    if (atomic.cmpxchg<u64>(frame.wordAt, word, held) != word) continue;
    frame.heldSince(i).ms = nowMs;
    pool.consumer(i).taken += 1;
    return f;
  }
  return EAGAIN;
}

/**
 * The frame that consumer `i` takes next, or -1. One that was published before it, but behind the
 * place where the look was then, is found by a second look: so both must agree (J2).
 */
function nextPending(pool: Pool, i: u32, bit: u64): i32 {
  let found = pendingLook(pool, i, bit);
  while (found >= 0) {
    const again = pendingLook(pool, i, bit);
    if (again == found) break;
    found = again;
  }
  return found;
}

function pendingLook(pool: Pool, i: u32, bit: u64): i32 {
  const isLatest = (pool.consumer(i).flags & CONSUMER_LATEST) != 0;
  let found: i32 = -1;
  for (let f: u32 = 0; f < pool.frameCount; f++) {
    if ((atomic.load<u64>(pool.frame(f).wordAt) & bit) == 0) continue;
    if (found < 0 || <i32>(pool.frame(f).seqno - pool.frame(found).seqno) < 0 != isLatest)
      found = f;
  }
  return found;
}

/** J3. */
function mayTake(pool: Pool, i: u32, word: u64): bool {
  const held = <u32>(word >> HELD_SHIFT) & <u32>PENDING_MASK;
  const writers = pool.writers;
  if ((pool.consumer(i).flags & CONSUMER_WRITES) == 0) return (held & writers) == 0;
  const pending = <u32>(word & PENDING_MASK);
  const before = ((<u32>1) << i) - 1;
  return held == 0 && (pending & ~writers) == 0 && (pending & writers & before) == 0;
}

/**
 * Ends consumer `i`'s use of a frame; `fence` says when it is really done, 0 = now. 0, or ESTALE,
 * EPERM: it does not hold the frame.
 */
export function poolRelease(handle: u32, i: u32, f: u32, fence: u32): i32 {
  const payload = consumerFind(handle, i);
  if (payload == 0) return ESTALE;
  const pool = Pool.at(payload);
  if (f >= pool.frameCount) return EPERM;
  const held = (<u64>1 << (<u64>i)) << HELD_SHIFT;
  const frame = pool.frame(f);
  if ((atomic.load<u64>(frame.wordAt) & held) == 0) return EPERM;
  frame.release(i).handle = fence;
  bitsClear(payload, f, held);
  return 0;
}
