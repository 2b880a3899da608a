/**
 * What does a contiguous allocation cost, and does it grow with the region?
 *
 *     empty/N           allocate N frames at a multiple of N in an empty region and release them
 *     occP/1            release a random frame and allocate one, P % of the region being used
 *     occP/1-64         the same with runs of 1 to 64 frames aligned to their order; a run that
 *     does
 *                       not fit releases another one instead
 *     checkerboard/2    every other frame is used; two neighbours are free only at the end
 *     holes/16          free and used runs of 1 to 8 frames; 16 are free only at the end
 *     holes/128-fails   128 are free nowhere
 *
 * Regions of 64 MiB, 1 GiB and 4 GiB: maps, most of whose frames have no bytes. Nanoseconds per
 * pair, two calls, not zeroed unless the name says so.
 *
 * @module
 */

import assert from "node:assert/strict";
import { type CmaRegion, MiB, openSync, type System } from "dmabuf";
import type { Core } from "dmabuf/core";
import { JsFirstFit } from "./js-pages.ts";
import { ListRandom, Random, randomSizes, SIZE_COUNT, SIZE_MASK } from "./random.ts";
import type { Family, Job, Suite } from "./suite.ts";

const REGION_FRAMES = [16384, 262144, 1048576];
const OCCUPANCIES = [50, 90, 97];
const MAX_FRAMES = 64;
const COUNT_BITS = 7; // hold MAX_FRAMES, and leave 25 for a frame number
const COUNT_MASK = (1 << COUNT_BITS) - 1;
const MEMORY_BYTES = 128 * MiB;
const BACKED_BYTES = 64 * MiB; // the region that has bytes, for what goes through views
const USED_BITS = 7; // word of the region's payload
const ENOMEM = -12;

/** A contiguous allocator, as the workloads see it. */
interface RegionAllocator {
  readonly frameCount: number;
  /** Negative: there is no room. */
  alloc(frameCount: number, alignOrder: number): number;
  release(pfn: number, frameCount: number): void;
}

/** Adds the rows. */
export const family: Family = (suite: Suite) => {
  const unbackedFrames = REGION_FRAMES.reduce((sum, count) => sum + count, 0);
  const system = openSync({
    memoryBytes: MEMORY_BYTES,
    unbackedFrames,
    cma: { backed: BACKED_BYTES },
  });
  const { core } = system;
  let basePfn = MEMORY_BYTES / 4096;
  for (const frameCount of REGION_FRAMES) {
    const handle = core.exports.cmaDeclare(basePfn, frameCount, 0);
    assert(handle > 0);
    const target = { core, id: `cma/${frameCount}`, handle, basePfn, frameCount };
    addEmpty(suite, target);
    addSteady(suite, target);
    addFragmented(suite, target);
    basePfn += frameCount;
  }
  addThroughApi(suite, system.region("backed"));
  addZeroed(suite, system, system.region("backed"));
  addPeers(suite);
  assert.equal(system.check(), null);
};

/** A region of the core, and the first part of its rows' names. */
interface Target {
  readonly core: Core;
  readonly id: string;
  readonly handle: number;
  readonly basePfn: number;
  readonly frameCount: number;
}

function usedFrames({ core, handle }: Target): number {
  return core.word(core.exports.cmaRegionAt(handle), USED_BITS);
}

/** Allocates and releases a run that always comes at `expected`. */
function pairJob(target: Target, size: number, alignOrder: number, expected: number): Job {
  const { cmaAlloc, cmaRelease } = target.core.exports;
  const { handle } = target;
  assert.equal(cmaAlloc(handle, size, alignOrder), expected);
  assert.equal(cmaRelease(handle, expected, size), 0);
  return {
    run(count) {
      let seen = 0;
      for (let i = 0; i < count; i++) {
        const pfn = cmaAlloc(handle, size, alignOrder);
        seen |= pfn | cmaRelease(handle, pfn, size);
      }
      assert(seen > 0);
    },
  };
}

function addEmpty(suite: Suite, target: Target): void {
  const { id, basePfn } = target;
  suite.row(`${id}/empty/1`, "pair", () => pairJob(target, 1, 0, basePfn));
  suite.row(`${id}/empty/64`, "pair", () => pairJob(target, 64, 6, basePfn));
}

