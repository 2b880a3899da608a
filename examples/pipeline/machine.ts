/**
 * The machine: memory that fits a clip, and the three devices that share it.
 *
 *     camera   no IOMMU, 32 bits, 1 segment      one contiguous run or nothing
 *     gpu      IOMMU, segments of 1 MiB          any frames
 *     display  IOMMU, at most 16 segments        any frames, if they look like few
 *
 * - M1  Memory holds every ring buffer twice over, so that half of it may be lost to fragmentation.
 *
 * @module
 */

import { type DeviceOptions, FRAME_BYTES, MiB, type OpenOptions, PAGEBLOCK_BYTES } from "dmabuf";
import type { StageName } from "./stages.ts";

/** How many buffers of each kind the devices pass around. */
export const RING_LENGTH = 3;

/** The CMA region that the camera's buffers come from. */
export const CMA_REGION = "default";

const RUN_ALIGN_BYTES = MiB; // CMA runs begin at multiples of their size, up to this
const SPARE_BYTES: number = 8 * MiB; // page tables, lists of segments, the map of the memory

/** Sizes of the two buffers of a picture. */
export interface PictureSizes {
  /** Y, U and V planes. */
  readonly yuvBytes: number;
  /** 4 bytes a pixel: blue, green, red, alpha. */
  readonly rgbBytes: number;
}

/** What to open a system with for pictures of these sizes (M1). */
export function memoryFor({ yuvBytes, rgbBytes }: PictureSizes): OpenOptions {
  const cmaBytes = roundUp(RING_LENGTH * roundUp(yuvBytes, RUN_ALIGN_BYTES), PAGEBLOCK_BYTES);
  const scatteredBytes = 2 * RING_LENGTH * roundUp(rgbBytes, FRAME_BYTES);
  const memoryBytes = cmaBytes + roundUp(scatteredBytes + SPARE_BYTES, PAGEBLOCK_BYTES);
  return { memoryBytes, cma: { [CMA_REGION]: cmaBytes } };
}

/** What the devices can address. */
export const deviceOptions: Readonly<Record<StageName, DeviceOptions>> = {
  camera: { name: "camera", dmaMaskBits: 32, maxSegments: 1, maxSegmentBytes: 64 * MiB },
  gpu: { name: "gpu", iommu: true, maxSegmentBytes: 1 * MiB },
  display: { name: "display", iommu: true, maxSegments: 16, maxSegmentBytes: 16 * MiB },
};

function roundUp(bytes: number, multiple: number): number {
  return Math.ceil(bytes / multiple) * multiple;
}
