// Thread slots: who runs on this memory, and each one's magazine and scratch words.
//
//   byte 0      4         8             12     64                 1024                4096
//       8192
//        ├ state ┼ mayBlock ┼ cachedCount ┼ … ──┼ cached[128]: u32 ─┼ scratch: u32[768] ─┼ workspace: 4 KiB ─┤
//
//   state  FREE ──threadJoin──────────────► RUNNING ──threadLeave──► FREE
//           └──threadReserve──► RESERVED ──────┘  └────reap: DEAD────────┘
//
// T1  A slot belongs to the instance whose imported index it is; nobody else writes its magazine or
//     scratch words.
// T2  cached[0 .. cachedCount) are frames of state CACHED that carry this thread's index.
// T3  A reserved slot is joined by the one thread that was told its index.
//
// JavaScript and the core pass lists through the scratch words; the workspace is the core's alone,
// within one call.
//
// The index is an imported immutable global: it costs nothing to read, and the module keeps no
// state of its own.

import { EBUSY, EINVAL, ENOSPC } from "./errno";
import { MAGIC, THREAD_BYTES, header } from "./layout";

@external("env", "thread")
declare const thread: u32;

export const MAGAZINE_FRAMES: u32 = 128;
export const SCRATCH_OFFSET: usize = 1024;
export const SCRATCH_WORDS: u32 = 768;
export const WORKSPACE_BYTES: usize = 4096;

export const FREE_SLOT: u32 = 0;
export const RUNNING: u32 = 1;
export const RESERVED_SLOT: u32 = 2;
export const DEAD: u32 = 3;
const CACHED_OFFSET: usize = 64;

@unmanaged
export class Thread {
  state: u32; // FREE_SLOT, RUNNING, RESERVED_SLOT or DEAD
  mayBlock: u32; // 0 on a thread whose host forbids Atomics.wait
  cachedCount: u32; // frames in the magazine, <= MAGAZINE_FRAMES
  busyRegion: usize; // the CMA region whose bits it has taken without their frames; 0 = none
  bell: u32; // counted up when somebody asks the thread for something (link.ts); a futex
  wasRefused: u32; // 1: a lock was refused to an allocation that could not say so (lock.ts)

  static at(index: u32): Thread {
    return changetype<Thread>(header().threadsAt + <usize>index * THREAD_BYTES);
  }

  /** The `i`-th frame of the magazine. */
  cached(i: u32): u32 {
    return load<u32>(changetype<usize>(this) + ((<usize>i) << 2), CACHED_OFFSET);
  }

  setCached(i: u32, pfn: u32): void {
    store<u32>(changetype<usize>(this) + ((<usize>i) << 2), pfn, CACHED_OFFSET);
  }
}

if (CACHED_OFFSET + <usize>MAGAZINE_FRAMES * 4 > SCRATCH_OFFSET)
  ERROR("the magazine reaches into the scratch words");
if (offsetof<Thread>("bell") != 16) ERROR("Thread.bell moved"); // src/workers/server.ts
if (SCRATCH_OFFSET + <usize>SCRATCH_WORDS * 4 + WORKSPACE_BYTES != THREAD_BYTES)
  ERROR("the workspace does not end the slot");

export function threadIndex(): u32 {
  return thread;
}

/** The calling thread's slot. */
export function self(): Thread {
  return Thread.at(thread);
}

export function mayBlock(): bool {
  return self().mayBlock != 0;
}

/** Where lists pass the border: SCRATCH_WORDS words that belong to the calling thread. */
export function scratchAt(): usize {
  return changetype<usize>(self()) + SCRATCH_OFFSET;
}

/** The core's own 4 KiB for what a call builds before it knows how large it is. */
export function workspaceAt(): usize {
  return changetype<usize>(self()) + THREAD_BYTES - WORKSPACE_BYTES;
}

/** Writes word `i` of the calling thread's scratch. */
export function scratchStore(i: u32, value: u32): void {
  store<u32>(scratchAt() + ((<usize>i) << 2), value);
}

/** Claims the slot of the calling instance's index. EBUSY: another instance runs with it. */
export function threadJoin(canBlock: u32): i32 {
  const h = header();
  if (h.magic != MAGIC) return EINVAL;
  if (thread >= h.threadCount) return ENOSPC;
  const slot = self();
  const was = atomic.load<u32>(changetype<usize>(slot));
  if (was != FREE_SLOT && was != RESERVED_SLOT) return EBUSY;
  if (atomic.cmpxchg<u32>(changetype<usize>(slot), was, RUNNING) != was) return EBUSY;
  slot.mayBlock = canBlock;
  return thread;
}

/** Keeps a free slot for a thread that will join it (T3). Its index, or ENOSPC. */
export function threadReserve(): i32 {
  for (let index: u32 = 0; index < header().threadCount; index++) {
    const at = changetype<usize>(Thread.at(index));
    if (atomic.cmpxchg<u32>(at, FREE_SLOT, RESERVED_SLOT) == FREE_SLOT) return index;
  }
  return ENOSPC;
}

/** The state of slot `index`: 0 free, 1 running, 2 reserved, 3 dead; EINVAL: no such slot. */
export function threadState(index: u32): i32 {
  if (index >= header().threadCount) return EINVAL;
  return <i32>atomic.load<u32>(changetype<usize>(Thread.at(index)));
}

/** Tells thread `index` that there is something for it to look at (link.ts). */
export function bellRing(index: u32): void {
  const at = changetype<usize>(Thread.at(index)) + offsetof<Thread>("bell");
  atomic.add<u32>(at, 1);
  if (header().isShared != 0) atomic.notify(at, -1);
}

/** Gives the slot back; the caller has emptied the magazine. */
export function threadLeave(): void {
  atomic.store<u32>(changetype<usize>(self()), FREE_SLOT);
}
