/**
 * WebCodecs: buffers to and from a `VideoFrame`.
 *
 * Both ways copy once, in the host: a frame is a copy of the bytes that it is made of, and its
 * pixels are copied out. Shared memory works in both.
 *
 * @module
 */

import { fail } from "../errors.ts";

/** A frame of the bytes of `view`, which the host copies now: the buffer may change afterwards. */
export function videoFrameOf(
  view: Uint8Array<ArrayBufferLike>,
  init: VideoFrameBufferInit,
): VideoFrame {
  return new VideoFrame(view, init);
}

/**
 * Copies the pixels of a frame into `into`, in the host, converted if `options.format` says so.
 * Where each plane lies. EINVAL: `into` is too short.
 */
export async function copyFromVideoFrame(
  frame: VideoFrame,
  into: Uint8Array<ArrayBufferLike>,
  options: VideoFrameCopyToOptions = {},
): Promise<PlaneLayout[]> {
  const needed = frame.allocationSize(options);
  if (needed > into.length)
    fail("EINVAL", "copy a video frame", `it needs ${needed} bytes, and there are ${into.length}`);
  return frame.copyTo(into, options);
}
