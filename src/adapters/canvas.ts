/**
 * Canvases: show the bytes of a buffer, and read a canvas back.
 *
 * Both copy, in the host, by way of a `VideoFrame`: `ImageData` takes no shared memory.
 *
 * @module
 */

import { copyFromVideoFrame, videoFrameOf } from "./video-frame.ts";

/** What can be drawn on: the 2D context of a canvas or of an `OffscreenCanvas`. */
type Context = CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D;

/**
 * Draws pixels at (x, y). The host copies them. Chromium takes the X of `RGBX` and `BGRX` for
 * alpha: write 255 there.
 */
export function drawPicture(
  context: Context,
  view: Uint8Array<ArrayBufferLike>,
  picture: Pick<VideoFrameBufferInit, "format" | "codedWidth" | "codedHeight" | "layout">,
  x = 0,
  y = 0,
): void {
  const frame = videoFrameOf(view, { timestamp: 0, ...picture });
  try {
    context.drawImage(frame, x, y);
  } finally {
    frame.close();
  }
}

/**
 * Copies a canvas into `into`, in the host: 4 bytes a pixel, in the order of `options.format`, RGBA
 * if it is not given. Where the plane lies. EINVAL: `into` is too short.
 */
export async function readCanvas(
  canvas: HTMLCanvasElement | OffscreenCanvas,
  into: Uint8Array<ArrayBufferLike>,
  options: VideoFrameCopyToOptions = { format: "RGBA" },
): Promise<PlaneLayout[]> {
  const frame = new VideoFrame(canvas, { timestamp: 0 });
  try {
    return await copyFromVideoFrame(frame, into, options);
  } finally {
    frame.close();
  }
}
