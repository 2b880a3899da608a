import { describe, expect, test } from "vitest";
import { eachCore } from "../support/cores.ts";
import { expectSound, freeCount } from "../support/sound.ts";

const NONE = 0xffffffff;
const [EBUSY, EINVAL] = [-16, -22] as const;
const [UNMOVABLE, MOVABLE, RECLAIMABLE] = [0, 1, 2] as const;

describe.each(eachCore)("contiguous runs and migrate types on the $name core", (build) => {
  test("contigAlloc() moves movable frames out of the way, bytes and all", () => {
    const core = build.open(8192);
    const { exports } = core;
    const words = new Uint32Array(core.memory.buffer);
    const movable = exports.movableAlloc(200);
    const listAt = (words[exports.movableAt(movable) / 4] as number) / 4;
    const first = words[listAt] as number;
    for (let i = 0; i < 200; i++) words[(words[listAt + i] as number) * 1024] = 5000 + i;
    const start = first - (first % 1024);
    expect(exports.contigAlloc(start, 2048)).toBe(0);
    for (let i = 0; i < 200; i++) {
      const pfn = words[listAt + i] as number;
      expect(pfn < start || pfn >= start + 2048).toBe(true);
      expect(words[pfn * 1024]).toBe(5000 + i);
    }
    expectSound(core);
    expect(exports.frameFree(start, 2048)).toBe(0);
    expectSound(core);
  });

  test("contigAlloc() refuses pinned, foreign and CMA frames, and gives isolated pageblocks back", () => {
    const core = build.open(8192);
    const { exports } = core;
    const words = new Uint32Array(core.memory.buffer);
    const movable = exports.movableAlloc(3);
    const first = words[(words[exports.movableAt(movable) / 4] as number) / 4] as number;
    exports.movablePin(movable, 0);
    const before = freeCount(core);
    expect(exports.contigAlloc(first - (first % 1024), 1024)).toBe(EBUSY);
    expect(exports.contigAlloc(0, 1)).toBe(EBUSY);
    expect(exports.contigAlloc(8191, 2)).toBe(EINVAL);
    expect(exports.contigAlloc(5000, 0)).toBe(EINVAL);
    exports.cmaDeclare(7168, 1024, 0);
    expect(exports.contigAlloc(7168, 4)).toBe(EBUSY);
    expect(freeCount(core)).toBe(before - 1); // the region's bitmap
    expectSound(core);
  });

  test("contigAlloc() does not mind what kind of frames a pageblock had, or has elsewhere", () => {
    const core = build.open(8192);
    const { exports } = core;
    const held: number[] = [];
    for (let pfn = 0; pfn >= 0; pfn = exports.frameAlloc(64, 0, NONE)) if (pfn > 0) held.push(pfn);
    const block = held.filter((pfn) => pfn >= 4096 && pfn < 5120); // an unmovable pageblock now
    expect(block.length).toBe(16);
    for (const pfn of block.slice(1)) expect(exports.frameFree(pfn, 64)).toBe(0);
    const [kept, freed] = block as [number, number];
    expect(exports.contigAlloc(freed + 3, 100)).toBe(0);
    expectSound(core);
    expect(exports.contigAlloc(kept + 63, 2)).toBe(EBUSY);
    expect(exports.frameFree(freed + 3, 100)).toBe(0);
    expect(exports.frameFree(kept, 64)).toBe(0);
    expect(exports.contigAlloc(4096, 1024)).toBe(0);
    expectSound(core);
  });

  test("reclaimable frames get pageblocks of their own", () => {
    const core = build.open(8192);
    const { exports } = core;
    const [plain, reclaimable] = [UNMOVABLE, RECLAIMABLE].map((type) =>
      Array.from({ length: 50 }, () => exports.frameAllocOf(type, 5, 0, NONE) as number),
    ) as [number[], number[]];
    const blocks = new Set(plain.map((pfn) => Math.floor(pfn / 1024)));
    expect(reclaimable.every((pfn) => pfn > 0 && !blocks.has(Math.floor(pfn / 1024)))).toBe(true);
    expect(exports.frameAllocOf(MOVABLE, 1, 0, NONE)).toBe(EINVAL);
    expect(exports.frameAllocOf(RECLAIMABLE, 0, 0, NONE)).toBe(EINVAL);
    expectSound(core);
  });
});
