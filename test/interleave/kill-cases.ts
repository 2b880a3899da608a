/**
 * What threads do when they die: operations of the core, each in a system where others live.
 *
 *     living() ─► doomed() ─► run() ✝ ─► reap ─► after()      everything is as it was before
 *
 * @module
 */

import type { Exports } from "./yielding.ts";

/** No limit, or nothing. */
export const NONE = 0xffffffff;
/** What a case made: handles and frame numbers by name. */
export type Made = Record<string, number>;

/** An operation to die in. */
export interface KillCase {
  readonly name: string;
  /** What another thread has made. */
  living?(living: Exports, made: Made): void;
  /** What the thread that will die has made before. */
  doomed?(doomed: Exports, made: Made): void;
  /** The operation. */
  run(doomed: Exports, made: Made): void;
  /** What the other thread does afterwards, so that nothing is left of this case. */
  after?(living: Exports, made: Made): void;
}

/** The regions' handles: one that lends frames with bytes, one of frames without. */
export interface Regions {
  lending: number;
  unbacked: number;
}

/** A result that must be no error. */
export function ok(result: number): number {
  if (result < 0) throw new Error(`the core refused with ${result}`);
  return result;
}

const frames: KillCase[] = [1, 3, 16, 64].flatMap((count) => [
  {
    name: `allocate ${count} frames`,
    run: (d) => ok(d.frameAlloc(count, 0, NONE)),
  },
  {
    name: `free ${count} frames`,
    doomed: (d, made) => {
      made.pfn = ok(d.frameAlloc(count, 0, NONE));
    },
    run: (d, made) => ok(d.frameFree(made.pfn, count)),
  },
]);

const magazines: KillCase[] = [
  {
    name: "take a frame from a magazine that has some",
    doomed: (d) => d.frameAlloc(1, 0, NONE),
    run: (d) => ok(d.frameAlloc(1, 0, NONE)),
  },
  {
    name: "drain a magazine",
    doomed: (d) => d.frameAlloc(1, 0, NONE),
    run: (d) => d.magazineDrain(),
  },
  {
    name: "allocate a list of 20 frames",
    run: (d) => ok(d.bulkFramesAlloc(d.scratchAt(), 20)),
  },
  {
    name: "free a list of 20 frames",
    doomed: (d) => ok(d.bulkFramesAlloc(d.scratchAt(), 20)),
    run: (d) => ok(d.bulkFramesFree(d.scratchAt(), 20)),
  },
  {
    name: "pin 9 frames of its own",
    doomed: (d, made) => {
      made.pfn = ok(d.frameAlloc(9, 0, NONE));
    },
    run: (d, made) => ok(d.pinRange(made.pfn, 9)),
  },
  {
    name: "unpin 9 frames of its own",
    doomed: (d, made) => {
      made.pfn = ok(d.frameAlloc(9, 0, NONE));
      ok(d.pinRange(made.pfn, 9));
    },
    run: (d, made) => ok(d.unpinRange(made.pfn, 9)),
  },
];

const records: KillCase[] = [
  { name: "make a fence", run: (d) => ok(d.fenceAlloc(1, 1)) },
  {
    name: "make the 64th object",
    doomed: (d) => {
      for (let i = 0; i < 62; i++) ok(d.fenceAlloc(1, 1));
    },
    run: (d) => [ok(d.fenceAlloc(1, 1)), ok(d.fenceAlloc(1, 1))],
  },
  {
    name: "signal and free a fence that nobody else has",
    doomed: (d, made) => {
      made.fence = ok(d.fenceAlloc(1, 1));
    },
    run: (d, made) => {
      ok(d.fenceSignal(made.fence, 0, 1));
      ok(d.fenceFree(made.fence));
    },
  },
  {
    name: "signal and free a fence that another thread has",
    doomed: (d, made) => {
      made.fence = ok(d.fenceAlloc(1, 1));
    },
    run: (d, made) => {
      ok(d.fenceSignal(made.fence, 0, 1));
      ok(d.fenceFree(made.fence));
    },
    living: () => {},
    after: (l, made) => {
      if (made.imported) ok(l.fenceFree(made.fence));
    },
  },
  {
    name: "import and release a fence of another thread",
    living: (l, made) => {
      made.fence = ok(l.fenceAlloc(1, 1));
    },
    run: (d, made) => {
      ok(d.shareImport(made.fence, d.KIND_FENCE.value));
      ok(d.fenceFree(made.fence));
    },
    after: (l, made) => {
      ok(l.fenceSignal(made.fence, 0, 1));
      ok(l.fenceFree(made.fence));
    },
  },
];

