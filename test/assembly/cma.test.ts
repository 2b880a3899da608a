import { describe, expect, test } from "vitest";
import { type CoreVariant, eachCore, type TestCore } from "../support/cores.ts";
import { fuzzSeed, Prng } from "../support/prng.ts";
import { expectSound, freeCount } from "../support/sound.ts";

const EBUSY = -16;
const EINVAL = -22;
const ENOENT = -2;
const ENOMEM = -12;
const ESTALE = -116;
const CMA = 5;
const SLAB = 7;

interface Opened extends TestCore {
  readonly region: number;
  readonly basePfn: number;
}

/** A core of 8192 frames with a region of `frames` frames at its top. */
function withRegion(build: CoreVariant, frames = 2048, orderPerBit = 0): Opened {
  const core = build.open(8192);
  const basePfn = 8192 - frames;
  return { ...core, region: core.exports.cmaDeclare(basePfn, frames, orderPerBit), basePfn };
}

describe.each(eachCore)("cma on the $name core", (build) => {
  test.each([
    ["no frames", 4096, 0, 0, EINVAL],
    ["a base inside a pageblock", 4097, 1024, 0, EINVAL],
    ["a size that is no multiple of a pageblock", 4096, 1000, 0, EINVAL],
    ["frames beyond memory", 8192, 1024, 0, EINVAL],
    ["an order per bit above a pageblock", 4096, 1024, 11, EINVAL],
    ["frames that somebody holds", 0, 1024, 0, EBUSY],
  ])("cmaDeclare() refuses %s", (_, base, frames, orderPerBit, code) => {
    const core = build.open(8192);
    const before = freeCount(core);
    expect(core.exports.cmaDeclare(base, frames, orderPerBit)).toBe(code);
    expect(freeCount(core)).toBe(before);
    expectSound(core);
  });

  test("cmaAlloc() is first-fit with alignment, from the region's start", () => {
    const { exports, region, basePfn } = withRegion(build);
    expect(exports.cmaAlloc(region, 3, 0)).toBe(basePfn);
    expect(exports.cmaAlloc(region, 4, 2)).toBe(basePfn + 4);
    expect(exports.cmaAlloc(region, 1, 0)).toBe(basePfn + 3);
    expect(exports.cmaRelease(region, basePfn + 1, 1)).toBe(0);
    expect(exports.cmaAlloc(region, 1, 0)).toBe(basePfn + 1);
    expectSound({ exports });
  });

  test.each([
    ["no frames", 0, 0, EINVAL],
    ["more than the region", 2049, 0, EINVAL],
    ["a count that wraps", 0xffffffff, 0, EINVAL],
    ["an alignment beyond 2^31", 1, 32, EINVAL],
    ["an alignment that no place has", 1, 31, ENOMEM],
  ])("cmaAlloc() refuses %s", (_, frames, alignOrder, code) => {
    const core = withRegion(build);
    expect(core.exports.cmaAlloc(core.region, frames, alignOrder)).toBe(code);
    expect(core.exports.frameCountIn(CMA)).toBe(0);
    expectSound(core);
  });

  test("cmaRelease() refuses what it does not hold, and a second release", () => {
    const core = withRegion(build);
    const { exports, region, basePfn } = core;
    const pfn = exports.cmaAlloc(region, 10, 0);
    for (const [first, count, code] of [
      [basePfn - 1, 1, EINVAL],
      [8192, 1, EINVAL],
      [pfn, 0, EINVAL],
      [pfn, 2049, EINVAL],
      [pfn, 11, ENOENT],
      [pfn + 10, 1, ENOENT],
    ]) {
      expect(exports.cmaRelease(region, first, count)).toBe(code);
      expect(exports.frameCountIn(CMA)).toBe(10);
    }
    exports.pinRange(pfn + 9, 1);
    expect(exports.cmaRelease(region, pfn, 10)).toBe(EBUSY);
    exports.unpinRange(pfn + 9, 1);
    expect(exports.frameFree(pfn, 10)).toBe(ENOENT); // not the pool's frames
    expect(exports.cmaRelease(region, pfn, 10)).toBe(0);
    expect(exports.cmaRelease(region, pfn, 10)).toBe(ENOENT);
    expectSound(core);
  });

  test.each([1, 10])(
    "a release is judged alike while something else is pinned (N12): %i frames",
    (n) => {
      const core = withRegion(build);
      const { exports, region } = core;
      const [pfn, other] = [exports.cmaAlloc(region, n, 0), exports.cmaAlloc(region, 1, 0)];
      for (const isPinned of [true, false]) {
        if (isPinned) expect(exports.pinRange(other, 1)).toBe(0);
        expect(exports.cmaRelease(region, pfn, n)).toBe(0);
        expect(exports.cmaRelease(region, pfn, n)).toBe(ENOENT);
        expect(exports.cmaRelease(region, other, 1)).toBe(isPinned ? EBUSY : 0);
        expectSound(core);
        if (isPinned) expect(exports.unpinRange(other, 1)).toBe(0);
        if (isPinned) expect(exports.cmaAlloc(region, n, 0)).toBe(pfn);
      }
      expect(exports.frameCountIn(CMA)).toBe(0);
    },
  );

  test("a stale or forged region handle is ESTALE", () => {
    const core = withRegion(build);
    const { region } = core;
    const neighbours = [region + 1, region + (1 << 18), region - (1 << 18), region + 2 ** 31];
    const header = region & ~63; // the place of its slab's header
    const slabless = Array.from({ length: 64 }, (_, place) => region + 64 * 63 + place);
    for (const handle of [0, 1, 16, 63, ...neighbours, header, ...slabless, 0x7fffffff, -1]) {
      expect(core.exports.cmaAlloc(handle, 1, 0)).toBe(ESTALE);
      expect(core.exports.cmaRelease(handle, core.basePfn, 1)).toBe(ESTALE);
    }
  });

  test("what lay in a slab's frame before is no object (R7)", () => {
    const { exports, memory } = withRegion(build);
    const pfn = exports.frameAlloc(1, 0, 0xffffffff);
    const forged = (5 << 18) | (1 << 6) | 40; // place 40 of slab 1, which there is not yet
    const record = new Uint32Array(memory.buffer, pfn * 4096 + 40 * 64, 16);
    record.set([1, forged, 1, 0]); // a region, as it would lie there
    exports.frameFree(pfn, 1);
    for (let i = 0; i < 64; i++) expect(exports.fenceAlloc(1, i)).toBeGreaterThan(0);
    expect(exports.frameWord(pfn) & 15).toBe(SLAB);
    expect(exports.cmaAlloc(forged, 1, 0)).toBe(ESTALE);
    expect(exports.cmaRelease(forged, 0, 1)).toBe(ESTALE);
  });

  test("a bit of several frames is taken and released whole", () => {
    const core = withRegion(build, 1024, 2);
    const { exports, region, basePfn } = core;
    expect(exports.cmaAlloc(region, 5, 0)).toBe(basePfn); // two bits
    expect(exports.frameCountIn(CMA)).toBe(8);
    expect(exports.cmaAlloc(region, 1, 0)).toBe(basePfn + 8);
    expect(exports.cmaRelease(region, basePfn, 5)).toBe(0);
    expect(exports.frameCountIn(CMA)).toBe(4);
    expect(exports.cmaLargestFree(region)).toBe(1024 - 12);
    expectSound(core);
  });

  test("a region of frames without bytes can be larger than memory", () => {
    const core = build.openUnbacked(2048, 262_144);
    const { exports } = core;
    const region = exports.cmaDeclare(2048, 262_144, 0);
    expect(region).toBeGreaterThan(0);
    expect(exports.cmaAlloc(region, 200_000, 10)).toBe(2048);
    expect(exports.cmaAlloc(region, 62_144, 0)).toBe(2048 + 200_000);
    expect(exports.cmaAlloc(region, 1, 0)).toBe(ENOMEM);
    expectSound(core);
  });

  test("agrees with a first-fit model over seeded random events", () => {
    const seed = fuzzSeed(77);
    const random = new Prng(seed);
    const core = withRegion(build, 1024);
    const { exports, region, basePfn } = core;
    const taken = new Array<boolean>(1024).fill(false);
    const live: { bit: number; count: number }[] = [];
    for (let event = 0; event < 4000; event++) {
      const label = `seed ${seed}, event ${event}`;
      if (random.below(100) < 60) {
        const count = 1 + random.below(random.below(5) === 0 ? 100 : 6);
        const order = random.below(2) === 0 ? 0 : random.below(7);
        const bit = firstFit(taken, count, 2 ** order);
        const got = exports.cmaAlloc(region, count, order);
        expect(got, label).toBe(bit < 0 ? ENOMEM : basePfn + bit);
        if (bit < 0) continue;
        taken.fill(true, bit, bit + count);
        live.push({ bit, count });
      } else if (live.length > 0) {
        const [run] = live.splice(random.below(live.length), 1);
        if (run === undefined) continue;
        expect(exports.cmaRelease(region, basePfn + run.bit, run.count), label).toBe(0);
        taken.fill(false, run.bit, run.bit + run.count);
      }
      if (event % 3 === 0) expect(exports.cmaLargestFree(region), label).toBe(longestFree(taken));
      if (event % 100 === 0) expectSound(core, label);
    }
    expectSound(core, `seed ${seed}`);
  });
});

/** The lowest place for `count` bits at a multiple of `align`, or -1. */
function firstFit(taken: boolean[], count: number, align: number): number {
  for (let bit = 0; bit + count <= taken.length; bit += align) {
    if (!taken.slice(bit, bit + count).includes(true)) return bit;
  }
  return -1;
}

function longestFree(taken: boolean[]): number {
  let longest = 0;
  let length = 0;
  for (const isTaken of taken) {
    length = isTaken ? 0 : length + 1;
    longest = Math.max(longest, length);
  }
  return longest;
}
