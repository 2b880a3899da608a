/**
 * The core's device address ranges in the test's own memory, and what memory they may have.
 *
 * @module
 */

import { expect } from "vitest";
import { type IovaModel, MAX_PFN, type ModelRange } from "../model/iova.model.ts";
import type { TestCore } from "./cores.ts";

/** The exports used, by the names that `assembly/iova.ts` gives them. */
export interface IovaExports {
  iovaInit(spaceAt: number, startPfn: number): number;
  iovaFini(spaceAt: number): void;
  iovaAlloc(spaceAt: number, pageCount: number, limitPfn: number, isSizeAligned: number): number;
  iovaFree(spaceAt: number, pfn: number): number;
  iovaFind(spaceAt: number, pfn: number): number;
  iovaReserve(spaceAt: number, pfn: number, pfnEnd: number): number;
  iovaRangeCount(spaceAt: number): number;
  iovaCheck(spaceAt: number): number;
  frameAlloc(count: number, alignOrder: number, pfnEnd: number): number;
  frameFree(pfn: number, count: number): number;
}

const SPACE_BYTES = 64;
/** The last page below 4 GiB. */
export const LIMIT_32BIT = 2 ** 20 - 1;

/** The core's space with the calls of its model. */
export class CoreSpace {
  readonly at: number;
  readonly memory: WebAssembly.Memory;
  readonly exports: IovaExports;

  constructor(core: TestCore) {
    this.at = core.scratchAt;
    this.memory = core.memory;
    this.exports = core.exports as IovaExports;
    new Uint8Array(core.memory.buffer).fill(0, this.at, this.at + SPACE_BYTES);
  }

  init(startPfn: number): number {
    return this.exports.iovaInit(this.at, startPfn);
  }

  alloc(pageCount: number, limit = LIMIT_32BIT, isSizeAligned = true): number {
    return this.exports.iovaAlloc(this.at, pageCount, limit, isSizeAligned ? 1 : 0) >>> 0;
  }

  free(pfn: number): number {
    return this.exports.iovaFree(this.at, pfn) >>> 0;
  }

  find(pfn: number): ModelRange | undefined {
    const at = this.exports.iovaFind(this.at, pfn) >>> 0;
    if (at === 0) return undefined;
    const view = new DataView(this.memory.buffer, at, 8);
    return { low: view.getUint32(0, true), high: view.getUint32(4, true) };
  }

  /** The end is inclusive here, and becomes the core's exclusive one. */
  reserve(low: number, high: number): number {
    return this.exports.iovaReserve(this.at, low, (high + 1) % 2 ** 32);
  }

  /** All ranges from the lowest up, found page by page; only for spaces of a few pages. */
  list(low: number, high: number): string {
    const found: string[] = [];
    for (let pfn = low; pfn <= high; pfn++) {
      const range = this.find(pfn);
      if (range === undefined) continue;
      found.push(`${range.low}-${range.high}`);
      pfn = range.high;
    }
    return found.join(" ");
  }

  check(): number {
    return this.exports.iovaCheck(this.at);
  }

  get rangeCount(): number {
    return this.exports.iovaRangeCount(this.at);
  }
}

/** Takes every frame that is left, one by one. */
export function takeAll(exports: IovaExports): number[] {
  const taken: number[] = [];
  let pfn = exports.frameAlloc(1, 0, MAX_PFN);
  while (pfn >= 0) {
    taken.push(pfn);
    pfn = exports.frameAlloc(1, 0, MAX_PFN);
  }
  return taken;
}

/** Gives one of them back. */
export function giveOne(exports: IovaExports, taken: number[]): void {
  expect(exports.frameFree(taken.pop() as number, 1)).toBe(0);
}

/** Expects the same ranges on both sides. */
export function expectSame(space: CoreSpace, model: IovaModel, why = ""): void {
  const broken = space.check();
  if (broken !== 0) throw new Error(`invariant ${broken} is broken ${why}`);
  if (space.rangeCount !== model.ranges.length) throw new Error(`the counts differ ${why}`);
  for (const range of model.ranges) {
    const found = space.find(range.low);
    if (found?.low !== range.low || found.high !== range.high) {
      throw new Error(`${range.low}-${range.high} became ${found?.low}-${found?.high} ${why}`);
    }
  }
}
