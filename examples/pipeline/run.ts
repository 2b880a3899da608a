/**
 * The pipeline: a clip through camera, GPU and display, ordered by fences alone.
 *
 *     frame 0   camera ─► gpu ─► display
 *     frame 1            camera ─► gpu ─► display
 *     frame 2                     camera ─► gpu ─► display
 *     frame 3 in frame 0's buffers: its camera waits for frame 0's gpu, its gpu for frame 0's
 *     display
 *
 * - R1  The program submits and hardly ever waits: it runs up to SUBMITTED_MAX frames ahead, twice
 *        the ring, so buffers come round while their last users are still at work.
 * - R2  A run that fails throws its first error; a run that returns has given everything back.
 *
 * In these files a frame is a picture of the clip where a clip is spoken of, and 4 KiB of memory
 * where memory is.
 *
 * @module
 */

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { Fence, FrameRange, System } from "dmabuf";
import { Clip } from "./clip.ts";
import { DeviceQueue, type QueueContext } from "./device-queue.ts";
import { PIXEL_BYTES } from "./edge-filter.ts";
import { fragmentMemory } from "./fragment.ts";
import { type Machine, openMachine, RING_LENGTH } from "./machine.ts";
import { makePageMap, savePageMap } from "./page-map.ts";
import { checksum, savePicture } from "./picture.ts";
import { type BufferReport, describeBuffers, type Report, type ShownFrame } from "./report.ts";
import { SharedBuffer } from "./shared-buffer.ts";
import { capture, filter, type PictureSize, scanOut } from "./stages.ts";
import { Witness } from "./witness.ts";

const SUBMITTED_MAX = 2 * RING_LENGTH;

/** What tests do to a run. */
export interface RunHooks {
  /** Called when the system is open. */
  readonly onOpen?: (system: System) => void;
  /** Leaves memory in one piece. */
  readonly keepsMemoryWhole?: boolean;
  /** Whether this job's fence is kept from its buffers. */
  readonly forgetsFence?: (device: string, frameIndex: number) => boolean;
  /** Milliseconds that a device pauses between the steps of its jobs. */
  readonly pauseMs?: (device: string) => number;
}

/** What to run. */
export interface RunOptions {
  readonly clipPath: string;
  /** Where the PNG files go; made if missing. */
  readonly outDir: string;
  /** Frames to process; default: all. */
  readonly frameLimit?: number;
  /** Called for each frame that was shown. */
  readonly onFrame?: (shownCount: number, expectedCount: number) => void;
  readonly hooks?: RunHooks;
}

/** The three queues, and what they share. */
interface Queues {
  readonly camera: DeviceQueue;
  readonly gpu: DeviceQueue;
  readonly display: DeviceQueue;
  /** Throws the first error of any queue. */
  throwIfFailed(): void;
}

/** Buffers by the picture that is in them: frame n uses number n % RING_LENGTH. */
interface Ring {
  readonly yuv: readonly SharedBuffer[];
  readonly rgb: readonly SharedBuffer[];
}

/** Runs a clip through the pipeline (R2). ClipError, OrderError, DmaBufError. */
export async function runPipeline(options: RunOptions): Promise<Report> {
  const clip = await Clip.open(options.clipPath);
  try {
    await mkdir(options.outDir, { recursive: true });
    return await runClip(clip, options);
  } finally {
    await clip.close();
  }
}

async function runClip(clip: Clip, options: RunOptions): Promise<Report> {
  const hooks = options.hooks ?? {};
  const rgbBytes = clip.width * clip.height * PIXEL_BYTES;
  const machine = await openMachine({ yuvBytes: clip.pictureBytes, rgbBytes });
  const { system } = machine;
  hooks.onOpen?.(system);
  const held = hooks.keepsMemoryWhole ? [] : fragmentMemory(system, rgbBytes);
  const ring = makeRing(machine, clip.pictureBytes, rgbBytes);
  const queues = makeQueues(machine, hooks);
  const shown: ShownFrame[] = [];

  const startMs = performance.now();
  await submitClip({ clip, ring, queues, shown, options });
  const runMs = performance.now() - startMs;

  const last = ring.rgb[(shown.length - 1) % RING_LENGTH] as SharedBuffer;
  const look = await lookAtLastFrame(machine, last, clip, held, options.outDir);
  const { bytesCopied, dmaBytes, faultCount } = system.stats();
  const devices = [machine.camera, machine.gpu, machine.display].map((device) => ({
    name: device.name,
    limits: device.limits,
    dmaBytes: device.dma.bytes,
    faultCount: device.dma.faultCount,
  }));
  const stages = [queues.camera, queues.gpu, queues.display].map(({ device, jobMs }) => ({
    device: device.name,
    meanMs: jobMs.reduce((sum, ms) => sum + ms, 0) / jobMs.length,
    maxMs: Math.max(...jobMs),
  }));
  const buffers = [describeBuffers("yuv", ring.yuv), describeBuffers("rgb", ring.rgb)];
  const end = closeMachine(machine, queues, ring, held);
  return {
    clip: { path: clip.path, width: clip.width, height: clip.height },
    frames: shown,
    buffers: buffers as [BufferReport, BufferReport],
    devices,
    stages,
    runMs,
    bytesCopied,
    dmaBytes,
    faultCount,
    heldFrames: held.length,
    ...look,
    ...end,
  };
}

