// The IOTLB of a domain, and when it forgets what is unmapped: at once, at the sync, at the flush.

import { describe, expect, it } from "vitest";
import { tableFlags } from "../../src/core/index.ts";
import { eachCore } from "../support/cores.ts";
import { Bench } from "../support/domain-bench.ts";

const NONE = 0xffffffff;
const [EFAULT, EBUSY, EINVAL] = [-14, -16, -22];
const { lazy: LAZY } = tableFlags;
const BLOCK = 512;
const QUEUE_PLACES = 255;

describe.each(eachCore)("domains on the $name core", (build) => {
  describe("the IOTLB", () => {
    it("answers the second access, and forgets what is unmapped", () => {
      const bench = new Bench(build);
      const { exports, domain } = bench;
      expect(exports.iommuIotlbMake(domain, 4, 2, 1)).toBe(0);
      expect(exports.iommuIotlbMake(domain, 4, 2, 1)).toBe(EBUSY);
      expect(bench.map(8, 900, 4)).toBe(0);
      for (const pfn of [8, 9, 8, 9, 8]) expect(bench.access(pfn)).toBe(892 + pfn);
      expect(bench.tlb).toEqual([3, 2, 0]);
      expect(exports.iommuUnmap(domain, 8, 1)).toBe(1);
      expect(bench.access(8)).toBe(EFAULT);
      expect(bench.access(9)).toBe(901);
      expect(bench.tlb).toEqual([4, 3, 0]);
      expect(bench.stale[0]).toBe(0);
      bench.sound();
    });

    it("forgets what a block replaces", () => {
      const bench = new Bench(build);
      bench.exports.iommuIotlbMake(bench.domain, 4, 2, 1);
      bench.map(BLOCK + 7, 900);
      expect(bench.access(BLOCK + 7)).toBe(900);
      expect(bench.map(BLOCK, 2 * BLOCK, BLOCK)).toBe(0);
      expect([bench.access(BLOCK + 7), bench.stale[0]]).toEqual([2 * BLOCK + 7, 0]);
    });

    it.each([
      ["LRU", 1, 2],
      ["FIFO", 0, 3],
    ])("evicts by %s", (_name, isLru, misses) => {
      const bench = new Bench(build);
      expect(bench.exports.iommuIotlbMake(bench.domain, 1, 3, isLru)).toBe(0);
      expect(bench.map(8, 900, 8)).toBe(0);
      for (const pfn of [8, 9, 10, 8, 11]) bench.access(pfn); // LRU gives up 9, FIFO 8
      const before = bench.tlb[1] as number;
      for (const pfn of [8, 10, 11, 9]) bench.access(pfn);
      expect(bench.tlb[1] as number).toBe(before + misses - 1);
      bench.sound();
    });

    it("keeps to the sets: pages of one set push each other out", () => {
      const bench = new Bench(build);
      expect(bench.exports.iommuIotlbMake(bench.domain, 8, 1, 1)).toBe(0);
      expect(bench.map(8, 900, 32)).toBe(0);
      for (const pfn of [8, 16, 8, 9]) bench.access(pfn);
      expect(bench.tlb).toEqual([0, 4, 2]);
    });

    it.each([
      ["no power of two", 3, 2],
      ["no ways", 4, 0],
      ["more entries than fit", 128, 2],
    ])("of %s is EINVAL", (_name, sets, ways) => {
      const bench = new Bench(build);
      expect(bench.exports.iommuIotlbMake(bench.domain, sets, ways, 1)).toBe(EINVAL);
      bench.sound();
    });

    it("is left behind by a fast unmap until the sync, and the access is counted as stale", () => {
      const bench = new Bench(build);
      const { exports, domain } = bench;
      exports.iommuIotlbMake(domain, 4, 4, 1);
      bench.map(8, 900, 2);
      for (const pfn of [8, 9]) bench.access(pfn);
      expect(exports.iommuUnmapFast(domain, 8, 2)).toBe(2);
      expect(bench.access(9)).toBe(901); // the hole between unmap and sync
      expect(bench.stale).toEqual([1, 9]);
      expect(exports.iommuIotlbSync(domain, 8, 2)).toBe(0);
      expect([bench.access(8), bench.access(9)]).toEqual([EFAULT, EFAULT]);
      expect(bench.stale).toEqual([1, 9]);
    });
  });

  describe("invalidation of what the DMA API unmaps", () => {
    /** Maps one frame as the DMA API does; the mapping and its device page. */
    const mapOne = (bench: Bench, pfn: number): [mapping: number, iovaPfn: number] => {
      const { exports } = bench;
      bench.core.core.scratch.set([pfn, 0, 4096]);
      const list = exports.sgTableFromList(exports.scratchAt(), 1);
      const mapping = exports.dmaMapTable(bench.device, list, 0);
      expect(mapping).toBeGreaterThan(0);
      return [mapping, bench.core.core.u32[exports.dmaMappingAt(mapping) / 4 + 5] ?? 0];
    };

    it("strict: a use after unmap faults", () => {
      const bench = new Bench(build);
      const { exports } = bench;
      exports.iommuIotlbMake(bench.domain, 4, 4, 1);
      const pfn = exports.frameAlloc(1, 0, NONE);
      const [mapping, iovaPfn] = mapOne(bench, pfn);
      expect(bench.access(iovaPfn)).toBe(pfn);
      expect(exports.dmaUnmap(mapping)).toBe(0);
      expect(bench.access(iovaPfn)).toBe(EFAULT);
      expect(bench.stale[0]).toBe(0);
    });

    it("lazy: a use after unmap is reported, and faults after the flush", () => {
      const bench = new Bench(build, LAZY);
      const { exports, domain } = bench;
      exports.iommuIotlbMake(domain, 4, 4, 1);
      const pfn = exports.frameAlloc(1, 0, NONE);
      const [mapping, iovaPfn] = mapOne(bench, pfn);
      expect(bench.access(iovaPfn)).toBe(pfn);
      expect(exports.dmaUnmap(mapping)).toBe(0);
      expect(exports.iommuQueuedCount(domain)).toBe(1);
      bench.sound();
      expect(bench.access(iovaPfn)).toBe(pfn);
      expect(bench.stale).toEqual([1, iovaPfn]);
      expect(mapOne(bench, pfn)[1]).not.toBe(iovaPfn); // I11: not handed out before the flush
      expect(exports.iommuFlushQueue(domain)).toBe(1);
      expect([bench.access(iovaPfn), exports.iommuQueuedCount(domain)]).toEqual([EFAULT, 0]);
      bench.sound();
    });

    it("lazy: the queue flushes itself when it is full", () => {
      const bench = new Bench(build, LAZY);
      const { exports, domain } = bench;
      const pfn = exports.frameAlloc(1, 0, NONE);
      for (let i = 0; i < QUEUE_PLACES; i++)
        expect(exports.dmaUnmap(mapOne(bench, pfn)[0])).toBe(0);
      expect(exports.iommuQueuedCount(domain)).toBe(QUEUE_PLACES);
      expect(exports.dmaUnmap(mapOne(bench, pfn)[0])).toBe(0);
      expect(exports.iommuQueuedCount(domain)).toBe(1);
      bench.sound();
    });

    it("lazy: ranges that wait are given back when no other is left", () => {
      const bench = new Bench(build, LAZY);
      const { exports, domain } = bench;
      const device = exports.dmaDeviceAdd(domain, 3, 65536, NONE, NONE); // device pages 1 to 3
      const pfn = exports.frameAlloc(1, 0, NONE);
      bench.core.core.scratch.set([pfn, 0, 4096]);
      const list = exports.sgTableFromList(exports.scratchAt(), 1);
      for (let i = 0; i < 20; i++) {
        const mapping = exports.dmaMapTable(device, list, 0);
        expect(mapping).toBeGreaterThan(0);
        expect(exports.dmaUnmap(mapping)).toBe(0);
      }
      bench.sound();
    });
  });
});
