/**
 * The stages: what each device does with a picture, at its own addresses, in steps.
 *
 *     clip ─► capture ─► [YUV buffer] ─► filter ─► [RGB buffer] ─► scanOut ─► whoever looks
 *              camera                     gpu                      display
 *
 * - ST1  A stage touches memory through `device.dma` only, and yields between its steps.
 * - ST2  It is the same code whether all devices work on one thread or each on its own.
 *
 * @module
 */

import type { Device, DeviceMapping } from "dmabuf";
import { type FilterJob, filterRows, PIXEL_BYTES } from "./edge-filter.ts";
import { deviceViews, SpanBytes } from "./span-bytes.ts";

const STEP_COUNT = 4;

/** The three devices, in the order in which a frame passes them. */
export const stageNames = ["camera", "gpu", "display"] as const;
/** One of them. */
export type StageName = (typeof stageNames)[number];

/** A job's work, cut where other devices may run. */
export type Work = () => Iterable<void>;

/** Pixels of a picture. */
export interface PictureSize {
  readonly width: number;
  readonly height: number;
}

/** The camera writes what its sensor saw. Its buffer is one segment: it knows no other kind. */
export function* capture(
  camera: Device,
  yuv: DeviceMapping,
  picture: Uint8Array,
): Generator<undefined> {
  const { address } = yuv.dma(0);
  for (const { start, end } of steps(picture.length)) {
    camera.dma.write(address + start, picture.subarray(start, end));
    yield;
  }
}

/** The GPU reads YUV and writes filtered RGB, in place on both sides. */
export function* filter(
  gpu: Device,
  yuv: DeviceMapping,
  rgb: DeviceMapping,
  picture: PictureSize & Pick<FilterJob, "isInterleaved">,
): Generator<undefined> {
  const { width, height } = picture;
  const job: FilterJob = {
    yuv: new SpanBytes(deviceViews(gpu, yuv, (width * height * 3) / 2, "read")),
    rgb: new SpanBytes(deviceViews(gpu, rgb, width * height * PIXEL_BYTES, "write")),
    width,
    height,
    isInterleaved: picture.isInterleaved ?? false,
  };
  for (const { start, end } of steps(height)) {
    filterRows(job, start, end);
    yield;
  }
}

/** The display shows the RGB buffer to whoever looks: all bytes in order, view by view. */
export function* scanOut(
  display: Device,
  rgb: DeviceMapping,
  { width, height }: PictureSize,
  look: (view: Uint8Array<ArrayBufferLike>) => void,
): Generator<undefined> {
  const views = deviceViews(display, rgb, width * height * PIXEL_BYTES, "read");
  for (const { start, end } of steps(views.length)) {
    for (const view of views.slice(start, end)) look(view);
    yield;
  }
}

/** Runs work step by step, with a pause after each. The milliseconds that its steps took. */
export async function runInSteps(work: Work, pause: () => Promise<void> | null): Promise<number> {
  const rest = work()[Symbol.iterator]();
  let ms = 0;
  for (;;) {
    const start = performance.now();
    const { done } = rest.next();
    ms += performance.now() - start;
    if (done) return ms;
    const paused = pause();
    if (paused !== null) await paused;
  }
}

/** [0, count) in STEP_COUNT ranges of about the same length. */
function* steps(count: number): Generator<{ readonly start: number; readonly end: number }> {
  for (let i = 0; i < STEP_COUNT; i++) {
    const start = Math.floor((i * count) / STEP_COUNT);
    const end = Math.floor(((i + 1) * count) / STEP_COUNT);
    if (end > start) yield { start, end };
  }
}
