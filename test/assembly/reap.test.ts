import { describe, expect, test } from "vitest";
import { eachCore, type TestCore } from "../support/cores.ts";
import { headerLocks, lockAt, payloadAt, reapHolding } from "../support/death.ts";
import { headerWords } from "../support/header.ts";
import { expectSound, freeCount } from "../support/sound.ts";

const NONE = 0xffffffff;
const CHUNKS_AT = 24_576; // 64 heads of lists, then a record for 64 frames each (assembly/chunk.ts)

/** A core with a bit of everything alive, and the handles of what has a lock. */
interface Busy extends TestCore {
  readonly region: number;
  readonly domain: number;
  readonly device: number;
  readonly direct: number;
  readonly tables: readonly number[];
}

function busyCore(core: TestCore): Busy {
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
  return { ...core, region, domain, device, direct, tables };
}

/** Frames by state: those that nobody holds in one number, wherever they wait. */
function usage(core: TestCore): number[] {
  return [
    freeCount(core),
    ...[2, 3, 4, 5, 6, 7, 8].map((state) => core.exports.frameCountIn(state)),
  ];
}

describe.each(eachCore)("check() and threadReap() on the $name core", (build) => {
  test("a reap changes nothing that counts, whatever locks the dead thread held", () => {
    const core = busyCore(build.open(8192));
    const { region, device, direct } = core;
    expectSound(core);
    const before = usage(core);
    const objects = [region, device, direct].map((handle) => payloadAt(core.core, handle));
    reapHolding(core.core, [...headerLocks(core.core), ...objects]);
    expectSound(core);
    expect(usage(core)).toEqual(before);
    expect(core.exports.frameAlloc(16, 0, NONE)).toBeGreaterThan(0);
    expect(core.exports.movableAlloc(2)).toBeGreaterThan(0);
    expectSound(core);
  });

  test("a reap restores free lists, counters and slab lists that were overwritten", () => {
    const core = busyCore(build.open(8192));
    const words = new Uint32Array(core.memory.buffer);
    const header = core.exports.HEADER_AT.value / 4;
    const before = usage(core);
    reapHolding(core.core, [lockAt(core.core, "frames"), lockAt(core.core, "slab")], () => {
      words.fill(0xdead, header + 64, header + 69); // slab caches
      words.fill(0, header + 96, header + 112); // which lists have chunks
      const threadsAt = words[header + headerWords.threadsAt] as number;
      words.fill(0xdead, CHUNKS_AT / 4, threadsAt / 4); // the lists' heads and the chunks
      words[header + headerWords.freeFrames] = 12_345;
      words[header + headerWords.objectCount] = 54_321;
      expect(core.exports.check(0)).not.toBe(0);
    });
    expectSound(core);
    expect(usage(core)).toEqual(before);
    expect(core.exports.frameAlloc(512, 0, NONE)).toBeGreaterThan(0);
    expectSound(core);
  });

  test.each([
    ["a device's list of mappings", "D", deviceRuin],
    ["how many mappings share a shadow", "W", shadowRuin],
    ["how many devices and domains go through a domain", "I", domainRuin],
  ])("a reap restores %s", (_, letter, ruin) => {
    const core = busyCore(build.open(8192));
    const [lock, damage] = ruin(core);
    reapHolding(core.core, [lock], () => {
      damage();
      expect(letterOf(core)).toBe(letter);
    });
    expectSound(core);
  });

  test.each([
    ["a free frame that is in no list", "B", (core: TestCore) => steal(core, 0)],
    [
      "bits that lack a free frame",
      "B",
      (core: TestCore) => chunkChange(core, 1, (w) => w & (w - 1)),
    ],
    [
      "a chunk with another rank",
      "B",
      (core: TestCore) => chunkChange(core, 3, (rank) => rank - 1),
    ],
    ["links that lead back elsewhere", "B", (core: TestCore) => chunkChange(core, 2, (w) => w ^ 1)],
    ["a list that seems to be empty", "B", (core: TestCore) => ranksForget(core)],
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
    expect(letterOf(core)).toBe(letter);
  });
});

/** The letter of the invariant that is broken. */
function letterOf({ exports }: TestCore): string {
  return String.fromCharCode(Math.floor(exports.check(1) / 100));
}

/** A lock, and what breaks that which it protects. */
type Ruin = [lock: number, damage: () => void];

function deviceRuin({ core, device }: Busy): Ruin {
  const at = payloadAt(core, device);
  return [at, () => core.u32.fill(0, at / 4 + 5, at / 4 + 7)]; // firstMapping, mappingCount
}

function shadowRuin({ core, tables }: Busy): Ruin {
  const at = payloadAt(core, tables[1] ?? 0);
  return [lockAt(core, "shadow"), () => core.u32.fill(3, at / 4 + 6, at / 4 + 7)]; // shadowUsers
}

function domainRuin({ core, domain }: Busy): Ruin {
  const at = payloadAt(core, domain) / 4;
  const damage = (): void => {
    core.u32.fill(9, at + 2, at + 3); // deviceCount
    core.u32.fill(9, at + 5, at + 6); // userCount
  };
  return [lockAt(core, "domains"), damage];
}

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

/** Changes word `word` of the record of a chunk of which some frames are free. */
function chunkChange(core: TestCore, word: number, change: (value: number) => number): void {
  const pfn = core.exports.frameAlloc(33, 0, NONE);
  const words = new Uint32Array(core.memory.buffer);
  const at = CHUNKS_AT / 4 + (64 + Math.floor(pfn / 64)) * 4 + word;
  words[at] = change(words[at] as number);
}

function ranksForget(core: TestCore): void {
  const header = core.exports.HEADER_AT.value / 4;
  new Uint32Array(core.memory.buffer)[header + 96] = 0;
}

function soil(core: TestCore): void {
  const words = new Uint32Array(core.memory.buffer);
  for (let pfn = 6999; pfn > 0; pfn--) {
    if (words[wordAt(core, pfn)] !== 0) continue;
    new Uint8Array(core.memory.buffer)[pfn * 4096 + 17] = 1;
    return;
  }
}
