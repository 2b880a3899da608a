/**
 * The camera: each picture that the browser has decoded, copied into a frame of a pool.
 *
 *     <video> ─► VideoFrame ─► copyTo(frame.bytes) ─► publish()      the one copy, made by the browser
 *
 * @module
 */

import type { Pool } from "dmabuf";
import { copyFromVideoFrame } from "dmabuf/adapters";
import type { Picture } from "./edges.ts";

/** The decoder's formats that the filter knows. */
const FORMATS: readonly (string | null)[] = ["I420", "NV12"];

/** Resolves when the video shows another picture. */
export function nextPicture(video: HTMLVideoElement): Promise<void> {
  return new Promise((resolve) => {
    if ("requestVideoFrameCallback" in video) video.requestVideoFrameCallback(() => resolve());
    else requestAnimationFrame(() => resolve());
  });
}

/** What the video's pictures look like in memory. Throws what the user can read. */
export async function describePictures(video: HTMLVideoElement): Promise<Picture> {
  if (typeof VideoFrame === "undefined") throw new Error("This browser has no WebCodecs.");
  if (video.readyState < video.HAVE_CURRENT_DATA)
    await new Promise((resolve, reject) => {
      video.onloadeddata = resolve;
      video.onerror = () =>
        reject(new Error("This browser does not decode the video (WebM, VP8)."));
    });
  const frame = new VideoFrame(video);
  try {
    const { format, visibleRect } = frame;
    if (!FORMATS.includes(format))
      throw new Error(`This browser decodes to ${format}; the filter knows ${FORMATS.join(", ")}.`);
    const { width = 0, height = 0 } = visibleRect ?? {};
    if (width % 2 !== 0 || height % 2 !== 0)
      throw new Error(`The filter needs an even width and height, not ${width} x ${height}.`);
    return { width, height, isInterleaved: format === "NV12" };
  } finally {
    frame.close();
  }
}

/** Publishes picture by picture, until the pool is closed. It never holds the video up. */
export async function runCamera(video: HTMLVideoElement, pool: Pool): Promise<void> {
  for (;;) {
    await nextPicture(video);
    const frame = await pool.acquire();
    const picture = new VideoFrame(video);
    try {
      await copyFromVideoFrame(picture, frame.bytes);
      frame.publish();
    } finally {
      picture.close();
      frame[Symbol.dispose](); // what was not published is free again
    }
  }
}
