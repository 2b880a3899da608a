/**
 * The edge filter: 4:2:0 video to RGB, dimmed, with the edges of the luma plane bright on it.
 *
 *     YUV ── BT.601, limited range ──► R G B ──► R/4 + edge ─► B G R 255, 4 bytes a pixel
 *      └ Y ── Sobel 3x3, |gx| + |gy| ─────────────────┘
 *
 *          -1  0  1          -1 -2 -1
 *     gx = -2  0  2     gy =  0  0  0      neighbours outside the picture repeat its border
 *          -1  0  1           1  2  1
 *
 * - EF1  Reads and writes in place, byte by byte through cursors: nothing is gathered first.
 *
 * @module
 */

import { Cursor, type SpanBytes } from "./span-bytes.ts";

/** Bytes of a pixel that the filter writes. */
export const PIXEL_BYTES = 4;

/** What stands where canvases look for alpha. */
const OPAQUE = 255;

/** A picture's two buffers as the filter sees them. */
export interface FilterJob {
  readonly yuv: SpanBytes;
  readonly rgb: SpanBytes;
  /** Pixels, even. */
  readonly width: number;
  /** Pixels, even. */
  readonly height: number;
  /** NV12: U and V of a pixel lie side by side in one plane. Default: each has a plane (I420). */
  readonly isInterleaved?: boolean;
}

/** Filters the rows [row, rowEnd). */
export function filterRows(job: FilterJob, row: number, rowEnd: number): void {
  for (let y = row; y < rowEnd; y++) filterRow(job, y);
}

function filterRow(job: FilterJob, y: number): void {
  const { yuv, rgb, width, height } = job;
  const above = new Cursor(yuv, Math.max(y - 1, 0) * width);
  const here = new Cursor(yuv, y * width);
  const below = new Cursor(yuv, Math.min(y + 1, height - 1) * width);
  const [uBytes, vBytes] = chromaCursors(job, y >> 1);
  const out = new Cursor(rgb, y * width * PIXEL_BYTES);

  // Three columns of three luma bytes slide along the row; (a, b, c) is the right one.
  let a = above.next();
  let b = here.next();
  let c = below.next();
  let [leftA, leftB, leftC] = [a, b, c];
  let u = 0;
  let v = 0;
  for (let x = 0; x < width; x++) {
    const midA = a;
    const midB = b;
    const midC = c;
    if (x + 1 < width) {
      a = above.next();
      b = here.next();
      c = below.next();
    }
    if (x % 2 === 0) {
      u = uBytes.next() - 128;
      v = vBytes.next() - 128;
    }
    const gx = a + 2 * b + c - leftA - 2 * leftB - leftC;
    const gy = leftC + 2 * midC + c - leftA - 2 * midA - a;
    putPixel(out, 298 * (midB - 16) + 128, u, v, Math.abs(gx) + Math.abs(gy));
    leftA = midA;
    leftB = midB;
    leftC = midC;
  }
}

/** Where a row's U and V come from, one after the other for each pair of pixels. */
function chromaCursors(job: FilterJob, row: number): readonly [u: Cursor, v: Cursor] {
  const { yuv, width, height, isInterleaved = false } = job;
  const plane = width * height;
  if (isInterleaved) {
    const both = new Cursor(yuv, plane + row * width);
    return [both, both];
  }
  const at = row * (width / 2);
  return [new Cursor(yuv, plane + at), new Cursor(yuv, (plane * 5) / 4 + at)];
}

/** `luma` is scaled by 256, as are the BT.601 factors. */
function putPixel(out: Cursor, luma: number, u: number, v: number, edge: number): void {
  out.put(brighten(luma + 516 * u, edge));
  out.put(brighten(luma - 100 * u - 208 * v, edge));
  out.put(brighten(luma + 409 * v, edge));
  out.put(OPAQUE);
}

/** A quarter of the colour, with the edge on top. */
function brighten(scaledColour: number, edge: number): number {
  return Math.min(255, (clampByte(scaledColour >> 8) >> 2) + edge);
}

function clampByte(value: number): number {
  return Math.max(0, Math.min(255, value));
}
