/**
 * DirtyBitmap: which pages of a range devices wrote to, as read at one moment.
 *
 *     bit i = the page at iova + i * pageBytes        ├ 0 1 1 0 … ┤  word 0, its lowest bit first
 *
 * Compare `struct iova_bitmap` in the kernel's include/linux/iova_bitmap.h, of later kernels.
 *
 * @module
 */

import type { PhysRange } from "./phys-range.ts";

/** Pages that were written to. Made by `domain.readAndClearDirty()`. */
export class DirtyBitmap {
  /** The first device address of the range. */
  readonly iova: number;
  /** Bytes a bit stands for: the domain's smallest page. */
  readonly pageBytes: number;
  readonly pageCount: number;
  /** The bits, 32 a word. */
  readonly words: Uint32Array;

  /** @internal */
  constructor(iova: number, pageBytes: number, pageCount: number, words: Uint32Array) {
    this.iova = iova;
    this.pageBytes = pageBytes;
    this.pageCount = pageCount;
    this.words = words;
  }

  /** Whether the page at a device address is dirty; false outside the range. */
  has(iova: number): boolean {
    if (typeof iova !== "number") return false;
    const page = Math.floor((iova - this.iova) / this.pageBytes);
    if (!(page >= 0 && page < this.pageCount)) return false;
    return Math.floor((this.words[Math.floor(page / 32)] ?? 0) / 2 ** (page % 32)) % 2 === 1;
  }

  /** Dirty device addresses, neighbours joined, ascending. */
  get ranges(): PhysRange[] {
    const ranges: { address: number; lengthBytes: number }[] = [];
    for (let page = 0; page < this.pageCount; page++) {
      const address = this.iova + page * this.pageBytes;
      if (!this.has(address)) continue;
      const last = ranges[ranges.length - 1];
      if (last !== undefined && last.address + last.lengthBytes === address) {
        last.lengthBytes += this.pageBytes;
      } else {
        ranges.push({ address, lengthBytes: this.pageBytes });
      }
    }
    return ranges;
  }
}
