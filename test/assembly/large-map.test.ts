import { describe, expect, test } from "vitest";
import { eachCore } from "../support/cores.ts";
import { fuzzSeed, Prng } from "../support/prng.ts";
import { expectSound } from "../support/sound.ts";

const ENOMEM = -12;
const CMA = 5;
const BACKED = 8192;
const UNBACKED = 1_048_576;

describe.each(eachCore)("a map of 4 GiB on the $name core", (build) => {
  test("is filled and emptied without touching a frame, in seeded random order", () => {
    const seed = fuzzSeed(44);
    const random = new Prng(seed);
    const { core, exports } = build.openUnbacked(BACKED, UNBACKED);
    const region = exports.cmaDeclare(BACKED, UNBACKED, 0);
    expect(region).toBeGreaterThan(0);

    const runs: { pfn: number; count: number }[] = [];
    let left = UNBACKED;
    while (left > 0) {
      const count = Math.min(left, 1 + random.below(8192));
      const pfn = exports.cmaAlloc(region, count, 0);
      if (pfn === ENOMEM) break;
      runs.push({ pfn, count });
      left -= count;
    }
    expect(left, `seed ${seed}`).toBe(0); // first fit without alignment leaves no hole
    expect(exports.cmaAlloc(region, 1, 0)).toBe(ENOMEM);
    expect(exports.frameCountIn(CMA)).toBe(UNBACKED);

    while (runs.length > 0) {
      const [run] = runs.splice(random.below(runs.length), 1);
      if (run !== undefined) expect(exports.cmaRelease(region, run.pfn, run.count)).toBe(0);
    }
    expect(exports.cmaAlloc(region, UNBACKED, 0)).toBe(BACKED);
    expect(exports.cmaRelease(region, BACKED, UNBACKED)).toBe(0);
    expectSound({ exports }, `seed ${seed}`);
    expect(core.u8.length).toBe(BACKED * 4096);
  });
});
