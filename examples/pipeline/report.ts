/**
 * The report: what a run showed, and whether it showed what it is here to show.
 *
 * @module
 */

import { type DeviceLimits, FRAME_BYTES } from "dmabuf";
import type { PageMap } from "./page-map.ts";
import type { SharedBuffer } from "./shared-buffer.ts";

/** A frame of the clip that reached the display. */
export interface ShownFrame {
  readonly index: number;
  /** CRC-32 of its pixels, as the display read them. */
  readonly crc: number;
}

/** In how many segments a device sees a buffer. */
export interface DmaSegments {
  readonly device: string;
  readonly count: number;
}

/** One kind of buffer: the largest numbers of all buffers of the kind. */
export interface BufferReport {
  readonly kind: string;
  readonly count: number;
  readonly sizeBytes: number;
  /** "contiguous" when the CPU side is one run. */
  readonly storage: "contiguous" | "scattered";
  readonly cpuSegments: number;
  readonly dmaSegments: readonly DmaSegments[];
}

/** What a device did. */
export interface DeviceReport {
  readonly name: string;
  readonly limits: DeviceLimits;
  readonly dmaBytes: number;
  readonly faultCount: number;
}

/** How long a device worked on a frame. */
export interface StageReport {
  readonly device: string;
  readonly meanMs: number;
  readonly maxMs: number;
}

/** Everything a run has to tell. */
export interface Report {
  readonly clip: { readonly path: string; readonly width: number; readonly height: number };
  readonly frames: readonly ShownFrame[];
  /** YUV and RGB. */
  readonly buffers: readonly [BufferReport, BufferReport];
  readonly devices: readonly DeviceReport[];
  readonly stages: readonly StageReport[];
  /** From the first submission to the last frame shown. */
  readonly runMs: number;
  readonly bytesCopied: number;
  readonly dmaBytes: number;
  readonly faultCount: number;
  /** Frames of memory held to fragment the rest. */
  readonly heldFrames: number;
  /** CRC-32 of the last frame, as the CPU read it. */
  readonly cpuCrc: number;
  readonly pinnedWhileMapped: number;
  readonly pinnedAtEnd: number;
  /** What `system.check()` said at the end. */
  readonly brokenInvariant: string | null;
  readonly picturePath: string;
  readonly mapPath: string;
  readonly pageMap: PageMap;
}

/** Where the buffers of one kind live. */
export function describeBuffers(kind: string, buffers: readonly SharedBuffer[]): BufferReport {
  const cpuSegments = Math.max(...buffers.map(({ buf }) => buf.storage?.origNents ?? 0));
  const devices = buffers[0]?.mappings.map(({ device }) => device) ?? [];
  return {
    kind,
    count: buffers.length,
    sizeBytes: buffers[0]?.buf.sizeBytes ?? 0,
    storage: cpuSegments === 1 ? "contiguous" : "scattered",
    cpuSegments,
    dmaSegments: devices.map((device) => ({
      device: device.name,
      count: Math.max(...buffers.map((buffer) => buffer.mappingOf(device).nents)),
    })),
  };
}

/** What a run failed to show, a line each; none if it is as it should be. */
export function complaintsAbout(report: Report): string[] {
  const [yuv, rgb] = report.buffers;
  const { frames, bytesCopied, faultCount, pinnedAtEnd, brokenInvariant } = report;
  const scatteredMin = Math.min(17, rgb.sizeBytes / FRAME_BYTES); // a small buffer has fewer frames
  const maxSegmentsOf = (name: string): number =>
    report.devices.find((device) => device.name === name)?.limits.maxSegments ?? 0;
  const suits = ({ device, count }: DmaSegments): boolean => count <= maxSegmentsOf(device);
  const expectations: [isMet: boolean, complaint: string][] = [
    [frames.every(({ index }, i) => index === i), "frames were shown out of order"],
    [yuv.cpuSegments === 1, `a yuv buffer lies in ${yuv.cpuSegments} CPU segments, not in 1`],
    [
      rgb.cpuSegments >= scatteredMin,
      `the rgb buffers lie in ${rgb.cpuSegments} CPU segments, not in ${scatteredMin} or more`,
    ],
    [
      [...yuv.dmaSegments, ...rgb.dmaSegments].every(suits),
      "a device sees a buffer in more DMA segments than it takes",
    ],
    [report.cpuCrc === frames.at(-1)?.crc, "the CPU read another picture than the display"],
    [bytesCopied === 0, `the library copied ${bytesCopied} bytes`],
    [faultCount === 0, `devices faulted ${faultCount} times`],
    [report.pinnedWhileMapped > 0, "the CPU read frames that were not pinned"],
    [pinnedAtEnd === 0, `${pinnedAtEnd} frames are still pinned`],
    [brokenInvariant === null, `memory breaks its invariant ${brokenInvariant}`],
  ];
  return expectations.filter(([isMet]) => !isMet).map(([, complaint]) => complaint);
}
