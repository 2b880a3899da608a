/**
 * SpanBytes: bytes that lie in several views, used in place as if they were one array.
 *
 *     views    ├─ 4096 ─┤├─── 8192 ───┤├─ 4096 ─┤       where the frames happen to be
 *     offsets  0        4096          12288      16384   what a filter counts in
 *
 * - SB1  Nothing is copied: a cursor reads and writes the views themselves, and steps from one to
 *        the next where a row of pixels crosses their border.
 *
 * @module
 */

import type { Device, DeviceMapping } from "dmabuf";

/** Views in order. */
export type Views = readonly Uint8Array<ArrayBufferLike>[];

/** What a device sees of a mapping, through its own addresses: views over all its segments. */
export function deviceViews(
  device: Device,
  mapping: DeviceMapping,
  lengthBytes: number,
  access: "read" | "write",
): Views {
  const views: Uint8Array<ArrayBufferLike>[] = [];
  for (let done = 0; done < lengthBytes; ) {
    const segment = mapping.at(done);
    const count = Math.min(segment.lengthBytes, lengthBytes - done);
    for (const view of device.dma.spans(segment.address, count, access)) views.push(view);
    done += count;
  }
  return views;
}

/** Views with the offset at which each begins. */
export class SpanBytes {
  readonly views: Views;
  readonly lengthBytes: number;
  readonly #starts: readonly number[];

  constructor(views: Views) {
    let start = 0;
    this.views = views;
    this.#starts = views.map((view) => {
      start += view.length;
      return start - view.length;
    });
    this.lengthBytes = start;
  }

  /** Which view holds byte `offset`, and where in it. Cost: O(log views). */
  locate(offset: number): { readonly view: number; readonly at: number } {
    if (!(offset >= 0 && offset < this.lengthBytes)) {
      throw new RangeError(`Cannot find byte ${offset}: there are ${this.lengthBytes}`);
    }
    let low = 0;
    let high = this.#starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if ((this.#starts[middle] as number) <= offset) low = middle;
      else high = middle - 1;
    }
    return { view: low, at: offset - (this.#starts[low] as number) };
  }
}

/** A place in SpanBytes that moves on with every byte. */
export class Cursor {
  readonly #bytes: SpanBytes;
  #viewIndex = 0;
  #view: Uint8Array<ArrayBufferLike>;
  #at = 0;

  constructor(bytes: SpanBytes, offset: number) {
    this.#bytes = bytes;
    this.#view = bytes.views[0] as Uint8Array<ArrayBufferLike>;
    this.seek(offset);
  }

  seek(offset: number): void {
    const { view, at } = this.#bytes.locate(offset);
    this.#viewIndex = view;
    this.#view = this.#bytes.views[view] as Uint8Array<ArrayBufferLike>;
    this.#at = at;
  }

  /** The byte here; the cursor moves on. */
  next(): number {
    if (this.#at === this.#view.length) this.#enterNextView();
    return this.#view[this.#at++] as number;
  }

  /** Writes a byte here; the cursor moves on. */
  put(byte: number): void {
    if (this.#at === this.#view.length) this.#enterNextView();
    this.#view[this.#at++] = byte;
  }

  #enterNextView(): void {
    this.#viewIndex += 1;
    const view = this.#bytes.views[this.#viewIndex];
    if (view === undefined) throw new RangeError("Cannot move on: the last byte was passed");
    this.#view = view;
    this.#at = 0;
  }
}
