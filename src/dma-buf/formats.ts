/**
 * Pixel formats, modifiers, and where the planes of a picture lie in a buffer.
 *
 *     format     what a pixel is: XRGB8888, NV12, …        (fourcc, planes, subsampling)
 *     modifier   how the bytes are ordered in memory: LINEAR, tiles, …
 *
 *     byte 0      offset[1]
 *          ├ plane 0 ┼ plane 1 ┤        stride[i] bytes from a row (or row of tiles) to the next
 *
 * - FR1  Two users understand a picture alike when format and modifier are equal. A list of
 *        modifiers has no order.
 * - FR2  INVALID says that the layout is agreed on elsewhere: nobody can lay a picture out by it.
 *
 * Compare include/uapi/drm/drm_fourcc.h and drivers/gpu/drm/drm_fourcc.c in the kernel.
 *
 * @module
 */

import { hasKey } from "../arguments.ts";
import { fail, textOf } from "../errors.ts";

/** What a format's pixels take. */
export interface FormatInfo {
  /** The four characters of its code. */
  readonly fourcc: string;
  /** Bytes of a pixel, or of a sample pair, for each plane. */
  readonly planeBytes: readonly number[];
  /** Pixels for each sample of the second and third plane, across and down. */
  readonly hsub: number;
  readonly vsub: number;
}

const packed = (fourcc: string, bytes: number, hsub = 1): FormatInfo => ({
  fourcc,
  planeBytes: [bytes],
  hsub,
  vsub: 1,
});

const planar = (
  fourcc: string,
  planeBytes: readonly number[],
  hsub: number,
  vsub: number,
): FormatInfo => ({ fourcc, planeBytes, hsub, vsub });

/** The name of a format. */
export type PixelFormat =
  | "C8"
  | "R8"
  | "R16"
  | "RG88"
  | "GR88"
  | "RG1616"
  | "GR1616"
  | "RGB332"
  | "XRGB4444"
  | "ARGB4444"
  | "XRGB1555"
  | "ARGB1555"
  | "RGB565"
  | "BGR565"
  | "RGB888"
  | "BGR888"
  | "XRGB8888"
  | "XBGR8888"
  | "RGBX8888"
  | "BGRX8888"
  | "ARGB8888"
  | "ABGR8888"
  | "RGBA8888"
  | "BGRA8888"
  | "XRGB2101010"
  | "XBGR2101010"
  | "ARGB2101010"
  | "ABGR2101010"
  | "XRGB16161616"
  | "XBGR16161616"
  | "ARGB16161616"
  | "ABGR16161616"
  | "XRGB16161616F"
  | "XBGR16161616F"
  | "ARGB16161616F"
  | "ABGR16161616F"
  | "YUYV"
  | "YVYU"
  | "UYVY"
  | "VYUY"
  | "AYUV"
  | "XYUV8888"
  | "VUY888"
  | "Y210"
  | "Y410"
  | "NV12"
  | "NV21"
  | "NV16"
  | "NV61"
  | "NV24"
  | "NV42"
  | "P010"
  | "P012"
  | "P016"
  | "P210"
  | "YUV410"
  | "YVU410"
  | "YUV411"
  | "YVU411"
  | "YUV420"
  | "YVU420"
  | "YUV422"
  | "YVU422"
  | "YUV444"
  | "YVU444";