const tables: KillCase[] = [1, 5, 300].flatMap((count) => [
  {
    name: `make a table of ${count} scattered frames`,
    run: (d: Exports) => {
      for (let i = 0; i < Math.min(count, 20); i++) d.frameAlloc(1, 0, NONE);
      ok(d.storageAllocBlocks(count, NONE, 0));
    },
  },
  {
    name: `free a table of ${count} frames`,
    doomed: (d: Exports, made: Made) => {
      made.table = ok(d.storageAllocBlocks(count, NONE, 0));
    },
    run: (d: Exports, made: Made) => ok(d.storageFree(made.table)),
  },
  {
    name: `pin and unpin a table of ${count} frames`,
    doomed: (d: Exports, made: Made) => {
      made.table = ok(d.storageAllocBlocks(count, NONE, 0));
    },
    run: (d: Exports, made: Made) => ok(d.pinRemove(ok(d.pinAdd(made.table)))),
  },
  {
    name: `pin and unpin a table of ${count} frames of another thread`,
    living: (l: Exports, made: Made) => {
      made.table = ok(l.storageAllocBlocks(count, NONE, 0));
      made.pin = ok(l.pinAdd(made.table));
    },
    run: (d: Exports, made: Made) => ok(d.pinRemove(ok(d.pinAdd(made.table)))),
    after: (l: Exports, made: Made) => {
      ok(l.pinRemove(made.pin));
      ok(l.storageFree(made.table));
    },
  },
  {
    name: `make and free a table over ${count} frames of others`,
    run: (d: Exports) => ok(d.sgTableFree(ok(d.sgTableFromRange(100, count, 4096)))),
  },
]);

const buffers: KillCase[] = [1, 20].flatMap((count) => [
  {
    name: `make a buffer of ${count} frames`,
    run: (d: Exports) => ok(d.bufferAlloc(ok(d.storageAllocBlocks(count, NONE, 0)), 4096)),
  },
  {
    name: `release the last hold on a buffer of ${count} frames`,
    doomed: (d: Exports, made: Made) => {
      made.buffer = ok(d.bufferAlloc(ok(d.storageAllocBlocks(count, NONE, 0)), 4096));
    },
    run: (d: Exports, made: Made) => ok(d.bufferFree(made.buffer)),
  },
  {
    name: `import and release a buffer of ${count} frames of another thread`,
    living: (l: Exports, made: Made) => {
      made.buffer = ok(l.bufferAlloc(ok(l.storageAllocBlocks(count, NONE, 0)), 4096));
    },
    run: (d: Exports, made: Made) => {
      ok(d.shareImport(made.buffer, d.KIND_BUFFER.value));
      ok(d.bufferFree(made.buffer));
    },
    after: (l: Exports, made: Made) => ok(l.bufferFree(made.buffer)),
  },
]);

/** Takes all memory in runs of 64 frames, and what is left below that for nothing. */
function fill(exports: Exports): number[] {
  const held: number[] = [];
  for (let pfn = 0; pfn >= 0; ) {
    pfn = exports.frameAlloc(64, 0, NONE);
    if (pfn >= 0) held.push(pfn);
  }
  return held;
}

/** The cases with regions and movables. */
export function regionCases({ lending, unbacked }: Regions): KillCase[] {
  return [
    { name: "take a run of a region", run: (d) => ok(d.cmaAlloc(unbacked, 70, 2)) },
    {
      name: "release a run of a region",
      doomed: (d, made) => {
        made.pfn = ok(d.cmaAlloc(unbacked, 70, 0));
      },
      run: (d, made) => ok(d.cmaRelease(unbacked, made.pfn, 70)),
    },
    {
      name: "make and free a table of a region",
      run: (d) => ok(d.storageFree(ok(d.storageAllocRegion(unbacked, 5, 0)))),
    },
    {
      name: "take a run that frames lent to another thread lie in",
      living: (l, made) => {
        const held = fill(l);
        made.movable = ok(l.movableAlloc(6));
        for (const pfn of held) ok(l.frameFree(pfn, 64));
      },
      run: (d) => ok(d.cmaRelease(lending, ok(d.cmaAlloc(lending, 1022, 0)), 1022)),
      after: (l, made) => ok(l.movableFree(made.movable)),
    },
    {
      name: "make and free a movable of lent frames",
      living: (l, made) => {
        for (const [i, pfn] of fill(l).entries()) made[`held${i}`] = pfn;
      },
      run: (d) => ok(d.movableFree(ok(d.movableAlloc(7)))),
      after: (l, made) => {
        for (const pfn of Object.values(made)) ok(l.frameFree(pfn, 64));
      },
    },
    {
      name: "make and free a movable",
      run: (d) => ok(d.movableFree(ok(d.movableAlloc(7)))),
    },
    {
      name: "pin and unpin a movable",
      doomed: (d, made) => {
        made.movable = ok(d.movableAlloc(7));
      },
      run: (d, made) => {
        ok(d.movablePin(made.movable, 1));
        ok(d.movableUnpin(made.movable));
        ok(d.movablePin(made.movable, 0));
      },
    },
    {
      name: "compact with a movable of another thread",
      living: (l, made) => {
        made.movable = ok(l.movableAlloc(5));
      },
      run: (d) => d.compact(),
      after: (l, made) => ok(l.movableFree(made.movable)),
    },
  ];
}

/** The cases with frames, records, tables and buffers. */
export const memoryCases: readonly KillCase[] = [
  ...frames,
  ...magazines,
  ...records,
  ...tables,
  ...buffers,
];
