import { describe, expect, test } from "vitest";
import { entriesOfPages } from "../model/sg.model.ts";
import { eachCore, type TestCore } from "../support/cores.ts";
import { fuzzSeed, Prng } from "../support/prng.ts";
import { type Segment, segments } from "../support/segments.ts";
import { expectSound } from "../support/sound.ts";

const EINVAL = -22;
const ESTALE = -116;
const PS = 4096;
const ALL = 0xffffffff;

function fromPages(
  core: TestCore,
  pfns: number[],
  offset: number,
  size: number,
  max: number,
): number {
  new Uint32Array(core.memory.buffer, core.scratchAt, pfns.length).set(pfns);
  return core.exports.sgTableFromPages(core.scratchAt, pfns.length, offset, size, max);
}

describe.each(eachCore)("sg on the $name core", (build) => {
  test.each([
    ["one page, no room in a segment", [0], PS, 0, EINVAL],
    ["one page, a segment below a page", [0], PS, PS - 1, EINVAL],
    ["one page, any segment", [0], PS, ALL, 1],
    ["two adjacent", [0, 1], 2 * PS, ALL, 1],
    ["three out of order", [0, 2, 1], 3 * PS, ALL, 3],
    ["a gap at the end", [1, 2, 4], 3 * PS, ALL, 2],
    ["a gap in the middle", [0, 1, 3, 4], 4 * PS, ALL, 2],
    ["two gaps", [0, 1, 3, 4, 6], 5 * PS, ALL, 3],
    ["five in segments of two", [0, 1, 2, 3, 4], 5 * PS, 2 * PS, 3],
    ["a gap and segments of two", [0, 2, 3, 4, 5, 6], 6 * PS, 2 * PS, 4],
    ["descending", [7, 6, 5, 4], 4 * PS, ALL, 4],
    ["the same frame twice", [3, 3], 2 * PS, ALL, 2],
  ] as const)("sgTableFromPages(): %s", (_, pages, size, max, expected) => {
    const core = build.open(4096);
    const pfns = pages.map((page) => 1000 + page);
    const table = fromPages(core, pfns, 0, size, max);
    if (expected < 0) expect(table).toBe(expected);
    else expect(segments(core, table)).toEqual(entriesOfPages(pfns, 0, size, max));
    if (expected > 0) expect(segments(core, table)).toHaveLength(expected);
    expectSound(core);
  });

  test.each([
    ["an offset", 100, 16_284, ALL, [[1000, 100, 16_284]]],
    [
      "an offset and a cut",
      100,
      4 * PS - 196,
      2 * PS,
      [
        [1000, 100, 8092],
        [1002, 0, 8096],
      ],
    ],
    [
      "everything in single pages",
      2048,
      4 * PS - 2148,
      PS,
      [
        [1000, 2048, 2048],
        [1001, 0, PS],
        [1002, 0, PS],
        [1003, 0, 3996],
      ],
    ],
  ] as const)("sgTableFromPages() with %s", (_, offset, size, max, expected) => {
    const core = build.open(4096);
    const table = fromPages(core, [1000, 1001, 1002, 1003], offset, size, max);
    expect(segments(core, table)).toEqual(expected);
    expectSound(core);
  });

  test.each([
    ["no frames", [], 0, 0],
    ["a size of 0", [1000], 0, 0],
    ["an offset of a whole frame", [1000, 1001], PS, PS],
    ["bytes that need one frame more", [1000], 1, PS],
    ["bytes that end before the last entry", [1000, 1002, 1004], 0, PS],
    ["a frame beyond memory", [1000, 5000], 0, 2 * PS],
    [
      "a frame beyond memory in a long list",
      [...Array.from({ length: 40 }, (_, i) => 2 * i), 5000],
      0,
      41 * PS,
    ],
  ])("sgTableFromPages() refuses %s", (_, pfns, offset, size) => {
    const core = build.open(4096);
    expect(fromPages(core, pfns, offset, size, ALL)).toBe(EINVAL);
    expectSound(core);
  });

  test("sgTableFromPages() agrees with the naive packer over random lists", () => {
    const seed = fuzzSeed(4);
    const random = new Prng(seed);
    const core = build.open(8192);
    for (let round = 0; round < 400; round++) {
      const label = `seed ${seed}, round ${round}`;
      const count = 1 + random.below(random.below(8) === 0 ? 1500 : 80);
      const stay = random.below(100);
      const pfns = [random.below(8192)];
      while (pfns.length < count) {
        const next = (pfns.at(-1) as number) + 1;
        pfns.push(random.below(100) < stay && next < 8192 ? next : random.below(8192));
      }
      const offset = random.below(2) * random.below(PS);
      const size = count * PS - offset - random.below(count === 1 ? PS - offset : PS);
      const max = random.pick([ALL, PS, 2 * PS, 65_536, 100_000]);
      const table = fromPages(core, pfns, offset, size, max);
      expect(segments(core, table), label).toEqual(entriesOfPages(pfns, offset, size, max));
      if (round % 40 === 0) expectSound(core, label);
      expect(core.exports.sgTableFree(table)).toBe(0);
    }
    expectSound(core);
  });

  test("sgTableFromRange() cuts at the largest segment", () => {
    const core = build.open(4096);
    const { exports } = core;
    expect(segments(core, exports.sgTableFromRange(100, 5, 2 * PS + 1))).toEqual([
      [100, 0, 2 * PS],
      [102, 0, 2 * PS],
      [104, 0, PS],
    ]);
    expect(exports.sgTableFromRange(100, 0, ALL)).toBe(EINVAL);
    expect(exports.sgTableFromRange(4090, 7, ALL)).toBe(EINVAL);
    expectSound(core);
  });

  test("sgTableFromList() brings offsets into the frame and refuses what leaves memory", () => {
    const core = build.open(4096);
    const list = new Uint32Array(core.memory.buffer, core.scratchAt, 8);
    list.set([500, 9000, 10_000, 0, 10, 5, 7, 0]);
    expect(segments(core, core.exports.sgTableFromList(core.scratchAt, 2))).toEqual([
      [502, 808, 10_000],
      [10, 5, 7],
    ]);
    list.set([4095, 0, PS + 1, 0]);
    expect(core.exports.sgTableFromList(core.scratchAt, 1)).toBe(EINVAL);
    list.set([4095, 0, 0, 0]);
    expect(core.exports.sgTableFromList(core.scratchAt, 1)).toBe(EINVAL);
    expectSound(core);
  });

  test("sgNentsForLen() counts entries for a length", () => {
    const core = build.open(4096);
    const table = fromPages(core, [10, 11, 20, 30], 0, 4 * PS, ALL);
    const ask = (length: number): number => core.exports.sgNentsForLen(table, length);
    expect([0, 1, 2 * PS, 2 * PS + 1, 3 * PS, 4 * PS].map(ask)).toEqual([0, 1, 1, 2, 2, 3]);
    expect(ask(4 * PS + 1)).toBe(EINVAL);
    core.exports.sgTableFree(table);
    expect(ask(1)).toBe(ESTALE);
    expect(core.exports.sgTableFree(table)).toBe(ESTALE);
  });

  test("sgCopy() copies across entries in both directions, and stops at the end", () => {
    const core = build.open(4096);
    const { exports, memory, scratchAt } = core;
    const bytes = new Uint8Array(memory.buffer);
    const frames = [0, 1, 2].map(() => exports.frameAlloc(1, 1, ALL));
    const table = fromPages(core, frames, 10, 3 * PS - 10, ALL);
    const bufferAt = scratchAt + 65_536;
    const source = Uint8Array.from({ length: 3 * PS }, (_, i) => (i * 5 + 3) & 255);
    bytes.set(source, bufferAt);
    expect(exports.sgCopy(table, 4000, bufferAt, 5000, 0)).toBe(5000);
    bytes.fill(0, bufferAt, bufferAt + 3 * PS);
    expect(exports.sgCopy(table, 4000, bufferAt, 5000, 1)).toBe(5000);
    expect(bytes.slice(bufferAt, bufferAt + 5000)).toEqual(source.subarray(0, 5000));
    expect(exports.sgCopy(table, 3 * PS - 11, bufferAt, 100, 1)).toBe(1);
    expect(exports.sgCopy(table, 3 * PS - 10, bufferAt, 100, 1)).toBe(0);
    expect(exports.sgCopy(table, 0, 0xfffffff0, 100, 1)).toBe(EINVAL);
    expect(exports.sgCopy(table + 1, 0, bufferAt, 1, 1)).toBe(ESTALE);
  });

  describe("storage", () => {
    test("storageAllocBlocks() takes blocks of order 8, 4 and 0 as Linux's system heap does", () => {
      const core = build.open(8192);
      const table = core.exports.storageAllocBlocks(256 + 17, ALL);
      expect(segments(core, table).map(([, , length]) => length / PS)).toEqual([256, 16, 1]);
      const many = core.exports.storageAllocBlocks(255, ALL);
      expect(segments(core, many)).toHaveLength(15 + 15);
      expectSound(core);
      expect(core.exports.storageFree(table)).toBe(0);
      expect(core.exports.storageFree(table)).toBe(ESTALE);
      expectSound(core);
    });

    test("storageAllocBlocks() refuses more than there is, and holds nothing then", () => {
      const core = build.open(2048);
      const before = core.exports.frameCountIn(3);
      expect(core.exports.storageAllocBlocks(0, ALL)).toBe(EINVAL);
      expect(core.exports.storageAllocBlocks(4000, ALL)).toBe(-12);
      expect(core.exports.storageAllocBlocks(1500, ALL)).toBe(-12);
      expect(core.exports.storageAllocBlocks(10, 1)).toBe(-12);
      expect(core.exports.frameCountIn(3)).toBe(before);
      expectSound(core);
    });

    test("storageFree() leaves a pinned table whole", () => {
      const core = build.open(4096);
      const table = core.exports.storageAllocBlocks(20, ALL);
      const last = segments(core, table).at(-1) as Segment;
      core.exports.pinRange(last[0], 1);
      expect(core.exports.storageFree(table)).toBe(-16);
      expect(segments(core, table)).toHaveLength(5);
      core.exports.unpinRange(last[0], 1);
      expect(core.exports.storageFree(table)).toBe(0);
      expectSound(core);
    });

    test("storageClear() clears old bytes, and only where there may be some", () => {
      const core = build.open(4096);
      const { exports } = core;
      const bytes = new Uint8Array(core.memory.buffer);
      const first = exports.storageAllocBlocks(40, ALL);
      expect(exports.storageClear(first)).toBe(0);
      for (const [pfn, , length] of segments(core, first))
        bytes.fill(1, pfn * PS, pfn * PS + length);
      const frames = segments(core, first);
      exports.storageFree(first);
      const second = exports.storageAllocBlocks(40, ALL);
      expect(exports.storageClear(second)).toBeGreaterThan(0);
      for (const [pfn, , length] of [...frames, ...segments(core, second)]) {
        const isOurs = segments(core, second).some(([p, , l]) => pfn >= p && pfn < p + l / PS);
        if (isOurs)
          expect(bytes.subarray(pfn * PS, pfn * PS + length).every((byte) => byte === 0)).toBe(
            true,
          );
      }
      expectSound(core);
    });
  });
});