function addSteady(suite: Suite, target: Target): void {
  const { id, handle, frameCount } = target;
  const { cmaAlloc, cmaRelease } = target.core.exports;
  for (const max of [1, MAX_FRAMES]) {
    for (const percent of OCCUPANCIES) {
      const name = `${id}/occ${percent}/${max === 1 ? "1" : `1-${max}`}`;
      suite.row(name, "pair", () => {
        const region: RegionAllocator = {
          frameCount,
          alloc: (count, alignOrder) => cmaAlloc(handle, count, alignOrder),
          release: (pfn, count) => cmaRelease(handle, pfn, count),
        };
        const job = new SteadyJob(region, Math.floor((frameCount * percent) / 100), sizesOf(max));
        assert.equal(usedFrames(target), job.usedFrames);
        return job;
      });
    }
  }
}

function addFragmented(suite: Suite, target: Target): void {
  const { core, id, handle, basePfn, frameCount } = target;
  const tail = basePfn + frameCount - 64;
  suite.row(`${id}/checkerboard/2`, "pair", () =>
    punchedJob(target, checkerboard(frameCount), () => pairJob(target, 2, 0, tail - 1)),
  );
  const holes = holesOf(frameCount);
  const lastHole = basePfn + (holes.at(-2) ?? 0) + (holes.at(-1) ?? 0);
  suite.row(`${id}/holes/16`, "pair", () =>
    punchedJob(target, holes, () => pairJob(target, 16, 0, lastHole)),
  );
  suite.row(`${id}/holes/128-fails`, "call", () =>
    punchedJob(target, holes, () => {
      const { cmaAlloc } = core.exports;
      assert.equal(cmaAlloc(handle, 128, 0), ENOMEM);
      return {
        run(count) {
          let seen = -1;
          for (let i = 0; i < count; i++) seen &= cmaAlloc(handle, 128, 0);
          assert.equal(seen, ENOMEM);
        },
      };
    }),
  );
}

/** Takes all frames, keeps those of the `used` runs and gives back the rest. */
function punchedJob(target: Target, used: Uint32Array, setUp: () => Job): Job {
  const { core, handle, basePfn, frameCount } = target;
  const release = (at: number, count: number): void =>
    assert.equal(core.exports.cmaRelease(handle, basePfn + at, count), 0);
  assert.equal(core.exports.cmaAlloc(handle, frameCount, 0), basePfn);
  eachGap(used, frameCount, release);
  const end = (): void => {
    for (let i = 0; i < used.length; i += 2) release(used[i] ?? 0, used[i + 1] ?? 0);
    assert.equal(usedFrames(target), 0);
  };
  return { ...setUp(), end };
}

/** Runs of `max` frames at most; 1 is for single frames. */
function sizesOf(max: number): Uint16Array {
  return max === 1 ? new Uint16Array(SIZE_COUNT).fill(1) : randomSizes(max);
}

/** The order of the smallest power of two frames that hold `count`. */
function orderOf(count: number): number {
  return count === 1 ? 0 : 32 - Math.clz32(count - 1);
}

/** Allocates, and releases random runs, so that the region stays filled to its target. */
class SteadyJob implements Job {
  readonly #region: RegionAllocator;
  readonly #targetFrames: number;
  readonly #sizes: Uint16Array;
  readonly #random = new Random();
  readonly #runs: Uint32Array; // pfn << COUNT_BITS | count: a random run is one cache line
  #live = 0;
  #used = 0;
  #next = 0; // of the sizes

