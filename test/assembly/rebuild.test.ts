import { describe, expect, test } from "vitest";
import { eachCore, type TestCore } from "../support/cores.ts";
import { headerWords } from "../support/header.ts";
import { expectSound, freeCount } from "../support/sound.ts";

const NONE = 0xffffffff;

/** A core with a bit of everything alive. */
function busyCore(core: TestCore): TestCore {
  const { exports } = core;
  const region = exports.cmaDeclare(7168, 1024, 0);
  for (const count of [5, 16, 3]) exports.cmaAlloc(region, count, 0);
  const held = [1, 3, 64, 7].map((count) => exports.frameAlloc(count, 0, NONE));
  exports.frameFree(held[2], 64);
  const domain = exports.iommuDomainAlloc();
  const device = exports.dmaDeviceAdd(domain, 0xfffff, 65_536, NONE, NONE);
  const direct = exports.dmaDeviceAdd(0, 0xfffff, 65_536, NONE, NONE);
  const tables = [40, 300, 1].map((frames) => exports.storageAllocBlocks(frames, NONE));
  for (const table of tables) exports.dmaMapTable(device, table, 0);
  exports.dmaMapTable(direct, tables[0], 0);
  exports.fenceAlloc(1, 1);
  return core;
}

describe.each(eachCore)("check() and rebuild() on the $name core", (build) => {
  test("rebuild() changes nothing that counts", () => {
    const core = busyCore(build.open(8192));
    expectSound(core);
    const before = freeCount(core);
    core.exports.rebuild();
    expectSound(core);
    expect(freeCount(core)).toBe(before);
  });

  test("rebuild() restores free lists, counters and slab lists that were overwritten", () => {
    const core = busyCore(build.open(8192));
    const words = new Uint32Array(core.memory.buffer);
    const header = core.exports.HEADER_AT.value / 4;
    const before = freeCount(core);
    words.fill(0xdead, header + 64, header + 80); // slab caches
    words.fill(0, header + 96, header + 112); // which orders have blocks
    words.fill(0, header + 112, header + 112 + 55); // the lists' heads
    words[header + headerWords.freeFrames] = 12_345;
    expect(core.exports.check(0)).not.toBe(0);
    core.exports.rebuild();
    expectSound(core);
    expect(freeCount(core)).toBe(before);
    expect(core.exports.frameAlloc(512, 0, NONE)).toBeGreaterThan(0);
    expectSound(core);
  });

  test("rebuild() opens locks that a dead thread held", () => {
    const core = busyCore(build.open(8192));
    const words = new Uint32Array(core.memory.buffer);
    const header = core.exports.HEADER_AT.value / 4;
    for (const at of [32, 48, 176]) words[header + at] = 7; // frames, slab, movable
    core.exports.rebuild();
    expectSound(core);
    expect(core.exports.frameAlloc(16, 0, NONE)).toBeGreaterThan(0);
    expect(core.exports.movableAlloc(2)).toBeGreaterThan(0);
    expectSound(core);
  });

  test.each([
    ["a free frame that is in no list", "B", (core: TestCore) => steal(core, 0)],
    ["a frame with an unknown state", "P", (core: TestCore) => steal(core, 15)],
    ["a table frame that no domain has", "I", (core: TestCore) => steal(core, 6)],
    ["an object frame that no object has", "S", (core: TestCore) => steal(core, 8)],
    [
      "a frame of a region that its bitmap calls free",
      "C",
      (core: TestCore) => forge(core, 8000, 5),
    ],
    ["a free frame that is not clean", "P", (core: TestCore) => soil(core)],
  ])("check() finds %s", (_, letter, damage) => {
    const core = busyCore(build.open(8192));
    damage(core);
    expect(String.fromCharCode(Math.floor(core.exports.check(1) / 100))).toBe(letter);
  });
});

function wordAt(core: TestCore, pfn: number): number {
  const words = new Uint32Array(core.memory.buffer);
  return (words[core.exports.HEADER_AT.value / 4 + headerWords.wordsAt] as number) / 4 + pfn;
}

function forge(core: TestCore, pfn: number, state: number): void {
  new Uint32Array(core.memory.buffer)[wordAt(core, pfn)] = state;
}

function steal(core: TestCore, state: number): void {
  const pfn = core.exports.frameAlloc(1, 0, NONE);
  forge(core, pfn, state);
}

function soil(core: TestCore): void {
  const words = new Uint32Array(core.memory.buffer);
  for (let pfn = 6999; pfn > 0; pfn--) {
    if (words[wordAt(core, pfn)] !== 0) continue;
    new Uint8Array(core.memory.buffer)[pfn * 4096 + 17] = 1;
    return;
  }
}
