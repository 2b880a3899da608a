/**
 * Fragmentation on purpose: what a machine's memory looks like after weeks of work.
 *
 *     before   ················································    one free run
 *     after    ···#···#···#···#···#···#···#···#···#···#···#···#    holes, a held frame between two
 *
 * - FR1  Free memory outside the CMA regions is left in holes of `spacing` - 1 frames.
 *
 * The system heap takes runs of 256 frames, then of 16, then single frames: in holes of 3 it finds
 * single frames only, and a buffer lies in as many segments as it has frames. The list of those
 * segments needs one run itself, so for large buffers the holes are as much larger.
 *
 * @module
 */

import { DmaBufError, FRAME_BYTES, type FrameRange, type System } from "dmabuf";

const MIN_SPACING = 4;
const MAX_SPACING = 256;
const SEGMENT_ENTRY_BYTES = 16;

/**
 * Fragments free memory for buffers of `bufferBytes` (FR1). The frames that stay held: free them to
 * heal it.
 */
export function fragmentMemory(system: System, bufferBytes: number): FrameRange[] {
  const spacing = spacingFor(bufferBytes);
  const held: FrameRange[] = [];
  for (const frame of takeEveryFrame(system)) {
    if (frame.pfn % spacing === spacing - 1) held.push(frame);
    else frame.free();
  }
  return held;
}

/** A power of two: half a hole must hold the list of the buffer's segments. */
function spacingFor(bufferBytes: number): number {
  const listBytes = (bufferBytes / FRAME_BYTES) * SEGMENT_ENTRY_BYTES;
  let spacing = MIN_SPACING;
  while (spacing < MAX_SPACING && (spacing / 2) * FRAME_BYTES < listBytes) spacing *= 2;
  return spacing;
}

function takeEveryFrame(system: System): FrameRange[] {
  const frames: FrameRange[] = [];
  for (;;) {
    try {
      frames.push(system.frames.alloc(1));
    } catch (error) {
      if (error instanceof DmaBufError && error.code === "ENOMEM") return frames;
      throw error;
    }
  }
}
