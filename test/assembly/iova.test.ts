/**
 * The device address ranges of the core, straight on the exports of each build: tables for the
 * shapes, limits and reservations, then seeded random events on the core and on its naive twin.
 */

import { describe, expect, test } from "vitest";
import { alignment, IovaModel, MAX_PFN, type ModelRange } from "../model/iova.model.ts";
import { eachCore } from "../support/cores.ts";

/** The exports under test, by the names that `assembly/iova.ts` gives them. */
interface IovaExports {
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

type Core = ReturnType<(typeof eachCore)[number]["open"]>;

const EINVAL = -22;
const ENOMEM = -12;
const SPACE_BYTES = 64;
const FRAMES = 4096;
const LIMIT_32BIT = 2 ** 20 - 1;
/** A space of just the room that a block of 1024 pages asks for. */
const ROOM_PAGES = 65536;
const ROOM_LIMIT = 2 * ROOM_PAGES - 1;

/** The core's space with the calls of its model. */
class CoreSpace {
  readonly at: number;
  readonly memory: WebAssembly.Memory;
  readonly exports: IovaExports;

  constructor(core: Core) {
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

  /** All ranges from the top down, found page by page; only for spaces of a few pages. */
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

/** Numbers below `n`, the same for the same seed. */
function random(seed: number): (n: number) => number {
  let state = (Math.imul(seed, 2654435761) ^ 0x9e3779b9) >>> 0 || 1;
  const next = () => {
    state = (state ^ (state << 13)) >>> 0;
    state = (state ^ (state >>> 17)) >>> 0;
    state = (state ^ (state << 5)) >>> 0;
    return state;
  };
  for (let i = 0; i < 8; i++) next();
  return (n) => Math.floor((next() / 2 ** 32) * n);
}

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

  test("without memory an allocation or reservation fails and changes no range", () => {
    const space = new CoreSpace(open(FRAMES));
    const taken = takeAll(space.exports);
    expect(space.init(1)).toBe(ENOMEM);
    for (let i = 0; i < 4; i++) giveOne(space.exports, taken);
    expect(space.init(1)).toBe(0);
    const model = new IovaModel(1);
    const r = random(7);
    let refused = 0;
    for (let i = 0; i < 4000; i++) {
      if (i % 500 === 499) giveOne(space.exports, taken);
      const pageCount = 1 + r(60);
      const pfn = space.alloc(pageCount);
      if (pfn !== 0) {
        expect(model.isFree(pfn, pfn + pageCount - 1)).toBe(true);
        model.insert(pfn, pfn + pageCount - 1);
      } else {
        refused += 1;
        const low = 5 + 40 * (i % 1000);
        const reserved = space.reserve(low, low);
        expect([0, ENOMEM]).toContain(reserved);
        if (reserved === 0) model.reserve(low, low);
      }
      if (i % 100 === 0) expectSame(space, model);
    }
    expect(refused).toBeGreaterThan(0);
    expectSame(space, model);
    for (const range of [...model.ranges])
      expect(space.free(range.high)).toBe(model.free(range.low));
    expectSame(space, model);
  });

  test("random events on the core and its twin agree", () => {
    for (const seed of [1, 2, 3, 4, 5, 6, (Date.now() ^ process.pid) >>> 0]) {
      fuzz(opened(startOf(seed)), random(seed), seed);
    }
  });
});

/** Takes every frame that is left, one by one. */
function takeAll(exports: IovaExports): number[] {
  const taken: number[] = [];
  let pfn = exports.frameAlloc(1, 0, MAX_PFN);
  while (pfn >= 0) {
    taken.push(pfn);
    pfn = exports.frameAlloc(1, 0, MAX_PFN);
  }
  return taken;
}

function giveOne(exports: IovaExports, taken: number[]): void {
  expect(exports.frameFree(taken.pop() as number, 1)).toBe(0);
}

function countFree(exports: IovaExports): number {
  const taken = takeAll(exports);
  const count = taken.length;
  while (taken.length > 0) giveOne(exports, taken);
  return count;
}

function expectSame(space: CoreSpace, model: IovaModel, why = ""): void {
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

function startOf(seed: number): number {
  return (seed % 3) * 100 + 1;
}

const SHAPES = [
  { top: 1000, maxPages: 64, live: 60 },
  { top: 4095, maxPages: 300, live: 150 },
  { top: LIMIT_32BIT, maxPages: 1024, live: 900 },
  { top: MAX_PFN, maxPages: 1024, live: 900 },
  { top: 100000, maxPages: 33, live: 2500 },
  { top: 140000, maxPages: 300, live: 900 },
];

/** 7500 events: enough for a few splits and joins at each level, and for blocks that dissolve. */
function fuzz(space: CoreSpace, r: (n: number) => number, seed: number): void {
  const model = new IovaModel(startOf(seed));
  const shape = SHAPES[seed % SHAPES.length] as (typeof SHAPES)[number];
  for (let event = 0; event < 7500; event++) {
    const why = `(seed ${seed}, event ${event})`;
    const target = shape.live * (0.3 + r(100) / 100);
    const kind = r(100);
    if (kind < 90) {
      if (model.ranges.length < target) fuzzAlloc(space, model, r, shape, why);
      else fuzzFree(space, model, (model.ranges[r(model.ranges.length)] as ModelRange).high, why);
    } else if (kind < 98) {
      const pfn = r(shape.top);
      const found = space.find(pfn);
      if (JSON.stringify(found) !== JSON.stringify(model.find(pfn))) throw new Error(`find ${why}`);
      if (kind < 92) fuzzFree(space, model, pfn, why);
    } else {
      const low = r(20) === 0 ? MAX_PFN - r(50) : r(shape.top);
      const high = Math.min(MAX_PFN, low + r(r(10) === 0 ? 3000 : 30));
      if (space.reserve(low, high) !== 0) throw new Error(`reserve ${why}`);
      model.reserve(low, high);
    }
    if (event % 250 === 0) expectSame(space, model, why);
  }
  expectSame(space, model, `(seed ${seed}, end)`);
}

function fuzzAlloc(
  space: CoreSpace,
  model: IovaModel,
  r: (n: number) => number,
  shape: (typeof SHAPES)[number],
  why: string,
): void {
  const pageCount = r(3) === 0 ? 2 ** r(6) : 1 + r(shape.maxPages);
  const limit = r(4) === 0 ? r(shape.top) : shape.top;
  const isSizeAligned = r(4) > 0;
  const pfn = space.alloc(pageCount, limit, isSizeAligned);
  const what = `alloc(${pageCount}, ${limit}, ${isSizeAligned}) = ${pfn} ${why}`;
  if (pfn === 0) {
    const fit = model.fit(pageCount, limit, isSizeAligned);
    if (fit !== 0) throw new Error(`${what}, but ${fit} fits`);
    return;
  }
  const high = pfn + pageCount - 1;
  if (high > limit) throw new Error(`${what} leaves the limit`);
  if (isSizeAligned && pfn % alignment(pageCount) !== 0) throw new Error(`${what} is not aligned`);
  if (!model.isFree(pfn, high)) throw new Error(`${what} overlaps`);
  model.insert(pfn, high);
}

function fuzzFree(space: CoreSpace, model: IovaModel, pfn: number, why: string): void {
  const want = model.free(pfn);
  const got = space.free(pfn);
  if (got !== want) throw new Error(`free(${pfn}) = ${got}, not ${want} ${why}`);
}
