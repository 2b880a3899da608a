// Domains of the core as devices see them: attaching, protections, the IOTLB, strict and lazy
// invalidation, dirty tracking, and maps that replace nothing.

import { describe, expect, it } from "vitest";
import { tableFlags, tableFormatWord } from "../../src/core/index.ts";
import { type CoreVariant, eachCore, type TestCore } from "../support/cores.ts";

const NONE = 0xffffffff;
const [EFAULT, EBUSY, EEXIST, EINVAL, ERANGE, EOPNOTSUPP] = [-14, -16, -17, -22, -34, -95];
const [READ, WRITE, NOEXEC, PRIV] = [1, 2, 8, 32];
const RW = READ | WRITE;
const { strictMap: STRICT_MAP, dirtyBits: DIRTY_BITS, lazy: LAZY } = tableFlags;
const [BLOCKED, PAGING, IDENTITY] = [0, 1, 2];
const FRAMES = 4096;
const BLOCK = 512;
const QUEUE_PLACES = 255;

const formatWord = (flags: number, stage = 1): number =>
  tableFormatWord({ stage, granuleOrder: 0, inputBits: 44, outputBits: 44, flags });

/** A domain with one device, and runs of frames to map. */
class Bench {
  readonly core: TestCore;
  readonly domain: number;
  readonly device: number;
  readonly exports: TestCore["exports"];

  constructor(build: CoreVariant, flags = 0, stage = 1) {
    this.core = build.open(FRAMES);
    this.exports = this.core.exports;
    this.domain = this.exports.iommuDomainAllocAs(formatWord(flags, stage));
    this.device = this.exports.dmaDeviceAdd(this.domain, NONE, 65536, NONE, NONE);
    expect(this.device).toBeGreaterThan(0);
  }

  map(iovaPfn: number, pfn: number, pages = 1, prot = RW, domain = this.domain): number {
    return this.exports.iommuMap(domain, iovaPfn, pfn, pages, prot);
  }

  /** The frame that the device reaches, or an errno. */
  access(iovaPfn: number, access = RW): number {
    const count = this.exports.dmaSpans(this.device, iovaPfn, 0, 1, access);
    return count < 0 ? count : (this.core.core.scratch[0] ?? 0) / 4096;
  }

  /** staleCount and stalePfn of the domain. */
  get stale(): [count: number, pfn: number] {
    const at = this.exports.iommuDomainAt(this.domain) / 4;
    return [this.core.core.u32[at + 8] ?? NONE, this.core.core.u32[at + 9] ?? NONE];
  }

  /** Hits, misses and evictions of the domain's IOTLB. */
  get tlb(): number[] {
    const at = this.core.core.u32[this.exports.iommuDomainAt(this.domain) / 4 + 7] ?? 0;
    return [...this.core.core.u32.subarray(at / 4 + 4, at / 4 + 7)];
  }

  sound(): void {
    expect(this.core.core.check(true)).toBeNull();
  }
}

