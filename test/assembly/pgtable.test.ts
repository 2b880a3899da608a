// The IO page table against hand-made rows and against the naive model, on every build of the core.

import { beforeEach, describe, expect, it } from "vitest";
import {
  EEXIST,
  EINVAL,
  ENOMEM,
  ERANGE,
  NOEXEC,
  PRIV,
  READ,
  WRITE,
} from "../model/pgtable.model.ts";
import { eachCore } from "../support/cores.ts";
import { NONE, Table } from "../support/page-table.ts";
import { exhaust, fuzzTable } from "../support/pgtable-fuzz.ts";

const FRAMES = 4096;
const RW = READ | WRITE;
const CACHE = 4;
const MMIO = 16;
const PAGES_2M = 2 ** 9;
const PAGES_1G = 2 ** 18;
const PAGES_END = 2 ** 32;
const FUZZ_EVENTS = 50_000;
const TABLE_EVENTS = 1_250; // events on one table
const SEED = 0x6731;

describe.each(eachCore)("pgtable on $name", ({ open }) => {
  let table: Table;

  beforeEach(() => {
    table = new Table(open(FRAMES));
  });

  describe("descriptors are io-pgtable-arm's", () => {
    const AF_NG_PAGE = (1n << 10n) | (1n << 11n) | 3n;
    const OUTER = 2n << 8n;
    const INNER = 3n << 8n;
    const UNPRIV = 1n << 6n;
    const READ_ONLY = 1n << 7n;
    const rows: [string, number, bigint, number][] = [
      ["READ | WRITE", RW, OUTER | UNPRIV, RW],
      ["READ", READ, OUTER | UNPRIV | READ_ONLY, READ],
      ["WRITE", WRITE, OUTER | UNPRIV, RW],
      ["CACHE", RW | CACHE, INNER | UNPRIV | (1n << 2n), RW],
      ["MMIO", RW | MMIO, OUTER | UNPRIV | (2n << 2n), RW],
      ["MMIO | CACHE", RW | MMIO | CACHE, INNER | UNPRIV | (2n << 2n), RW],
      ["NOEXEC", RW | NOEXEC, OUTER | UNPRIV | (3n << 53n), RW | NOEXEC],
      ["PRIV", RW | PRIV, OUTER, RW | PRIV],
      ["READ | PRIV", READ | PRIV, OUTER | READ_ONLY, READ | PRIV],
    ];
    it.each(rows)("page, %s", (_name, prot, bits, seen) => {
      expect(table.map(0x12345678, 0x9abcdef0, 1, prot)).toBe(0);
      const expected = (0x9abcdef0n << 12n) | bits | AF_NG_PAGE;
      expect(table.entryAt(0x12345678)).toEqual({ level: 3, pte: expected });
      expect(table.prot(0x12345678)).toBe(seen);
      expect(table.check()).toBe(0);
    });

    it.each([
      ["2 MiB", PAGES_2M, 2],
      ["1 GiB", PAGES_1G, 1],
    ])("block, %s", (_name, pages, level) => {
      expect(table.map(pages * 3, pages * 5, pages)).toBe(0);
      const pte = (BigInt(pages * 5) << 12n) | OUTER | UNPRIV | (1n << 10n) | (1n << 11n) | 1n;
      expect(table.entryAt(pages * 3)).toEqual({ level, pte });
      expect(table.lookup(pages * 4 - 1)).toBe(pages * 6 - 1);
      expect(table.prot(pages * 4 - 1)).toBe(RW);
    });
  });

  describe("pgtMap() cuts a range into the largest entries", () => {
    const rows: [string, number, number, number, number[], string][] = [
      ["4K 2M 4K", 0x1ff, 0x1ff, 0x202, [0x1fe, 0x1ff, 0x200, 0x3ff, 0x400, 0x401], ".kMMk."],
      ["4K 2M", 0x1ff, 0x3ff, 0x201, [0x1fe, 0x1ff, 0x200, 0x3ff, 0x400], ".kMM."],
      ["never aligned", 0x1ff, 0x1, 0x400, [0x1fe, 0x1ff, 0x200, 0x5fe, 0x5ff], ".kkk."],
      ["one side aligned", 0x200, 0x1, 0x200, [0x1ff, 0x200, 0x3ff, 0x400], ".kk."],
      [
        "2M 1G 2M",
        0x3fe00,
        0x7fe00,
        0x40400,
        [0x3fdff, 0x3fe00, 0x40000, 0x80000, 0x80200],
        ".MGM.",
      ],
      ["2M 4K", 0x200, 0x400, 0x3ff, [0x200, 0x3ff, 0x400, 0x5fe, 0x5ff], "MMkk."],
      ["4K 2M from page 1", 0x1, 0x201, 0x3ff, [0, 0x1, 0x1ff, 0x200, 0x3ff, 0x400], ".kkMM."],
      ["no whole 2M follows", 0x1, 0x201, 0x3fe, [0x1, 0x200, 0x3fe, 0x3ff], "kkk."],
      ["3 x 1G", 0, 0x40000, 0xc0000, [0, 0x3ffff, 0x40000, 0xbffff, 0xc0000], "GGGG."],
      ["the last page", NONE, NONE - 1, 1, [NONE - 1, NONE], ".k"],
    ];
    it.each(rows)("%s", (_name, iovaPfn, physPfn, pageCount, pages, picture) => {
      expect(table.map(iovaPfn, physPfn, pageCount)).toBe(0);
      expect(table.picture(pages)).toBe(picture);
      expect(table.lookup(iovaPfn + pageCount - 1)).toBe(physPfn + pageCount - 1);
      expect(table.check()).toBe(0);
      expect(table.unmap(iovaPfn, pageCount)).toBe(pageCount);
      expect(table.picture(pages)).toBe(".".repeat(pages.length));
      expect(table.check()).toBe(0);
    });
  });

  describe("pgtMap() refuses", () => {
    const rows: [string, number, number, number, number, number][] = [
      ["no access", 0x1000, 0x1000, 1, CACHE, EINVAL],
      ["no access over what is mapped", 0x10, 0x999, 1, CACHE, EINVAL],
      ["no access beyond the width", PAGES_END - 1, 0, 2, CACHE, ERANGE],
      ["a device range beyond the width", PAGES_END - 1, 0, 2, RW, ERANGE],
      ["a physical range beyond the width", 0, PAGES_END - 1, 2, RW, ERANGE],
      ["a page over a page", 0x10, 0x999, 1, RW, EEXIST],
      ["a range that ends in a page", 0xf, 0x999, 2, RW, EEXIST],
      ["a page inside a block", 0x80005, 0x999, 1, RW, EEXIST],
      ["a block over a block", 0x80000, 0x80000, PAGES_1G, RW, EEXIST],
      ["a range that ends in a block", 0x7fe00, 0x7fe00, 0x400, RW, EEXIST],
    ];
    it.each(rows)("%s, with nothing mapped", (_name, iovaPfn, physPfn, pageCount, prot, error) => {
      expect(table.map(0x10, 0x20, 1)).toBe(0);
      expect(table.map(0x80000, 0xc0000, PAGES_1G)).toBe(0);
      expect(table.map(iovaPfn, physPfn, pageCount, prot)).toBe(error);
      expect(table.picture([0xf, 0x10, 0x11, 0x7fe00, 0x7ffff, 0x80000, 0xbffff])).toBe(".k...GG");
      expect(table.lookup(0x10)).toBe(0x20);
      expect(table.check()).toBe(0);
    });

    it("nothing where nothing is asked", () => {
      expect(table.map(0x10, 0x20, 0, 0)).toBe(0);
      expect(table.unmap(0x10, 0)).toBe(0);
      expect(table.tableFrames).toBe(1);
    });
  });

  describe("pgtUnmap()", () => {
    it("stops at the first hole", () => {
      table.map(0x1000, 0x2000, 3);
      table.map(0x1004, 0x2004, 3);
      expect(table.unmap(0x1000, 7)).toBe(3);
      expect(table.picture([0x1000, 0x1002, 0x1004, 0x1006])).toBe("..kk");
    });

    it("splits a block that it takes a part of", () => {
      table.map(0x40000, 0x80000, PAGES_1G);
      expect(table.unmap(0x40205, 2)).toBe(2);
      expect(table.picture([0x401ff, 0x40204, 0x40205, 0x40206, 0x40207, 0x40400])).toBe("Mk..kM");
      expect(table.lookup(0x40207)).toBe(0x80207);
      expect(table.tableFrames).toBe(4);
      expect(table.check()).toBe(0);
    });

    it("does not split for nothing", () => {
      table.map(0x40000, 0x80000, PAGES_1G);
      expect(table.unmap(0x40205, 0)).toBe(0);
      expect(table.unmapPages(0x40205, 0, 0)).toBe(0);
      expect(table.tableFrames).toBe(2);
    });

    it("leaves emptied tables until their own entry is unmapped", () => {
      table.map(0x200, 0x1, 512);
      expect(table.unmap(0x200, 511)).toBe(511);
      expect(table.unmap(0x3ff, 1)).toBe(1);
      expect(table.tableFrames).toBe(4);
      expect(table.unmap(0x200, 512)).toBe(512); // an empty table counts as mapped
      expect(table.tableFrames).toBe(3);
      expect(table.unmap(0x200, 512)).toBe(0);
    });

    it("frees all tables below a large entry", () => {
      for (let i = 0; i < 8; i++) table.map(0x40000 + i * 512, 0x1, 1);
      expect(table.tableFrames).toBe(11);
      expect(table.unmap(0x40000, PAGES_1G)).toBe(PAGES_1G);
      expect(table.tableFrames).toBe(2);
      expect(table.check()).toBe(0);
    });

    it("ends at the width", () => {
      table.map(PAGES_END - 3, 0x100, 3);
      expect(table.unmap(PAGES_END - 3, 100)).toBe(3);
    });
  });

  describe("pgtMapPages() and pgtUnmapPages()", () => {
    it("stay inside one table", () => {
      expect(table.mapPages(0xbfb, 0x0, 0, 10)).toBe(5);
      expect(table.unmapPages(0xbfb, 0, 10)).toBe(5);
      expect(table.mapPages(0x800, 0x800, 0, 600)).toBe(512);
      expect(table.unmapPages(0x800, 0, 600)).toBe(512);
      expect(table.unmapPages(0xa00, 0, 88)).toBe(0);
    });

    it("replace a table by a block", () => {
      expect(table.map(0x400, 0x1, 512)).toBe(0);
      expect(table.mapPages(0x400, 0x80000, 9, 1)).toBe(1);
      expect(table.lookup(0x401)).toBe(0x80001);
      expect(table.tableFrames).toBe(3);
      expect(table.check()).toBe(0);
    });

    it.each([
      ["an unknown order", 0, 0, 4, 1, RW, EINVAL],
      ["a device page out of alignment", 1, 0, 9, 1, RW, EINVAL],
      ["a frame out of alignment", 0, 1, 9, 1, RW, EINVAL],
      ["no access", 0, 0, 0, 1, 0, EINVAL],
      ["frames beyond the width", 0, PAGES_END - PAGES_2M, 9, 2, RW, ERANGE],
    ])("refuse %s", (_name, iovaPfn, physPfn, order, count, prot, error) => {
      expect(table.mapPages(iovaPfn, physPfn, order, count, prot)).toBe(error);
      expect(table.tableFrames).toBe(1);
    });
  });

  describe("pgtMapFrames()", () => {
    it("maps segments one behind the other, rounded out", () => {
      const segments = [
        [100, 0, 4096],
        [7, 4095, 2], // touches two frames
        [50, 100, 1],
        [512, 0, PAGES_2M * 4096],
        [9, 0, 3 * 4096 - 1],
      ];
      expect(table.mapFrames(0x1fc, segments)).toBe(0);
      const frames = [0x1fc, 0x1fd, 0x1fe, 0x1ff, 0x200, 0x3ff, 0x400, 0x402].map((pfn) =>
        table.lookup(pfn),
      );
      expect(frames.map((pfn) => pfn - table.physPfnBase)).toEqual([
        100, 7, 8, 50, 512, 1023, 9, 11,
      ]);
      expect(table.picture([0x1fb, 0x1ff, 0x200, 0x3ff, 0x400, 0x402, 0x403])).toBe(".kMMkk.");
      expect(table.check()).toBe(0);
    });

    it.each([
      ["a page that is taken", 0x1f0, EEXIST],
      ["the end of the width", PAGES_END - 20, ERANGE],
    ])("maps nothing when it meets %s", (_name, iovaPfn, error) => {
      table.map(0x1ff, 0x999, 1);
      const segments = Array.from({ length: 24 }, (_, i) => [i * 3, 0, 4096]);
      expect(table.mapFrames(iovaPfn, segments)).toBe(error);
      expect(table.lookup(iovaPfn)).toBe(NONE);
      expect(table.unmap(iovaPfn, 24)).toBe(0);
      expect(table.lookup(0x1ff)).toBe(0x999);
      expect(table.check()).toBe(0);
    });

    it("refuses no access, and takes an empty list", () => {
      expect(table.mapFrames(0, [[1, 0, 4096]], CACHE)).toBe(EINVAL);
      expect(table.mapFrames(0, [], CACHE)).toBe(0);
    });
  });

  it("G1 G2 pgtCheck() names a broken entry", () => {
    table.map(0x200, 0x1, 1);
    const entries = new BigUint64Array(table.core.memory.buffer);
    const top = (new Uint32Array(table.core.memory.buffer)[table.at >>> 2] ?? 0) / 8;
    expect(table.check()).toBe(0);
    entries[top + 40] = entries[top] ?? 0n;
    expect(table.check()).toBe(7101); // beyond 44 bits
    entries[top + 40] = 0n;
    entries[top + 3] = entries[top] ?? 0n;
    expect(table.check()).toBe(7102); // reached twice
    entries[top + 3] = 1n;
    expect(table.check()).toBe(7101); // a block in the top table
    entries[top + 3] = 0n;
    expect(table.check()).toBe(0);
  });

  it("pgtInit() and pgtMap() fail cleanly when no frame is left", () => {
    const { tables, spare } = exhaust(table.core);
    expect(table.map(0x7000000, 0x1, 1)).toBe(ENOMEM);
    expect(table.core.exports.pgtInit(spare)).toBe(ENOMEM);
    expect(table.check()).toBe(0);
    for (const at of tables) table.core.exports.pgtFini(at);
    expect(table.map(0x7000000, 0x1, 1)).toBe(0);
  });

  it("does what the model does on seeded events", () => {
    for (let i = 0; i * TABLE_EVENTS < FUZZ_EVENTS; i++) {
      fuzzTable(open(FRAMES), SEED + i, TABLE_EVENTS);
    }
  }, 30_000);
});