/** The formats by their names in drm_fourcc.h, without DRM_FORMAT_. */
export const pixelFormats: Readonly<Record<PixelFormat, FormatInfo>> = {
  C8: packed("C8  ", 1),
  R8: packed("R8  ", 1),
  R16: packed("R16 ", 2),
  RG88: packed("RG88", 2),
  GR88: packed("GR88", 2),
  RG1616: packed("RG32", 4),
  GR1616: packed("GR32", 4),
  RGB332: packed("RGB8", 1),
  XRGB4444: packed("XR12", 2),
  ARGB4444: packed("AR12", 2),
  XRGB1555: packed("XR15", 2),
  ARGB1555: packed("AR15", 2),
  RGB565: packed("RG16", 2),
  BGR565: packed("BG16", 2),
  RGB888: packed("RG24", 3),
  BGR888: packed("BG24", 3),
  XRGB8888: packed("XR24", 4),
  XBGR8888: packed("XB24", 4),
  RGBX8888: packed("RX24", 4),
  BGRX8888: packed("BX24", 4),
  ARGB8888: packed("AR24", 4),
  ABGR8888: packed("AB24", 4),
  RGBA8888: packed("RA24", 4),
  BGRA8888: packed("BA24", 4),
  XRGB2101010: packed("XR30", 4),
  XBGR2101010: packed("XB30", 4),
  ARGB2101010: packed("AR30", 4),
  ABGR2101010: packed("AB30", 4),
  XRGB16161616: packed("XR48", 8),
  XBGR16161616: packed("XB48", 8),
  ARGB16161616: packed("AR48", 8),
  ABGR16161616: packed("AB48", 8),
  XRGB16161616F: packed("XR4H", 8),
  XBGR16161616F: packed("XB4H", 8),
  ARGB16161616F: packed("AR4H", 8),
  ABGR16161616F: packed("AB4H", 8),
  YUYV: packed("YUYV", 2, 2),
  YVYU: packed("YVYU", 2, 2),
  UYVY: packed("UYVY", 2, 2),
  VYUY: packed("VYUY", 2, 2),
  AYUV: packed("AYUV", 4),
  XYUV8888: packed("XYUV", 4),
  VUY888: packed("VU24", 3),
  Y210: packed("Y210", 4, 2),
  Y410: packed("Y410", 4),
  NV12: planar("NV12", [1, 2], 2, 2),
  NV21: planar("NV21", [1, 2], 2, 2),
  NV16: planar("NV16", [1, 2], 2, 1),
  NV61: planar("NV61", [1, 2], 2, 1),
  NV24: planar("NV24", [1, 2], 1, 1),
  NV42: planar("NV42", [1, 2], 1, 1),
  P010: planar("P010", [2, 4], 2, 2),
  P012: planar("P012", [2, 4], 2, 2),
  P016: planar("P016", [2, 4], 2, 2),
  P210: planar("P210", [2, 4], 2, 1),
  YUV410: planar("YUV9", [1, 1, 1], 4, 4),
  YVU410: planar("YVU9", [1, 1, 1], 4, 4),
  YUV411: planar("YU11", [1, 1, 1], 4, 1),
  YVU411: planar("YV11", [1, 1, 1], 4, 1),
  YUV420: planar("YU12", [1, 1, 1], 2, 2),
  YVU420: planar("YV12", [1, 1, 1], 2, 2),
  YUV422: planar("YU16", [1, 1, 1], 2, 1),
  YVU422: planar("YV16", [1, 1, 1], 2, 1),
  YUV444: planar("YU24", [1, 1, 1], 1, 1),
  YVU444: planar("YV24", [1, 1, 1], 1, 1),
};

/** Whether a name is a format's. */
export function isPixelFormat(name: string): name is PixelFormat {
  return hasKey(pixelFormats, name);
}

/** The 32-bit code of a format: fourcc_code(). */
export function fourccOf(format: PixelFormat): number {
  if (!isPixelFormat(format))
    fail("EINVAL", "number a format", `${textOf(format)} is no known one`);
  const { fourcc } = pixelFormats[format];
  const [a = 0, b = 0, c = 0, d = 0] = [...fourcc].map((character) => character.charCodeAt(0));
  return a + b * 2 ** 8 + c * 2 ** 16 + d * 2 ** 24;
}

/** How a modifier orders bytes: in tiles, of so many bytes or pixels across and rows down. */
interface Tile {
  readonly name: string;
  readonly bytes?: number;
  readonly pixels?: number;
  readonly rows: number;
}

const VENDOR: bigint = 2n ** 56n;

/** The name of a modifier. */
type ModifierName =
  | "LINEAR"
  | "I915_X_TILED"
  | "I915_Y_TILED"
  | "I915_4_TILED"
  | "SAMSUNG_64_32_TILE"
  | "SAMSUNG_16_16_TILE"
  | "VIVANTE_TILED"
  | "VIVANTE_SUPER_TILED"
  | "INVALID";

/** The modifiers of drm_fourcc.h whose layout is known here, without DRM_FORMAT_MOD_. */
export const modifiers: Readonly<Record<ModifierName, bigint>> = {
  LINEAR: 0n,
  I915_X_TILED: VENDOR + 1n,
  I915_Y_TILED: VENDOR + 2n,
  I915_4_TILED: VENDOR + 9n,
  SAMSUNG_64_32_TILE: 4n * VENDOR + 1n,
  SAMSUNG_16_16_TILE: 4n * VENDOR + 2n,
  VIVANTE_TILED: 6n * VENDOR + 1n,
  VIVANTE_SUPER_TILED: 6n * VENDOR + 2n,
  /** No layout (FR2). */
  INVALID: VENDOR - 1n,
};

