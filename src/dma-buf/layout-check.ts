/**
 * What makes a picture's layout one: for those that come from outside, from a user or from another
 * thread.
 *
 * @module
 */

import { textOf } from "../errors.ts";
import { isPixelFormat, type PixelLayout, pixelFormats } from "./formats.ts";

const MAX_PIXELS = 65536;
const MODIFIER_END: bigint = 2n ** 64n;

/** What is wrong with a layout in a buffer of `sizeBytes` bytes; null: nothing. */
export function layoutProblem(value: unknown, sizeBytes: number): string | null {
  if (typeof value !== "object" || value === null) return "it is no layout";
  const { width, height, format, modifier, planes, sizeBytes: bytes } = value as PixelLayout;
  if (!isCount(width, MAX_PIXELS) || !isCount(height, MAX_PIXELS))
    return `its picture must have 1 to ${MAX_PIXELS} pixels each way`;
  if (typeof format !== "string" || !isPixelFormat(format))
    return `${textOf(format)} is no pixel format`;
  if (typeof modifier !== "bigint" || modifier < 0n || modifier >= MODIFIER_END)
    return "its modifier must be a bigint of 64 bits";
  const count = pixelFormats[format].planeBytes.length;
  if (!Array.isArray(planes) || planes.length !== count) return `${format} has ${count} planes`;
  if (!isCount(bytes, sizeBytes)) return `its planes must fit into ${sizeBytes} bytes`;
  const areInside = planes.every(
    (plane) =>
      isCount(plane?.stride, bytes) &&
      isCount(plane.sizeBytes, bytes) &&
      (plane.offset === 0 || isCount(plane.offset, bytes)) &&
      plane.offset + plane.sizeBytes <= bytes,
  );
  return areInside ? null : "a plane lies outside of its bytes";
}

function isCount(value: unknown, max: number): value is number {
  return Number.isInteger(value) && (value as number) >= 1 && (value as number) <= max;
}
