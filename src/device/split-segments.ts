/**
 * Splitting what a device sees: some of its bytes, in order, as lists of their own.
 *
 * The DMA side of a scatterlist is split on its own, because its segments are not the entries of
 * the CPU side. Compare sg_split() in the kernel's lib/sg_split.c.
 *
 * @module
 */

import { requireList, requireObject } from "../arguments.ts";
import { fail, requireInteger } from "../errors.ts";
import type { DmaSegment } from "./device-mapping.ts";

/**
 * Lists of exactly `sizes` bytes each, one after the other from byte `skip` on. No segment of them
 * is empty. EINVAL: no size, a size of 0, or the segments hold less.
 */
export function splitSegments(
  segments: Iterable<DmaSegment>,
  sizes: readonly number[],
  skip = 0,
): DmaSegment[][] {
  const operation = "split a list of segments";
  requireInteger(skip, "skip", 0, Number.MAX_SAFE_INTEGER, operation);
  requireList(sizes, "the sizes", operation);
  for (const size of sizes) requireInteger(size, "a size", 1, Number.MAX_SAFE_INTEGER, operation);
  if (sizes.length === 0) fail("EINVAL", operation, "no size is given");

  const outputs: DmaSegment[][] = [];
  let output: DmaSegment[] = [];
  let left = sizes[0] ?? 0; // bytes that the output lacks
  let from = skip; // the next byte that it takes
  let begin = 0; // the first byte of the segment
  if (typeof segments?.[Symbol.iterator] !== "function")
    fail("EINVAL", operation, "there is no list of segments");
  for (const segment of segments) {
    requireObject(segment, "a segment", operation);
    const { address, lengthBytes } = segment;
    requireInteger(address, "an address", 0, Number.MAX_SAFE_INTEGER, operation);
    requireInteger(lengthBytes, "a length", 0, Number.MAX_SAFE_INTEGER, operation);
    const end = begin + lengthBytes;
    while (left > 0 && from < end) {
      const bytes = Math.min(left, end - from);
      output.push({ address: address + from - begin, lengthBytes: bytes });
      from += bytes;
      left -= bytes;
      if (left > 0) break;
      outputs.push(output);
      output = [];
      left = sizes[outputs.length] ?? 0;
    }
    if (left === 0) return outputs;
    begin = end;
  }
  const wanted = sizes.reduce((sum, size) => sum + size, skip);
  return fail("EINVAL", operation, `it holds ${begin} bytes, and ${wanted} are asked for`);
}
