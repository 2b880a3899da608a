import { describe, expect, test } from "vitest";
import { eachCore } from "../support/cores.ts";
import { expectSound } from "../support/sound.ts";

const EBUSY = -16;
const EINVAL = -22;
const ESTALE = -116;

describe.each(eachCore)("fence on the $name core", (build) => {
  test("signals once, and keeps its first result and time", () => {
    const core = build.open(1024);
    const { exports } = core;
    const fence = exports.fenceAlloc(exports.fenceContextAlloc(1), 7);
    expect(exports.fenceStatus(fence)).toBe(0);
    expect(exports.fenceFree(fence)).toBe(EBUSY);
    expect(exports.fenceSignal(fence, 5, 1)).toBe(EINVAL);
    expect(exports.fenceSignal(fence, -4096, 1)).toBe(EINVAL);
    expect(exports.fenceSignal(fence, -5, 12.5)).toBe(1);
    expect(exports.fenceSignal(fence, 0, 99)).toBe(0);
    expect(exports.fenceStatus(fence)).toBe(-5);
    expect(exports.fenceTimestampMs(fence)).toBe(12.5);
    expect(exports.fenceFree(fence)).toBe(0);
    expect(exports.fenceStatus(fence)).toBe(ESTALE);
    expect(exports.fenceSignal(fence, 0, 1)).toBe(ESTALE);
    expectSound(core);
  });

  test("contexts are never given twice", () => {
    const { exports } = build.open(1024);
    expect([
      exports.fenceContextAlloc(3),
      exports.fenceContextAlloc(1),
      exports.fenceContextAlloc(1),
    ]).toEqual([1, 4, 5]);
  });

  test("a handle goes stale when its record is used again", () => {
    const core = build.open(1024);
    const first = core.exports.fenceAlloc(1, 1);
    core.exports.fenceSignal(first, 0, 0);
    core.exports.fenceFree(first);
    const second = core.exports.fenceAlloc(1, 2);
    expect(second & 0x3ffff).toBe(first & 0x3ffff); // the same record
    expect(core.exports.fenceStatus(first)).toBe(ESTALE);
    expect(core.exports.fenceStatus(second)).toBe(0);
  });

  test("thousands of fences live at once, and their records go back", () => {
    const core = build.open(4096);
    const before = core.exports.frameCountIn(7);
    const fences = Array.from({ length: 5000 }, (_, i) => core.exports.fenceAlloc(1, i));
    expect(new Set(fences).size).toBe(5000);
    expectSound(core);
    for (const fence of fences) {
      core.exports.fenceSignal(fence, 0, 0);
      core.exports.fenceFree(fence);
    }
    expect(core.exports.frameCountIn(7)).toBe(before);
    expectSound(core);
  });
});
