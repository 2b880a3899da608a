import { describe, expect, test } from "vitest";
import { entriesAppended, entriesBetween } from "../model/sg.model.ts";
import { eachCore, type TestCore } from "../support/cores.ts";
import { fuzzSeed, Prng } from "../support/prng.ts";
import { type Segment, segments, tableOf } from "../support/segments.ts";
import { expectSound, freeCount } from "../support/sound.ts";

const [ENOMEM, EBUSY, EINVAL, EOVERFLOW, ESTALE] = [-12, -16, -22, -75, -116];
const PS = 4096;
const ALL = 0xffffffff;

/** Words in the test's own memory, and their address. */
function store(core: TestCore, words: readonly number[]): number {
  new Uint32Array(core.memory.buffer, core.scratchAt, words.length).set(words);
  return core.scratchAt;
}

function append(core: TestCore, table: number, pfns: number[], size: number, max = ALL): number {
  return core.exports.sgTableAppend(table, store(core, pfns), pfns.length, 0, size, max);
}

function split(core: TestCore, table: number, skip: number, sizes: number[]): number | number[] {
  const at = store(core, sizes);
  const result = core.exports.sgSplit(table, skip, at, sizes.length);
  return result < 0 ? result : [...new Uint32Array(core.memory.buffer, at, sizes.length)];
}

function randomList(random: Prng, frames: number): Segment[] {
  return Array.from({ length: 1 + random.below(random.below(6) === 0 ? 700 : 12) }, () => {
    const offset = random.below(2) * random.below(PS);
    const length = 1 + random.below(3 * PS);
    return [random.below(frames - 4), offset, length];
  });
}

