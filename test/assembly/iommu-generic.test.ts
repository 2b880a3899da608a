// The generic layer over the core's own table, call by call, against the core's one call: both do
// the same to the table, whatever was there before.

import { describe, expect, test } from "vitest";
import { codeOf, DmaBufError, fail } from "../../src/errors.ts";
import { type DomainOps, IommuDomain, type IotlbGather, iommuProt } from "../../src/index.ts";
import { type CoreVariant, eachCore, type TestCore } from "../support/cores.ts";
import { fuzzSeed, Prng } from "../support/prng.ts";

const PS = 4096;
const RW = iommuProt.read + iommuProt.write;
const EVENTS = 15_000;
const TABLE_EVENTS = 300; // events on one pair of tables
const orders = [0, 0, 0, 9, 9, 18];

/** A driver over the core's entry-by-entry calls. */
class CoreTable implements DomainOps {
  readonly pgsizeBitmap = 0x40201000n;
  readonly #core: TestCore;
  readonly #at: number;

  constructor(core: TestCore, at: number) {
    this.#core = core;
    this.#at = at;
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
function near(random: Prng, end: number): number {
  const pages = 2 ** random.pick(orders);
  const at = Math.floor(random.below(end) / pages) * pages;
  return Math.max(0, at + (random.below(3) === 0 ? random.below(5) - 2 : 0));
}

describe.each(eachCore)("the generic layer on the $name core", (build: CoreVariant) => {
  test("does to a table what the core does in one call, over seeded random events", () => {
    const seed = fuzzSeed(0x4d);
    const random = new Prng(seed);
    const core = build.open(16_384);
    const { exports } = core;
    const [ours, theirs] = [core.scratchAt, core.scratchAt + PS];
    const domain = new IommuDomain(new CoreTable(core, theirs));
    const outcomes = new Map<number, number>();
    for (let event = 0; event < EVENTS; event++) {
      const label = `seed ${seed}, event ${event}`;
      if (event % TABLE_EVENTS === 0) {
        for (const at of [ours, theirs]) {
          if (event > 0) exports.pgtFini(at);
          expect(exports.pgtInit(at)).toBe(0);
        }
      }
      const iovaPfn = near(random, 2 ** 20);
      const pages = 1 + near(random, random.pick([16, 2 ** 11, 2 ** 19]));
      if (random.below(5) < 3) {
        const physPfn = near(random, 2 ** 20) + random.pick([0, iovaPfn]);
        const result = exports.pgtMap(ours, iovaPfn, physPfn, pages, RW);
        const call = () => domain.map(iovaPfn * PS, physPfn * PS, pages * PS, RW);
        expect(resultOf(call), label).toBe(result);
        outcomes.set(result, (outcomes.get(result) ?? 0) + 1);
      } else {
        const unmapped = exports.pgtUnmap(ours, iovaPfn, pages) >>> 0;
        expect(domain.unmap(iovaPfn * PS, pages * PS), label).toBe(unmapped * PS);
      }
      for (const pfn of [iovaPfn, iovaPfn + pages - 1, iovaPfn + pages, near(random, 2 ** 21)]) {
        const phys = exports.pgtLookup(ours, pfn) >>> 0;
        const expected = phys === 0xffffffff ? null : phys * PS + 7;
        expect(domain.iovaToPhys(pfn * PS + 7), label).toBe(expected);
      }
      expect(exports.pgtTableFrames(theirs), label).toBe(exports.pgtTableFrames(ours));
      if (event % 100 === 0) expect(exports.pgtCheck(theirs), label).toBe(0);
    }
    expect([...outcomes.keys()].sort()).toEqual([-17, 0]); // no table ran out of frames
  });
});
