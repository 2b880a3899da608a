import { describe, expect, test } from "vitest";
import {
  type DomainOps,
  type DomainType,
  GiB,
  IommuDomain,
  iommuProt,
  KiB,
  MiB,
} from "../../../src/index.ts";
import { expectError } from "../../support/errors.ts";
import { MAP_TABLE_SIZES, MapTable } from "../../support/map-table.ts";
import { fuzzSeed, Prng } from "../../support/prng.ts";
import { nextUncaught } from "../../support/uncaught.ts";

const PS = 4 * KiB;
const RW = iommuProt.read + iommuProt.write;
const SIZES = MAP_TABLE_SIZES;

/** A way to map 16 KiB. */
type MapCall = (domain: IommuDomain) => void;

const TWO_RUNS = [
  { address: PS, lengthBytes: 2 * PS },
  { address: 5 * PS, lengthBytes: 2 * PS },
];

function throwRangeError(): never {
  throw new RangeError("out");
}

describe("IommuDomain.map()", () => {
  test.each([
    ["ends small pages at a large one", 0x1ff000, 0x1ff000, 0x202000, "1x4K 1x2M 1x4K"],
    ["ends with a large one", 0x1ff000, 0x3ff000, 0x201000, "1x4K 1x2M"],
    ["stays small where paddr is offset otherwise", 0x1ff000, 0x1000, 0x400000, "1024x4K"],
    ["stays small from a large page's start", 0x200000, 0x1000, 0x200000, "512x4K"],
    ["takes every size", 0x3fe00000, 0x7fe00000, 0x40400000, "1x2M 1x1G 1x2M"],
    ["ends with small pages", 0x200000, 0x400000, 0x3ff000, "1x2M 511x4K"],
    ["takes small pages in one call", 0x1000, 0x201000, 0x3fe000, "1022x4K"],
    ["takes many large pages in one call", 0, 0x40000000, 3 * GiB, "3x1G"],
    ["takes addresses above 2^44", 2 ** 52, 2 ** 45, GiB + PS, "1x1G 1x4K"],
  ])("%s", (_, iova, paddr, size, plan) => {
    const units = { [PS]: "4K", [2 * MiB]: "2M", [GiB]: "1G" } as Record<number, string>;
    const seen: string[] = [];
    const domain = new IommuDomain({
      pgsizeBitmap: SIZES,
      mapPages(at, phys, pageBytes, pageCount, prot) {
        expect([at - iova, prot]).toEqual([phys - paddr, RW]);
        seen.push(`${pageCount}x${units[pageBytes]}`);
        return pageBytes * pageCount;
      },
    });
    domain.map(iova, paddr, size, RW);
    expect(seen.join(" ")).toBe(plan);
  });

  test("translates, and syncs once at the end", () => {
    const table = new MapTable();
    const domain = new IommuDomain(table);
    domain.map(2 * MiB - PS, 4 * MiB - PS, 2 * MiB + PS, RW);
    expect(table.log).toEqual(["map 1 of 4 KiB", "map 1 of 2048 KiB", "sync map 2052 KiB"]);
    expect(domain.iovaToPhys(3 * MiB + 5)).toBe(5 * MiB + 5);
    expect(domain.iovaToPhys(4 * MiB)).toBeNull();
  });

  test("rolls back at every n-th failure, leaving what was there before", () => {
    const calls = 3 + 1 + 3; // 300 small pages, one large, 212 small
    for (let failAt = 1; failAt <= calls + 1; failAt++) {
      const table = new MapTable();
      const domain = new IommuDomain(table);
      domain.map(8 * MiB, 0, PS, RW);
      table.failAt = failAt + 1;
      table.maxPages = 100;
      const map = () => domain.map(2 * MiB - 300 * PS, 4 * MiB - 300 * PS, 4 * MiB, RW);
      if (failAt <= calls) {
        expectError("ENOMEM", map);
        expect([...table.pages]).toEqual([[8 * MiB, 0]]);
        expect(table.log.at(-1)).toMatch(/^sync( \d|$)/);
      } else {
        map();
        expect(table.log.at(-1)).toBe("sync map 4096 KiB");
      }
    }
  });

  test("rolls back at an overlap", () => {
    const table = new MapTable();
    const domain = new IommuDomain(table);
    domain.map(5 * PS, 0, PS, RW);
    expectError("EEXIST", () => domain.map(0, 9 * PS, 8 * PS, RW));
    expect([...table.pages]).toEqual([[5 * PS, 0]]);
  });

  test.each([
    ["an error", throwRangeError, RangeError],
    ["nothing mapped", () => 0, /stopped after/],
  ])("rolls back when a driver answers with %s", (_, answer, message) => {
    const { domain, pages } = answering(answer);
    expect(() => domain.map(0, PS, 4 * PS, RW)).toThrow(message);
    expect(pages.size).toBe(0);
  });

  test.each<[string, unknown, string]>([
    ["more than asked for", 9 * PS, "36864, and should map 12288 bytes"],
    ["half a page", PS / 2, "2048,"],
    ["no number", Number.NaN, "NaN,"],
    ["nothing at all", undefined, "undefined,"],
    ["null", null, "null,"],
    ["a text", "4096", "4096,"],
    ["a promise", Promise.resolve(PS), "Promise,"],
    ["a part without an error", { mappedBytes: 0 }, "Object,"],
    ["no errno", { mappedBytes: 0, error: "EOOPS" }, "{ mappedBytes: 0, error: EOOPS },"],
    ["a negative part", { mappedBytes: -PS, error: "EIO" }, "{ mappedBytes: -4096, error: EIO },"],
  ])("is EIO, and rolled back, when a driver answers with %s", (_, answer, said) => {
    const { domain, pages } = answering(() => answer);
    const message = expectError("EIO", () => domain.map(0, PS, 4 * PS, RW));
    expect(message).toContain(`the driver's mapPages() returned ${said}`);
    expect(pages.size).toBe(0);
    const list = [{ address: PS, lengthBytes: 4 * PS }];
    expect(expectError("EIO", () => domain.mapSg(0, list, RW))).toContain(`returned ${said}`);
    expect(pages.size).toBe(0);
  });

  test.each<[string, MapCall]>([
    ["map()", (domain) => domain.map(0, PS, 4 * PS, RW)],
    ["mapSg()", (domain) => domain.mapSg(0, TWO_RUNS, RW)],
  ])("%s that fails says why, whatever the driver's unmapPages() returns then", async (_, map) => {
    const { ops, table } = undoing(() => Number.NaN);
    table.failAt = 2;
    table.maxPages = 1;
    const reported = nextUncaught();
    expectError("ENOMEM", () => map(new IommuDomain(ops)));
    expect(String(await reported)).toContain("the driver's unmapPages() returned NaN");
  });

  test.each<[string, MapCall]>([
    ["map()", (domain) => domain.map(0, PS, 4 * PS, RW)],
    ["mapSg()", (domain) => domain.mapSg(0, TWO_RUNS, RW)],
  ])("%s says what iotlbSyncMap() threw, whatever unmapPages() throws then", async (_, map) => {
    const { ops, table } = undoing(() => {
      throw new RangeError("broken too");
    });
    ops.iotlbSyncMap = () => {
      throw new TypeError("broken");
    };
    const reported = nextUncaught();
    expect(() => map(new IommuDomain(ops))).toThrow("broken");
    expect(String(await reported)).toContain("broken too");
    expect(table.log.at(-1)).toMatch(/^sync/);
  });

  test("is undone when iotlbSyncMap() throws", () => {
    const table = new MapTable();
    table.iotlbSyncMap = () => {
      throw new RangeError("broken");
    };
    const domain = new IommuDomain(table);
    expect(() => domain.map(0, PS, 4 * PS, RW)).toThrow(RangeError);
    expect(() => domain.mapSg(0, [{ address: PS, lengthBytes: PS }], RW)).toThrow(RangeError);
    expect(table.pages.size).toBe(0);
  });
});

