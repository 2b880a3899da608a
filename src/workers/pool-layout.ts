/**
 * PoolLayout: the picture that every frame of a pool holds, and the bytes that it takes.
 *
 * The planes are laid out as `negotiate()` does it (dma-buf/formats.ts).
 *
 * @module
 */

import { requireObject } from "../arguments.ts";
import {
  hasLayout,
  isPixelFormat,
  layOut,
  modifiers,
  type PixelFormat,
  type PixelLayout,
  pixelFormats,
} from "../dma-buf/formats.ts";
import { fail, requireInteger, textOf } from "../errors.ts";
import { FRAME_BYTES } from "../units.ts";

/** A picture, and what its users ask of its planes. */
export interface PoolLayout {
  /** Pixels, 1 to 65536. */
  readonly width: number;
  readonly height: number;
  readonly format: PixelFormat;
  /** One whose layout is known. Default LINEAR. */
  readonly modifier?: bigint | undefined;
  /** Strides are multiples of this, 1 to 4096. Default 1. */
  readonly strideAlignBytes?: number | undefined;
  /** Planes begin at multiples of this, 1 to 4096. Default 1. */
  readonly offsetAlignBytes?: number | undefined;
  /** There is room for a multiple of so many rows, 1 to 4096. Default 1. */
  readonly heightAlign?: number | undefined;
}

const MAX_PIXELS = 65536;

/** Where the planes of a pool's pictures lie. EINVAL: a size, the format, the modifier. */
export function planesOf(layout: PoolLayout, operation: string): PixelLayout {
  requireObject(layout, "the layout", operation);
  const { width, height, format, modifier = modifiers.LINEAR } = layout;
  const { strideAlignBytes = 1, offsetAlignBytes = 1, heightAlign = 1 } = layout;
  for (const [name, value] of Object.entries({ width, height }))
    requireInteger(value, name, 1, MAX_PIXELS, operation);
  for (const [name, value] of Object.entries({ strideAlignBytes, offsetAlignBytes, heightAlign }))
    requireInteger(value, name, 1, FRAME_BYTES, operation);
  if (typeof format !== "string" || !isPixelFormat(format)) {
    const names = Object.keys(pixelFormats).join(", ");
    return fail("EINVAL", operation, `${textOf(format)} is no pixel format; those are ${names}`);
  }
  if (!hasLayout(modifier))
    fail("EINVAL", operation, `nobody knows how the modifier ${textOf(modifier)} orders bytes`);
  return layOut(format, modifier, width, height, {
    strideAlignBytes,
    offsetAlignBytes,
    heightAlign,
  });
}
