// pages(pgoffset) begins at its first page by bisection: the same pages as a walk, in few steps.

import { describe, expect, test, vi } from "vitest";
import { MiB, type SgEntry, type SgTable, type System } from "../../../src/index.ts";
import { eachCore } from "../../support/cores.ts";
import { fuzzSeed, Prng } from "../../support/prng.ts";

const PS = 4096;
const RUN = 1000; // frames taken at a time
const [SHORT, LONG] = [500, 10_000];

/** All pages of the entries, as a walk finds them. */
const walked = (entries: Iterable<SgEntry>): number[] =>
  [...entries].flatMap(({ pfn, offset, lengthBytes }) =>
    Array.from({ length: Math.ceil((offset + lengthBytes) / PS) }, (_, i) => pfn + i),
  );

/** `count` frames that no two of are neighbours. */
function scattered(system: System, count: number): number[] {
  const frames: number[] = [];
  while (frames.length < count) {
    const { pfn } = system.frames.alloc(RUN);
    for (let i = 0; i < RUN && frames.length < count; i += 2) frames.push(pfn + i);
  }
  return frames;
}

/** Words of the core's memory that are read to find the first page from page `pgoffset` on. */
function steps(system: System, table: SgTable, pgoffset: number): number {
  const word = vi.spyOn(system.core, "word");
  expect(table.pages(pgoffset).next().done).toBe(false);
  const count = word.mock.calls.length;
  word.mockRestore();
  return count;
}

describe.each(eachCore)("pages() on the $name core", (build) => {
  /** The table of `count` entries of each kind; the starts of its pages are not yet asked for. */
  const kinds: Record<string, (system: System, count: number) => SgTable> = {
    "listed frames": (system, count) =>
      system.sgTableFromFrames(scattered(system, count), {
        offset: 7,
        lengthBytes: PS * count - 9,
      }),
    "a part of another": (system, count) =>
      system
        .sgTableFromFrames(scattered(system, count + 1))
        .split([PS * count - 5], 3)[0] as SgTable,
    "listed segments": (system, count) =>
      system.sgTableFromList(
        scattered(system, count).map((pfn) => ({ pfn, offset: 0, lengthBytes: PS })),
      ),
    "appended frames": (system, count) => {
      const frames = scattered(system, count);
      const table = system.sgTableFromFrames(frames.slice(0, count / 2));
      table.append(frames.slice(count / 2), { lengthBytes: (PS * count) / 2 - 1 });
      return table;
    },
  };

  test.each(Object.entries(kinds))("of %s takes no more steps in a long table", (_, make) => {
    const system = build.system({ memoryBytes: 128 * MiB });
    const count = (entries: number): number => steps(system, make(system, entries), entries - 10);
    const inShort = count(SHORT);
    expect(count(LONG)).toBeLessThan(2 * inShort);
  });

  test("of short segments walks once, and again when the table has grown", () => {
    const system = build.system({ memoryBytes: 128 * MiB });
    const frames = scattered(system, LONG);
    const table = system.sgTableFromList(
      frames.map((pfn) => ({ pfn, offset: 4000, lengthBytes: 10 })),
    );
    const whole = steps(system, table, LONG - 1);
    expect(steps(system, table, LONG - 1)).toBeLessThan(whole / 100);
    table.append(frames.slice(0, 2));
    expect([...table.pages(LONG - 1)]).toEqual([...frames.slice(-1), ...frames.slice(0, 2)]);
    expect(steps(system, table, LONG)).toBeLessThan(whole / 100);
  });

  test("is what a walk finds, from every page on, over seeded tables that grow and split", () => {
    const seed = fuzzSeed(31);
    const random = new Prng(seed);
    for (let round = 0; round < 60; round++) {
      const system = build.system({ memoryBytes: 8 * MiB });
      const { pfn } = system.frames.alloc(64);
      const frames = Array.from({ length: 1 + random.below(8) }, () => pfn + random.below(60));
      const first = random.below(2) === 0 ? system.sgTableFromFrames(frames) : listed(frames);
      const tables = [first];
      first.append([pfn + 1, pfn + 9], { lengthBytes: PS + 1 + random.below(PS) });
      tables.push(...first.split([1 + random.below(first.lengthBytes - 1)]));
      first.append([pfn + 2, pfn + 3]);
      for (const table of tables) {
        const pages = walked(table.entries());
        for (let from = 0; from <= pages.length + 2; from++)
          expect([...table.pages(from)], `seed ${seed}, round ${round}`).toEqual(pages.slice(from));
      }
      function listed(pfns: number[]): SgTable {
        const entries = pfns.map((one, i) => {
          const offset = i > 0 && random.below(2) === 0 ? 0 : random.below(PS);
          const toEnd = random.below(2) === 0;
          return { pfn: one, offset, lengthBytes: toEnd ? PS - offset : 1 + random.below(2 * PS) };
        });
        return system.sgTableFromList(entries);
      }
    }
  });
});
