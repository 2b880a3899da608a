/**
 * The report: what a run showed, and whether it showed what it is here to show.
 *
 * @module
 */

import {
  type ConsumerReport,
  type Device,
  type DeviceLimits,
  type DmaBuf,
  FRAME_BYTES,
} from "dmabuf";
import type { PageMap } from "./page-map.ts";

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

/** Who had a frame of a pool, and for how long. */
export interface FrameUse {
  /** The buffer's name. */
  readonly frame: string;
  readonly device: string;
  readonly access: "write" | "read";
  /** How often. */
  readonly count: number;
  /** Milliseconds in all. */
  readonly ms: number;
}

/** What a run on threads has to tell beside. */
export interface ThreadsReport {
  /** The index of each device's thread. */
  readonly threads: readonly { readonly device: string; readonly thread: number }[];
  readonly uses: readonly FrameUse[];
  readonly consumers: readonly ConsumerReport[];
  /** Frames that somebody still had when every device had ended. */
  readonly heldAtEnd: readonly string[];
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
  /** Null: everything ran on one thread. */
  readonly threads: ThreadsReport | null;
}

/** Where the buffers of one kind live, and in how many segments devices see them. */
export function describeBuffers(
  kind: string,
  buffers: readonly DmaBuf[],
  dmaSegments: readonly DmaSegments[],
): BufferReport {
  const cpuSegments = Math.max(...buffers.map((buf) => buf.storage?.origNents ?? 0));
  return {
    kind,
    count: buffers.length,
    sizeBytes: buffers[0]?.sizeBytes ?? 0,
    storage: cpuSegments === 1 ? "contiguous" : "scattered",
    cpuSegments,
    dmaSegments,
  };
}

/** What a device did until now. */
export function describeDevice({ name, limits, dma }: Device): DeviceReport {
  return { name, limits, dmaBytes: dma.bytes, faultCount: dma.faultCount };
}

/** How long a device worked, from the milliseconds of its jobs. */
export function describeStage(device: string, jobMs: readonly number[]): StageReport {
  const totalMs = jobMs.reduce((sum, ms) => sum + ms, 0);
  return { device, meanMs: totalMs / jobMs.length, maxMs: Math.max(...jobMs) };
}

/** What a run failed to show, a line each; none if it is as it should be. */
export function complaintsAbout(report: Report): string[] {
  const [yuv, rgb] = report.buffers;
  const { frames, bytesCopied, faultCount, pinnedAtEnd, brokenInvariant } = report;
  const heldAtEnd = report.threads?.heldAtEnd ?? [];
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
    [heldAtEnd.length === 0, `somebody still has ${heldAtEnd.join(", ")}`],
  ];
  return expectations.filter(([isMet]) => !isMet).map(([, complaint]) => complaint);
}
