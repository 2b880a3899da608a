import { describe, expect, test } from "vitest";
import { eachCore, type TestCore } from "../support/cores.ts";
import { fuzzSeed, Prng } from "../support/prng.ts";
import { expectSound, freeCount } from "../support/sound.ts";

const NONE = 0xffffffff;
const EBUSY = -16;
const EINVAL = -22;
const ENOENT = -2;
const ENOMEM = -12;
const FREE_STATES = new Set([0, 1]);
const OWNED = 3;

function isFree({ exports }: TestCore, pfn: number): boolean {
  return FREE_STATES.has(exports.frameWord(pfn) & 15);
}

describe.each(eachCore)("frames on the $name core", (build) => {
  describe("frameAlloc()", () => {
    test.each([
      [1, 0],
      [2, 0],
      [3, 0],
      [5, 3],
      [7, 0],
      [64, 6],
      [100, 10],
      [1024, 10],
    ])("gives exactly %i frames aligned to order %i", (count, order) => {
      const core = build.open(8192);
      const before = freeCount(core);
      const pfn = core.exports.frameAlloc(count, order, NONE);
      expect(pfn).toBeGreaterThan(0);
      expect(pfn % 2 ** order).toBe(0);
      expect(freeCount(core)).toBe(before - count);
      expectSound(core);
      expect(core.exports.frameFree(pfn, count)).toBe(0);
      expect(freeCount(core)).toBe(before);
      expectSound(core);
    });

    test.each([NONE, "the end"])("takes the smallest block of 64 frames, below %s", (below) => {
      const core = build.open(4096);
      const { frameAlloc, frameFree, magazineDrain } = core.exports;
      const pfn = frameAlloc(64, 6, NONE);
      while (frameAlloc(1, 0, NONE) > 0);
      frameFree(pfn, 32);
      frameFree(pfn + 40, 1);
      magazineDrain();
      const pfnEnd = below === NONE ? NONE : pfn + 64;
      expect(frameAlloc(2, 0, pfnEnd)).toBe(pfn);
      expect(frameFree(pfn, 2)).toBe(0);
      expect(core.exports.frameAllocOf(2, 1, 0, pfnEnd)).toBe(pfn + 40);
      expectSound(core);
    });

    test.each([
      ["no frames", 0, 0, NONE, EINVAL],
      ["more than the largest block", 1025, 0, NONE, EINVAL],
      ["an alignment above the largest order", 1, 11, NONE, EINVAL],
      ["a limit below all memory", 4, 0, 1, ENOMEM],
    ])("refuses %s and changes nothing", (_, count, order, limit, code) => {
      const core = build.open(4096);
      const before = freeCount(core);
      expect(core.exports.frameAlloc(count, order, limit)).toBe(code);
      expect(freeCount(core)).toBe(before);
      expectSound(core);
    });

    test("keeps below the limit", () => {
      const core = build.open(8192);
      for (let i = 0; i < 20; i++) {
        const pfn = core.exports.frameAlloc(16, 0, 4000);
        expect(pfn > 0 && pfn + 16 <= 4000).toBe(true);
      }
      expectSound(core);
    });

    test("hands out every frame once, then says ENOMEM", () => {
      const core = build.open(2048);
      const total = freeCount(core);
      const seen = new Set<number>();
      for (let i = 0; i < total; i++) seen.add(core.exports.frameAlloc(1, 0, NONE));
      expect(seen.size).toBe(total);
      expect(core.exports.frameAlloc(1, 0, NONE)).toBe(ENOMEM);
      expectSound(core);
      for (const pfn of seen) expect(core.exports.frameFree(pfn, 1)).toBe(0);
      expectSound(core);
      expect(core.exports.frameAlloc(256, 0, NONE)).toBeGreaterThan(0); // the magazine was drained
    });
  });

  describe("frameFree()", () => {
    test.each([
      ["frame 0", 0, 1, ENOENT],
      ["a frame beyond memory", 5000, 1, EINVAL],
      ["a range that leaves memory", 4095, 2, EINVAL],
      ["no frames", 3000, 0, EINVAL],
      ["a count that wraps", 3000, NONE, EINVAL],
      ["a free frame", 3000, 1, ENOENT],
    ])("refuses %s", (_, pfn, count, code) => {
      const core = build.open(4096);
      expect(core.exports.frameFree(pfn, count)).toBe(code);
      expectSound(core);
    });

    test("refuses a second free, a run that is only partly held, and a pinned frame", () => {
      const core = build.open(4096);
      const pfn = core.exports.frameAlloc(8, 3, NONE);
      expect(core.exports.frameFree(pfn, 9)).toBe(ENOENT);
      expect(core.exports.pinRange(pfn + 7, 1)).toBe(0);
      expect(core.exports.frameFree(pfn, 8)).toBe(EBUSY);
      expect(core.exports.unpinRange(pfn + 7, 1)).toBe(0);
      expect(core.exports.frameFree(pfn, 3)).toBe(0);
      expect(core.exports.frameFree(pfn, 8)).toBe(ENOENT);
      expect(core.exports.frameFree(pfn + 3, 5)).toBe(0);
      expect(core.exports.frameFree(pfn, 1)).toBe(ENOENT);
      expectSound(core);
    });

    test("merges buddies again", () => {
      const core = build.open(4096);
      const singles = Array.from({ length: 1024 }, () => core.exports.frameAlloc(1, 0, NONE));
      for (const pfn of singles) core.exports.frameFree(pfn, 1);
      core.exports.magazineDrain();
      expect(core.exports.frameAlloc(1024, 10, NONE)).toBeGreaterThan(0);
      expectSound(core);
    });
  });

  describe("bulk frames", () => {
    test("are all or none", () => {
      const core = build.open(4096);
      const list = new Uint32Array(core.memory.buffer, core.scratchAt, 8192);
      const before = freeCount(core);
      expect(core.exports.bulkFramesAlloc(core.scratchAt, before + 1)).toBe(ENOMEM);
      expect(freeCount(core)).toBe(before);
      expect(core.exports.bulkFramesAlloc(core.scratchAt, 100)).toBe(0);
      expect(new Set(list.subarray(0, 100)).size).toBe(100);
      expectSound(core);
      expect(core.exports.bulkFramesFree(core.scratchAt, 100)).toBe(0);
      expect(freeCount(core)).toBe(before);
      expectSound(core);
    });

    test("come out of memory where no two neighbours are free, and leave the rest", () => {
      const core = build.open(4096);
      const { exports } = core;
      const list = new Uint32Array(core.memory.buffer, core.scratchAt, 8192);
      const run = exports.frameAlloc(1024, 10, NONE);
      while (exports.frameAlloc(64, 0, NONE) > 0);
      while (exports.frameAlloc(1, 0, NONE) > 0);
      for (let i = 0; i < 1024; i += 2) exports.frameFree(run + i, 1);
      exports.magazineDrain();
      const before = freeCount(core);
      expect(exports.bulkFramesAlloc(core.scratchAt, before + 1)).toBe(ENOMEM);
      expect(freeCount(core)).toBe(before);
      expectSound(core);
      expect(exports.bulkFramesAlloc(core.scratchAt, 300)).toBe(0);
      const taken = new Set(list.subarray(0, 300));
      expect(taken.size).toBe(300);
      for (const pfn of taken) {
        expect(exports.frameWord(pfn) & 15).toBe(OWNED);
        expect((pfn - run) % 2).toBe(0);
      }
      expect(freeCount(core)).toBe(before - 300);
      expectSound(core);
      expect(exports.bulkFramesFree(core.scratchAt, 300)).toBe(0);
      expect(freeCount(core)).toBe(before);
      expectSound(core);
    });

    test.each([2, 3, 37, 63])(
      "runs of %i that fill whole chunks merge again when freed",
      (count) => {
        const core = build.open(4096);
        const { exports } = core;
        const before = exports.largestFreeRun();
        const runs = Array.from({ length: 40 }, () => exports.frameAlloc(count, 0, NONE));
        expectSound(core);
        for (let i = 0; i < 40; i += 2) expect(exports.frameFree(runs[i], count)).toBe(0);
        expectSound(core);
        for (let i = 1; i < 40; i += 2) expect(exports.frameFree(runs[i], count)).toBe(0);
        expectSound(core);
        expect(exports.largestFreeRun()).toBe(before);
        for (let i = 0; i < 2; i++) expect(exports.frameAlloc(1024, 10, NONE)).toBeGreaterThan(0);
      },
    );

    test("refuse a list with a frame twice, a free frame or a pinned one, and free none", () => {
      const core = build.open(4096);
      const list = new Uint32Array(core.memory.buffer, core.scratchAt, 16);
      core.exports.bulkFramesAlloc(core.scratchAt, 10);
      const good = list.slice(0, 10);
      const held = freeCount(core);
      for (const [index, value, code] of [
        [9, good[0] as number, ENOENT],
        [5, 1, ENOENT],
        [5, 999_999, EINVAL],
      ] as const) {
        list.set(good);
        list[index] = value;
        expect(core.exports.bulkFramesFree(core.scratchAt, 10)).toBe(code);
        expect(freeCount(core)).toBe(held);
        expectSound(core);
      }
      list.set(good);
      core.exports.pinRange(good[3], 1);
      expect(core.exports.bulkFramesFree(core.scratchAt, 10)).toBe(EBUSY);
      core.exports.unpinRange(good[3], 1);
      expect(core.exports.bulkFramesFree(core.scratchAt, 10)).toBe(0);
      expectSound(core);
    });
  });

  describe("pins", () => {
    test("are counted per frame and refused on free frames", () => {
      const core = build.open(4096);
      const pfn = core.exports.frameAlloc(6, 0, NONE);
      expect(core.exports.pinRange(pfn, 6)).toBe(0);
      expect(core.exports.pinRange(pfn + 2, 2)).toBe(0);
      expect(core.exports.frameWord(pfn + 2) >>> 14).toBe(2);
      expect(core.exports.pinnedFrameCount()).toBe(6);
      expect(core.exports.unpinRange(pfn + 1, 3)).toBe(0);
      expect(core.exports.unpinRange(pfn, 2)).toBe(EINVAL); // pfn + 1 has no pin left
      expect(core.exports.frameWord(pfn) >>> 14).toBe(1);
      expect(core.exports.pinRange(0, 1)).toBe(ENOENT);
      expect(core.exports.pinRange(4096, 1)).toBe(EINVAL);
      expectSound(core);
    });

    test("never wrap", () => {
      const core = build.open(4096);
      const pfn = core.exports.frameAlloc(1, 0, NONE);
      const max = 2 ** 18 - 1;
      for (let i = 0; i < max; i++) core.exports.pinRange(pfn, 1);
      expect(core.exports.pinRange(pfn, 1)).toBe(-75);
      expect(core.exports.frameWord(pfn) >>> 14).toBe(max);
    });
  });

  test("frames that nobody touched hold zeros, and frameClearRun() makes it so again", () => {
    const core = build.open(4096);
    const bytes = new Uint8Array(core.memory.buffer);
    const pfn = core.exports.frameAlloc(4, 2, NONE);
    expect(core.exports.frameClearRun(pfn, 4)).toBe(0); // fresh: nothing to clear
    bytes.fill(0xaa, pfn * 4096, (pfn + 4) * 4096);
    core.exports.frameFree(pfn, 4);
    const again = core.exports.frameAlloc(4, 2, NONE);
    expect(again).toBe(pfn);
    expect(core.exports.frameClearRun(again, 4)).toBe(4);
    expect(bytes.subarray(again * 4096, (again + 4) * 4096).every((byte) => byte === 0)).toBe(true);
    expect(core.exports.frameClearRun(1, 1)).toBe(ENOENT);
    expectSound(core);
  });

  test("agree with a model over seeded random events", () => {
    const seed = fuzzSeed(20_261_121);
    const random = new Prng(seed);
    const core = build.open(4096);
    const live: { pfn: number; count: number }[] = [];
    const owned = new Set<number>();
    for (let event = 0; event < 3000; event++) {
      const label = `seed ${seed}, event ${event}`;
      if (random.below(100) < 55) {
        const count = random.below(4) === 0 ? 1 + random.below(200) : 1 + random.below(4);
        const pfn = core.exports.frameAlloc(
          count,
          random.below(3) === 0 ? random.below(5) : 0,
          NONE,
        );
        if (pfn < 0) continue;
        for (let i = 0; i < count; i++) {
          expect(owned.has(pfn + i), label).toBe(false);
          owned.add(pfn + i);
        }
        live.push({ pfn, count });
      } else if (live.length > 0) {
        const [range] = live.splice(random.below(live.length), 1);
        if (range === undefined) continue;
        const part = 1 + random.below(range.count);
        expect(core.exports.frameFree(range.pfn, part), label).toBe(0);
        for (let i = 0; i < part; i++) owned.delete(range.pfn + i);
        if (part < range.count) live.push({ pfn: range.pfn + part, count: range.count - part });
      }
      if (event % 50 === 0) expectSound(core, label);
    }
    for (const pfn of owned) expect(core.exports.frameWord(pfn) & 15).toBe(OWNED);
    for (const { pfn, count } of live) core.exports.frameFree(pfn, count);
    expectSound(core, `seed ${seed}`);
    expect([...owned].every((pfn) => isFree(core, pfn))).toBe(true);
  });
});