describe("IommuDomain.mapSg()", () => {
  test("maps neighbours as one, and skips empty ranges", () => {
    const table = new MapTable();
    const domain = new IommuDomain(table);
    const ranges = [
      { address: 8 * PS, lengthBytes: PS },
      { address: 0, lengthBytes: 0 },
      { address: 9 * PS, lengthBytes: 2 * PS },
      { address: 3 * PS, lengthBytes: PS },
    ];
    expect(domain.mapSg(PS, ranges, RW)).toBe(4 * PS);
    expect(table.log).toEqual(["map 3 of 4 KiB", "map 1 of 4 KiB", "sync map 16 KiB"]);
    expect(domain.iovaToPhys(3 * PS)).toBe(10 * PS);
    expect(domain.iovaToPhys(4 * PS)).toBe(3 * PS);
  });

  test("rolls back at every n-th failure", () => {
    const ranges = Array.from({ length: 9 }, (_, i) => ({ address: 3 * i * PS, lengthBytes: PS }));
    for (let failAt = 1; failAt <= ranges.length; failAt++) {
      const table = new MapTable();
      table.failAt = failAt;
      expectError("ENOMEM", () => new IommuDomain(table).mapSg(PS, ranges, RW));
      expect(table.pages.size).toBe(0);
      expect(table.log.at(-1)).toMatch(/^sync/);
      expect(table.log).not.toContainEqual(expect.stringMatching(/^sync map/));
    }
  });

  test("refuses a range that is no whole pages, with what came before undone", () => {
    const table = new MapTable();
    const odd = [
      { address: 0, lengthBytes: PS },
      { address: 2 * PS, lengthBytes: 100 },
    ];
    expectError("EINVAL", () => new IommuDomain(table).mapSg(0, odd, RW));
    expect(table.pages.size).toBe(0);
  });
});

