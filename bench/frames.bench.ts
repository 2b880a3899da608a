/**
 * What does a frame cost, one at a time, by the batch, and in runs of mixed sizes?
 *
 *     single                 allocate one frame and free it: two calls a pair
 *     bulk/N                 allocate N single frames into a list and free them: two calls for all
 *     bulk/N/fragmented      the same while no two neighbouring frames are free
 *     run/N                  allocate a run of N frames and free it
 *     replace/1-64/live1000  free one of 1000 runs, allocate one of 1 to 64 frames in its place
 *
 * Nanoseconds per frame (bulk) or per pair. Not zeroed unless the name says so. @thi.ng/malloc gets
 * blocks of the same bytes; the plain-JavaScript allocators keep lists of page numbers only.
 *
 * @module
 */

import assert from "node:assert/strict";
import { MemPool } from "@thi.ng/malloc";
import { FRAME_BYTES, MiB, openSync, type System } from "dmabuf";
import { JsBuddy, JsFreeList } from "./js-pages.ts";
import { Random, randomSizes, SIZE_MASK } from "./random.ts";
import type { Family, Job, Suite } from "./suite.ts";

const MEMORY_BYTES = 512 * MiB;
const LIVE = 1000;
const MAX_FRAMES = 64;
const NO_LIMIT = 0xffffffff;
const LIST_FRAMES = 64;

/** An allocator of runs, as the replace workload sees it. */
interface RunAllocator {
  /** Negative: there is none. */
  alloc(frameCount: number): number;
  free(at: number, frameCount: number): void;
}

/** Adds the rows. */
export const family: Family = (suite: Suite) => {
  const system = openSync({ memoryBytes: MEMORY_BYTES });
  addSingles(suite, system);
  for (const count of [64, 256, 1024]) addBulk(suite, system, count);
  addFragmented(suite, system, 256);
  addRuns(suite, system);
  addReplace(suite, system);
  assert.equal(system.check(), null);
};

function addSingles(suite: Suite, system: System): void {
  const { frameAlloc, frameFree, frameClearRun } = system.core.exports;
  const name = "frames/single";
  suite.row(name, "pair", () => ({
    run(count) {
      let seen = 0;
      for (let i = 0; i < count; i++) {
        const pfn = frameAlloc(1, 0, NO_LIMIT);
        seen |= pfn | frameFree(pfn, 1);
      }
      assert(seen > 0);
    },
  }));
  suite.peer(name, "@thi.ng/malloc", "pair", () => {
    const pool = new MemPool({ buf: new ArrayBuffer(MEMORY_BYTES / 4) });
    return pairsOf({ alloc: () => pool.malloc(FRAME_BYTES) - 1, free: (at) => pool.free(at + 1) });
  });
  suite.peer(name, "plain-JS stack", "pair", () => pairsOf(new JsFreeList(65536)));
  suite.peer(name, "plain-JS buddy", "pair", () => pairsOf(new JsBuddy(65536)));
  suite.row(`${name}/zeroed`, "pair", () => ({
    run(count) {
      for (let i = 0; i < count; i++) {
        const pfn = frameAlloc(1, 0, NO_LIMIT);
        assert(frameClearRun(pfn, 1) >= 0);
        frameFree(pfn, 1);
      }
    },
  }));
  suite.row(`${name}/api`, "pair", () => ({
    run(count) {
      for (let i = 0; i < count; i++) system.frames.alloc(1).free();
    },
  }));
}

function pairsOf(pages: RunAllocator): Job {
  return {
    run(count) {
      let seen = 0;
      for (let i = 0; i < count; i++) {
        const page = pages.alloc(1);
        seen |= page;
        pages.free(page, 1);
      }
      assert(seen >= 0);
    },
  };
}

/** A list of frames in the core's memory: its address, and the list itself. */
function openList(system: System): { readonly at: number; readonly list: Uint32Array } {
  const range = system.frames.alloc(LIST_FRAMES);
  const list = system.core.u32.subarray(range.pfn * 1024, (range.pfn + LIST_FRAMES) * 1024);
  return { at: list.byteOffset, list };
}

function bulkJob(system: System, at: number, frameCount: number): Job {
  const { bulkFramesAlloc, bulkFramesFree } = system.core.exports;
  return {
    opsPerRun: frameCount,
    run(count) {
      let seen = 0;
      for (let i = 0; i < count; i++) {
        seen |= bulkFramesAlloc(at, frameCount);
        seen |= bulkFramesFree(at, frameCount);
      }
      assert.equal(seen, 0);
    },
  };
}

