/**
 * Pictures for people: what lies in an RGB buffer, as a PNG file.
 *
 * @module
 */

import { writeFile } from "node:fs/promises";
import { crc32 } from "node:zlib";
import { PNG } from "pngjs";
import { Cursor, SpanBytes, type Views } from "./span-bytes.ts";
import type { PictureSize } from "./stages.ts";

/** Saves the picture whose pixels (blue, green, red, alpha) lie in `views`. */
export async function savePicture(
  path: string,
  views: Views,
  { width, height }: PictureSize,
): Promise<void> {
  const png = new PNG({ width, height });
  const pixels = new Cursor(new SpanBytes(views), 0);
  for (let at = 0; at < png.data.length; at += 4) {
    png.data[at + 2] = pixels.next();
    png.data[at + 1] = pixels.next();
    png.data[at] = pixels.next();
    png.data[at + 3] = 255;
    pixels.next();
  }
  await savePng(path, png);
}

/** Saves a PNG without an alpha channel. */
export async function savePng(path: string, png: PNG): Promise<void> {
  await writeFile(path, PNG.sync.write(png, { colorType: 2 }));
}

/** The CRC-32 of the first `lengthBytes` bytes in `views`. */
export function checksum(views: Views, lengthBytes: number): number {
  let crc = 0;
  let left = lengthBytes;
  for (const view of views) {
    crc = crc32(view.subarray(0, left), crc);
    left -= Math.min(left, view.length);
  }
  return crc;
}