describe("IommuDomain.unmap()", () => {
  test("stops at the first hole, and always syncs", () => {
    const table = new MapTable();
    const domain = new IommuDomain(table);
    domain.map(0, 0, 2 * PS, RW);
    domain.map(3 * PS, 0, PS, RW);
    expect(domain.unmap(0, 4 * PS)).toBe(2 * PS);
    expect(table.log.at(-1)).toBe("sync 0 to 2");
    expect(domain.unmap(0, 0)).toBe(0);
    expect(table.log.at(-1)).toBe("sync");
    expect(domain.unmap(1, PS)).toBe(0);
    expect(domain.unmap(0, PS + 1)).toBe(0);
    expect([...table.pages.keys()]).toEqual([3 * PS]);
  });

  test("collects several ranges for one sync, and syncs early where they do not touch", () => {
    const table = new MapTable();
    const domain = new IommuDomain(table);
    domain.map(0, 0, 9 * PS, RW);
    table.log.length = 0;
    const gather = domain.gather();
    domain.unmapFast(0, 2 * PS, gather);
    domain.unmapFast(2 * PS, PS, gather);
    domain.unmapFast(7 * PS, PS, gather);
    gather.sync();
    expect(table.log.filter((line) => line.startsWith("sync"))).toEqual([
      "sync 0 to 3",
      "sync 7 to 8",
    ]);
    expect(gather.isEmpty).toBe(true);
  });

  test("refuses what a driver must not return, after a sync of what is gone before it", () => {
    const table = new MapTable();
    let calls = 0;
    const domain = new IommuDomain({
      pgsizeBitmap: SIZES,
      mapPages: (iova, paddr, pageBytes, pageCount) =>
        table.mapPages(iova, paddr, pageBytes, pageCount),
      unmapPages: (iova, pageBytes, _, gather) =>
        ++calls === 1 ? table.unmapPages(iova, pageBytes, 1, gather) : -12,
      iotlbSync: (gather) => table.iotlbSync(gather),
    });
    domain.map(0, 0, 4 * PS, RW);
    const message = expectError("EIO", () => domain.unmap(0, 4 * PS));
    expect(message).toContain("the driver's unmapPages() returned -12");
    expect(table.log.at(-1)).toBe("sync 0 to 1"); // ID2
  });
});

describe("IommuDomain.iovaToPhys()", () => {
  test.each<[string, unknown, string]>([
    ["nothing at all", undefined, "undefined"],
    ["no number", Number.NaN, "NaN"],
    ["a fraction", 0.5, "0.5"],
    ["a negative address", -PS, "-4096"],
    ["more than a safe integer", 2 ** 53, "9007199254740992"],
    ["infinity", Infinity, "Infinity"],
    ["a text", "4096", "4096"],
    ["a bigint", 4096n, "4096"],
    ["a promise", Promise.resolve(PS), "Promise"],
  ])("is EIO when a driver answers with %s", (_, answer, said) => {
    const domain = new IommuDomain({ pgsizeBitmap: SIZES, iovaToPhys: () => answer as number });
    const message = expectError("EIO", () => domain.iovaToPhys(PS + 5));
    expect(message).toContain(`the driver's iovaToPhys() returned ${said}, `);
  });

  test.each([null, 0, 5, 2 ** 53 - 1])("passes on %s", (answer) => {
    const domain = new IommuDomain({ pgsizeBitmap: SIZES, iovaToPhys: () => answer });
    expect(domain.iovaToPhys(PS + 5)).toBe(answer);
  });
});

