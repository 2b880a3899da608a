/**
 * Limits of devices at random, for properties of whatever must suit all of them.
 *
 * @module
 */

import fc from "fast-check";
import type { DeviceLimits } from "../../src/device/device.ts";
import { modifiers, type PixelFormat } from "../../src/dma-buf/formats.ts";
import { FRAME_BYTES, GiB, KiB, MiB, NO_PFN } from "../../src/units.ts";

const list = fc.uniqueArray(
  fc.constantFrom(modifiers.LINEAR, modifiers.I915_X_TILED, modifiers.INVALID, 77n),
  { minLength: 1 },
);
const formats: readonly PixelFormat[] = ["XRGB8888", "NV12", "R8"];

/** Limits of one device; many of them clash with each other. */
export const deviceLimits: fc.Arbitrary<Partial<DeviceLimits>> = fc.record(
  {
    iommu: fc.boolean(),
    dmaMaskBits: fc.constantFrom(24, 25, 32, 64),
    maxSegmentBytes: fc.constantFrom(FRAME_BYTES, 5000, 64 * KiB, MiB, 4 * GiB - 1),
    maxSegments: fc.constantFrom(1, 2, 16, 100, NO_PFN),
    segmentBoundaryBytes: fc.constantFrom(FRAME_BYTES, 64 * KiB, MiB, 4 * GiB),
    contiguousOnly: fc.boolean(),
    minAlignMask: fc.constantFrom(0, 0xfff, 0xffff, 0xfffff),
    coherent: fc.boolean(),
    untrusted: fc.boolean(),
    pixels: fc.option(
      fc.record(
        {
          formats: fc.dictionary(fc.constantFrom(...formats), list),
          strideAlignBytes: fc.constantFrom(1, 16, 48),
          heightAlign: fc.constantFrom(1, 16),
          offsetAlignBytes: fc.constantFrom(1, FRAME_BYTES),
        },
        { requiredKeys: ["formats"] },
      ),
    ),
  },
  { requiredKeys: [] },
);
