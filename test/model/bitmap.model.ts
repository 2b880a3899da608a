/**
 * The naive twin of `assembly/bitmap.ts`: a byte for each bit, and nothing but loops over them.
 *
 * It answers what the kernel's bitmap_find_next_zero_area_off() answers, in numbers that do not
 * wrap, so it is also the reference for the arithmetic near 2^32.
 */

export const NONE = 0xffffffff;

export class BitmapModel {
  readonly base: number;
  /** 1 = free, as in the words of the core. */
  readonly free: Uint8Array;

  constructor(bitCount: number, base: number) {
    this.base = base;
    this.free = new Uint8Array(bitCount);
  }

  get bitCount(): number {
    return this.free.length;
  }

  markFree(first: number, count: number): void {
    this.free.fill(1, first, first + count);
  }

  markTaken(first: number, count: number): void {
    this.free.fill(0, first, first + count);
  }

  alloc(count: number, alignOrder: number): number {
    const found = this.findFrom(0, count, 2 ** alignOrder - 1, this.base);
    if (found !== NONE) this.markTaken(found, count);
    return found;
  }

  findFrom(start: number, count: number, alignMask: number, alignOffset: number): number {
    if (count === 0) return NONE;
    const align = alignMask + 1;
    let bit = start;
    while (bit + count <= this.bitCount) {
      const past = (bit + alignOffset) % align;
      if (past !== 0) {
        bit += align - past;
        continue;
      }
      const taken = this.free.indexOf(0, bit);
      if (taken === -1 || taken >= bit + count) return bit;
      bit = taken + 1;
    }
    return NONE;
  }

  isFree(first: number, count: number): boolean {
    return this.isAll(1, first, count);
  }

  isTaken(first: number, count: number): boolean {
    return this.isAll(0, first, count);
  }

  takenCount(): number {
    return this.free.reduce((sum, isFree) => sum + 1 - isFree, 0);
  }

  largestFree(): number {
    let largest = 0;
    let count = 0;
    for (const isFree of this.free) {
      count = isFree === 1 ? count + 1 : 0;
      largest = Math.max(largest, count);
    }
    return largest;
  }

  private isAll(value: 0 | 1, first: number, count: number): boolean {
    if (first + count > this.bitCount) return false;
    return this.free.subarray(first, first + count).every((bit) => bit === value);
  }
}