const tiles: ReadonlyMap<bigint, Tile> = new Map<bigint, Tile>([
  [modifiers.LINEAR, { name: "LINEAR", bytes: 1, rows: 1 }],
  [modifiers.I915_X_TILED, { name: "I915_X_TILED", bytes: 512, rows: 8 }],
  [modifiers.I915_Y_TILED, { name: "I915_Y_TILED", bytes: 128, rows: 32 }],
  [modifiers.I915_4_TILED, { name: "I915_4_TILED", bytes: 128, rows: 32 }],
  [modifiers.SAMSUNG_64_32_TILE, { name: "SAMSUNG_64_32_TILE", bytes: 64, rows: 32 }],
  [modifiers.SAMSUNG_16_16_TILE, { name: "SAMSUNG_16_16_TILE", bytes: 16, rows: 16 }],
  [modifiers.VIVANTE_TILED, { name: "VIVANTE_TILED", pixels: 4, rows: 4 }],
  [modifiers.VIVANTE_SUPER_TILED, { name: "VIVANTE_SUPER_TILED", pixels: 64, rows: 64 }],
]);

/** Whether a picture can be laid out by a modifier: it is known, and not INVALID (FR2). */
export function hasLayout(modifier: bigint): boolean {
  return tiles.has(modifier);
}

/** "LINEAR", or the number of a modifier that is not known. */
export function modifierName(modifier: bigint): string {
  if (typeof modifier !== "bigint") fail("EINVAL", "name a modifier", "it must be a bigint");
  if (modifier === modifiers.INVALID) return "INVALID";
  return tiles.get(modifier)?.name ?? `0x${modifier.toString(16)}`;
}

/** What all users of a picture ask of its planes: multiples, from 1. */
export interface PlaneAlignment {
  readonly strideAlignBytes: number;
  readonly offsetAlignBytes: number;
  /** Rows of the first plane, counted for the others by their subsampling. */
  readonly heightAlign: number;
}

/** A plane of a picture in its buffer. */
export interface PlaneLayout {
  /** Bytes from the buffer's first. */
  readonly offset: number;
  /** Bytes from one row to the next; in tiles, a row of tiles is `stride` times its rows. */
  readonly stride: number;
  readonly sizeBytes: number;
}

/** A picture in its buffer. */
export interface PixelLayout {
  readonly width: number;
  readonly height: number;
  readonly format: PixelFormat;
  readonly modifier: bigint;
  readonly planes: readonly PlaneLayout[];
  /** Bytes of all planes. */
  readonly sizeBytes: number;
}

/** Lays a picture out, its planes one behind the other. The modifier must have a layout. */
export function layOut(
  format: PixelFormat,
  modifier: bigint,
  width: number,
  height: number,
  { strideAlignBytes, offsetAlignBytes, heightAlign }: PlaneAlignment,
): PixelLayout {
  const { planeBytes, hsub, vsub } = pixelFormats[format];
  const tile = tiles.get(modifier) ?? { name: "LINEAR", bytes: 1, rows: 1 };
  const allRows = roundUp(height, heightAlign);
  const pairedPixels = planeBytes.length === 1 ? hsub : 1; // packed formats share their samples
  let end = 0;
  const planes = planeBytes.map((bytes, i) => {
    const columns = i === 0 ? roundUp(width, pairedPixels) : Math.ceil(width / hsub);
    const rows = i === 0 ? allRows : Math.ceil(allRows / vsub);
    const tileBytes = tile.bytes ?? (tile.pixels ?? 1) * bytes;
    const stride = roundUp(columns * bytes, lcm(tileBytes, strideAlignBytes));
    const offset = roundUp(end, offsetAlignBytes);
    end = offset + stride * roundUp(rows, tile.rows);
    return { offset, stride, sizeBytes: end - offset };
  });
  return { width, height, format, modifier, planes, sizeBytes: end };
}

function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple;
}

/** The least common multiple of two counts. */
export function lcm(a: number, b: number): number {
  let [x, y] = [a, b];
  while (y > 0) [x, y] = [y, x % y];
  return (a / x) * b;
}
