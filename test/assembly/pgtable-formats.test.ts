// IO page tables of every granule, stage and width: their shape, their entries, and seeded events
// against the naive model.

import { describe, expect, it } from "vitest";
import { tableFlags, tableFormatWord } from "../../src/core/index.ts";
import {
  EINVAL,
  ERANGE,
  type ModelFormat,
  NOEXEC,
  PgtableModel,
  PRIV,
  READ,
  stage1,
  WRITE,
} from "../model/pgtable.model.ts";
import { eachCore } from "../support/cores.ts";
import { NONE, Table } from "../support/page-table.ts";
import { fuzzTable } from "../support/pgtable-fuzz.ts";

const FRAMES = 4096;
const RW = READ | WRITE;
const CACHE = 4;
const MMIO = 16;
const FUZZ_EVENTS = 3_000; // for each format
const TABLE_EVENTS = 1_000;
const SEED = 0x3216;

const [K4, K16, K64] = [4096, 16384, 65536] as const;
const format = (
  granuleBytes: ModelFormat["granuleBytes"],
  stage: 1 | 2,
  inputBits = 44,
  outputBits = 44,
): ModelFormat => ({ granuleBytes, stage, inputBits, outputBits });

/** ARM_32_LPAE: 32-bit device addresses, 40-bit physical ones. */
const arm32 = (stage: 1 | 2): ModelFormat => format(K4, stage, 32, 40);

const formats: [string, ModelFormat][] = [
  ["ARM_64_LPAE_S2 4K", format(K4, 2)],
  ["ARM_64_LPAE_S1 16K", format(K16, 1)],
  ["ARM_64_LPAE_S2 16K", format(K16, 2)],
  ["ARM_64_LPAE_S1 64K", format(K64, 1)],
  ["ARM_64_LPAE_S2 64K", format(K64, 2)],
  ["ARM_32_LPAE_S1", arm32(1)],
  ["ARM_32_LPAE_S2", arm32(2)],
  ["ARM_64_LPAE_S2 4K of 40 bits, concatenated", format(K4, 2, 40, 40)],
  ["ARM_64_LPAE_S1 4K of 36 bits", format(K4, 1, 36, 36)],
];

