/**
 * The stages: what each device does with a picture, at its own addresses, in steps.
 *
 *     clip ─► capture ─► [YUV buffer] ─► filter ─► [RGB buffer] ─► scanOut ─► checksum
 *              camera                     gpu                      display
 *
 * - ST1  A stage touches memory through `device.dma` only, and yields between its steps.
 *
 * @module
 */

import { crc32 } from "node:zlib";
import type { Device, DeviceMapping } from "dmabuf";
import { filterRows, PIXEL_BYTES } from "./edge-filter.ts";
import { deviceViews, SpanBytes } from "./span-bytes.ts";

const STEP_COUNT = 4;

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
  { width, height }: PictureSize,
): Generator<undefined> {
  const job = {
    yuv: new SpanBytes(deviceViews(gpu, yuv, (width * height * 3) / 2, "read")),
    rgb: new SpanBytes(deviceViews(gpu, rgb, width * height * PIXEL_BYTES, "write")),
    width,
    height,
  };
  for (const { start, end } of steps(height)) {
    filterRows(job, start, end);
    yield;
  }
}

/** The display shows the RGB buffer; what it showed is known by its CRC-32. */
export function* scanOut(
  display: Device,
  rgb: DeviceMapping,
  { width, height }: PictureSize,
  onShown: (crc: number) => void,
): Generator<undefined> {
  const views = deviceViews(display, rgb, width * height * PIXEL_BYTES, "read");
  let crc = 0;
  for (const { start, end } of steps(views.length)) {
    for (const view of views.slice(start, end)) crc = crc32(view, crc);
    yield;
  }
  onShown(crc);
}

/** [0, count) in STEP_COUNT ranges of about the same length. */
function* steps(count: number): Generator<{ readonly start: number; readonly end: number }> {
  for (let i = 0; i < STEP_COUNT; i++) {
    const start = Math.floor((i * count) / STEP_COUNT);
    const end = Math.floor(((i + 1) * count) / STEP_COUNT);
    if (end > start) yield { start, end };
  }
}
