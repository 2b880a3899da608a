/**
 * A bitmap of the core in the test's own memory, with unsigned results as such.
 *
 * @module
 */

import type { CoreExports } from "../../src/core/exports.ts";
import type { TestCore } from "./cores.ts";

/** Frames of a core that has room for the largest bitmap of the tests. */
export const MEMORY_FRAMES = 2048;
const CANARY = 0xab;
const CANARY_BYTES = 64;

/** The core's bitmap with the calls of its model, and words that nobody may touch around it. */
export class CoreBitmap {
  readonly bitCount: number;
  readonly at: number;
  readonly bytes: number;
  readonly memory: WebAssembly.Memory;
  readonly exports: CoreExports;

  constructor(core: TestCore, bitCount: number, base: number) {
    this.bitCount = bitCount;
    this.memory = core.memory;
    this.exports = core.core.exports;
    this.at = (core.scratchAt + CANARY_BYTES + 15) & ~15;
    this.bytes = this.exports.bitmapBytes(bitCount, base) >>> 0;
    const view = new Uint8Array(core.memory.buffer);
    view.fill(CANARY, this.at - CANARY_BYTES, this.at + this.bytes + CANARY_BYTES);
    this.exports.bitmapInit(this.at, bitCount, base);
  }

  alloc(count: number, alignOrder = 0): number {
    return this.exports.bitmapAlloc(this.at, count, alignOrder) >>> 0;
  }

  markTaken(first: number, count: number): void {
    this.exports.bitmapTake(this.at, first, count);
  }

  markFree(first: number, count: number): void {
    this.exports.bitmapFree(this.at, first, count);
  }

  findFrom(start: number, count: number, alignMask = 0, alignOffset = 0): number {
    return this.exports.bitmapFindFrom(this.at, start, count, alignMask, alignOffset) >>> 0;
  }

  isFree(first: number, count: number): boolean {
    return this.exports.bitmapIsFree(this.at, first, count) !== 0;
  }

  isTaken(first: number, count: number): boolean {
    return this.exports.bitmapIsTaken(this.at, first, count) !== 0;
  }

  takenCount(): number {
    return this.exports.bitmapTakenCount(this.at);
  }

  largestFree(): number {
    return this.exports.bitmapLargestFree(this.at);
  }

  /** 0, or the number of the invariant that is broken. */
  check(): number {
    return this.exports.bitmapCheck(this.at);
  }

  areNeighboursUntouched(): boolean {
    const view = new Uint8Array(this.memory.buffer);
    const end = this.at + this.bytes;
    const before = view.subarray(this.at - CANARY_BYTES, this.at);
    const behind = view.subarray(end, end + CANARY_BYTES);
    return [before, behind].every((side) => side.every((byte) => byte === CANARY));
  }
}

/** A bitmap in which every bit is free. */
export function freeBitmap(core: TestCore, bitCount: number, base = 0): CoreBitmap {
  const bitmap = new CoreBitmap(core, bitCount, base);
  bitmap.markFree(0, bitCount);
  return bitmap;
}
