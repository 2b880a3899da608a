/**
 * Whose references a file has: those in tables of descriptors are counted, the others are free.
 *
 *     alloc() ─► 1 free ──install()──► 0 free, 1 in a table ──get()──► 1 free, 1 in a table
 *
 * - WR1  What is in a table, or lent to a CPU mapping, is not free: nobody moves it into a table
 *        again, and no dispose puts it.
 * - WR2  A file that does not tell its refCount is taken at its caller's word.
 *
 * @module
 */

import { requireMethods } from "../arguments.ts";
import { fail } from "../errors.ts";
import type { CountedFile } from "./open-file.ts";

/** What a file may tell of its references. */
interface ReferenceCounts {
  readonly refCount?: number;
  /** References that are somebody's who puts them himself: CPU mappings, other threads. */
  readonly lentCount?: number;
}

/** How many descriptors a file has, in all tables. */
export interface DescriptorCount {
  fds: number;
}

const counts = new WeakMap<object, DescriptorCount>();

/** The count of a file, for a table to keep with each descriptor: looking it up is slow. */
export function descriptorCount(file: object): DescriptorCount {
  const known = counts.get(file);
  if (known !== undefined) return known;
  const count = { fds: 0 };
  counts.set(file, count);
  return count;
}

/** Whether nobody has a reference to a file any more. */
export function isReleased(file: CountedFile & ReferenceCounts): boolean {
  return file.refCount === 0;
}

/** Whether a reference is left that is in no table and not lent (WR1). */
export function hasFreeReference(file: CountedFile & ReferenceCounts): boolean {
  const { refCount = Number.POSITIVE_INFINITY, lentCount = 0 } = file; // WR2
  return refCount - lentCount > (counts.get(file)?.fds ?? 0);
}

/**
 * Throws unless the caller can have a reference to move into a table. EINVAL: it is no file, or all
 * references are taken (WR1); ESTALE: it was released.
 */
export function requireMovable(file: CountedFile & ReferenceCounts): void {
  requireMethods(file, ["get", "put"], "the file", "install a file");
  const operation = `install ${file.description}`;
  if (isReleased(file)) fail("ESTALE", operation, `${file.description} was released`);
  if (hasFreeReference(file)) return;
  fail(
    "EINVAL",
    operation,
    "all its references are descriptors' or CPU mappings', and none is yours to move; get() one",
  );
}
