/**
 * Clips for tests: written from seeds, read back whole.
 *
 * @module
 */

import { readFileSync, writeFileSync } from "node:fs";

/** A clip to write. What is left out is as a well-formed clip has it. */
export interface ClipSpec {
  readonly width: number;
  readonly height: number;
  readonly count: number;
  /** Header tags behind width and height. */
  readonly tags?: string;
  /** The line before each picture. */
  readonly frameLine?: string;
  /** Bytes that the file's end lacks. */
  readonly cutBytes?: number;
}

/** Writes a clip of pictures that differ everywhere. Its pictures. */
export function writeClip(path: string, spec: ClipSpec): Uint8Array[] {
  const { width, height, count, tags = " F25:1 C420", frameLine = "FRAME", cutBytes = 0 } = spec;
  const pictures = Array.from({ length: count }, (_, index) => makePicture(width, height, index));
  const file = Buffer.concat([
    Buffer.from(`YUV4MPEG2 W${width} H${height}${tags}\n`),
    ...pictures.flatMap((picture) => [Buffer.from(`${frameLine}\n`), picture]),
  ]);
  writeFileSync(path, file.subarray(0, file.length - cutBytes));
  return pictures;
}

/** Smooth shades with a moving edge, and noise in the chroma planes. */
function makePicture(width: number, height: number, index: number): Uint8Array {
  const lumaBytes = width * height;
  return Uint8Array.from({ length: (lumaBytes * 3) / 2 }, (_, at) => {
    if (at >= lumaBytes) return (at * 31 + index * 11) % 256;
    const [x, y] = [at % width, Math.floor(at / width)];
    return x + y > 10 + 5 * index ? 200 - (x % 17) : 20 + (y % 13);
  });
}

/** Every picture of a clip whose FRAME lines have no parameters. */
export function readPictures(path: string, pictureBytes: number): Uint8Array[] {
  const file = readFileSync(path);
  const pictures: Uint8Array[] = [];
  let at = file.indexOf("\n") + 1;
  for (; at < file.length; at += 6 + pictureBytes) {
    pictures.push(file.subarray(at + 6, at + 6 + pictureBytes));
  }
  return pictures;
}
