/**
 * From a descriptor to the buffer behind it.
 *
 * Compare dma_buf_get() in the kernel's drivers/dma-buf/dma-buf.c.
 *
 * @module
 */

import { fail } from "../errors.ts";
import { DmaBuf } from "./dma-buf.ts";
import type { FileTable } from "./holders.ts";

/** The buffer of `fd` with a reference of the caller's own. EBADF; EINVAL: it is no dma-buf. */
export function getDmaBuf(files: FileTable, fd: number): DmaBuf {
  if (typeof files?.peek !== "function")
    fail("EINVAL", `get the buffer of descriptor ${fd}`, "that is no table of descriptors");
  const file = files.peek(fd);
  if (file instanceof DmaBuf) return file.get();
  return fail("EINVAL", `get the buffer of descriptor ${fd}`, `it is ${file.description}`);
}
