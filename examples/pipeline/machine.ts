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

import { type Device, FRAME_BYTES, MiB, open, PAGEBLOCK_BYTES, type System } from "dmabuf";

/** How many buffers of each kind the devices pass around. */
export const RING_LENGTH = 3;

const RUN_ALIGN_BYTES = MiB; // CMA runs begin at multiples of their size, up to this
const SPARE_BYTES: number = 8 * MiB; // page tables, lists of segments, the map of the memory

/** Sizes of the two buffers of a picture. */
export interface PictureSizes {
  /** Y, U and V planes. */
  readonly yuvBytes: number;
  /** 4 bytes a pixel: blue, green, red, unused. */
  readonly rgbBytes: number;
}

/** A system with its devices. */
export interface Machine {
  readonly system: System;
  readonly camera: Device;
  readonly gpu: Device;
  readonly display: Device;
}

/** Opens a machine for pictures of these sizes (M1). */
export async function openMachine({ yuvBytes, rgbBytes }: PictureSizes): Promise<Machine> {
  const cmaBytes = roundUp(RING_LENGTH * roundUp(yuvBytes, RUN_ALIGN_BYTES), PAGEBLOCK_BYTES);
  const scatteredBytes = 2 * RING_LENGTH * roundUp(rgbBytes, FRAME_BYTES);
  const memoryBytes = cmaBytes + roundUp(scatteredBytes + SPARE_BYTES, PAGEBLOCK_BYTES);
  const system = await open({ memoryBytes, cma: { default: cmaBytes } });
  return {
    system,
    camera: system.addDevice({
      name: "camera",
      dmaMaskBits: 32,
      maxSegments: 1,
      maxSegmentBytes: cmaBytes,
    }),
    gpu: system.addDevice({ name: "gpu", iommu: true, maxSegmentBytes: 1 * MiB }),
    display: system.addDevice({
      name: "display",
      iommu: true,
      maxSegments: 16,
      maxSegmentBytes: 16 * MiB,
    }),
  };
}

function roundUp(bytes: number, multiple: number): number {
  return Math.ceil(bytes / multiple) * multiple;
}