describe("an IommuDomain", () => {
  test.each([
    ["identity", 5],
    ["blocked", null],
  ] as const)("that is %s maps nothing", (type, phys) => {
    const table = new MapTable();
    const domain = new IommuDomain(table, type);
    expectError("EINVAL", () => domain.map(0, 0, PS, RW));
    expect(domain.unmap(0, PS)).toBe(0);
    expect(domain.iovaToPhys(5)).toBe(phys);
  });

  test("without callbacks or page sizes is ENODEV", () => {
    expectError("ENODEV", () => new IommuDomain({ pgsizeBitmap: SIZES }).map(0, 0, PS, RW));
    expectError("ENODEV", () => new IommuDomain(new MapTable(0n)).map(0, 0, PS, RW));
    expectError("ENODEV", () => new IommuDomain({ pgsizeBitmap: SIZES }).iovaToPhys(0));
    expect(new IommuDomain({ pgsizeBitmap: SIZES }).unmap(0, PS)).toBe(0);
  });

  test("refuses arguments that are none", () => {
    const domain = new IommuDomain(new MapTable());
    for (const bad of [-1, 0.5, Number.NaN, 2 ** 53, "0", undefined] as number[]) {
      expectError("EINVAL", () => domain.map(bad, 0, PS, RW));
      expectError("EINVAL", () => domain.map(0, bad, PS, RW));
      expectError("EINVAL", () => domain.map(0, 0, bad, RW));
      expectError("EINVAL", () => domain.unmap(bad, PS));
      expectError("EINVAL", () => domain.iovaToPhys(bad));
    }
    expectError("ERANGE", () => domain.map(2 ** 53 - PS, 0, PS, RW));
    expectError("EINVAL", () => new IommuDomain(new MapTable(), "none" as DomainType));
    for (const bad of [-1n, 1n << 64n, 4096 as unknown as bigint]) {
      expectError("EINVAL", () => new IommuDomain(new MapTable(bad)));
    }
  });
});

test("maps and unmaps at random as a naive table does", () => {
  const random = new Prng(fuzzSeed(0x10));
  const table = new MapTable(0x11000n); // 4 and 64 KiB
  const domain = new IommuDomain(table);
  const naive = new Map<number, number>();
  for (let step = 0; step < 3000; step++) {
    const iova = random.below(64) * PS;
    const paddr = random.below(64) * PS;
    const count = 1 + random.below(20);
    const pages = Array.from({ length: count }, (_, i) => iova + i * PS);
    if (random.below(2) === 0) {
      if (pages.some((page) => naive.has(page))) {
        expectError("EEXIST", () => domain.map(iova, paddr, count * PS, RW));
      } else {
        domain.map(iova, paddr, count * PS, RW);
        for (const [i, page] of pages.entries()) naive.set(page, paddr + i * PS);
      }
    } else {
      let gone = 0;
      for (const page of pages) {
        if (!naive.delete(page)) break;
        gone += PS;
      }
      expect(domain.unmap(iova, count * PS)).toBe(gone);
    }
    expect(new Map([...table.pages].sort())).toEqual(new Map([...naive].sort()));
  }
});

/** A driver that maps as it should, and answers an unmapPages() with something. */
function undoing(answer: () => number): { ops: DomainOps; table: MapTable } {
  const table = new MapTable();
  const ops: DomainOps = {
    pgsizeBitmap: table.pgsizeBitmap,
    mapPages: (iova, paddr, pageBytes, pageCount) =>
      table.mapPages(iova, paddr, pageBytes, pageCount),
    unmapPages: answer,
    iotlbSync: (gather) => table.iotlbSync(gather),
  };
  return { ops, table };
}

/** A domain whose driver maps a page as it should, and then answers with something. */
function answering(answer: () => unknown) {
  const table = new MapTable();
  const domain = new IommuDomain({
    pgsizeBitmap: table.pgsizeBitmap,
    mapPages: (iova, paddr, pageBytes) =>
      table.pages.size === 0 ? table.mapPages(iova, paddr, pageBytes, 1) : (answer() as number),
    unmapPages: (...args) => table.unmapPages(...args),
  });
  return { domain, pages: table.pages };
}