function addBulk(suite: Suite, system: System, frameCount: number): void {
  const { at, list } = openList(system);
  const name = `frames/bulk/${frameCount}`;
  suite.row(name, "frame", () => {
    const { bulkFramesAlloc, bulkFramesFree } = system.core.exports;
    assert.equal(bulkFramesAlloc(at, frameCount), 0);
    assert.equal(new Set(list.subarray(0, frameCount)).size, frameCount);
    assert.equal(bulkFramesFree(at, frameCount), 0);
    return bulkJob(system, at, frameCount);
  });
  const peer = (by: string, pages: RunAllocator): void =>
    suite.peer(name, by, "frame", () => ({
      opsPerRun: frameCount,
      run(count) {
        for (let i = 0; i < count; i++) {
          for (let k = 0; k < frameCount; k++) list[k] = pages.alloc(1);
          for (let k = 0; k < frameCount; k++) pages.free(list[k] ?? 0, 1);
        }
      },
    }));
  if (frameCount !== 256) return;
  const pool = new MemPool({ buf: new ArrayBuffer(MEMORY_BYTES / 4) });
  peer("@thi.ng/malloc", {
    alloc: () => pool.malloc(FRAME_BYTES),
    free: (page) => pool.free(page),
  });
  peer("plain-JS stack", new JsFreeList(65536));
  peer("plain-JS buddy", new JsBuddy(65536));
}

/** Holds every other frame of 64 MiB and of nothing else: all that is free there is single. */
function addFragmented(suite: Suite, system: System, frameCount: number): void {
  const { at } = openList(system);
  const { exports } = system.core;
  suite.row(`frames/bulk/${frameCount}/fragmented`, "frame", () => {
    const runs = Array.from({ length: 16 }, () => exports.frameAlloc(1024, 10, NO_LIMIT));
    for (const pfn of runs) {
      assert(pfn > 0);
      for (let i = 0; i < 1024; i += 2) assert.equal(exports.frameFree(pfn + i, 1), 0);
    }
    exports.magazineDrain();
    const rest: number[] = [];
    for (let size = 1024; size >= 2; size /= 2) {
      for (let pfn = exports.frameAlloc(size, 0, NO_LIMIT); pfn > 0; ) {
        rest.push(pfn, size);
        pfn = exports.frameAlloc(size, 0, NO_LIMIT);
      }
    }
    const giveBack = (): void => {
      for (const pfn of runs)
        for (let i = 1; i < 1024; i += 2) assert.equal(exports.frameFree(pfn + i, 1), 0);
      for (let i = 0; i < rest.length; i += 2) exports.frameFree(rest[i] ?? 0, rest[i + 1] ?? 0);
    };
    return { ...bulkJob(system, at, frameCount), end: giveBack };
  });
}

function addRuns(suite: Suite, system: System): void {
  const { frameAlloc, frameFree } = system.core.exports;
  for (const size of [8, 64, 1024]) {
    suite.row(`frames/run/${size}`, "pair", () => {
      const first = frameAlloc(size, 0, NO_LIMIT);
      assert(first > 0 && first % size === 0);
      assert.equal(frameFree(first, size), 0);
      return {
        run(count) {
          let failures = 0;
          for (let i = 0; i < count; i++)
            failures |= frameFree(frameAlloc(size, 0, NO_LIMIT), size);
          assert.equal(failures, 0);
        },
      };
    });
  }
}

function addReplace(suite: Suite, system: System): void {
  const { frameAlloc, frameFree } = system.core.exports;
  const name = `frames/replace/1-${MAX_FRAMES}/live${LIVE}`;
  suite.row(name, "pair", () =>
    replaceJob({ alloc: (count) => frameAlloc(count, 0, NO_LIMIT), free: frameFree }),
  );
  suite.peer(name, "@thi.ng/malloc", "pair", () => {
    const pool = new MemPool({ buf: new ArrayBuffer(MEMORY_BYTES) });
    return replaceJob({
      alloc: (count) => pool.malloc(count * FRAME_BYTES) - 1,
      free: (at) => pool.free(at + 1),
    });
  });
  suite.peer(name, "plain-JS buddy", "pair", () => replaceJob(new JsBuddy(MEMORY_BYTES / 4096)));
}

function replaceJob(pages: RunAllocator): Job {
  const random = new Random();
  const sizes = randomSizes(MAX_FRAMES);
  const at = new Int32Array(LIVE);
  const counts = new Int32Array(LIVE);
  let next = 0;
  for (let i = 0; i < LIVE; i++) {
    const count = sizes[next++ & SIZE_MASK] ?? 1;
    at[i] = pages.alloc(count);
    counts[i] = count;
  }
  assert.equal(new Set(at).size, LIVE);
  return {
    run(runs) {
      let k = next;
      let seen = 0;
      for (let i = 0; i < runs; i++) {
        const victim = random.below(LIVE);
        pages.free(at[victim] ?? 0, counts[victim] ?? 0);
        const count = sizes[k++ & SIZE_MASK] ?? 1;
        const page = pages.alloc(count);
        seen |= page;
        at[victim] = page;
        counts[victim] = count;
      }
      next = k;
      assert(seen >= 0);
    },
    end() {
      for (let i = 0; i < LIVE; i++) pages.free(at[i] ?? 0, counts[i] ?? 0);
    },
  };
}