describe.each(eachCore)("domains on the $name core", (build) => {
  describe("attach", () => {
    it("sends a group's devices through another domain, and back", () => {
      const bench = new Bench(build);
      const { exports, domain } = bench;
      const other = exports.iommuDomainAlloc();
      expect(bench.map(8, 900)).toBe(0);
      expect(bench.map(8, 901, 1, RW, other)).toBe(0);
      expect(bench.access(8)).toBe(900);
      expect(exports.iommuAttach(domain, 0, other)).toBe(0);
      expect(bench.access(8)).toBe(901);
      expect(exports.iommuDomainFree(other)).toBe(EBUSY);
      bench.sound();
      expect(exports.iommuAttach(domain, other, 0)).toBe(0);
      expect(bench.access(8)).toBe(900);
      expect(exports.iommuDomainFree(other)).toBe(0);
      bench.sound();
    });

    it("refuses a second domain with EBUSY, and one with devices of its own with EINVAL", () => {
      const bench = new Bench(build);
      const { exports, domain } = bench;
      const [first, second] = [exports.iommuDomainAlloc(), exports.iommuDomainAlloc()];
      expect(exports.dmaDeviceAdd(second, NONE, 65536, NONE, NONE)).toBeGreaterThan(0);
      expect(exports.iommuAttach(domain, 0, second)).toBe(EINVAL);
      expect(exports.iommuAttach(domain, 0, domain)).toBe(EINVAL);
      expect(exports.iommuAttach(domain, 0, first)).toBe(0);
      expect(exports.iommuAttach(domain, 0, exports.iommuDomainAlloc())).toBe(EBUSY);
      expect(exports.iommuAttach(first, 0, second)).toBe(EINVAL);
      expect(exports.dmaDeviceAdd(first, NONE, 65536, NONE, NONE)).toBe(EINVAL);
      bench.sound();
    });

    it("reaches the same frame through an identity domain, nothing through a blocked one", () => {
      const bench = new Bench(build);
      const { exports, domain } = bench;
      const [identity, blocked] = [IDENTITY, BLOCKED].map((type) =>
        exports.iommuDomainAllocFixed(type),
      );
      expect(exports.iommuAttach(domain, 0, identity)).toBe(0);
      expect([bench.access(900), bench.access(FRAMES)]).toEqual([900, EFAULT]);
      expect(exports.iommuAttach(domain, identity, 0)).toBe(0);
      expect(exports.iommuAttach(domain, 0, blocked)).toBe(0);
      expect(bench.access(900)).toBe(EFAULT);
      expect(exports.iommuFaultReason(domain, 900, READ)).toBe(4);
      expect([bench.map(1, 1, 1, RW, identity), exports.iommuUnmap(blocked, 1, 1)]).toEqual([
        EINVAL,
        0,
      ]);
      expect(exports.iommuIovaToPhys(identity, 7)).toBe(7);
      expect(exports.iommuIovaToPhys(blocked, 7) >>> 0).toBe(NONE);
      expect(exports.iommuDomainAllocFixed(PAGING)).toBe(EINVAL);
      bench.sound();
    });

    it("survives a rebuild", () => {
      const bench = new Bench(build);
      const { exports, domain } = bench;
      const other = exports.iommuDomainAlloc();
      expect(exports.iommuAttach(domain, 0, other)).toBe(0);
      exports.rebuild();
      bench.sound();
      expect(exports.iommuDomainFree(other)).toBe(EBUSY);
    });
  });

  describe("permissions are checked at each access", () => {
    const EXECUTE = READ | 8;
    const rows: [string, number, number, number, number, number][] = [
      ["read of a readable page", 1, READ, READ, 900, 0],
      ["write to a read-only page", 1, READ, WRITE, EFAULT, 2],
      ["read of a write-only page at stage 1", 1, WRITE, READ, 900, 0],
      ["read of a write-only page at stage 2", 2, WRITE, READ, EFAULT, 2],
      ["write to a write-only page at stage 2", 2, WRITE, WRITE, 900, 0],
      ["fetch of an ordinary page", 1, READ, EXECUTE, 900, 0],
      ["fetch of a noexec page", 1, READ | NOEXEC, EXECUTE, EFAULT, 2],
      ["fetch of a noexec page at stage 2", 2, READ | NOEXEC, EXECUTE, EFAULT, 2],
      ["ordinary read of a privileged page", 1, READ | PRIV, READ, EFAULT, 2],
      ["privileged read of a privileged page", 1, READ | PRIV, READ | PRIV, 900, 0],
      ["privileged write to an ordinary page", 1, RW, WRITE | PRIV, 900, 0],
      ["ordinary read at stage 2, which knows no privileges", 2, READ | PRIV, READ, 900, 0],
    ];
    it.each(rows)("%s", (_name, stage, prot, access, result, reason) => {
      const bench = new Bench(build, 0, stage);
      expect(bench.map(8, 900, 1, prot)).toBe(0);
      expect(bench.access(8, access)).toBe(result);
      expect(bench.exports.iommuFaultReason(bench.domain, 8, access)).toBe(reason);
    });

    it("an access of no kind is EINVAL, one of nothing a translation fault", () => {
      const bench = new Bench(build);
      expect([0, 8, 32, 4, 64 | READ].map((access) => bench.access(8, access))).toEqual(
        Array(5).fill(EINVAL),
      );
      expect(bench.access(8)).toBe(EFAULT);
      expect(bench.exports.iommuFaultReason(bench.domain, 8, READ)).toBe(1);
    });
  });

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

  describe("dirty tracking", () => {
    const words = (bench: Bench, count: number): number[] => [
      ...bench.core.core.scratch.subarray(0, count),
    ];

    it("a write makes a page dirty, a read does not, and clearing starts again", () => {
      const bench = new Bench(build, DIRTY_BITS);
      const { exports, domain } = bench;
      expect(bench.map(64, 900, 40)).toBe(0);
      expect(exports.iommuReadDirty(domain, 64, 40)).toBe(40); // nobody knows what came before
      expect(exports.iommuClearDirty(domain, 64, 40)).toBe(0);
      expect(exports.iommuReadDirty(domain, 64, 40)).toBe(0);
      for (const pfn of [65, 100]) expect(bench.access(pfn, WRITE)).toBe(836 + pfn);
      expect(bench.access(70, READ)).toBe(906);
      expect(exports.iommuReadDirty(domain, 64, 40)).toBe(2);
      expect(words(bench, 2)).toEqual([2, 16]);
      expect(exports.iommuClearDirty(domain, 64, 8)).toBe(0);
      expect(exports.iommuReadDirty(domain, 64, 40)).toBe(1);
      bench.sound();
    });

    it("has the granularity of blocks", () => {
      const bench = new Bench(build, DIRTY_BITS);
      const { exports, domain } = bench;
      expect(bench.map(BLOCK, BLOCK, BLOCK)).toBe(0);
      exports.iommuClearDirty(domain, BLOCK, BLOCK);
      expect(bench.access(BLOCK + 300, WRITE)).toBe(BLOCK + 300);
      expect(exports.iommuReadDirty(domain, BLOCK, BLOCK)).toBe(BLOCK);
      expect(exports.iommuReadDirty(domain, BLOCK + 10, 3)).toBe(3);
    });

    it("is not fooled by an IOTLB that knows a clean page", () => {
      const bench = new Bench(build, DIRTY_BITS);
      const { exports, domain } = bench;
      exports.iommuIotlbMake(domain, 4, 4, 1);
      bench.map(8, 900);
      for (let round = 0; round < 3; round++) {
        exports.iommuClearDirty(domain, 8, 1);
        bench.access(8, READ);
        expect(exports.iommuReadDirty(domain, 8, 1)).toBe(0);
        bench.access(8, WRITE);
        expect(exports.iommuReadDirty(domain, 8, 1)).toBe(1);
      }
      expect(bench.stale[0]).toBe(0);
    });

    it("a write to a read-only page faults and marks nothing", () => {
      const bench = new Bench(build, DIRTY_BITS);
      bench.map(8, 900, 1, READ);
      expect(bench.access(8, WRITE)).toBe(EFAULT);
      expect(bench.exports.iommuReadDirty(bench.domain, 8, 1)).toBe(0);
    });

    it("refuses empty and long ranges, and tables without dirty bits", () => {
      const bench = new Bench(build, DIRTY_BITS);
      const { exports, domain } = bench;
      expect(exports.iommuReadDirty(domain, 8, 0)).toBe(EINVAL);
      expect(exports.iommuReadDirty(domain, 8, 24_577)).toBe(EINVAL);
      expect(exports.iommuReadDirty(domain, NONE, 2)).toBe(ERANGE);
      const plain = exports.iommuDomainAlloc();
      expect(exports.iommuReadDirty(plain, 8, 1)).toBe(EOPNOTSUPP);
      expect(exports.iommuClearDirty(plain, 8, 1)).toBe(EOPNOTSUPP);
    });
  });

  describe("strictMap", () => {
    it("a block does not replace a table with something mapped", () => {
      const [strict, plain] = [new Bench(build, STRICT_MAP), new Bench(build)];
      const results = [strict, plain].map((bench) => {
        bench.map(2 * BLOCK + 7, 900);
        const result = bench.map(BLOCK, BLOCK, 3 * BLOCK);
        return [result, bench.access(2 * BLOCK + 7), bench.access(BLOCK)];
      });
      expect(results).toEqual([
        [EEXIST, 900, EFAULT],
        [0, 2 * BLOCK + 7, BLOCK],
      ]);
    });

    it("a block takes the place of an empty table", () => {
      const bench = new Bench(build, STRICT_MAP);
      bench.map(BLOCK + 7, 900);
      bench.exports.iommuUnmap(bench.domain, BLOCK + 7, 1);
      expect(bench.map(BLOCK, BLOCK, BLOCK)).toBe(0);
      bench.sound();
    });

    it("nothing is written before all is checked, in lists too", () => {
      const bench = new Bench(build, STRICT_MAP);
      const { exports } = bench;
      const root = bench.core.scratchAt;
      expect(exports.pgtInitAs(root, formatWord(STRICT_MAP))).toBe(0);
      expect(exports.pgtMap(root, BLOCK + 3, 900, 1, RW)).toBe(0); // a table under the block
      expect(exports.pgtUnmap(root, BLOCK + 3, 1)).toBe(1);
      expect(exports.pgtMap(root, 2 * BLOCK + 1, 900, 1, RW)).toBe(0);
      const before = exports.pgtTableFrames(root);
      const segments = [BLOCK, 0, BLOCK * 4096, 0, 7, 0, 2 * 4096, 0];
      bench.core.core.u32.set(segments, (root + 65536) / 4);
      expect(exports.pgtMapFrames(root, BLOCK, root + 65536, 2, RW)).toBe(EEXIST);
      expect(exports.pgtTableFrames(root)).toBe(before); // not even the empty table went
      expect(exports.pgtLookup(root, BLOCK) >>> 0).toBe(NONE);
      exports.pgtFini(root);
    });
  });
});
