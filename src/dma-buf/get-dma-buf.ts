/**
 * From a descriptor to the buffer behind it.
 *
 * Compare dma_buf_get() in the kernel's drivers/dma-buf/dma-buf.c.
 *
 * @module
 */

import { fail } from "../errors.ts";
import type { FdTable } from "../files/fd-table.ts";
import { DmaBuf } from "./dma-buf.ts";

/** The buffer of `fd` with a reference of the caller's own. EBADF; EINVAL: it is no dma-buf. */
export function getDmaBuf(files: FdTable, fd: number): DmaBuf {
  const file = files.get(fd);
  if (file instanceof DmaBuf) return file;
  file.put();
  return fail("EINVAL", `use descriptor ${fd} as a dma-buf`, `it is ${file.description}`);
}
