// Domains of the core as devices see them: attaching, protections, dirty tracking, and maps that
// replace nothing.

import { describe, expect, it } from "vitest";
import { tableFlags } from "../../src/core/index.ts";
import { eachCore } from "../support/cores.ts";
import { lockAt, payloadAt, reapHolding } from "../support/death.ts";
import { Bench, formatWord } from "../support/domain-bench.ts";

const NONE = 0xffffffff;
const [EFAULT, EBUSY, EEXIST, EINVAL, EOPNOTSUPP] = [-14, -16, -17, -22, -95];
const [READ, WRITE, NOEXEC, PRIV] = [1, 2, 8, 32];
const RW = READ | WRITE;
const { strictMap: STRICT_MAP, dirtyBits: DIRTY_BITS } = tableFlags;
const [BLOCKED, PAGING, IDENTITY] = [0, 1, 2];
const FRAMES = 4096;
const BLOCK = 512;

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

    it("survives that a thread dies in both, and while it counted who goes through them", () => {
      const bench = new Bench(build);
      const { exports, domain } = bench;
      const other = exports.iommuDomainAlloc();
      expect(bench.map(8, 900)).toBe(0);
      expect(bench.map(8, 901, 1, RW, other)).toBe(0);
      expect(exports.iommuAttach(domain, 0, other)).toBe(0);
      const { core } = bench.core;
      const locks = [domain, other].map((handle) => payloadAt(core, handle));
      reapHolding(core, [...locks, lockAt(core, "domains")], () => {
        core.u32[(locks[1] ?? 0) / 4 + 5] = 0; // userCount
        expect(core.check()).toMatch(/^I4/);
      });
      bench.sound();
      expect(exports.iommuDomainFree(other)).toBe(EBUSY);
      expect(bench.access(8)).toBe(901);
      expect(exports.iommuAttach(domain, other, 0)).toBe(0);
      expect(bench.access(8)).toBe(900);
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
      expect(exports.iommuReadDirty(domain, NONE, 2)).toBe(EINVAL);
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
