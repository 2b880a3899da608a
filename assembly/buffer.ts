// Buffers that travel between threads: what a thread needs to use one that another thread made.
//
//   payload  ├ table ┼ sizeBytes ┼ name: 32 bytes ┼ holders (share.ts) ┤
//
// N3  The table owns its frames (storage.ts) and lives as long as the buffer; both never change.
// N4  The frames are freed with the last holder, and not while they are mapped or pinned.
//
// Compare `struct dma_buf` in the kernel's include/linux/dma-buf.h.

import { EBADF, EINVAL, ESTALE } from "./errno";
import { KIND_BUFFER, KIND_TABLE, objectAlloc, objectFind, objectFree, recordOf } from "./object";
import { HOLDERS_OFFSET, isHeld, isHeldBy, shareBegin, shareLeave, shareReturn } from "./share";
import { SgTable } from "./sg";
import { storageFree } from "./storage";
import { threadIndex } from "./thread";

export const BUFFER_NAME_BYTES: u32 = 32;
const NAME_OFFSET: usize = 8;

@unmanaged
export class Buffer {
  table: u32; // handle
  sizeBytes: u32;

  static at(payload: usize): Buffer {
    return changetype<Buffer>(payload);
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
  const handle = objectAlloc(KIND_BUFFER);
  if (handle < 0) return handle;
  const payload = objectFind(handle, KIND_BUFFER);
  const buffer = Buffer.at(payload);
  buffer.table = tableHandle;
  buffer.sizeBytes = sizeBytes;
  shareBegin(payload);
  return handle;
}

/** The address of the payload of a buffer that the calling thread holds; ESTALE, EBADF. */
export function bufferAt(handle: u32): i32 {
  const payload = objectFind(handle, KIND_BUFFER);
  if (payload == 0 || !isHeld(payload)) return ESTALE; // gone, or just going
  return isHeldBy(payload, threadIndex()) ? <i32>payload : EBADF;
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

/** `thread` holds the buffer no longer. 0, 1 or EBUSY, as bufferFree(). */
export function bufferLeave(payload: usize, thread: u32): i32 {
  if (!shareLeave(payload, thread)) return 1;
  const error = bufferDestroy(payload); // nobody can import it meanwhile (H2)
  if (error != 0) shareReturn(payload, thread);
  return error;
}

/** Frees a buffer that nobody holds. 0 or EBUSY. */
export function bufferDestroy(payload: usize): i32 {
  const error = storageFree(Buffer.at(payload).table);
  if (error != 0 && error != ESTALE) return error;
  objectFree(recordOf(payload));
  return 0;
}
