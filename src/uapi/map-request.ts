/**
 * The arguments of mmap(), checked in the kernel's order.
 *
 * Compare ksys_mmap_pgoff() and do_mmap() in the kernel's mm/mmap.c.
 *
 * @module
 */

import { fail, requireInteger, textOf } from "../errors.ts";
import { isReadable, isWritable, type OpenFile } from "../files/open-file.ts";
import { FRAME_BYTES } from "../units.ts";
import { MAP_PRIVATE, PROT_WRITE } from "./constants.ts";
import type { MapCall } from "./file-operations.ts";

/** MAP_SHARED, MAP_PRIVATE and MAP_SHARED_VALIDATE, their sum. */
const MAP_TYPE = 3;
/** The last page of 2^64 bytes. */
const LAST_PAGE = 2n ** 52n - 1n;
/** Pages that a process can address, on x86-64: all of 47 bits but the last one. */
const TASK_PAGES = 2n ** 35n - 1n;
const WORD_MAX = 0xffffffff;
const PAGE_BYTES = BigInt(FRAME_BYTES);

/**
 * The pages that are asked for. `file` is looked for after the offset was. A bigint is a register
 * of 64 bits.
 */
export function decodeMap(
  lengthBytes: number | bigint,
  prot: number,
  flags: number,
  offset: number | bigint,
  file: () => OpenFile,
): MapCall {
  const operation = `map ${textOf(lengthBytes)} bytes`;
  requireInteger(prot, "prot", 0, WORD_MAX, operation);
  requireInteger(flags, "the flags", 0, WORD_MAX, operation);
  const at = registerOf(offset);
  if (at === null || at % PAGE_BYTES !== 0n)
    return fail("EINVAL", operation, "the offset must be whole pages");
  const mapped = file();
  const length = registerOf(lengthBytes);
  if (length === null || length === 0n)
    return fail("EINVAL", operation, "the length must be a whole number above 0");
  const pageOffset = at / PAGE_BYTES;
  const pageCount = (length + PAGE_BYTES - 1n) / PAGE_BYTES;
  if (pageCount > TASK_PAGES) fail("ENOMEM", operation, "no process can address that many");
  if (pageOffset + pageCount > LAST_PAGE) fail("EOVERFLOW", operation, "no file is that long");
  const type = flags & MAP_TYPE;
  if (type === 0) fail("EINVAL", operation, "it must be MAP_SHARED or MAP_PRIVATE");
  const isShared = type !== MAP_PRIVATE;
  const isWritten = (prot & PROT_WRITE) !== 0;
  if (!isReadable(mapped) || (isShared && isWritten && !isWritable(mapped)))
    fail("EACCES", operation, `${mapped.description} is not open for that`);
  return { pageOffset, pageCount, isShared, isWritten };
}

/** A value as an unsigned number of 64 bits; null: no whole number from 0 on. */
function registerOf(value: number | bigint): bigint | null {
  if (typeof value === "bigint") return BigInt.asUintN(64, value);
  return Number.isInteger(value) && value >= 0 ? BigInt(value) : null;
}
