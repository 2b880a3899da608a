/**
 * An IO page table of the core in the test's own memory, with unsigned results as such.
 *
 * @module
 */

import { expect } from "vitest";
import { tableFormatWord } from "../../src/core/index.ts";
import { type ModelFormat, READ, stage1, WRITE } from "../model/pgtable.model.ts";
import type { TestCore } from "./cores.ts";

/** The answer "nothing is mapped there". */
export const NONE = 0xffffffff;
/** The bytes of a table's record. */
export const ROOT_BYTES = 576;
const SEGMENTS_OFFSET = 65536;

/** A table at the start of the scratch memory, of stage 1 with 4 KiB pages unless told. */
export class Table {
  readonly core: TestCore;
  readonly at: number;
  readonly physPfnBase: number;

  readonly format: ModelFormat;

  constructor(core: TestCore, format: ModelFormat = stage1, at = core.scratchAt) {
    this.core = core;
    this.at = at;
    this.format = format;
    expect(core.exports.pgtInit(at)).toBe(0);
    // Our frame numbers differ from physical ones by a constant: map frame 0 and look.
    this.writeSegments([[0, 0, 4096]]);
    const segmentsAt = core.scratchAt + SEGMENTS_OFFSET;
    expect(core.exports.pgtMapFrames(at, 0, segmentsAt, 1, READ)).toBe(0);
    this.physPfnBase = this.lookup(0);
    core.exports.pgtFini(at);
    expect(this.init()).toBe(0);
  }

  /** Makes an empty table of the format over whatever its record held. */
  init(flags = 0): number {
    const granuleOrder = Math.log2(this.format.granuleBytes / 4096);
    const word = tableFormatWord({ ...this.format, granuleOrder, flags });
    return this.core.exports.pgtInitAs(this.at, word);
  }

  map(iovaPfn: number, physPfn: number, pageCount: number, prot = READ | WRITE): number {
    return this.core.exports.pgtMap(this.at, iovaPfn, physPfn, pageCount, prot);
  }

  unmap(iovaPfn: number, pageCount: number): number {
    return this.core.exports.pgtUnmap(this.at, iovaPfn, pageCount) >>> 0;
  }

  mapPages(
    iovaPfn: number,
    physPfn: number,
    order: number,
    count: number,
    prot = READ | WRITE,
  ): number {
    return this.core.exports.pgtMapPages(this.at, iovaPfn, physPfn, order, count, prot);
  }

  unmapPages(iovaPfn: number, order: number, count: number): number {
    return this.core.exports.pgtUnmapPages(this.at, iovaPfn, order, count) >>> 0;
  }

  /** `segments` are [pfn, offset, length]. */
  mapFrames(
    iovaPfn: number,
    segments: readonly (readonly number[])[],
    prot = READ | WRITE,
  ): number {
    this.writeSegments(segments);
    const segmentsAt = this.core.scratchAt + SEGMENTS_OFFSET;
    return this.core.exports.pgtMapFrames(this.at, iovaPfn, segmentsAt, segments.length, prot);
  }

  writeSegments(segments: readonly (readonly number[])[]): void {
    const words = new Uint32Array(this.core.memory.buffer);
    const first = (this.core.scratchAt + SEGMENTS_OFFSET) >>> 2;
    segments.forEach(([pfn = 0, offset = 0, length = 0], i) => {
      words.set([pfn, offset, length, 0], first + i * 4);
    });
  }

  lookup(iovaPfn: number): number {
    return this.core.exports.pgtLookup(this.at, iovaPfn) >>> 0;
  }

  prot(iovaPfn: number): number {
    return this.core.exports.pgtProt(this.at, iovaPfn);
  }

  check(): number {
    return this.core.exports.pgtCheck(this.at);
  }

  get tableFrames(): number {
    return this.core.exports.pgtTableFrames(this.at);
  }

  /** The entry that ends a device's walk to `iovaPfn`: its level and its 64 bits. */
  entryAt(iovaPfn: number): { level: number; pte: bigint } {
    const entries = new BigUint64Array(this.core.memory.buffer);
    let tableAt = new Uint32Array(this.core.memory.buffer)[this.at >>> 2] ?? 0;
    for (let level = 0; ; level++) {
      const index = Math.floor(iovaPfn / 2 ** (27 - 9 * level)) % 512;
      const pte = entries[tableAt / 8 + index] ?? 0n;
      if (level === 3 || (pte & 3n) !== 3n) return { level, pte };
      tableAt = (Number(pte >> 12n) - this.physPfnBase) * 4096;
    }
  }

  /** The order of the leaf over each page of a list; "." where there is none. */
  picture(pages: readonly number[]): string {
    const letters = ["?", "G", "M", "k"];
    return pages
      .map((pfn) => (this.lookup(pfn) === NONE ? "." : letters[this.entryAt(pfn).level]))
      .join("");
  }
}
