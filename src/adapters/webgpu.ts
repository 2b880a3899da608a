/**
 * WebGPU: the bytes of a buffer to a GPU buffer or texture.
 *
 * The host copies them, once, when the call is made: the buffer may change then. Shared memory
 * works. The types describe what is used of `GPUQueue`.
 *
 * @module
 */

import { requireBytes, requireMethods, requireObject, requireViews } from "../arguments.ts";
import { fail, requireInteger } from "../errors.ts";

type View = Uint8Array<ArrayBufferLike>;

/** What uploads: a `GPUQueue`. `Buffer` and `Destination` are its own types. */
export interface GpuQueue<Buffer, Destination> {
  writeBuffer(buffer: Buffer, offset: number, data: View): void;
  writeTexture(
    destination: Destination,
    data: View,
    layout: { readonly bytesPerRow: number; readonly rowsPerImage?: number },
    size: readonly number[],
  ): void;
}

/** Rows of pixels for a texture. */
export interface TextureWrite {
  readonly width: number;
  readonly height: number;
  /** From one row to the next. */
  readonly bytesPerRow: number;
}

/** Writes the views one behind the other, from byte `offset` on. EINVAL: a length of no 4 bytes. */
export function writeGpuBuffer<Buffer>(
  queue: Pick<GpuQueue<Buffer, never>, "writeBuffer">,
  buffer: Buffer,
  views: readonly View[],
  offset = 0,
): void {
  const operation = "write a GPU buffer";
  requireMethods(queue, ["writeBuffer"], "the queue", operation);
  requireViews(views, operation);
  requireInteger(offset, "offset", 0, Number.MAX_SAFE_INTEGER, operation);
  for (const view of views) {
    if (view.length % 4 !== 0)
      fail("EINVAL", operation, `${view.length} bytes are no multiple of 4`);
    queue.writeBuffer(buffer, offset, view);
    offset += view.length;
  }
}

/** Writes a picture into a texture. EINVAL: the view ends before the picture. */
export function writeGpuTexture<Destination>(
  queue: Pick<GpuQueue<never, Destination>, "writeTexture">,
  destination: Destination,
  view: View,
  write: TextureWrite,
): void {
  const operation = "write a GPU texture";
  requireMethods(queue, ["writeTexture"], "the queue", operation);
  requireBytes(view, "the view", operation);
  requireObject(write, "what to write", operation);
  const { width, height, bytesPerRow } = write;
  for (const [name, value] of Object.entries({ width, height, bytesPerRow }))
    requireInteger(value, name, 0, Number.MAX_SAFE_INTEGER, operation);
  if (view.length < bytesPerRow * height)
    fail("EINVAL", operation, `${height} rows need ${bytesPerRow * height} bytes`);
  queue.writeTexture(destination, view, { bytesPerRow }, [width, height]);
}
