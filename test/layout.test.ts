import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { eachCore } from "./support/cores.ts";
import { DIRECTORY_AT, headerWords } from "./support/header.ts";

/**
 * The other half of the ABI: what TypeScript reads by offset, measured in the memory of a running
 * core.
 */
describe.each(eachCore)("the ABI of the $name core", (build) => {
  test("constants", () => {
    const { exports } = build.open(1024);
    const constants = Object.fromEntries(
      Object.entries(exports)
        .filter(([name]) => name === name.toUpperCase())
        .map(([name, value]) => [name, (value as WebAssembly.Global).value]),
    );
    expect(constants).toEqual({
      ABI_VERSION: 1,
      OPTIMAL_PAGES: 32,
      BOUNCE_MAX_BYTES: 256 * 1024,
      BUFFER_NAME_BYTES: 28,
      CONSUMER_LATEST: 2,
      CONSUMER_WRITES: 1,
      DIRTY_BITS_MAX: 24576,
      ENTRY_BYTES: 16,
      FRAME_BYTES: 4096,
      HEADER_AT: 1024,
      IOTLB_ENTRIES_MAX: 254,
      KIND_BUFFER: 8,
      KIND_FENCE: 6,
      KIND_POOL: 9,
      MAX_ORDER: 10,
      MAX_REGIONS: 16,
      PAGEBLOCK_ORDER: 10,
      POOL_CONSUMERS: 16,
      POOL_FRAMES_MAX: 256,
      SCRATCH_OFFSET: 1024,
      SCRATCH_WORDS: 768,
      THREAD_BYTES: 8192,
    });
  });

  test("header: magic, version, frames, threads", () => {
    const { exports, memory } = build.open(2048);
    const words = new Uint32Array(memory.buffer, 1024, 20);
    expect([...words.subarray(0, 4)]).toEqual([0x66754264, 1, 2048, 2048]);
    expect(words[headerWords.threadCount]).toBe(8);
    expect(words[headerWords.threadsAt]).toBe(exports.scratchAt() - exports.SCRATCH_OFFSET.value);
  });

  test("header: the counts that tests look at", () => {
    const { exports, memory } = build.open(2048);
    const words = new Uint32Array(memory.buffer, 1024, 32);
    const listed = (): number => exports.frameCountIn(0);
    expect(words[headerWords.freeFrames]).toBe(listed());
    exports.frameAlloc(8, 0, 0xffffffff);
    expect(words[headerWords.freeFrames]).toBe(listed());
    expect(words[headerWords.reserveFrames]).toBe(Math.floor(Math.sqrt(2048 * 4)));
    expect(words[headerWords.objectCount]).toBe(0);
    exports.fenceAlloc(1, 1);
    expect(words[headerWords.objectCount]).toBe(1);
    const wordsAt = words[headerWords.wordsAt] as number;
    const frames = new Uint32Array(memory.buffer, wordsAt, 2048);
    expect([...frames.keys()].map((pfn) => exports.frameWord(pfn) >>> 0)).toEqual([...frames]);
    const firstSlab = new Uint32Array(memory.buffer, DIRECTORY_AT, 1)[0];
    expect(exports.frameWord((firstSlab as number) + 1) & 15).toBe(7);
    const { core } = build.system({ bounceBytes: 1 });
    const poolAt = core.word(core.exports.HEADER_AT.value, headerWords.bounceAt);
    expect(core.word(poolAt, 1)).toBe(core.exports.bounceSlotCount());
  });

  test("sg table: entriesAt, origNents, lengthBytes, mapCount; entry: pfn, offset, length, before", () => {
    const { exports, memory, scratchAt } = build.open(2048);
    new Uint32Array(memory.buffer, scratchAt, 8).set([700, 5, 4096, 0, 900, 0, 77, 0]);
    const table = exports.sgTableFromList(scratchAt, 2);
    const words = new Uint32Array(memory.buffer);
    const at = exports.sgTableAt(table) / 4;
    expect([...words.subarray(at + 1, at + 4)]).toEqual([2, 4173, 0]);
    const entries = (words[at] as number) / 4;
    expect([...words.subarray(entries, entries + 8)]).toEqual([700, 5, 4096, 0, 900, 0, 77, 4096]);
  });

  test("mapping: direction, nents, segmentsAt; device: faults", () => {
    const { exports, memory } = build.open(2048);
    const device = exports.dmaDeviceAdd(0, 0xfffff, 65_536, 9, 0xffffffff);
    const mapping = exports.dmaMapTable(device, exports.sgTableFromRange(700, 2, 4096), 2);
    const words = new Uint32Array(memory.buffer);
    const at = exports.dmaMappingAt(mapping) / 4;
    expect([...words.subarray(at + 2, at + 4)]).toEqual([2, 2]);
    expect(words[(words[at + 4] as number) / 4 + 4]).toBe(701);
    exports.dmaSpans(device, 3, 0, 1, 1);
    const deviceAt = exports.dmaDeviceAt(device) / 4;
    expect([...words.subarray(deviceAt + 7, deviceAt + 10)]).toEqual([1, 3, 1]);
  });

  test("region: basePfn, frameCount, orderPerBit, usedBits, allocCount, failCount", () => {
    const { exports, memory } = build.open(4096);
    const region = exports.cmaDeclare(3072, 1024, 1);
    exports.cmaAlloc(region, 3, 0);
    exports.cmaAlloc(region, 1024, 0);
    const words = new Uint32Array(memory.buffer);
    const at = exports.cmaRegionAt(region) / 4;
    expect([...words.subarray(at + 1, at + 4)]).toEqual([3072, 1024, 1]);
    expect([...words.subarray(at + 7, at + 10)]).toEqual([2, 1, 1]);
  });

  test("every function of the typed interface is exported", () => {
    const { exports } = build.open(1024);
    const typed = readFileSync(new URL("../src/core/exports.ts", import.meta.url), "utf8");
    const names = [...typed.matchAll(/^ {2}(\w+)\(/gm)].map((match) => match[1] as string);
    expect(names.length).toBeGreaterThan(40);
    expect(names.filter((name) => typeof exports[name] !== "function")).toEqual([]);
  });
});