describe.each(eachCore)("page table formats on $name", ({ open }) => {
  describe("the top table has as many entries as the width asks for", () => {
    // [format, entries of the top table, its frames, the order of its entries]
    const rows: [string, ModelFormat, number, number, number][] = [
      ["4K, 32 bits", format(K4, 1, 32), 4, 1, 18],
      ["4K, 36 bits", format(K4, 1, 36), 64, 1, 18],
      ["4K, 39 bits", format(K4, 1, 39), 512, 1, 18],
      ["4K, 40 bits", format(K4, 1, 40), 2, 1, 27],
      ["4K, 42 bits", format(K4, 1, 42), 8, 1, 27],
      ["4K, 44 bits", stage1, 32, 1, 27],
      ["4K, 40 bits, stage 2: concatenated", format(K4, 2, 40), 1024, 2, 18],
      ["4K, 42 bits, stage 2: concatenated", format(K4, 2, 42), 4096, 8, 18],
      ["4K, 44 bits, stage 2: too many", format(K4, 2, 44), 32, 1, 27],
      ["16K, 32 bits", format(K16, 1, 32), 128, 1, 13],
      ["16K, 36 bits", format(K16, 1, 36), 2048, 4, 13],
      ["16K, 40 bits", format(K16, 1, 40), 16, 1, 24],
      ["64K, 32 bits", format(K64, 1, 32), 8, 1, 17],
      ["64K, 42 bits", format(K64, 1, 42), 8192, 16, 17],
      ["64K, 44 bits", format(K64, 1, 44), 4, 1, 30],
    ];
    it.each(rows)("%s", (_name, shape, entries, frames, order) => {
      const table = new Table(open(FRAMES), shape);
      const words = new Uint32Array(table.core.memory.buffer, table.at, 13);
      expect([words[7], table.tableFrames, words[6]]).toEqual([entries, frames, order]);
      expect(new PgtableModel(0, shape).tableFrames).toBe(frames);
      const lastPfn = 2 ** (shape.inputBits - 12) - shape.granuleBytes / K4;
      expect(table.map(lastPfn, 0, shape.granuleBytes / K4)).toBe(0);
      expect(table.lookup(lastPfn)).toBe(0);
      expect(table.check()).toBe(0);
    });
  });

  describe("descriptors of stage 2 are io-pgtable-arm's", () => {
    const AF_PAGE = (1n << 10n) | 3n;
    const OUTER = 2n << 8n;
    const INNER = 3n << 8n;
    const READS = 1n << 6n;
    const WRITES = 1n << 7n;
    const NC = 5n << 2n;
    const WB = 15n << 2n;
    const DEVICE = 1n << 2n;
    const XN = 3n << 53n;
    const rows: [string, number, bigint, number][] = [
      ["READ | WRITE", RW, OUTER | READS | WRITES | NC, RW],
      ["READ", READ, OUTER | READS | NC, READ],
      ["WRITE", WRITE, OUTER | WRITES | NC, WRITE],
      ["CACHE", RW | CACHE, INNER | READS | WRITES | WB, RW],
      ["MMIO | CACHE", RW | MMIO | CACHE, INNER | READS | WRITES | DEVICE, RW],
      ["NOEXEC", RW | NOEXEC, OUTER | READS | WRITES | NC | XN, RW | NOEXEC],
      ["PRIV is not known", RW | PRIV, OUTER | READS | WRITES | NC, RW],
    ];
    it.each(rows)("page, %s", (_name, prot, bits, seen) => {
      const table = new Table(open(FRAMES), format(K4, 2));
      expect(table.map(0x12345678, 0x9abcdef0, 1, prot)).toBe(0);
      const expected = (0x9abcdef0n << 12n) | bits | AF_PAGE;
      expect(table.entryAt(0x12345678)).toEqual({ level: 3, pte: expected });
      expect(table.prot(0x12345678)).toBe(seen);
      expect(table.check()).toBe(0);
    });
  });

  describe("a range is cut into pages and blocks of the granule", () => {
    it.each([
      ["16K", format(K16, 1), 4, 8192],
      ["64K", format(K64, 1), 16, 131072],
    ])("%s", (_name, shape, page, block) => {
      const table = new Table(open(FRAMES), shape);
      expect(table.map(block - page, 3 * block - page, block + 2 * page)).toBe(0);
      for (const pfn of [block - page, block - 1, block, 2 * block - 1, 2 * block + page - 1]) {
        expect(table.lookup(pfn)).toBe(2 * block + pfn);
      }
      expect(table.lookup(2 * block + page)).toBe(NONE);
      const frames = table.tableFrames;
      expect(table.unmap(block + page, page)).toBe(page); // splits the block
      expect(table.tableFrames).toBe(frames + page); // a table is as large as a page
      expect([table.lookup(block + page - 1), table.lookup(block + page)]).toEqual([
        3 * block + page - 1,
        NONE,
      ]);
      expect(table.check()).toBe(0);
    });

    it.each([
      ["device page", 1, 0, 16, EINVAL],
      ["frame", 0, 1, 16, EINVAL],
      ["page count", 0, 0, 17, EINVAL],
    ])("a %s that is no multiple of the granule is refused", (_name, iova, phys, pages, error) => {
      const table = new Table(open(FRAMES), format(K64, 1));
      expect(table.map(0, 0, 16)).toBe(0);
      expect(table.map(32 + iova, phys, pages)).toBe(error);
      if (iova !== 0 || pages !== 16) expect(table.unmap(iova, pages)).toBe(0);
      expect(table.lookup(15)).toBe(15);
    });
  });

  it("addresses beyond the width are ERANGE, and unmap nothing", () => {
    const table = new Table(open(FRAMES), arm32(1));
    const [end, physEnd] = [2 ** 20, 2 ** 28];
    expect(table.map(end, 0, 1)).toBe(ERANGE);
    expect(table.map(end - 1, 0, 2)).toBe(ERANGE);
    expect(table.map(0, physEnd, 1)).toBe(ERANGE);
    expect(table.map(0, physEnd - 1, 2)).toBe(ERANGE);
    expect(table.mapPages(end, 0, 0, 1)).toBe(ERANGE);
    expect(table.map(end - 1, physEnd - 1, 1)).toBe(0);
    expect([table.lookup(end - 1), table.lookup(end), table.unmap(end, 1)]).toEqual([
      physEnd - 1,
      NONE,
      0,
    ]);
    expect(table.unmap(end - 1, 5)).toBe(1);
  });

  it.each([
    ["a stage", { stage: 3 }],
    ["no stage", { stage: 0 }],
    ["a granule", { granuleOrder: 1 }],
    ["a large granule", { granuleOrder: 6 }],
    ["a width of device addresses", { inputBits: 31 }],
    ["a width of physical addresses", { outputBits: 45 }],
    ["dirty bits at stage 2", { stage: 2, flags: tableFlags.dirtyBits }],
  ])("a format with %s that there is not is EINVAL", (_name, other) => {
    const core = open(FRAMES);
    const format = { stage: 1, granuleOrder: 0, inputBits: 44, outputBits: 44, ...other };
    expect(core.exports.pgtInitAs(core.scratchAt, tableFormatWord(format))).toBe(EINVAL);
  });

  it.each(formats)(
    "does what the model does on seeded events: %s",
    (_name, shape) => {
      for (let i = 0; i * TABLE_EVENTS < FUZZ_EVENTS; i++) {
        fuzzTable(open(4 * FRAMES), SEED + i, TABLE_EVENTS, shape);
      }
    },
    60_000,
  );
});