function makeRing(
  { system, camera, gpu, display }: Machine,
  yuvBytes: number,
  rgbBytes: number,
): Ring {
  const indexes = Array.from({ length: RING_LENGTH }, (_, i) => i);
  const yuv = indexes.map(
    (i) =>
      new SharedBuffer(system, `yuv ${i}`, yuvBytes, [
        { device: camera, direction: "from-device" },
        { device: gpu, direction: "to-device" },
      ]),
  );
  const rgb = indexes.map(
    (i) =>
      new SharedBuffer(system, `rgb ${i}`, rgbBytes, [
        { device: gpu, direction: "from-device" },
        { device: display, direction: "to-device" },
      ]),
  );
  return { yuv, rgb };
}

function makeQueues({ system, camera, gpu, display }: Machine, hooks: RunHooks): Queues {
  const failures: unknown[] = [];
  const context: QueueContext = {
    system,
    witness: new Witness(),
    forgetsFence: hooks.forgetsFence ?? (() => false),
    pauseMs: hooks.pauseMs ?? (() => 0),
    onFailure: (error) => {
      failures.push(error);
      for (const queue of queues) queue.end();
    },
  };
  const queues = [camera, gpu, display].map((device) => new DeviceQueue(context, device));
  const [cameraQueue, gpuQueue, displayQueue] = queues as [DeviceQueue, DeviceQueue, DeviceQueue];
  return {
    camera: cameraQueue,
    gpu: gpuQueue,
    display: displayQueue,
    throwIfFailed: () => {
      if (failures.length > 0) throw failures[0];
    },
  };
}

interface ClipRun {
  readonly clip: Clip;
  readonly ring: Ring;
  readonly queues: Queues;
  readonly shown: ShownFrame[];
  readonly options: RunOptions;
}

/** Submits three jobs a frame, and returns when all have run (R1). */
async function submitClip({ clip, ring, queues, shown, options }: ClipRun): Promise<void> {
  const { frameLimit = Number.POSITIVE_INFINITY, onFrame } = options;
  const expectedCount = Math.min(clip.expectedCount, frameLimit);
  const inFlight: Fence[] = [];
  let index = 0;
  for await (const picture of clip.pictures()) {
    const frameIndex = index;
    const yuv = ring.yuv[frameIndex % RING_LENGTH] as SharedBuffer;
    const rgb = ring.rgb[frameIndex % RING_LENGTH] as SharedBuffer;
    queues.throwIfFailed();
    const shownFence = submitFrame({ queues, yuv, rgb, frameIndex, picture, size: clip }, (crc) => {
      shown.push({ index: frameIndex, crc });
      onFrame?.(shown.length, expectedCount);
    });
    inFlight.push(shownFence);
    if (inFlight.length === SUBMITTED_MAX) await inFlight.shift()?.wait();
    index += 1;
    if (index >= frameLimit) break;
  }
  for (const queue of [queues.camera, queues.gpu, queues.display]) await queue.idle();
  queues.throwIfFailed();
}

interface FrameRun {
  readonly queues: Queues;
  readonly yuv: SharedBuffer;
  readonly rgb: SharedBuffer;
  readonly frameIndex: number;
  readonly picture: Uint8Array;
  readonly size: PictureSize;
}

/**
 * Submits camera, GPU and display in this order. The fence that signals when the frame was shown.
 */
function submitFrame(frame: FrameRun, onShown: (crc: number) => void): Fence {
  const { queues, yuv, rgb, frameIndex, picture, size } = frame;
  const [camera, gpu, display] = [queues.camera.device, queues.gpu.device, queues.display.device];
  queues.camera.submit(frameIndex, [{ buf: yuv.buf, isWrite: true }], () =>
    capture(camera, yuv.mappingOf(camera), picture),
  );
  const gpuAccesses = [
    { buf: yuv.buf, isWrite: false },
    { buf: rgb.buf, isWrite: true },
  ];
  queues.gpu.submit(frameIndex, gpuAccesses, () =>
    filter(gpu, yuv.mappingOf(gpu), rgb.mappingOf(gpu), size),
  );
  return queues.display.submit(frameIndex, [{ buf: rgb.buf, isWrite: false }], () =>
    scanOut(display, rgb.mappingOf(display), size, onShown),
  );
}

type Look = Pick<Report, "cpuCrc" | "pinnedWhileMapped" | "picturePath" | "mapPath" | "pageMap">;

/** The CPU reads the last frame, in brackets, and saves it with a map of memory at that moment. */
async function lookAtLastFrame(
  { system }: Machine,
  { buf }: SharedBuffer,
  size: PictureSize,
  held: readonly FrameRange[],
  outDir: string,
): Promise<Look> {
  await buf.beginCpuAccessAsync("from-device");
  const mapping = buf.mmap();
  try {
    const pinnedWhileMapped = system.stats().pinnedFrames;
    const picturePath = join(outDir, "last-frame.png");
    await savePicture(picturePath, mapping.views, size);
    const pageMap = makePageMap(system, held);
    const mapPath = join(outDir, "page-map.png");
    await savePageMap(mapPath, pageMap);
    const cpuCrc = checksum(mapping.views, size.width * size.height * PIXEL_BYTES);
    return { cpuCrc, pinnedWhileMapped, picturePath, mapPath, pageMap };
  } finally {
    mapping.unmap();
    buf.endCpuAccess("from-device");
  }
}

/** Gives everything back (R2). What is left: nothing, if all went well. */
function closeMachine(
  { system }: Machine,
  queues: Queues,
  ring: Ring,
  held: readonly FrameRange[],
): Pick<Report, "pinnedAtEnd" | "brokenInvariant"> {
  for (const queue of [queues.camera, queues.gpu, queues.display]) queue.end();
  for (const buffer of [...ring.yuv, ...ring.rgb]) buffer.release();
  for (const frame of held) frame.free();
  const { pinnedFrames: pinnedAtEnd } = system.stats();
  const brokenInvariant = system.check();
  system.close();
  return { pinnedAtEnd, brokenInvariant };
}
