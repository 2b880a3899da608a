// Buffers that travel between threads: what a thread needs to use one that another thread made.
//
//   payload  ├ table ┼ sizeBytes ┼ details ┼ name: 28 bytes ┼ holders (share.ts) ┤
//
//   served   SERVED ──its thread leaves──► CLOSED
//              └──────its thread dies────► ABANDONED
//
// N3  The table owns its frames (storage.ts) and lives as long as the buffer; both never change.
// N4  The frames are freed with the last holder, and not while they are mapped or pinned.
// N7  A buffer whose exporter is JavaScript has no table: instead of one it says what its exporter
//     is. The exporter's thread, the record's owner, holds it until nobody else does, and serves
//     it (link.ts).
// N9  `details` is a table of text in frames that it owns, or 0; it goes with the buffer.
//
// Compare `struct dma_buf` in the kernel's include/linux/dma-buf.h.

import { EBADF, EINVAL, ENODEV, EOWNERDEAD, ESTALE } from "./errno";
import {
  KIND_BUFFER,
  KIND_TABLE,
  ObjectRecord,
  objectAlloc,
  objectFind,
  objectFree,
  recordOf,
} from "./object";
import {
  HOLDERS_OFFSET,
  isHeld,
  isHeldBy,
  shareBegin,
  shareLeave,
  shareLeaveLast,
  shareReturn,
} from "./share";
import { SgTable } from "./sg";
import { storageFree } from "./storage";
import { bellRing, threadIndex } from "./thread";

export const BUFFER_NAME_BYTES: u32 = 28;
const NAME_OFFSET: usize = 12;

// Instead of a table (N7): no handle is that small.
const SERVED: u32 = 1;
const CLOSED: u32 = 2;
const ABANDONED: u32 = 3;

@unmanaged
export class Buffer {
  table: u32; // handle, or N7
  sizeBytes: u32;
  details: u32; // N9: handle

  static at(payload: usize): Buffer {
    return changetype<Buffer>(payload);
  }

  /** Whether its exporter is, or was, JavaScript (N7). */
  get isServed(): bool {
    return this.table <= ABANDONED;
  }
}

if (offsetof<Buffer>() != NAME_OFFSET || NAME_OFFSET + <usize>BUFFER_NAME_BYTES != HOLDERS_OFFSET)
  ERROR("a buffer's name does not fit");

/**
 * A buffer over a table that owns its frames; the table belongs to it from now on. Its handle, or
 * ESTALE (no such table), EINVAL (it owns no frames, or is shorter), ENOMEM.
 */
export function bufferAlloc(tableHandle: u32, sizeBytes: u32): i32 {
  const tableAt = objectFind(tableHandle, KIND_TABLE);
  if (tableAt == 0) return ESTALE;
  const table = SgTable.at(tableAt);
  if (table.source == 0 || sizeBytes == 0 || sizeBytes > table.lengthBytes) return EINVAL;
  return bufferMake(tableHandle, sizeBytes);
}

/** A buffer that the calling thread serves (N7). Its handle, or ENOMEM. */
export function bufferServe(sizeBytes: u32): i32 {
  return bufferMake(SERVED, sizeBytes);
}

function bufferMake(table: u32, sizeBytes: u32): i32 {
  const handle = objectAlloc(KIND_BUFFER);
  if (handle < 0) return handle;
  const payload = objectFind(handle, KIND_BUFFER);
  const buffer = Buffer.at(payload);
  buffer.table = table;
  buffer.sizeBytes = sizeBytes;
  shareBegin(payload);
  return handle;
}

/**
 * Gives a buffer its details, before another thread knows it: the table belongs to it from now on.
 * 0, or ESTALE, EBADF, EINVAL: the table owns no frames.
 */
export function bufferSetDetails(handle: u32, tableHandle: u32): i32 {
  const at = bufferAt(handle);
  if (at < 0) return at;
  const tableAt = objectFind(tableHandle, KIND_TABLE);
  if (tableAt == 0 || SgTable.at(tableAt).source == 0) return EINVAL;
  Buffer.at(at).details = tableHandle;
  return 0;
}

/** The address of the payload of a buffer that the calling thread holds; ESTALE, EBADF. */
export function bufferAt(handle: u32): i32 {
  const payload = objectFind(handle, KIND_BUFFER);
  if (payload == 0 || !isHeld(payload)) return ESTALE; // gone, or just going
  return isHeldBy(payload, threadIndex()) ? <i32>payload : EBADF;
}

/**
 * Which thread serves a buffer that the calling thread holds; or ESTALE, EBADF, EINVAL: it has a
 * table; ENODEV, EOWNERDEAD: that thread has left, or died.
 */
export function bufferServer(handle: u32): i32 {
  const at = bufferAt(handle);
  return at < 0 ? at : serverOf(at);
}

/** The same of a payload. */
export function serverOf(payload: usize): i32 {
  const state = atomic.load<u32>(payload + offsetof<Buffer>("table"));
  if (state == ABANDONED) return EOWNERDEAD;
  if (state == CLOSED) return ENODEV;
  return state == SERVED ? <i32>ObjectRecord.at(recordOf(payload)).owner : EINVAL;
}

/**
 * Gives up the calling thread's hold on a buffer. 0: it was the last and the frames are free; 1:
 * others hold it; ESTALE, EBADF (this thread does not hold it), EBUSY (the last one, but mapped or
 * pinned): then nothing changed.
 */
export function bufferFree(handle: u32): i32 {
  const payload = objectFind(handle, KIND_BUFFER);
  if (payload == 0 || !isHeld(payload)) return ESTALE;
  if (!isHeldBy(payload, threadIndex())) return EBADF;
  return bufferLeave(payload, threadIndex());
}

/**
 * The same for the thread that serves the buffer: it stays while others hold it. 0: it is gone; 1:
 * others hold it, and nothing changed; ESTALE, EBADF.
 */
export function bufferUnserve(handle: u32): i32 {
  const at = bufferAt(handle);
  if (at < 0) return at;
  if (serverOf(at) != <i32>threadIndex()) return EBADF;
  return shareLeaveLast(at, threadIndex()) ? bufferDestroy(at) : 1;
}

/** `thread` holds the buffer no longer. 0, 1 or EBUSY, as bufferFree(). */
export function bufferLeave(payload: usize, thread: u32): i32 {
  const server = serverOf(payload);
  const isLast = shareLeave(payload, thread);
  if (server >= 0 && server != <i32>thread) bellRing(server); // it may be the last that is left
  if (!isLast) return 1;
  const error = bufferDestroy(payload); // nobody can import it meanwhile (H2)
  if (error != 0) shareReturn(payload, thread);
  return error;
}

/** Frees a buffer that nobody holds. 0 or EBUSY. */
export function bufferDestroy(payload: usize): i32 {
  const buffer = Buffer.at(payload);
  if (!buffer.isServed) {
    const error = storageFree(buffer.table);
    if (error != 0 && error != ESTALE) return error;
  }
  if (buffer.details != 0) storageFree(buffer.details);
  objectFree(recordOf(payload));
  return 0;
}

/** What `thread` serves is served no more: its exporter has died, or left. */
export function bufferOrphan(payload: usize, thread: u32, isDead: bool): void {
  if (serverOf(payload) != <i32>thread) return;
  atomic.store<u32>(payload + offsetof<Buffer>("table"), isDead ? ABANDONED : CLOSED);
}
