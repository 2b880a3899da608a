/**
 * The device address ranges of the core and their naive twin: seeded random events, and events
 * without memory.
 */

import { describe, expect, test } from "vitest";
import { alignment, IovaModel, MAX_PFN } from "../model/iova.model.ts";
import { eachCore } from "../support/cores.ts";
import { CoreSpace, expectSame, giveOne, LIMIT_32BIT, takeAll } from "../support/iova-space.ts";
import { Prng } from "../support/prng.ts";

const ENOMEM = -12;
const FRAMES = 4096;

describe.each([...eachCore])("iova, $name", ({ open }) => {
  test("without memory an allocation or reservation fails and changes no range", () => {
    const space = new CoreSpace(open(FRAMES));
    const taken = takeAll(space.exports);
    expect(space.init(1)).toBe(ENOMEM);
    for (let i = 0; i < 4; i++) giveOne(space.exports, taken);
    expect(space.init(1)).toBe(0);
    const model = new IovaModel(1);
    const random = new Prng(7);
    let refused = 0;
    for (let i = 0; i < 4000; i++) {
      if (i % 500 === 499) giveOne(space.exports, taken);
      const pageCount = 1 + random.below(60);
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
      const space = new CoreSpace(open(FRAMES));
      expect(space.init(startOf(seed))).toBe(0);
      fuzz(space, new Prng(seed), seed);
    }
  });
});

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
function fuzz(space: CoreSpace, random: Prng, seed: number): void {
  const model = new IovaModel(startOf(seed));
  const shape = SHAPES[seed % SHAPES.length] as (typeof SHAPES)[number];
  for (let event = 0; event < 7500; event++) {
    const why = `(seed ${seed}, event ${event})`;
    const target = shape.live * (0.3 + random.below(100) / 100);
    const kind = random.below(100);
    if (kind < 90) {
      if (model.ranges.length < target) fuzzAlloc(space, model, random, shape, why);
      else fuzzFree(space, model, random.pick(model.ranges).high, why);
    } else if (kind < 98) {
      const pfn = random.below(shape.top);
      const found = space.find(pfn);
      if (JSON.stringify(found) !== JSON.stringify(model.find(pfn))) throw new Error(`find ${why}`);
      if (kind < 92) fuzzFree(space, model, pfn, why);
    } else {
      const low = random.below(20) === 0 ? MAX_PFN - random.below(50) : random.below(shape.top);
      const high = Math.min(MAX_PFN, low + random.below(random.below(10) === 0 ? 3000 : 30));
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
  random: Prng,
  shape: (typeof SHAPES)[number],
  why: string,
): void {
  const pageCount = random.below(3) === 0 ? 2 ** random.below(6) : 1 + random.below(shape.maxPages);
  const limit = random.below(4) === 0 ? random.below(shape.top) : shape.top;
  const isSizeAligned = random.below(4) > 0;
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
