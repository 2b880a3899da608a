import { describe, expect, test } from "vitest";
import { eachCore, type TestCore } from "../support/cores.ts";
import { fuzzSeed, Prng } from "../support/prng.ts";
import { expectSound, freeCount } from "../support/sound.ts";

const NONE = 0xffffffff;
const [EBUSY, EINVAL, ENOMEM, ESTALE] = [-16, -22, -12, -116] as const;
const MOVABLE = 4;

function frames(
  { exports, memory }: Pick<TestCore, "exports" | "memory">,
  movable: number,
): number[] {
  const words = new Uint32Array(memory.buffer);
  const at = exports.movableAt(movable) / 4;
  const list = (words[at] as number) / 4;
  return Array.from(words.subarray(list, list + (words[at + 1] as number)));
}

/** Marks each frame of a movable with a word of its own. */
function stamp(core: Pick<TestCore, "exports" | "memory">, movable: number, value: number): void {
  const words = new Uint32Array(core.memory.buffer);
  for (const [i, pfn] of frames(core, movable).entries()) words[pfn * 1024 + 5] = value + i;
}

function expectStamps(
  core: Pick<TestCore, "exports" | "memory">,
  movable: number,
  value: number,
  label = "",
): void {
  const words = new Uint32Array(core.memory.buffer);
  const found = frames(core, movable).map((pfn) => words[pfn * 1024 + 5]);
  expect(found, label).toEqual(found.map((_, i) => value + i));
}