describe.each(eachCore)("parts of sg tables on the $name core", (build) => {
  describe("sgZero()", () => {
    test("fills across entries, nothing else, and stops at the end", () => {
      const core = build.open(4096);
      const { exports, memory } = core;
      const pfn = exports.frameAlloc(4, 2, ALL);
      const bytes = new Uint8Array(memory.buffer, pfn * PS, 4 * PS).fill(7);
      const table = tableOf(core, [
        [pfn + 2, 10, 100],
        [pfn, 4000, 200],
      ]);
      expect(exports.sgZero(table, 90, 30)).toBe(30);
      const changed = [...bytes.keys()].filter((i) => bytes[i] === 0);
      const expected = [...Array(20).keys()].map((i) => 4000 + i);
      expected.push(...[...Array(10).keys()].map((i) => 2 * PS + 100 + i));
      expect(changed).toEqual(expected);
      expect(exports.sgZero(table, 299, ALL)).toBe(1);
      expect(exports.sgZero(table, 300, 1)).toBe(0);
      expect(exports.sgZero(table, ALL, 1)).toBe(0);
      expect(exports.sgZero(table, 0, 0)).toBe(0);
      expect(exports.sgZero(table, 0, ALL)).toBe(300);
      exports.sgTableFree(table);
      expect(exports.sgZero(table, 0, 1)).toBe(ESTALE);
    });

    test("refuses frames without bytes, and fills none before them", () => {
      const core = build.openUnbacked(2048, 1024);
      const { exports, memory } = core;
      const pfn = exports.frameAlloc(1, 0, ALL);
      const listAt = exports.scratchAt();
      new Uint32Array(memory.buffer, listAt, 8).set([pfn, 0, PS, 0, 2047, 0, 2 * PS, 0]);
      const bytes = new Uint8Array(memory.buffer, pfn * PS, PS).fill(7);
      const table = exports.sgTableFromList(listAt, 2);
      expect(exports.sgZero(table, 0, ALL)).toBe(EINVAL);
      expect(exports.sgCopy(table, 0, listAt, 3 * PS, 1)).toBe(EINVAL);
      expect(bytes.every((byte) => byte === 7)).toBe(true);
      expect(exports.sgZero(table, 0, PS)).toBe(PS);
      expect(bytes.every((byte) => byte === 0)).toBe(true);
    });
  });

  describe("sgTableAppend()", () => {
    test.each([
      ["what follows joins", [1002], ALL, [[1000, 0, 3 * PS]]],
      [
        "what follows does not join beyond the limit",
        [1002, 1003],
        3 * PS,
        [
          [1000, 0, 3 * PS],
          [1003, 0, PS],
        ],
      ],
      [
        "the limit may be below what is there",
        [1002],
        PS,
        [
          [1000, 0, 2 * PS],
          [1002, 0, PS],
        ],
      ],
      [
        "a gap begins an entry",
        [1003, 1004],
        ALL,
        [
          [1000, 0, 2 * PS],
          [1003, 0, 2 * PS],
        ],
      ],
      [
        "only the first frames join",
        [1002, 1003, 7, 8],
        ALL,
        [
          [1000, 0, 4 * PS],
          [7, 0, 2 * PS],
        ],
      ],
    ] as const)("%s", (_, pfns, max, expected) => {
      const core = build.open(4096);
      const table = append(core, 0, [1000, 1001], 2 * PS);
      expect(append(core, table, [...pfns], pfns.length * PS, max)).toBe(table);
      expect(segments(core, table)).toEqual(expected);
      expectSound(core);
      expect(core.exports.sgTableFree(table)).toBe(0);
      expectSound(core);
    });

    test("a cut end begins a new entry, and a cut inside joined frames is kept", () => {
      const core = build.open(4096);
      const table = append(core, 0, [1000], 100);
      append(core, table, [1001, 1002], PS + 5);
      expect(segments(core, table)).toEqual([
        [1000, 0, 100],
        [1001, 0, PS + 5],
      ]);
      const joined = append(core, 0, [1000], PS);
      append(core, joined, [1001, 1002], 2 * PS - 1);
      expect(segments(core, joined)).toEqual([[1000, 0, 3 * PS - 1]]);
      expectSound(core);
    });

    test("refuses what it must, and changes nothing", () => {
      const core = build.open(4096);
      const { exports } = core;
      const table = append(core, 0, [1000, 1001], 2 * PS);
      const listAt = store(core, [1002, 1003, 1005]);
      const call = (...args: number[]): number => exports.sgTableAppend(table, listAt, ...args);
      expect(call(3, 1, 3 * PS - 1, ALL)).toBe(EINVAL); // an offset behind a segment
      expect(call(0, 0, PS, ALL)).toBe(EINVAL);
      expect(call(3, 0, 0, ALL)).toBe(EINVAL);
      expect(call(3, 0, 3 * PS, PS - 1)).toBe(EINVAL);
      expect(call(3, 0, 3 * PS + 1, ALL)).toBe(EINVAL);
      expect(call(3, 0, 2 * PS, ALL)).toBe(EINVAL); // the bytes end before the last entry
      expect(append(core, table, [1002, 4096], 2 * PS)).toBe(EINVAL);
      expect(exports.sgTableAppend(table + 1, listAt, 1, 0, PS, ALL)).toBe(ESTALE);
      const mapping = exports.dmaMapTable(exports.dmaDeviceAdd(0, ALL, ALL, 9, ALL), table, 0);
      expect(append(core, table, [1002], PS)).toBe(EBUSY);
      exports.dmaUnmap(mapping);
      expect(segments(core, table)).toEqual([[1000, 0, 2 * PS]]);
      expect(append(core, exports.sgTableAlloc(2), [5], PS)).toBe(EINVAL); // an empty last entry
      expect(append(core, exports.storageAllocBlocks(2, ALL), [5], PS)).toBe(EINVAL);
      expectSound(core);
    });

    test("refuses 4 GiB in all", () => {
      const core = build.open(4096);
      let table = append(core, 0, [1000], PS);
      const list: Segment[] = Array.from({ length: 1023 }, () => [0, 0, 4096 * 1024]);
      table = tableOf(core, list);
      const pfns = Array.from({ length: 1024 }, (_, i) => 2 * i);
      expect(append(core, table, pfns, 1024 * PS)).toBe(EOVERFLOW);
      expect(append(core, table, pfns, 1024 * PS - 1)).toBe(table);
      expectSound(core);
    });

    test("leaves the table as it was when memory is out", () => {
      const core = build.open(2048);
      const { exports } = core;
      const table = append(core, 0, [10], PS);
      const pfns = Array.from({ length: 900 }, (_, i) => 2 * i);
      while (exports.frameAlloc(1, 0, ALL) >= 0);
      expect(append(core, table, pfns, 900 * PS)).toBe(ENOMEM);
      expect(append(core, table, [20, 30], 2 * PS)).toBe(ENOMEM);
      expect(segments(core, table)).toEqual([[10, 0, PS]]);
      expect(append(core, table, [11], PS)).toBe(table); // joining needs no memory
      expectSound(core);
    });

    test("agrees with the naive list over random batches, and frees all of it", () => {
      const seed = fuzzSeed(11);
      const random = new Prng(seed);
      const core = build.open(8192);
      const before = freeCount(core);
      for (let round = 0; round < 60; round++) {
        const label = `seed ${seed}, round ${round}`;
        const max = random.pick([ALL, PS, 2 * PS, 65_536, 100_000]);
        let next = random.below(4000);
        const table = append(core, 0, [next], PS, max);
        let expected: Segment[] = [[next, 0, PS]];
        for (let batch = 0; batch < 12; batch++) {
          const count = 1 + random.below(random.below(4) === 0 ? 400 : 20);
          const stay = random.below(100);
          const pfns = Array.from({ length: count }, () => {
            next = random.below(100) < stay && next < 8191 ? next + 1 : random.below(8192);
            return next;
          });
          const size = count * PS - random.below(2) * random.below(PS);
          expect(append(core, table, pfns, size, max), label).toBe(table);
          expected = entriesAppended(expected, pfns, size, max) ?? [];
          expect(segments(core, table), label).toEqual(expected);
        }
        if (round % 10 === 0) expectSound(core, label);
        expect(core.exports.sgTableFree(table)).toBe(0);
      }
      expectSound(core);
      expect(before - freeCount(core)).toBeLessThanOrEqual(1); // an object slab stays
    });
  });

  describe("sgSplit()", () => {
    const list: Segment[] = [
      [100, 10, 2 * PS],
      [300, 0, PS],
    ];

    test.each([
      ["all of it", 0, [3 * PS], [list]],
      ["a part inside an entry", PS, [5], [[[101, 10, 5]]]],
      ["an end inside an entry, with more behind it", 0, [PS], [[[100, 10, PS]]]],
      ["a skip to the end of an entry", 2 * PS, [1], [[[300, 0, 1]]]],
      [
        "outputs that share an entry",
        PS,
        [1, PS, PS - 1],
        [
          [[101, 10, 1]],
          [
            [101, 11, PS - 1],
            [300, 0, 1],
          ],
          [[300, 1, PS - 1]],
        ],
      ],
    ])("gives %s", (_, skip, sizes, expected) => {
      const core = build.open(4096);
      const table = tableOf(core, list);
      const outputs = split(core, table, skip, sizes) as number[];
      expect(outputs.map((output) => segments(core, output))).toEqual(expected);
      expect(segments(core, table)).toEqual(list);
      expectSound(core);
      for (const output of [...outputs, table]) expect(core.exports.sgTableFree(output)).toBe(0);
      expectSound(core);
    });

    test("refuses what it must, and leaves the sizes", () => {
      const core = build.open(4096);
      const table = tableOf(core, list);
      expect(split(core, table, 0, [])).toBe(EINVAL);
      expect(split(core, table, 0, [1, 0])).toBe(EINVAL);
      expect(split(core, table, 1, [3 * PS])).toBe(EINVAL);
      expect(split(core, table, 3 * PS, [1])).toBe(EINVAL);
      expect(split(core, table, 0, [ALL, ALL])).toBe(EINVAL);
      expect([...new Uint32Array(core.memory.buffer, core.scratchAt, 2)]).toEqual([ALL, ALL]);
      expect(split(core, table + 1, 0, [1])).toBe(ESTALE);
      expectSound(core);
    });

    test("makes all outputs or none when memory is out", () => {
      const core = build.open(2048);
      const { exports } = core;
      const long = Array.from({ length: 3 }, (): Segment => [100, 0, PS]);
      const table = tableOf(core, long);
      while (exports.frameAlloc(1, 0, ALL) >= 0);
      const sizes = [PS, 2 * PS];
      expect(split(core, table, 0, sizes)).toBe(ENOMEM);
      expect([...new Uint32Array(core.memory.buffer, core.scratchAt, 2)]).toEqual(sizes);
      expectSound(core);
    });

    test("agrees with the naive slices over random lists", () => {
      const seed = fuzzSeed(12);
      const random = new Prng(seed);
      const core = build.open(8192);
      for (let round = 0; round < 200; round++) {
        const label = `seed ${seed}, round ${round}`;
        const source = randomList(random, 8192);
        const total = source.reduce((sum, [, , length]) => sum + length, 0);
        const table = tableOf(core, source);
        const ends = source.map((_, i) =>
          source.slice(0, i + 1).reduce((sum, [, , length]) => sum + length, 0),
        );
        const skip = random.below(3) === 0 ? random.pick([0, ...ends]) : random.below(total);
        const sizes = Array.from({ length: 1 + random.below(6) }, () => 1 + random.below(total));
        const sum = sizes.reduce((a, b) => a + b, 0);
        const outputs = split(core, table, skip, sizes);
        if (skip + sum > total) {
          expect(outputs, label).toBe(EINVAL);
        } else {
          let from = skip;
          for (const [i, size] of sizes.entries()) {
            const output = (outputs as number[])[i] as number;
            expect(segments(core, output), label).toEqual(
              entriesBetween(source, from, from + size),
            );
            from += size;
          }
          if (round % 20 === 0) expectSound(core, label);
          for (const output of outputs as number[]) core.exports.sgTableFree(output);
        }
        expect(core.exports.sgTableFree(table)).toBe(0);
      }
      expectSound(core);
    });
  });
});
