/**
 * The arguments of mmap(), checked in the kernel's order.
 *
 * Compare ksys_mmap_pgoff() and do_mmap() in the kernel's mm/mmap.c.
 *
 * @module
 */

import { fail } from "../errors.ts";
import { isReadable, isWritable, type OpenFile } from "../files/open-file.ts";
import { FRAME_BYTES } from "../units.ts";
import { MAP_PRIVATE, PROT_WRITE } from "./constants.ts";
import type { MapCall } from "./file-operations.ts";

/** MAP_SHARED, MAP_PRIVATE and MAP_SHARED_VALIDATE, their sum. */
const MAP_TYPE = 3;
/** The last page of 2^64 bytes. */
const LAST_PAGE = 2n ** 52n - 1n;
/** What a process can address. */
const TASK_SIZE = 2 ** 47;

/** The pages that are asked for. `file` is looked for after the offset was. */
export function decodeMap(
  lengthBytes: number,
  prot: number,
  flags: number,
  offset: number,
  file: () => OpenFile,
): MapCall {
  const operation = `map ${lengthBytes} bytes`;
  if (!Number.isInteger(offset) || offset < 0 || offset % FRAME_BYTES !== 0)
    fail("EINVAL", operation, "the offset must be whole pages");
  const mapped = file();
  if (!Number.isInteger(lengthBytes) || lengthBytes <= 0)
    fail("EINVAL", operation, "the length must be a whole number above 0");
  if (lengthBytes > TASK_SIZE) fail("ENOMEM", operation, "no process can address that many");
  const pageOffset = BigInt(offset / FRAME_BYTES);
  const pageCount = BigInt(Math.ceil(lengthBytes / FRAME_BYTES));
  if (pageOffset + pageCount > LAST_PAGE) fail("EOVERFLOW", operation, "no file is that long");
  const type = flags & MAP_TYPE;
  if (type === 0) fail("EINVAL", operation, "it must be MAP_SHARED or MAP_PRIVATE");
  const isShared = type !== MAP_PRIVATE;
  const isWritten = (prot & PROT_WRITE) !== 0;
  if (!isReadable(mapped) || (isShared && isWritten && !isWritable(mapped)))
    fail("EACCES", operation, `${mapped.description} is not open for that`);
  return { pageOffset, pageCount, isShared, isWritten };
}
