/**
 * PixelLimits: the pictures that a device can use.
 *
 * Linux leaves the alignment of strides and heights to each driver, and nobody can ask for it. Here
 * a device states it, and the negotiation keeps it.
 *
 * @module
 */

import { isPixelFormat, type PixelFormat } from "../dma-buf/formats.ts";
import { fail, requireInteger } from "../errors.ts";
import { FRAME_BYTES } from "../units.ts";

/** The pictures that a device can use. */
export interface PixelLimits {
  /** The modifiers it takes for each format. Their order says nothing. */
  readonly formats: Readonly<Partial<Record<PixelFormat, readonly bigint[]>>>;
  /** Strides are multiples of this, 1 to 4096. Default 1. */
  readonly strideAlignBytes?: number | undefined;
  /** Planes begin at multiples of this, 1 to 4096. Default 1. */
  readonly offsetAlignBytes?: number | undefined;
  /** There is room for a multiple of so many rows, 1 to 4096. Default 1. */
  readonly heightAlign?: number | undefined;
}

const MODIFIER_END: bigint = 2n ** 64n;

/** Throws EINVAL unless the limits are formats with modifiers, and counts. */
export function checkPixels(pixels: PixelLimits, operation: string): PixelLimits {
  for (const [format, list] of Object.entries(pixels.formats ?? {})) {
    if (!isPixelFormat(format)) fail("EINVAL", operation, `${format} is no pixel format`);
    const isList = Array.isArray(list) && list.length > 0;
    if (!isList || !list.every(isModifier))
      fail("EINVAL", operation, `the modifiers of ${format} must be bigints of 64 bits`);
  }
  const { strideAlignBytes = 1, offsetAlignBytes = 1, heightAlign = 1 } = pixels;
  for (const [name, value] of Object.entries({ strideAlignBytes, offsetAlignBytes, heightAlign }))
    requireInteger(value, name, 1, FRAME_BYTES, operation);
  return pixels;
}

function isModifier(value: unknown): boolean {
  return typeof value === "bigint" && value >= 0n && value < MODIFIER_END;
}
