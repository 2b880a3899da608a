/**
 * What the fuzz reads of a core's memory without asking the core: frames' words, the header's
 * counts, the lists of movables, and the marks that holdings carry.
 *
 * @module
 */

import type { Core } from "dmabuf/core";
import type { Holding, MemoryModel, RegionModel } from "../model/memory.model.ts";
import { headerWords } from "../support/header.ts";

/** States of a frame (assembly/page.ts). */
export const [FREE, CACHED, OWNED, MOVABLE, CMA, QUARANTINE] = [0, 1, 3, 4, 5, 9] as const;
/** What one pin adds to a frame's word. */
export const PIN: number = 2 ** 14;

const FRAME_WORDS = 1024;
/** Words of a frame that carry a mark. */
const MARKED: readonly number[] = [0, 517, FRAME_WORDS - 1];
/** A core's memory, read only but for the marks. */
export class CoreView {
  /** The word of each frame. */
  readonly words: Uint32Array;
  readonly #core: Core;
  readonly #header: Uint32Array;

  constructor(core: Core) {
    this.#core = core;
    const headerAt = core.exports.HEADER_AT.value / 4;
    this.#header = core.u32.subarray(headerAt, headerAt + 32);
    const wordsAt = (this.#header[headerWords.wordsAt] ?? 0) / 4;
    this.words = core.u32.subarray(wordsAt, wordsAt + core.u8.length / 4096);
  }

  get frameCount(): number {
    return this.words.length;
  }

  state(pfn: number): number {
    return (this.words[pfn] ?? 0) % 16;
  }

  /** Frames in the buddy's lists. */
  get listed(): number {
    return this.#header[headerWords.freeFrames] ?? 0;
  }

  /** Listed frames that movable requests leave to others. */
  get reserve(): number {
    return this.#header[headerWords.reserveFrames] ?? 0;
  }

  /** The first aligned block of free frames outside regions and below `end`; -1. */
  freeBlock(order: number, end: number, model: MemoryModel): number {
    const size = 2 ** order;
    for (let first = 0; first + size <= end; first += size) {
      let i = 0;
      while (i < size && this.state(first + i) === FREE && !model.regionOf(first + i)) i++;
      if (i === size) return first;
    }
    return -1;
  }

  /** Frames outside the regions that nobody holds. */
  freeOutside(model: MemoryModel): number {
    let free = 0;
    for (let pfn = 0; pfn < this.frameCount; pfn++)
      free += Number(isNobodys(this.state(pfn)) && !model.regionOf(pfn));
    return free;
  }

  freeIn(region: RegionModel): number {
    return this.freeAt(region.basePfn, region.frameCount);
  }

  /** Free frames of [pfn, pfn + count). */
  freeAt(pfn: number, count: number): number {
    let free = 0;
    for (let i = 0; i < count; i++) free += Number(this.state(pfn + i) === FREE);
    return free;
  }

  /** Whether movable memory has borrowed a frame of [pfn, pfn + count). */
  isLent(pfn: number, count: number): boolean {
    return this.words.subarray(pfn, pfn + count).some((word) => word % 16 === MOVABLE);
  }

  /** The frames of a movable, in order, where they are now. */
  movableFrames(handle: number): number[] {
    const at = (this.#core.exports.movableAt(handle) >>> 0) / 4;
    const list = (this.#core.u32[at] ?? 0) / 4;
    return [...this.#core.u32.subarray(list, list + (this.#core.u32[at + 1] ?? 0))];
  }

  /** Marks frame `i` of a holding, which must be zero. */
  mark(holding: Holding, i: number): void {
    const pfn = holding.pfns[i] ?? 0;
    for (const word of MARKED) {
      const at = pfn * FRAME_WORDS + word;
      expectEqual(this.#core.u32[at], 0, `a word of new frame ${pfn}`);
      this.#core.u32[at] = markOf(holding, i);
    }
  }

  expectMarks(holding: Holding): void {
    for (const [i, pfn] of holding.pfns.entries()) {
      for (const word of MARKED) {
        const found = this.#core.u32[pfn * FRAME_WORDS + word];
        if (found !== markOf(holding, i))
          throw new Error(`word ${word} of frame ${pfn}, ${holding.kind} ${holding.id}: ${found}`);
      }
    }
  }
}

/** What the frames of a holding carry; never 0. */
function markOf(holding: Holding, i: number): number {
  return (Math.imul(holding.id, 2_654_435_761) + i * 2 + 1) >>> 0 || 1;
}

/** Whether a state means that nobody holds the frame. */
export function isNobodys(state: number): boolean {
  return state === FREE || state === CACHED || state === QUARANTINE;
}

/** Throws what differs. */
export function expectEqual(actual: unknown, expected: unknown, what: string): void {
  if (actual !== expected) throw new Error(`${what}: ${actual}, expected ${expected}`);
}
