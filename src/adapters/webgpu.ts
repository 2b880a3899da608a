/**
 * WebGPU: the bytes of a buffer to a GPU buffer or texture.
 *
 * The host copies them, once, when the call is made: the buffer may change then. Shared memory
 * works. The types describe what is used of `GPUQueue`.
 *
 * @module
 */

import { fail } from "../errors.ts";

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
  for (const view of views) {
    if (view.length % 4 !== 0)
      fail("EINVAL", "write a GPU buffer", `${view.length} bytes are no multiple of 4`);
    queue.writeBuffer(buffer, offset, view);
    offset += view.length;
  }
}

/** Writes a picture into a texture. EINVAL: the view ends before the picture. */
export function writeGpuTexture<Destination>(
  queue: Pick<GpuQueue<never, Destination>, "writeTexture">,
  destination: Destination,
  view: View,
  { width, height, bytesPerRow }: TextureWrite,
): void {
  if (view.length < bytesPerRow * height)
    fail("EINVAL", "write a GPU texture", `${height} rows need ${bytesPerRow * height} bytes`);
  queue.writeTexture(destination, view, { bytesPerRow }, [width, height]);
}