describe.each(eachCore)("movable memory on the $name core", (build) => {
  const withRegion = () => {
    const core = build.open(4096);
    return { ...core, region: core.exports.cmaDeclare(2048, 2048, 0) as number };
  };

  test("borrows from a CMA region that holds more than half of the free frames, from its end", () => {
    const core = withRegion();
    const movable = core.exports.movableAlloc(3);
    expect(frames(core, movable)).toEqual([4095, 4094, 4093]);
    expectSound(core);
    expect(core.exports.movableFree(movable)).toBe(0);
    expect(core.exports.movableFree(movable)).toBe(ESTALE);
    expectSound(core);
  });

  test("a run that is asked for moves lent frames out, bytes and all", () => {
    const core = withRegion();
    const movable = core.exports.movableAlloc(40);
    stamp(core, movable, 700);
    expect(core.exports.cmaAlloc(core.region, 2048, 0)).toBe(2048);
    expect(frames(core, movable).every((pfn) => pfn < 2048)).toBe(true);
    expectStamps(core, movable, 700);
    expectSound(core);
    expect(core.exports.cmaRelease(core.region, 2048, 2048)).toBe(0);
    expectSound(core);
  });

  test("frames that wait with the thread serve movable memory before it is refused", () => {
    const core = build.openUnbacked(1024, 0);
    const { exports } = core;
    const held: number[] = [];
    for (let pfn = 0; pfn >= 0; pfn = exports.frameAlloc(1, 0, NONE)) if (pfn > 0) held.push(pfn);
    const reserve = Math.sqrt(1024 * 4); // of listed frames
    const freed = reserve + 40;
    for (const pfn of held.slice(0, freed)) expect(exports.frameFree(pfn, 1)).toBe(0);
    let count = 0;
    while (exports.movableAlloc(1) > 0) count += 1;
    expect(freed - 2 * count).toBeLessThan(reserve + 4); // each takes one more for its list
    expect(count).toBeGreaterThan(15);
    expectSound(core);
  });

  test("lent frames go elsewhere in the regions when nothing is left outside", () => {
    const core = build.openUnbacked(4096, 0);
    const { exports } = core;
    const region = exports.cmaDeclare(2048, 2048, 0) as number;
    const small = exports.cmaDeclare(1024, 1024, 2) as number;
    const movable = exports.movableAlloc(2000); // most of the region, from its end
    stamp(core, movable, 700);
    while (exports.frameAlloc(1, 0, NONE) > 0);
    const count = 2048 - 2000 + 100; // what is free, and lent frames behind it
    expect(exports.cmaAlloc(region, count, 0)).toBe(2048);
    expect(frames(core, movable).every((pfn) => pfn < 2048 || pfn >= 2048 + count)).toBe(true);
    expectStamps(core, movable, 700);
    expectSound(core);
    expect(exports.cmaAlloc(small, 1024, 0)).toBe(ENOMEM); // too few frames are free anywhere
    expectStamps(core, movable, 700);
    expectSound(core);
    expect(exports.cmaRelease(region, 2048, count)).toBe(0);
    expect(exports.movableFree(movable)).toBe(0);
    expect(exports.cmaAlloc(small, 1024, 0)).toBe(1024);
    expect(exports.cmaAlloc(region, 2048, 0)).toBe(2048);
    expectSound(core);
  });

  test("a pinned frame in the way means the next place, and EBUSY when there is none", () => {
    const core = withRegion();
    const { exports, region } = core;
    const movable = exports.movableAlloc(1);
    expect(exports.movablePin(movable, 0)).toBe(0);
    expect(frames(core, movable)).toEqual([4095]);
    expect(exports.cmaAlloc(region, 2048, 0)).toBe(EBUSY);
    expectSound(core);
    expect(exports.cmaAlloc(region, 2047, 0)).toBe(2048);
    expect(exports.cmaRelease(region, 2048, 2047)).toBe(0);
    expect(exports.cmaAlloc(region, 1024, 10)).toBe(2048);
    expect(exports.cmaAlloc(region, 1024, 10)).toBe(EBUSY);
    expect(exports.movableUnpin(movable)).toBe(0);
    expect(exports.cmaAlloc(region, 1024, 10)).toBe(3072);
    expectSound(core);
  });

  test("a long-term pin leaves the region first, a short-term one does not", () => {
    const core = withRegion();
    const movable = core.exports.movableAlloc(5);
    stamp(core, movable, 9);
    expect(core.exports.movablePin(movable, 0)).toBe(0);
    expect(frames(core, movable)[0]).toBeGreaterThanOrEqual(2048);
    expect(core.exports.movablePin(movable, 1)).toBe(EBUSY);
    expect(core.exports.movableUnpin(movable)).toBe(0);
    expect(core.exports.movablePin(movable, 1)).toBe(0);
    expect(frames(core, movable).every((pfn) => pfn < 2048)).toBe(true);
    expectStamps(core, movable, 9);
    expectSound(core);
  });

  test("freeing pinned memory is deferred, not lost", () => {
    const core = withRegion();
    const before = freeCount(core);
    const movable = core.exports.movableAlloc(5);
    core.exports.movablePin(movable, 0);
    core.exports.movablePin(movable, 0);
    expect(core.exports.movableFree(movable)).toBe(1);
    expect(core.exports.movablePin(movable, 0)).toBe(ESTALE);
    expect(core.exports.movableFree(movable)).toBe(ESTALE);
    expect(core.exports.movableUnpin(movable)).toBe(0);
    expectSound(core);
    expect(core.exports.frameCountIn(MOVABLE)).toBe(5);
    expect(core.exports.movableUnpin(movable)).toBe(0);
    expect(core.exports.movableUnpin(movable)).toBe(ESTALE);
    expect(freeCount(core)).toBe(before);
    expectSound(core);
  });

  test.each([
    ["no frames", 0, EINVAL],
    ["more than memory", 5000, ENOMEM],
    ["more than is free", 4000, ENOMEM],
  ])("refuses %s and holds nothing", (_, count, code) => {
    const core = withRegion();
    const before = freeCount(core);
    expect(core.exports.movableAlloc(count)).toBe(code);
    expect(freeCount(core)).toBe(before);
    expectSound(core);
  });

  test("leaves a reserve of frames to others", () => {
    const core = build.open(2048);
    while (core.exports.movableAlloc(1) > 0);
    core.exports.magazineDrain();
    expect(core.exports.frameAlloc(1, 0, NONE)).toBeGreaterThan(0);
    expect(freeCount(core)).toBeGreaterThan(40);
    expectSound(core);
  });

  test("compact() moves frames up, keeps their bytes, and makes longer runs", () => {
    const core = build.open(4096);
    const all: number[] = [];
    for (let i = 0; i < 600; i++) all.push(core.exports.movableAlloc(2));
    for (const [i, movable] of all.entries()) stamp(core, movable, i * 10);
    for (const [i, movable] of all.entries()) if (i % 2 === 0) core.exports.movableFree(movable);
    const kept = all.filter((_, i) => i % 2 === 1);
    const pinned = kept[7] as number;
    core.exports.movablePin(pinned, 0);
    const place = frames(core, pinned);
    const before = core.exports.largestFreeRun();
    expect(core.exports.compact()).toBeGreaterThan(100);
    expect(core.exports.largestFreeRun()).toBeGreaterThan(before);
    expect(frames(core, pinned)).toEqual(place);
    for (const [i, movable] of all.entries()) if (i % 2 === 1) expectStamps(core, movable, i * 10);
    expectSound(core);
  });

  test("keeps pageblocks of unmovable frames together", () => {
    const core = build.open(8192);
    const unmovable: number[] = [];
    for (let i = 0; i < 200; i++) {
      core.exports.movableAlloc(3);
      unmovable.push(core.exports.frameAlloc(2, 1, NONE));
    }
    expect(new Set(unmovable.map((pfn) => Math.floor(pfn / 1024))).size).toBeLessThanOrEqual(2);
    expectSound(core);
  });

  test("agrees with a model over seeded random events, and no byte is lost", () => {
    const seed = fuzzSeed(5);
    const random = new Prng(seed);
    const core = withRegion();
    const { exports, region } = core;
    const live: { movable: number; value: number; pins: number }[] = [];
    const runs: { pfn: number; count: number }[] = [];
    for (let event = 0; event < 2500; event++) {
      const label = `seed ${seed}, event ${event}`;
      const kind = random.below(100);
      if (kind < 35) {
        const movable = exports.movableAlloc(1 + random.below(40));
        if (movable < 0) continue;
        const value = event * 64;
        stamp(core, movable, value);
        live.push({ movable, value, pins: 0 });
      } else if (kind < 55 && live.length > 0) {
        const [gone] = live.splice(random.below(live.length), 1);
        if (gone === undefined) continue;
        expectStamps(core, gone.movable, gone.value, label);
        for (; gone.pins > 0; gone.pins--) exports.movableUnpin(gone.movable);
        expect(exports.movableFree(gone.movable), label).toBe(0);
      } else if (kind < 65 && live.length > 0) {
        const one = random.pick(live);
        if (exports.movablePin(one.movable, random.below(2)) === 0) one.pins += 1;
      } else if (kind < 75 && live.length > 0) {
        const one = random.pick(live);
        expect(exports.movableUnpin(one.movable), label).toBe(one.pins > 0 ? 0 : EINVAL);
        one.pins = Math.max(0, one.pins - 1);
      } else if (kind < 88) {
        const count = 1 + random.below(300);
        const pfn = exports.cmaAlloc(region, count, random.below(5));
        if (pfn > 0) runs.push({ pfn, count });
      } else if (runs.length > 0) {
        const [run] = runs.splice(random.below(runs.length), 1);
        if (run !== undefined)
          expect(exports.cmaRelease(region, run.pfn, run.count), label).toBe(0);
      }
      if (event % 500 === 499) exports.compact();
      if (event % 100 === 0) expectSound(core, label);
    }
    for (const { movable, value } of live) expectStamps(core, movable, value, `seed ${seed}`);
    expectSound(core, `seed ${seed}`);
  });
});
