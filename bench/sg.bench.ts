/**
 * What does it cost to turn a list of frames into a scatterlist, and to copy out of one?
 *
 *     contig    all frames are neighbours: one entry
 *     scatter   no two are: an entry each
 *     runs4     runs of a geometric length, 4 on average, at random places
 *     pcopy     4096 bytes from a random offset of the table into a buffer
 *
 * Nanoseconds per page for sgTableFromPages + sgTableFree, two calls, the list lying in the core's
 * memory; nanoseconds per call for pcopy. Lists name frames that have no bytes, up to number 2^19,
 * except where bytes are copied.
 *
 * @module
 */

import assert from "node:assert/strict";
import { FRAME_BYTES, MiB, openSync, type System } from "dmabuf";
import { ListRandom, Random } from "./random.ts";
import type { Family, Job, Suite } from "./suite.ts";

const PAGE_COUNTS = [16, 256, 4096, 65536];
const FIRST_PFN = 4096;
const SPREAD_FRAMES = 2 ** 19;
const POOL_BYTES = 32 * MiB;
const NO_LIMIT = 0xffffffff;
const ENTRIES_AT = 0; // words of a table's payload
const ORIG_NENTS = 1;

type Kind = "contig" | "scatter" | "runs4";

/** The same lists in every run, and in other programs that have the same generator. */
function listsOf(kind: Kind): Map<number, Uint32Array> {
  const random = new ListRandom();
  return new Map(PAGE_COUNTS.map((count) => [count, listOf(kind, count, random)]));
}

function listOf(kind: Kind, count: number, random: ListRandom): Uint32Array {
  if (kind === "contig") return Uint32Array.from({ length: count }, (_, i) => FIRST_PFN + i);
  if (kind === "scatter")
    return Uint32Array.from({ length: count }, (_, i) => FIRST_PFN + 2 * ((i * 40503) & 0x3ffff));
  const list = new Uint32Array(count);
  for (let i = 0; i < count; ) {
    let length = 1;
    while (random.below(4) !== 0) length++;
    let pfn = FIRST_PFN + random.below(SPREAD_FRAMES);
    if (i > 0 && (list[i - 1] ?? 0) + 1 === pfn) pfn++;
    for (; length > 0 && i < count; length--) list[i++] = pfn++;
  }
  return list;
}

/** Frames that do not follow the one before them: entries that a list needs. */
function segmentsOf(list: Uint32Array): number {
  return list.reduce((sum, pfn, i) => sum + (i > 0 && pfn === (list[i - 1] ?? 0) + 1 ? 0 : 1), 0);
}

/** Adds the rows. */
export const family: Family = (suite: Suite) => {
  const system = openSync({
    memoryBytes: 64 * MiB,
    unbackedFrames: SPREAD_FRAMES,
    cma: { pool: POOL_BYTES },
  });
  for (const kind of ["contig", "scatter", "runs4"] as const) {
    const lists = listsOf(kind);
    for (const [count, list] of lists) {
      suite.row(`sg/${kind}/${count}`, "page", () => buildJob(system, list));
      if (count === 4096)
        suite.peer(`sg/${kind}/${count}`, "plain JS", "page", () => jsBuildJob(list));
    }
  }
  for (const [kind, count] of [
    ["contig", 256],
    ["contig", 4096],
    ["scatter", 4096],
  ] as const)
    addCopies(suite, system, kind, count);
  suite.row("sg/range/4096/api", "page", () => {
    const range = system.region("pool").alloc(4096);
    return {
      opsPerRun: 4096,
      run(count) {
        for (let i = 0; i < count; i++) system.sgTableFromRange(range.pfn, 4096).free();
      },
      end: () => range.free(),
    };
  });
  assert.equal(system.check(), null);
};

/** Puts a list into the core's memory; `free` takes it out again. */
function placeList(
  { core, frames }: System,
  list: Uint32Array,
): { readonly at: number; free(): void } {
  const range = frames.alloc(Math.ceil(list.byteLength / FRAME_BYTES));
  const at = range.pfn * FRAME_BYTES;
  core.u32.set(list, at / 4);
  return { at, free: () => range.free() };
}

function buildJob(system: System, list: Uint32Array): Job {
  const { sgTableFromPages, sgTableFree } = system.core.exports;
  const { at, free } = placeList(system, list);
  const pages = list.length;
  const bytes = pages * FRAME_BYTES;
  const table = sgTableFromPages(at, pages, 0, bytes, NO_LIMIT);
  assertHolds(system, table, list);
  assert.equal(sgTableFree(table), 0);
  return {
    opsPerRun: pages,
    run(count) {
      let seen = 0;
      for (let i = 0; i < count; i++)
        seen |= sgTableFree(sgTableFromPages(at, pages, 0, bytes, -1));
      assert.equal(seen, 0);
    },
    end: free,
  };
}

