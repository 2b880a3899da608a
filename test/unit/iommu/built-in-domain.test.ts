import { describe, expect, test } from "vitest";
import { codeOf, type ErrnoCode } from "../../../src/errors.ts";
import {
  arm32Lpae,
  type BuiltInDomain,
  DmaBufError,
  type DomainOps,
  type DomainOptions,
  FRAME_BYTES,
  GiB,
  IommuDomain,
  iommuProt,
  KiB,
  MiB,
} from "../../../src/index.ts";
import { eachCore } from "../../support/cores.ts";
import { expectError } from "../../support/errors.ts";
import { Prng } from "../../support/prng.ts";

const RW = iommuProt.read + iommuProt.write;

describe.each(eachCore)("BuiltInDomain on the $name core", (build) => {
  const open = (options: DomainOptions = {}) => {
    const system = build.system({ memoryBytes: 16 * MiB });
    return { system, domain: system.iommu.domain(options) };
  };

  describe("domain.map() and domain.unmap()", () => {
    test("say what the table says: sizes, the aperture, the type", () => {
      const rows: [DomainOptions, bigint, number][] = [
        [{}, 0x40201000n, 2 ** 44 - 1],
        [{ granuleBytes: 16 * KiB }, 0x2004000n, 2 ** 44 - 1],
        [{ granuleBytes: 64 * KiB, stage: 2 }, 0x20010000n, 2 ** 44 - 1],
        [arm32Lpae, 0x40201000n, 2 ** 32 - 1],
        [{ type: "identity" }, 0n, 2 ** 44 - 1],
      ];
      for (const [options, bitmap, end] of rows) {
        const { domain } = open(options);
        expect([domain.pgsizeBitmap, domain.aperture]).toEqual([bitmap, { start: 0, end }]);
        expect(domain.type).toBe(options.type ?? "paging");
      }
    });

    test("translate each byte, split blocks, and stop at the first hole", () => {
      const { domain } = open();
      domain.map(2 * MiB, 1 * GiB, 4 * MiB, RW);
      expect(domain.iovaToPhys(3 * MiB + 5)).toBe(1 * GiB + 1 * MiB + 5);
      expect(domain.unmap(3 * MiB, FRAME_BYTES)).toBe(FRAME_BYTES);
      expect(domain.iovaToPhys(3 * MiB)).toBeNull();
      expect(domain.unmap(2 * MiB, 2 * MiB - FRAME_BYTES)).toBe(1 * MiB);
    });

    const refusals: [string, DomainOptions, [number, number, number, number], ErrnoCode][] = [
      ["an unaligned iova", {}, [1, 0, FRAME_BYTES, RW], "EINVAL"],
      ["an unaligned paddr", {}, [0, 512, FRAME_BYTES, RW], "EINVAL"],
      ["an unaligned size", {}, [0, 0, 100, RW], "EINVAL"],
      ["4 KiB in 64 KiB pages", { granuleBytes: 64 * KiB }, [0, 0, FRAME_BYTES, RW], "EINVAL"],
      ["no access", {}, [0, 0, FRAME_BYTES, iommuProt.cache], "EINVAL"],
      ["a prot that is none", {}, [0, 0, FRAME_BYTES, 64 + RW], "EINVAL"],
      ["a negative iova", {}, [-FRAME_BYTES, 0, FRAME_BYTES, RW], "EINVAL"],
      ["an iova above 2^44", {}, [2 ** 44, 0, FRAME_BYTES, RW], "ERANGE"],
      ["a range across 2^44", {}, [2 ** 44 - FRAME_BYTES, 0, 2 * FRAME_BYTES, RW], "ERANGE"],
      ["a paddr above 2^44", {}, [0, 2 ** 44, FRAME_BYTES, RW], "ERANGE"],
      ["an iova above 32 bits", arm32Lpae, [2 ** 32, 0, FRAME_BYTES, RW], "ERANGE"],
      ["a paddr above 40 bits", arm32Lpae, [0, 2 ** 40, FRAME_BYTES, RW], "ERANGE"],
      ["what is mapped", {}, [2 * MiB, 0, FRAME_BYTES, RW], "EEXIST"],
      ["an identity domain", { type: "identity" }, [0, 0, FRAME_BYTES, RW], "EINVAL"],
      ["a blocked domain", { type: "blocked" }, [0, 0, FRAME_BYTES, RW], "EINVAL"],
    ];
    test.each(refusals)("refuse %s", (_name, options, [iova, paddr, size, prot], code) => {
      const { domain } = open(options);
      if (domain.type === "paging") domain.map(2 * MiB, 0, 2 * MiB, RW);
      expectError(code, () => domain.map(iova, paddr, size, prot));
    });

    test("refuse options that are none", () => {
      const rows: object[] = [
        { granuleBytes: 8 * KiB },
        { stage: 3 },
        { addressBits: 48 },
        { outputBits: 31 },
        { type: "nested" },
        { stage: 2, dirtyTracking: true },
        { iotlb: { entries: 0 } },
        { iotlb: { entries: 255 } },
        { iotlb: { entries: 12, ways: 4 } },
        { iotlb: { entries: 8, eviction: "random" } },
      ];
      const { system } = open();
      for (const options of rows) {
        expectError("EINVAL", () => system.iommu.domain(options as DomainOptions));
      }
      expect(system.check()).toBeNull();
    });

    test("domain.free() refuses everything afterwards, with ESTALE", () => {
      const { system, domain } = open();
      domain.map(0, 0, 2 * MiB, RW);
      domain.free();
      expectError("ESTALE", () => domain.map(0, 0, FRAME_BYTES, RW));
      expectError("ESTALE", () => domain.unmap(0, FRAME_BYTES));
      expectError("ESTALE", () => domain.iovaToPhys(0));
      expectError("ESTALE", () => domain.free());
      expect(system.check()).toBeNull();
    });
  });

  test("strictMap: a block does not replace what is mapped, and 6.1's rule does", () => {
    for (const strictMap of [true, false]) {
      const { domain } = open({ strictMap });
      domain.map(3 * MiB, 5 * MiB, FRAME_BYTES, RW);
      const map = () => domain.map(2 * MiB, 8 * MiB, 2 * MiB, RW);
      if (strictMap) expectError("EEXIST", map);
      else map();
      expect(domain.iovaToPhys(3 * MiB)).toBe(strictMap ? 5 * MiB : 9 * MiB);
    }
  });

  test("domain.mapSg() maps all ranges or none, neighbours as one", () => {
    const { domain } = open();
    const half = 1 * MiB;
    const ranges = [
      { address: 2 * MiB, lengthBytes: half },
      { address: 2 * MiB + half, lengthBytes: half },
      { address: 64 * MiB, lengthBytes: FRAME_BYTES },
    ];
    expect(domain.mapSg(4 * MiB, ranges, RW)).toBe(2 * MiB + FRAME_BYTES);
    expect(domain.iovaToPhys(6 * MiB)).toBe(64 * MiB);
    expectError("EEXIST", () => domain.mapSg(2 * MiB, [...ranges, ...ranges], RW));
    expect(domain.iovaToPhys(2 * MiB)).toBeNull();
  });

  test("unmapFast() leaves the IOTLB to gather.sync(): stale until then", () => {
    const { system, domain } = open({ iotlb: { entries: 8, ways: 2 } });
    const device = system.addDevice({ name: "npu", iommu: true });
    const frame = system.frames.alloc(1).pfn * FRAME_BYTES;
    domain.map(1 * MiB, frame, FRAME_BYTES, RW);
    domain.attachDevice(device);
    device.dma.read(1 * MiB, new Uint8Array(4));
    const gather = domain.gather();
    expect(domain.unmapFast(1 * MiB, FRAME_BYTES, gather)).toBe(FRAME_BYTES);
    device.dma.read(1 * MiB, new Uint8Array(4));
    expect(domain.staleCount).toBe(1);
    gather.sync();
    expectError("EFAULT", () => device.dma.read(1 * MiB, new Uint8Array(4)));
    expect(domain.iotlbStats).toEqual({ hits: 1, misses: 2, evictions: 0 });
  });

  test("a domain is emptied in one unmap, up to the first hole", () => {
    const { system, domain } = open({ iotlb: { entries: 8, ways: 2 } });
    const device = system.addDevice({ name: "npu", iommu: true, dmaMaskBits: 64 });
    domain.attachDevice(device);
    const [half, frame] = [2 ** 43, system.frames.alloc(1).pfn * FRAME_BYTES];
    domain.map(0, 0, half, RW);
    domain.map(half, 0, half - FRAME_BYTES, RW);
    domain.map(2 * half - FRAME_BYTES, frame, FRAME_BYTES, RW);
    const last = () => device.dma.read(2 * half - FRAME_BYTES, new Uint8Array(1));
    last(); // the IOTLB knows it
    const gather = domain.gather();
    expect(domain.unmapFast(0, 2 * half, gather)).toBe(2 * half);
    last();
    expect(domain.staleCount).toBe(1);
    gather.sync();
    expectError("EFAULT", last);
    domain.map(0, 0, half, RW);
    domain.map(half + GiB, 0, GiB, RW);
    expect(domain.unmap(0, 2 * half)).toBe(half);
    expect([domain.unmap(0, 2 * half), domain.unmap(half + GiB, GiB)]).toEqual([0, GiB]);
  });

  test("the IOTLB forgets what a map replaces, and not what nobody has invalidated", () => {
    const { system, domain } = open({ iotlb: { entries: 8, ways: 2 } });
    const device = system.addDevice({ name: "npu", iommu: true });
    domain.attachDevice(device);
    const range = system.frames.alloc(1024, { alignOrder: 10 });
    const pinned = range.pin();
    const [frame, block] = [range.pfn * FRAME_BYTES, range.pfn * FRAME_BYTES + 2 * MiB];
    pinned.bytes.fill(1, 0, FRAME_BYTES).fill(2, 2 * MiB);
    const seen = (): number => {
      const into = new Uint8Array(1);
      device.dma.read(2 * MiB, into);
      return into[0] as number;
    };
    domain.map(2 * MiB, frame, FRAME_BYTES, RW);
    expect(seen()).toBe(1);
    domain.map(2 * MiB, block, 2 * MiB, RW); // 6.1: the block replaces the table, and flushes
    expect([seen(), domain.staleCount]).toEqual([2, 0]);
    const gather = domain.gather();
    domain.unmapFast(2 * MiB, 2 * MiB, gather);
    domain.map(2 * MiB, frame, FRAME_BYTES, RW); // before the sync: a driver's mistake
    expect([seen(), domain.staleCount]).toEqual([2, 1]);
    gather.sync();
    expect([seen(), domain.staleCount]).toEqual([1, 1]);
  });

  describe("dirty tracking", () => {
    test("readAndClearDirty() gives the pages that a device wrote to, once", () => {
      const { system, domain } = open({ dirtyTracking: true });
      const device = system.addDevice({ name: "npu", iommu: true });
      const frames = system.frames.alloc(40);
      domain.map(1 * MiB, frames.pfn * FRAME_BYTES, 40 * FRAME_BYTES, RW);
      domain.attachDevice(device);
      const size = 40 * FRAME_BYTES;
      expect(domain.readAndClearDirty(1 * MiB, size).ranges).toEqual([
        { address: 1 * MiB, lengthBytes: size }, // fresh: nobody knows
      ]);
      expect(domain.readAndClearDirty(1 * MiB, size).ranges).toEqual([]);
      device.dma.read(1 * MiB, new Uint8Array(size));
      device.dma.write(1 * MiB + 5 * FRAME_BYTES - 1, new Uint8Array(2));
      device.dma.write(1 * MiB + 39 * FRAME_BYTES, new Uint8Array(2));
      const kept = domain.readAndClearDirty(1 * MiB, size, { noClear: true });
      expect(kept.ranges).toEqual([
        { address: 1 * MiB + 4 * FRAME_BYTES, lengthBytes: 2 * FRAME_BYTES },
        { address: 1 * MiB + 39 * FRAME_BYTES, lengthBytes: FRAME_BYTES },
      ]);
      expect([kept.has(1 * MiB), kept.has(1 * MiB + 4 * FRAME_BYTES), kept.has(0)]).toEqual([
        false,
        true,
        false,
      ]);
      expect([...domain.readAndClearDirty(1 * MiB, size).words]).toEqual([48, 128]);
      expect(domain.readAndClearDirty(1 * MiB, size).ranges).toEqual([]);
    });

    test("a long range is read in parts, and a block across them is dirty on both sides", () => {
      const { system, domain } = open({ dirtyTracking: true });
      const device = system.addDevice({ name: "npu", iommu: true });
      domain.map(0, 0, 128 * MiB, RW);
      domain.attachDevice(device);
      domain.readAndClearDirty(0, 128 * MiB);
      device.dma.write(4 * MiB, new Uint8Array(1)); // 2 MiB blocks
      const bitmap = domain.readAndClearDirty(MiB, 127 * MiB);
      expect(bitmap.ranges).toEqual([{ address: 4 * MiB, lengthBytes: 2 * MiB }]);
    });

    test("without the option it is EOPNOTSUPP; an empty or odd range is EINVAL", () => {
      const { domain } = open();
      expectError("EOPNOTSUPP", () => domain.readAndClearDirty(0, FRAME_BYTES));
      const tracked = open({ dirtyTracking: true }).domain;
      expectError("EINVAL", () => tracked.readAndClearDirty(0, 0));
      expectError("EINVAL", () => tracked.readAndClearDirty(0, 100));
      const narrow = open({ dirtyTracking: true, ...arm32Lpae }).domain;
      narrow.readAndClearDirty(4 * GiB - FRAME_BYTES, FRAME_BYTES);
      expectError("EINVAL", () => narrow.readAndClearDirty(4 * GiB - FRAME_BYTES, 8192));
      expectError("EINVAL", () => narrow.readAndClearDirty(0, 2 ** 43)); // before any bit is read
    });
  });

  describe("the built-in domain does what the generic layer does over the same table", () => {
    const formats: [string, DomainOptions][] = [
      ["4 KiB", {}],
      ["16 KiB", { granuleBytes: 16 * KiB }],
      ["64 KiB, stage 2", { granuleBytes: 64 * KiB, stage: 2 }],
      ["32-bit", arm32Lpae],
    ];
    test.each(formats)("%s", (_name, options) => {
      const seed = 0x1d0;
      const random = new Prng(seed);
      const system = build.system({ memoryBytes: 64 * MiB });
      const ours = system.iommu.domain(options);
      const table = system.iommu.domain(options);
      const theirs = new IommuDomain(new OnePageDriver(table));
      const { granuleBytes = FRAME_BYTES } = ours.format ?? {};
      const blockBytes = Number(ours.pgsizeBitmap - BigInt(granuleBytes)) % GiB;
      const prots = [RW, iommuProt.read, iommuProt.write, RW + iommuProt.noexec, iommuProt.priv];
      for (let event = 0; event < 400; event++) {
        const label = `seed ${seed}, event ${event}`;
        const near = () => blockBytes * random.below(4) + granuleBytes * random.below(20);
        const [iova, paddr] = [near(), near()];
        const size = granuleBytes * random.below(40) + blockBytes * random.below(3);
        const both = (call: (domain: BuiltInDomain | IommuDomain) => unknown): unknown[] =>
          [ours, theirs].map((domain) => {
            try {
              return call(domain);
            } catch (error) {
              if (error instanceof DmaBufError) return error.code;
              throw error;
            }
          });
        const prot = random.pick(prots);
        const [one, other] =
          random.below(5) < 3
            ? both((domain) => domain.map(iova, paddr, size, prot))
            : both((domain) => domain.unmap(iova, size));
        expect(one, label).toEqual(other);
        for (const at of [iova, iova + size - 1, near() + 7]) {
          expect(ours.iovaToPhys(Math.max(0, at)), label).toBe(theirs.iovaToPhys(Math.max(0, at)));
        }
      }
      expect(system.check()).toBeNull();
    });
  });
});

/** A driver that hands the generic layer's plan to a table, one page or block at a time. */
class OnePageDriver implements DomainOps {
  readonly pgsizeBitmap: bigint;
  readonly #table: BuiltInDomain;

  constructor(table: BuiltInDomain) {
    this.#table = table;
    this.pgsizeBitmap = table.pgsizeBitmap;
  }

  mapPages(iova: number, paddr: number, pageBytes: number, pageCount: number, prot: number) {
    for (let i = 0; i < pageCount; i++) {
      try {
        this.#table.map(iova + i * pageBytes, paddr + i * pageBytes, pageBytes, prot);
      } catch (error) {
        if (!(error instanceof DmaBufError)) throw error;
        return { mappedBytes: i * pageBytes, error: codeOf(-error.errno) };
      }
    }
    return pageBytes * pageCount;
  }

  unmapPages(iova: number, pageBytes: number, pageCount: number): number {
    return this.#table.unmap(iova, pageBytes * pageCount);
  }

  iovaToPhys(iova: number): number | null {
    return this.#table.iovaToPhys(iova);
  }
}
