/**
 * The device address ranges of the core, straight on the exports of each build: tables for the
 * shapes, limits and reservations.
 */

import { describe, expect, test } from "vitest";
import { alignment, IovaModel, MAX_PFN } from "../model/iova.model.ts";
import { eachCore } from "../support/cores.ts";
import {
  CoreSpace,
  giveOne,
  type IovaExports,
  LIMIT_32BIT,
  takeAll,
} from "../support/iova-space.ts";

const EINVAL = -22;
const ENOMEM = -12;
const FRAMES = 4096;
/** A space of just the room that a block of 1024 pages asks for. */
const ROOM_PAGES = 65536;
const ROOM_LIMIT = 2 * ROOM_PAGES - 1;

describe.each([...eachCore])("iova, $name", ({ open }) => {
  function opened(startPfn = 1, frames = FRAMES): CoreSpace {
    const space = new CoreSpace(open(frames));
    expect(space.init(startPfn)).toBe(0);
    return space;
  }

  test("iovaInit() refuses page 0, which means none", () => {
    expect(new CoreSpace(open(FRAMES)).init(0)).toBe(EINVAL);
  });

  test.each([
    { name: "sizes", limit: 0xfffff, want: [1, 1, 2, 3, 8, 5, 100] },
    { name: "sizes up to 2^32", limit: MAX_PFN, want: [1, 33, 1000, 1, 64, 70000] },
    { name: "a limit inside the space", limit: 5000, want: [33, 34, 100, 1] },
  ])("iovaAlloc() keeps limit and alignment: $name", ({ limit, want }) => {
    for (const isSizeAligned of [true, false]) {
      const space = opened();
      const model = new IovaModel(1);
      for (const pageCount of want) {
        const pfn = space.alloc(pageCount, limit, isSizeAligned);
        expect(pfn).toBeGreaterThan(0);
        expect(pfn + pageCount - 1).toBeLessThanOrEqual(limit);
        if (isSizeAligned) expect(pfn % alignment(pageCount)).toBe(0);
        expect(model.isFree(pfn, pfn + pageCount - 1)).toBe(true);
        model.insert(pfn, pfn + pageCount - 1);
      }
      expect(space.check()).toBe(0);
      expect(space.rangeCount).toBe(want.length);
    }
  });

  test("a page that is given again is freed once, whatever happened since", () => {
    const space = opened();
    const take = (): number => {
      space.free(space.alloc(1));
      const pfn = space.alloc(1); // as the recent one
      expect(space.find(pfn)).toEqual({ low: pfn, high: pfn });
      expect(space.check()).toBe(0);
      return pfn;
    };
    const freesOnce = (pfn: number): void => {
      const count = space.rangeCount;
      expect(space.free(pfn)).toBe(1);
      expect(space.rangeCount).toBe(count - 1);
      expect(space.free(pfn)).toBe(0);
      expect(space.find(pfn)).toBeUndefined();
      expect(space.check()).toBe(0);
    };
    expect(space.free(0)).toBe(0);
    freesOnce(take());
    expect(space.free(0)).toBe(0);
    const other = space.alloc(1);
    const afterOther = take();
    freesOnce(other); // is the recent one now
    freesOnce(afterOther);
    const pair = space.alloc(2);
    const afterPair = take();
    space.free(pair);
    expect(space.alloc(2)).toBe(pair); // as the recent one of its size
    freesOnce(afterPair);
    const reserved = take();
    expect(space.reserve(reserved, reserved)).toBe(0); // its block is dissolved
    expect(space.check()).toBe(0);
    freesOnce(reserved);
    expect(space.rangeCount).toBe(1); // the pair
  });

  // Sizes that no block serves: the place is the highest that fits.
  test.each([
    { name: "aligned 3 takes a multiple of 4", steps: [[3, 15, 1]], want: [12] },
    {
      name: "behind the padding of another",
      steps: [
        [5, 31, 1],
        [3, 31, 1],
      ],
      want: [24, 20],
    },
    {
      name: "unaligned packs",
      steps: [
        [3, 15, 0],
        [3, 15, 0],
        [5, 15, 1],
      ],
      want: [13, 10, 0],
    },
    { name: "the last page of all", steps: [[3, MAX_PFN, 0]], want: [MAX_PFN - 2] },
    {
      name: "the limit cuts a gap",
      steps: [
        [3, 1000, 0],
        [3, 500, 0],
      ],
      want: [998, 498],
    },
    {
      name: "exactly the space",
      steps: [
        [15, 15, 0],
        [1, 15, 0],
      ],
      want: [1, 0],
    },
    { name: "one page too long", steps: [[16, 15, 0]], want: [0] },
    { name: "page 0 is no multiple", steps: [[9, 15, 1]], want: [0] },
    {
      name: "no pages",
      steps: [
        [0, 15, 0],
        [0, MAX_PFN, 1],
      ],
      want: [0, 0],
    },
    { name: "half of all", steps: [[0x80000000, MAX_PFN, 1]], want: [0x80000000] },
    { name: "more than half aligned", steps: [[0x80000001, MAX_PFN, 1]], want: [0] },
    {
      name: "all pages",
      steps: [
        [MAX_PFN, MAX_PFN, 0],
        [1, MAX_PFN, 0],
      ],
      want: [1, 0],
    },
    { name: "a limit below the start", steps: [[1, 0, 0]], want: [0] },
  ] as { name: string; steps: [number, number, number][]; want: number[] }[])(
    "iovaAlloc() finds the highest fit: $name",
    ({ steps, want }) => {
      const space = opened();
      expect(steps.map(([pages, limit, aligned]) => space.alloc(pages, limit, !!aligned))).toEqual(
        want,
      );
      expect(space.check()).toBe(0);
    },
  );

  test("iovaAlloc() with limit 15 hands out every page, then none", () => {
    const space = opened();
    const pages = new Set<number>();
    for (let pfn = space.alloc(1, 15); pfn !== 0; pfn = space.alloc(1, 15)) pages.add(pfn);
    expect([...pages].sort((a, b) => a - b)).toEqual([
      1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
    ]);
    expect(space.free(7)).toBe(1);
    expect(space.alloc(1, 15)).toBe(7);
    expect(space.check()).toBe(0);
  });

  test("iovaAlloc() gives the pages that a block keeps before it fails", () => {
    const space = opened(ROOM_PAGES);
    const small = [1, 1, 20].map((pages) => space.alloc(pages, ROOM_LIMIT));
    const low = Math.min(...small);
    expect(space.alloc(low - ROOM_PAGES, ROOM_LIMIT, false)).toBe(ROOM_PAGES);
    expect(small.map((pfn) => space.find(pfn))).toEqual(
      small.map((pfn, i) => ({ low: pfn, high: pfn + (i === 2 ? 19 : 0) })),
    );
    expect(space.rangeCount).toBe(4);
    expect(space.check()).toBe(0);
    expect(small.map((pfn) => space.free(pfn))).toEqual([1, 1, 20]);
    expect(space.check()).toBe(0);
  });

  test.each([32, 29])("a full block that is dissolved leaves ranges of %i pages alone", (pages) => {
    for (const kept of [[0], [0, 31], [31], [0, 1, 2], []]) {
      const space = opened(ROOM_PAGES);
      const base = ROOM_LIMIT + 1 - 1024;
      for (let slot = 31; slot >= 0; slot--)
        expect(space.alloc(pages, ROOM_LIMIT)).toBe(base + 32 * slot);
      expect(space.alloc(base - ROOM_PAGES, ROOM_LIMIT, false)).toBe(ROOM_PAGES);
      for (let slot = 0; slot < 32; slot++) {
        if (!kept.includes(slot)) expect(space.free(base + 32 * slot)).toBe(pages);
      }
      const model = new IovaModel(base);
      for (const slot of kept) model.insert(base + 32 * slot, base + 32 * slot + pages - 1);
      let left = 1024;
      while (model.fit(left, ROOM_LIMIT, false) === 0) left -= 1;
      expect(space.alloc(left, ROOM_LIMIT, false)).toBe(model.fit(left, ROOM_LIMIT, false));
      expect(space.check()).toBe(0);
      for (const slot of kept) {
        const low = base + 32 * slot;
        expect(space.find(low)).toEqual({ low, high: low + pages - 1 });
        expect(space.free(low + 5)).toBe(pages);
      }
      expect(space.check()).toBe(0);
    }
  });

  test("the tail of a slot belongs to nobody until the block is dissolved", () => {
    const space = opened(ROOM_PAGES);
    const pfn = space.alloc(17, ROOM_LIMIT);
    expect(pfn % 32).toBe(0);
    expect([space.free(pfn + 17), space.free(pfn + 31)]).toEqual([0, 0]);
    expect(space.find(pfn + 17)).toBeUndefined();
    expect(space.reserve(pfn + 17, pfn + 31)).toBe(0);
    expect(space.list(pfn, pfn + 31)).toBe(`${pfn}-${pfn + 16} ${pfn + 17}-${pfn + 31}`);
    expect(space.check()).toBe(0);
  });

  test.each([1, 2, 4, 8])("the range of %i pages freed last is free, and given again", (pages) => {
    const space = opened(ROOM_PAGES);
    const pfns = [space.alloc(pages, ROOM_LIMIT), space.alloc(pages, ROOM_LIMIT)];
    const [first, second] = pfns as [number, number];
    expect(space.free(first + pages - 1)).toBe(pages);
    expect(space.free(first)).toBe(0);
    expect(space.find(first)).toBeUndefined();
    expect(space.rangeCount).toBe(1);
    expect(space.check()).toBe(0);
    const below = space.alloc(pages, first + pages - 2);
    expect(below + pages - 1).toBeLessThan(first + pages - 1);
    expect(space.free(below)).toBe(pages);
    expect(space.alloc(pages, ROOM_LIMIT)).toBe(first);
    expect([first, second].map((pfn) => space.free(pfn))).toEqual([pages, pages]);
    expect(space.alloc(ROOM_PAGES, ROOM_LIMIT, false)).toBe(ROOM_PAGES); // all there is
    expect(space.check()).toBe(0);
  });

  test.each([1, 2, 4, 8])("slots of %i pages that no memory is left to dissolve", (pages) => {
    const space = opened(ROOM_PAGES);
    const pfns = Array.from({ length: 1024 / pages }, () => space.alloc(pages, ROOM_LIMIT));
    const kept = pfns.filter((pfn, i) => i % 2 === 0 || space.free(pfn) !== pages);
    const taken = takeAll(space.exports);
    expect(space.reserve(ROOM_PAGES, ROOM_LIMIT)).toBe(ENOMEM);
    expect(space.check()).toBe(0);
    for (const pfn of kept) {
      expect(space.free(pfn)).toBe(pages);
      expect(space.free(pfn)).toBe(0);
      expect(space.find(pfn)).toBeUndefined();
      expect(space.check()).toBe(0);
    }
    expect(space.rangeCount).toBe(0);
    for (let i = 0; i < 8; i++) giveOne(space.exports, taken);
    expect(space.alloc(ROOM_PAGES, ROOM_LIMIT, false)).toBe(ROOM_PAGES); // all there is
    expect(space.check()).toBe(0);
  });

  test("iovaFree() takes any page of a range, once", () => {
    for (const pageCount of [1, 2, 3, 8, 9, 32, 33, 1000, 5000]) {
      const space = opened();
      for (const inside of [0, 1, pageCount >> 1, pageCount - 1]) {
        if (inside >= pageCount) continue;
        const pfn = space.alloc(pageCount);
        expect(space.find(pfn + inside)).toEqual({ low: pfn, high: pfn + pageCount - 1 });
        expect(space.free(pfn + inside)).toBe(pageCount);
        expect(space.free(pfn + inside)).toBe(0);
        expect(space.find(pfn)).toBeUndefined();
      }
      expect(space.rangeCount).toBe(0);
      expect(space.check()).toBe(0);
    }
  });

  test("iovaFree() and iovaFind() know nothing of pages that nobody has", () => {
    const space = opened();
    const pfn = space.alloc(100);
    for (const other of [0, 1, pfn - 1, pfn + 100, LIMIT_32BIT + 1, MAX_PFN]) {
      expect(space.free(other)).toBe(0);
      expect(space.find(other)).toBeUndefined();
    }
    expect(space.rangeCount).toBe(1);
  });

  test.each([
    {
      name: "three that overlap",
      steps: [
        [10, 20],
        [15, 30],
        [5, 12],
      ],
      want: "5-20 21-30",
    },
    {
      name: "over two and the hole",
      steps: [
        [10, 20],
        [30, 40],
        [5, 50],
      ],
      want: "5-20 21-40 41-50",
    },
    {
      name: "inside of one",
      steps: [
        [10, 20],
        [12, 15],
      ],
      want: "10-20",
    },
    {
      name: "exactly one",
      steps: [
        [10, 20],
        [10, 20],
      ],
      want: "10-20",
    },
    {
      name: "beside one",
      steps: [
        [10, 20],
        [21, 30],
        [5, 9],
      ],
      want: "5-9 10-20 21-30",
    },
    { name: "from page 0", steps: [[0, 5]], want: "1-5" },
    { name: "page 0 alone", steps: [[0, 0]], want: "" },
  ] as { name: string; steps: [number, number][]; want: string }[])(
    "iovaReserve() merges like Linux: $name",
    ({ steps, want }) => {
      const space = opened();
      for (const [low, high] of steps) expect(space.reserve(low, high)).toBe(0);
      expect(space.list(0, 60)).toBe(want);
      expect(space.check()).toBe(0);
    },
  );

  test("iovaReserve() reaches the last page, and refuses an empty or turned range", () => {
    const space = opened();
    expect(space.reserve(MAX_PFN - 9, MAX_PFN)).toBe(0);
    expect(space.find(MAX_PFN)).toEqual({ low: MAX_PFN - 9, high: MAX_PFN });
    expect(space.alloc(100, MAX_PFN, false)).toBe(MAX_PFN - 109);
    expect(space.exports.iovaReserve(space.at, 7, 7)).toBe(EINVAL);
    expect(space.exports.iovaReserve(space.at, 8, 7)).toBe(EINVAL);
    expect(space.check()).toBe(0);
  });

  test("iovaReserve() cuts through blocks of small ranges", () => {
    const space = opened();
    const small = Array.from({ length: 40 }, () => space.alloc(4));
    const first = Math.min(...small);
    expect(space.reserve(first - 10, first + 10)).toBe(0);
    expect(space.check()).toBe(0);
    expect(space.find(first - 1)).toEqual({ low: first - 10, high: first + 3 });
    expect(new Set(small.map((pfn) => space.free(pfn)))).toEqual(new Set([4, 14]));
    expect(space.check()).toBe(0);
  });

  test("iovaFini() gives every frame back", () => {
    const core = open(FRAMES);
    const space = new CoreSpace(core);
    const free = () => countFree(space.exports);
    const before = free();
    for (const startPfn of [1, 1, 256]) {
      expect(space.init(startPfn)).toBe(0);
      for (let i = 0; i < 3000; i++) expect(space.alloc(1 + (i % 70))).toBeGreaterThan(0);
      space.exports.iovaFini(space.at);
      space.exports.iovaFini(space.at); // nothing to do
      expect(free()).toBe(before);
    }
  });
});

function countFree(exports: IovaExports): number {
  const taken = takeAll(exports);
  const count = taken.length;
  while (taken.length > 0) giveOne(exports, taken);
  return count;
}