  /** Fills the region up to `targetFrames` and churns it until its holes are as they stay. */
  constructor(region: RegionAllocator, targetFrames: number, sizes: Uint16Array) {
    this.#region = region;
    this.#targetFrames = targetFrames;
    this.#sizes = sizes;
    this.#runs = new Uint32Array(region.frameCount);
    for (let i = 0; this.#used < targetFrames && i < 2 * region.frameCount; i++) this.#alloc();
    const isMixed = sizes[0] !== 1;
    this.run(region.frameCount === 16384 ? 100_000 : isMixed ? 60_000 : 300_000);
    assert(this.#used > targetFrames * 0.7);
    assert(this.#used <= targetFrames);
  }

  get usedFrames(): number {
    return this.#used;
  }

  run(count: number): void {
    for (let i = 0; i < count; i++) {
      if (!this.#alloc()) this.#release();
      while (this.#used > this.#targetFrames) this.#release();
    }
  }

  #alloc(): boolean {
    const count = this.#sizes[this.#next++ & SIZE_MASK] ?? 1;
    const pfn = this.#region.alloc(count, orderOf(count));
    if (pfn < 0) return false;
    this.#runs[this.#live++] = (pfn << COUNT_BITS) | count;
    this.#used += count;
    return true;
  }

  #release(): void {
    const victim = this.#random.below(this.#live);
    const run = this.#runs[victim] ?? 0;
    this.#runs[victim] = this.#runs[--this.#live] ?? 0;
    const count = run & COUNT_MASK;
    this.#used -= count;
    this.#region.release(run >>> COUNT_BITS, count);
  }

  end(): void {
    while (this.#live > 0) this.#release();
    assert.equal(this.#used, 0);
  }
}

/** Every other frame, but none of the last 64: pairs of first frame and length. */
function checkerboard(frameCount: number): Uint32Array {
  const used = new Uint32Array(frameCount - 64);
  for (let i = 0; i < used.length; i += 2) used.set([i, 1], i);
  return used;
}

/** Used runs of 1 to 8 frames between holes of 1 to 8 frames; at least the last 64 are free. */
function holesOf(frameCount: number): Uint32Array {
  const random = new ListRandom();
  const used: number[] = [];
  for (let at = 0; at < frameCount - 80; ) {
    const holeFrames = 1 + random.below(8);
    const usedFrames = 1 + random.below(8);
    used.push(at, usedFrames);
    at += usedFrames + holeFrames;
  }
  return Uint32Array.from(used);
}

/** Calls `release` for what lies between and behind the `used` runs. */
function eachGap(
  used: Uint32Array,
  frameCount: number,
  release: (at: number, count: number) => void,
): void {
  for (let i = 0; i < used.length; i += 2) {
    const at = (used[i] ?? 0) + (used[i + 1] ?? 0);
    const end = i + 2 < used.length ? (used[i + 2] ?? 0) : frameCount;
    release(at, end - at);
  }
}

function addThroughApi(suite: Suite, region: CmaRegion): void {
  const { frameCount } = region;
  suite.row(`cma/${frameCount}/empty/1/api`, "pair", () => ({
    run(count) {
      for (let i = 0; i < count; i++) region.alloc(1).free();
    },
  }));
  suite.row(`cma/${frameCount}/empty/64/api`, "pair", () => ({
    run(count) {
      for (let i = 0; i < count; i++) region.alloc(64, { alignOrder: 6 }).free();
    },
  }));
}

function addZeroed(suite: Suite, { core }: System, { handle, frameCount }: CmaRegion): void {
  const { cmaAlloc, cmaRelease, frameClearRun } = core.exports;
  suite.row(`cma/${frameCount}/empty/64/zeroed`, "pair", () => ({
    run(count) {
      for (let i = 0; i < count; i++) {
        const pfn = cmaAlloc(handle, 64, 6);
        assert(frameClearRun(pfn, 64) >= 0);
        cmaRelease(handle, pfn, 64);
      }
    },
  }));
}

function addPeers(suite: Suite): void {
  const frameCount = 16384;
  const by = "plain-JS first fit";
  const openTwin = (): RegionAllocator => {
    const twin = new JsFirstFit(frameCount);
    return {
      frameCount,
      alloc: (count, alignOrder) => twin.alloc(count, alignOrder),
      release: (page, count) => twin.free(page, count),
    };
  };
  for (const max of [1, MAX_FRAMES]) {
    const row = `cma/${frameCount}/occ90/${max === 1 ? "1" : `1-${max}`}`;
    suite.peer(row, by, "pair", () => {
      return new SteadyJob(openTwin(), Math.floor(frameCount * 0.9), sizesOf(max));
    });
  }
  suite.peer(`cma/${frameCount}/holes/16`, by, "pair", () => {
    const twin = openTwin();
    twin.alloc(frameCount, 0);
    eachGap(holesOf(frameCount), frameCount, (at, count) => twin.release(at, count));
    return {
      run(count) {
        for (let i = 0; i < count; i++) twin.release(twin.alloc(16, 0), 16);
      },
    };
  });
}