function assertHolds({ core }: System, table: number, list: Uint32Array): void {
  assert(table > 0);
  const payloadAt = core.exports.sgTableAt(table);
  const origNents = core.word(payloadAt, ORIG_NENTS);
  assert.equal(origNents, segmentsOf(list));
  const entriesAt = core.word(payloadAt, ENTRIES_AT);
  let page = 0;
  for (let i = 0; i < origNents; i++) {
    const entryAt = entriesAt + i * core.exports.ENTRY_BYTES.value;
    const pages = core.word(entryAt, 2) / FRAME_BYTES;
    for (let k = 0; k < pages; k++) assert.equal(core.word(entryAt, 0) + k, list[page++]);
  }
  assert.equal(page, list.length);
}

/** Packs a list into words { pfn, pages } on a view, in one pass. */
function jsBuildJob(list: Uint32Array): Job {
  const entries = new Uint32Array(2 * list.length);
  const build = (): number => {
    let used = 0;
    let previous = -2;
    for (const pfn of list) {
      if (pfn === previous + 1) {
        entries[used - 1] = (entries[used - 1] ?? 0) + 1;
      } else {
        entries[used] = pfn;
        entries[used + 1] = 1;
        used += 2;
      }
      previous = pfn;
    }
    return used / 2;
  };
  const segments = segmentsOf(list);
  return {
    opsPerRun: list.length,
    run(count) {
      for (let i = 0; i < count; i++) assert.equal(build(), segments);
    },
  };
}

/** Rows for copies out of a table over the pool, whose frame n holds bytes of value n % 256. */
function addCopies(suite: Suite, system: System, kind: "contig" | "scatter", count: number): void {
  const { core } = system;
  const { basePfn, frameCount } = system.region("pool");
  const name = `sg/pcopy/${kind}/${count}`;
  const pfnOf = (page: number): number =>
    basePfn + (kind === "contig" ? page : 2 * ((page * 2731) & (count - 1)));
  const fillPool = (): void => {
    for (let i = 0; i < frameCount; i++)
      core.u8.fill(i % 256, (basePfn + i) * FRAME_BYTES, (basePfn + i + 1) * FRAME_BYTES);
  };
  const skips = count * FRAME_BYTES - FRAME_BYTES;

  suite.row(name, "call", () => {
    fillPool();
    const { sgTableFromPages, sgTableFree, sgCopy } = core.exports;
    const { at, free } = placeList(
      system,
      Uint32Array.from({ length: count }, (_, i) => pfnOf(i)),
    );
    const table = sgTableFromPages(at, count, 0, count * FRAME_BYTES, NO_LIMIT);
    const buffer = system.frames.alloc(1);
    const bufferAt = buffer.pfn * FRAME_BYTES;
    assert.equal(sgCopy(table, 5 * FRAME_BYTES - 1, bufferAt, FRAME_BYTES, 1), FRAME_BYTES);
    assert.equal(core.u8[bufferAt], (pfnOf(4) - basePfn) % 256);
    assert.equal(core.u8[bufferAt + 1], (pfnOf(5) - basePfn) % 256);
    const random = new Random();
    return {
      run(runs) {
        let bytes = 0;
        for (let i = 0; i < runs; i++)
          bytes += sgCopy(table, random.below(skips), bufferAt, FRAME_BYTES, 1);
        assert.equal(bytes, runs * FRAME_BYTES);
      },
      end() {
        assert.equal(sgTableFree(table), 0);
        buffer.free();
        free();
      },
    };
  });
  if (kind === "scatter") return;
  suite.row(`${name}/api`, "call", () => {
    const range = system.region("pool").alloc(count);
    assert.equal(range.pfn, basePfn);
    const table = system.sgTableFromRange(basePfn, count);
    fillPool(); // what the table shows, which cleared it first
    const buffer = system.frames.alloc(1);
    const pinned = buffer.pin();
    const random = new Random();
    assert.equal(table.pcopyToBuffer(pinned, 5 * FRAME_BYTES), FRAME_BYTES);
    assert.equal(pinned.bytes[0], 5);
    return {
      run(runs) {
        for (let i = 0; i < runs; i++) table.pcopyToBuffer(pinned, random.below(skips));
      },
      end() {
        pinned.unpin();
        buffer.free();
        table.free();
        range.free();
      },
    };
  });
}
