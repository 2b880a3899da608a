/**
 * The pipeline: a clip through camera, GPU and display, on one thread or with a thread for each.
 *
 * - R1  A run that fails throws its first error. However it ends, everything is given back.
 * - R2  A run that is stopped begins no new frame, and lets those come through that are on the way.
 *
 * In these files a frame is a picture of the clip where a clip is spoken of, and 4 KiB of memory
 * where memory is.
 *
 * @module
 */

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { type DmaBuf, type FrameRange, open, type System } from "dmabuf";
import { Clip } from "./clip.ts";
import { PIXEL_BYTES } from "./edge-filter.ts";
import type { Engine, Job, RunHooks } from "./engine.ts";
import { fragmentMemory } from "./fragment.ts";
import { memoryFor } from "./machine.ts";
import { OneThread } from "./one-thread.ts";
import { makePageMap, savePageMap } from "./page-map.ts";
import { checksum, savePicture } from "./picture.ts";
import type { Report, ShownFrame } from "./report.ts";
import type { PictureSize } from "./stages.ts";
import { Threads } from "./threads.ts";

/** What to run. */
export interface RunOptions {
  readonly clipPath: string;
  /** Where the PNG files go; made if missing. */
  readonly outDir: string;
  /** A Worker for each device. Default false. */
  readonly threads?: boolean;
  /** Frames to process; default: all. */
  readonly frameLimit?: number;
  /** Called for each frame that was shown. */
  readonly onFrame?: (shownCount: number, expectedCount: number) => void;
  /** Stops the run (R2): StoppedError. */
  readonly signal?: AbortSignal;
  readonly hooks?: RunHooks;
}

/** A run that was stopped on the way. */
export class StoppedError extends Error {
  override readonly name = "StoppedError";

  constructor(shownCount: number, expectedCount: number) {
    super(`Stopped after ${shownCount} of ${expectedCount} frames; everything is given back`);
  }
}

/** Runs a clip through the pipeline (R1). ClipError, OrderError, StoppedError, DmaBufError. */
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
  const { threads = false, hooks = {}, signal = new AbortController().signal } = options;
  const { frameLimit = Number.POSITIVE_INFINITY, onFrame } = options;
  const rgbBytes = clip.width * clip.height * PIXEL_BYTES;
  const sizes = { yuvBytes: clip.pictureBytes, rgbBytes };
  const system = await open({ ...memoryFor(sizes), shared: threads });
  hooks.onOpen?.(system);
  const held = hooks.keepsMemoryWhole ? [] : fragmentMemory(system, rgbBytes);
  const shown: ShownFrame[] = [];
  const expectedCount = Math.min(clip.expectedCount, frameLimit);
  const onShown = (frame: ShownFrame): void => {
    shown.push(frame);
    onFrame?.(shown.length, expectedCount);
  };
  const job: Job = { system, clip, sizes, expectedCount, frameLimit, signal, onShown, hooks };
  const engine = threads ? new Threads(job) : new OneThread(job);
  let partial: Omit<Report, "pinnedAtEnd" | "brokenInvariant">;
  try {
    await engine.ready();
    const startMs = performance.now();
    await engine.run();
    const runMs = performance.now() - startMs;
    if (signal.aborted) throw new StoppedError(shown.length, expectedCount);
    partial = {
      clip: { path: clip.path, width: clip.width, height: clip.height },
      frames: shown,
      runMs,
      heldFrames: held.length,
      ...(await lookAtLastFrame(system, engine.lastFrame(), clip, held, options.outDir)),
      ...engine.report(),
    };
  } catch (error) {
    await closeMachine(system, engine, held, hooks).catch(() => {}); // the first error is told (R1)
    throw error;
  }
  return { ...partial, ...(await closeMachine(system, engine, held, hooks)) };
}

type Look = Pick<Report, "cpuCrc" | "pinnedWhileMapped" | "picturePath" | "mapPath" | "pageMap">;

/** The CPU reads the last frame, in brackets, and saves it with a map of memory at that moment. */
async function lookAtLastFrame(
  system: System,
  buf: DmaBuf,
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

/** Gives everything back (R1). What is left: nothing, if all went well. */
async function closeMachine(
  system: System,
  engine: Engine,
  held: readonly FrameRange[],
  hooks: RunHooks,
): Promise<Pick<Report, "pinnedAtEnd" | "brokenInvariant">> {
  await engine.close();
  for (const frame of held) frame.free();
  const { pinnedFrames: pinnedAtEnd } = system.stats();
  const brokenInvariant = system.check();
  hooks.onClose?.(system);
  system.close();
  return { pinnedAtEnd, brokenInvariant };
}
