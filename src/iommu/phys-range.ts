/**
 * Runs of bytes on either side of a translation, and what makes them acceptable.
 *
 * @module
 */

import { requireObjects } from "../arguments.ts";
import { fail, requireInteger } from "../errors.ts";

/** Physical bytes in a row. */
export interface PhysRange {
  readonly address: number;
  readonly lengthBytes: number;
}

/** The ranges without empty ones, neighbours joined. EINVAL, ERANGE, as of requireRange(). */
export function runsOf(ranges: readonly PhysRange[], operation: string): PhysRange[] {
  const runs: { address: number; lengthBytes: number }[] = [];
  requireObjects(ranges, "the ranges", operation);
  for (const { address, lengthBytes } of ranges) {
    requireRange(address, lengthBytes, "address", operation);
    const last = runs[runs.length - 1];
    if (lengthBytes === 0) continue;
    if (last !== undefined && last.address + last.lengthBytes === address) {
      last.lengthBytes += lengthBytes;
    } else {
      runs.push({ address, lengthBytes });
    }
  }
  return runs;
}

/** Throws EINVAL unless both are whole numbers, ERANGE where the range ends above `end`. */
export function requireRange(
  start: number,
  sizeBytes: number,
  name: string,
  operation: string,
  end: number = Number.MAX_SAFE_INTEGER,
): void {
  requireInteger(start, name, 0, Number.MAX_SAFE_INTEGER, operation);
  requireInteger(sizeBytes, "the size", 0, Number.MAX_SAFE_INTEGER, operation);
  if (start + sizeBytes <= end) return;
  const limit = end === Number.MAX_SAFE_INTEGER ? 53 : Math.log2(end);
  fail("ERANGE", operation, `${name} must end below 2^${limit}`);
}
