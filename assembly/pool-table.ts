// What a frame pool looks like in memory.
//
//   pool (object payload)   ├ controlAt ┼ frameCount ┼ events ┼ seqno ┼ state ┼ consumers … ┼ holders ┤
//   run of frames   controlAt
//                   ├ name: 64 bytes ─┼ PoolConsumer[16] ─┼ PoolFrame[count] ─┤
//
// What the fields mean to each other is in pool.ts, J1 to J4.

import { EINVAL, ESTALE } from "./errno";
import { FRAME_BYTES, FRAME_SHIFT } from "./layout";
import { KIND_BUFFER, KIND_POOL, objectFind } from "./object";
import { HOLDERS_OFFSET, isHeldBy } from "./share";
import { threadIndex } from "./thread";

export const POOL_NAME_BYTES: u32 = 64;
export const POOL_CONSUMERS: u32 = 16;
export const POOL_FRAMES_MAX: u32 = 256;
const POOL_FRAME_BYTES: u32 = 256;
const POOL_CONSUMER_BYTES: u32 = 64;

export const CONSUMER_WRITES: u32 = 1;
export const CONSUMER_LATEST: u32 = 2;

const RELEASE_OFFSET: usize = 32;
const HELD_SINCE_OFFSET: usize = 96;

@unmanaged
export class Pool {
  controlAt: usize;
  frameCount: u32;
  freeEvent: u32; // J4
  publishEvent: u32;
  seqno: u32; // of the youngest publication
  state: u32; // OPEN, CLOSED or ABANDONED
  consumers: u32; // bit for each that is there
  writers: u32; // those of them that write
  latest: u32; // those of them that want only the latest

  static at(payload: usize): Pool {
    return changetype<Pool>(payload);
  }

  frame(i: u32): PoolFrame {
    const frames = this.controlAt + <usize>(POOL_NAME_BYTES + POOL_CONSUMERS * POOL_CONSUMER_BYTES);
    return changetype<PoolFrame>(frames + <usize>(i * POOL_FRAME_BYTES));
  }

  consumer(i: u32): PoolConsumer {
    const at = this.controlAt + <usize>(POOL_NAME_BYTES + i * POOL_CONSUMER_BYTES);
    return changetype<PoolConsumer>(at);
  }

  /** Frames of memory that the control block takes. */
  get controlFrames(): u32 {
    return poolFrames(this.frameCount);
  }
}

@unmanaged
export class PoolFrame {
  word: u64; // J1
  sinceMs: f64; // when it was acquired or published last
  buffer: u32; // handle
  seqno: u32; // of its last publication
  // Handle: when it signals, the bytes may be read; 0 = at once, NONE = never, its thread is gone.
  fence: u32;

  get wordAt(): usize {
    return changetype<usize>(this);
  }

  /** The cell that says when consumer `i` took the frame. */
  heldSince(i: u32): HeldSince {
    return changetype<HeldSince>(changetype<usize>(this) + HELD_SINCE_OFFSET + ((<usize>i) << 3));
  }

  /** The cell of the fence that consumer `i` left when it released the frame. */
  release(i: u32): ReleaseFence {
    return changetype<ReleaseFence>(changetype<usize>(this) + RELEASE_OFFSET + ((<usize>i) << 2));
  }
}

@unmanaged
class HeldSince {
  ms: f64;
}

@unmanaged
class ReleaseFence {
  handle: u32; // when it signals, the consumer is done; 0 = at once
}

@unmanaged
export class PoolConsumer {
  thread: u32; // index + 1; 0 = nobody is there
  flags: u32; // CONSUMER_WRITES, CONSUMER_LATEST
  taken: u32; // frames that it got
  dropped: u32; // frames that a later one replaced
}

if (HELD_SINCE_OFFSET + <usize>POOL_CONSUMERS * 8 > <usize>POOL_FRAME_BYTES)
  ERROR("a pool's frame is too long");
if (offsetof<Pool>() > HOLDERS_OFFSET) ERROR("Pool reaches into the holders");

/** Frames of memory that the control block of a pool of `count` frames takes. */
export function poolFrames(count: u32): u32 {
  const bytes = POOL_NAME_BYTES + POOL_CONSUMERS * POOL_CONSUMER_BYTES + count * POOL_FRAME_BYTES;
  return (bytes + FRAME_BYTES - 1) >> FRAME_SHIFT;
}

/** The payload of a pool that the calling thread holds, or 0. */
export function poolFind(handle: u32): usize {
  const payload = objectFind(handle, KIND_POOL);
  return payload != 0 && isHeldBy(payload, threadIndex()) ? payload : 0;
}

/** The address of the payload of a pool that the calling thread holds; ESTALE. */
export function poolAt(handle: u32): i32 {
  const payload = poolFind(handle);
  return payload == 0 ? ESTALE : <i32>payload;
}

/** The address of consumer `i`'s entry: its name is 32 bytes, 16 behind it. ESTALE, EINVAL. */
export function poolConsumerAt(handle: u32, i: u32): i32 {
  const payload = poolFind(handle);
  if (payload == 0) return ESTALE;
  if (i >= POOL_CONSUMERS) return EINVAL;
  return <i32>changetype<usize>(Pool.at(payload).consumer(i));
}

/** The address of frame `i`'s entry; ESTALE, EINVAL. */
export function poolFrameAt(handle: u32, i: u32): i32 {
  const payload = poolFind(handle);
  if (payload == 0) return ESTALE;
  if (i >= Pool.at(payload).frameCount) return EINVAL;
  return <i32>changetype<usize>(Pool.at(payload).frame(i));
}

/** Says which buffer frame `i` is; before any other thread knows the pool. 0, EINVAL or ESTALE. */
export function poolSetBuffer(handle: u32, i: u32, buffer: u32): i32 {
  const payload = poolFind(handle);
  if (payload == 0 || objectFind(buffer, KIND_BUFFER) == 0) return ESTALE;
  if (i >= Pool.at(payload).frameCount) return EINVAL;
  Pool.at(payload).frame(i).buffer = buffer;
  return 0;
}
