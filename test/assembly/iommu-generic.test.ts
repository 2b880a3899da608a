// The generic layer over the core's own table, call by call, against the core's one call: both do
// the same to the table, whatever was there before.

import { describe, expect, test } from "vitest";
import { type TableFormat, tableFormatWord } from "../../src/core/index.ts";
import { codeOf, DmaBufError, fail } from "../../src/errors.ts";
import { type DomainOps, IommuDomain, type IotlbGather, iommuProt } from "../../src/index.ts";
import { type CoreVariant, eachCore, type TestCore } from "../support/cores.ts";
import { fuzzSeed, Prng } from "../support/prng.ts";

const PS = 4096;
const RW = iommuProt.read + iommuProt.write;
const TABLE_EVENTS = 300; // events on one pair of tables
const plain: TableFormat = { stage: 1, granuleOrder: 0, inputBits: 44, outputBits: 44 };
/** Of every format: its granule's order, the orders of its leaves, and what pgtInitAs() is told. */
const formats: [string, number[], TableFormat, number][] = [
  ["4 KiB pages", [0, 9, 18], plain, 10_000],
  ["4 KiB pages, stage 2", [0, 9, 18], { ...plain, stage: 2 }, 2000],
  ["16 KiB pages", [2, 13], { ...plain, granuleOrder: 2 }, 2000],
  ["64 KiB pages", [4, 17], { ...plain, granuleOrder: 4 }, 2000],
  ["32-bit addresses", [0, 9, 18], { ...plain, inputBits: 32, outputBits: 40 }, 2000],
];
const prots = [RW, RW, iommuProt.read, RW + iommuProt.noexec, RW + iommuProt.priv, iommuProt.cache];

/** A driver over the core's entry-by-entry calls. */
class CoreTable implements DomainOps {
  readonly pgsizeBitmap: bigint;
  readonly #core: TestCore;
  readonly #at: number;

  constructor(core: TestCore, at: number, orders: readonly number[]) {
    this.#core = core;
    this.#at = at;
    this.pgsizeBitmap = orders.reduce((bits, order) => bits + BigInt(PS * 2 ** order), 0n);
  }

  mapPages(iova: number, paddr: number, pageBytes: number, pageCount: number, prot: number) {
    const { exports } = this.#core;
    const order = Math.log2(pageBytes / PS);
    const count = exports.pgtMapPages(this.#at, iova / PS, paddr / PS, order, pageCount, prot);
    return count < 0 ? fail(codeOf(count), "map pages", "the table refuses") : count * pageBytes;
  }

  unmapPages(iova: number, pageBytes: number, pageCount: number, gather: IotlbGather): number {
    const order = Math.log2(pageBytes / PS);
    const pages = this.#core.exports.pgtUnmapPages(this.#at, iova / PS, order, pageCount) >>> 0;
    if (pages > 0) gather.addPage(iova, pageBytes);
    return pages * PS;
  }

  iovaToPhys(iova: number): number | null {
    const pfn = this.#core.exports.pgtLookup(this.#at, Math.floor(iova / PS)) >>> 0;
    return pfn === 0xffffffff ? null : pfn * PS + (iova % PS);
  }
}

/** 0 or the errno that `call` throws. */
function resultOf(call: () => void): number {
  try {
    call();
    return 0;
  } catch (error) {
    if (error instanceof DmaBufError) return -error.errno;
    throw error;
  }
}

/** A page or page count that is near a multiple of a page size more often than not. */
function near(random: Prng, end: number, orders: readonly number[]): number {
  const [granule = 0] = orders;
  const pages = 2 ** random.pick([granule, granule, ...orders]);
  const at = Math.floor(random.below(end) / pages) * pages;
  const off = random.below(3) === 0 ? random.below(5) - 2 : 0;
  return Math.max(0, at + off * (random.below(8) === 0 ? 1 : 2 ** granule));
}

describe.each(eachCore)("the generic layer on the $name core", (build: CoreVariant) => {
  test.each(formats)(
    "does to a table what the core does in one call: %s",
    (_name, orders, format, events) => {
      const seed = fuzzSeed(0x4d);
      const random = new Prng(seed);
      const core = build.open(16_384);
      const { exports } = core;
      const [ours, theirs] = [core.scratchAt, core.scratchAt + PS];
      const [granule = 0] = orders;
      const domain = new IommuDomain(new CoreTable(core, theirs, orders));
      const outcomes = new Set<number>();
      for (let event = 0; event < events; event++) {
        const label = `seed ${seed}, event ${event}`;
        if (event % TABLE_EVENTS === 0) {
          for (const at of [ours, theirs]) {
            if (event > 0) exports.pgtFini(at);
            expect(exports.pgtInitAs(at, tableFormatWord(format))).toBe(0);
          }
        }
        const iovaPfn = near(random, 2 ** 19, orders);
        const most = random.pick([16, 2 ** 11, granule === 0 ? 2 ** 19 : 2 ** 18]);
        const pages = 2 ** granule + near(random, most, orders);
        if (random.below(5) < 3) {
          const physPfn = near(random, 2 ** 20, orders) + random.pick([0, iovaPfn]);
          const prot = random.pick(prots);
          const result = exports.pgtMap(ours, iovaPfn, physPfn, pages, prot);
          const call = () => domain.map(iovaPfn * PS, physPfn * PS, pages * PS, prot);
          expect(resultOf(call), label).toBe(result);
          outcomes.add(result);
        } else {
          const unmapped = exports.pgtUnmap(ours, iovaPfn, pages) >>> 0;
          expect(domain.unmap(iovaPfn * PS, pages * PS), label).toBe(unmapped * PS);
        }
        const ends = [iovaPfn, iovaPfn + pages - 1, iovaPfn + pages, near(random, 2 ** 20, orders)];
        for (const pfn of ends) {
          const phys = exports.pgtLookup(ours, pfn) >>> 0;
          const expected = phys === 0xffffffff ? null : phys * PS + 7;
          expect(domain.iovaToPhys(pfn * PS + 7), label).toBe(expected);
          expect(exports.pgtProt(theirs, pfn), label).toBe(exports.pgtProt(ours, pfn));
        }
        expect(exports.pgtTableFrames(theirs), label).toBe(exports.pgtTableFrames(ours));
        if (event % 100 === 0) expect(exports.pgtCheck(theirs), label).toBe(0);
      }
      expect([...outcomes].sort()).toEqual([-17, -22, 0]); // no table ran out of frames
    },
    60_000,
  );
});
