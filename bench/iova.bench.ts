/**
 * What does a range of device addresses cost, and does it grow with the ranges that live?
 *
 *     live0/lifo     allocate one and free it
 *     liveN/random   free a random one of N, allocate one in its place
 *
 * Ranges of one page, or of 1 to 1024 pages, evenly spread; aligned to their size, highest place
 * below 2^30 first. Nanoseconds per pair, two calls.
 *
 * @module
 */

import assert from "node:assert/strict";
import { type Core, openCoreSync } from "dmabuf/core";
import { Random, randomSizes, SIZE_MASK } from "./random.ts";
import type { Family, Job, Suite } from "./suite.ts";

const LIMIT_PFN = 2 ** 30 - 1;
const MAX_PAGES = 1024;

/** Adds the rows. */
export const family: Family = (suite: Suite) => {
  const core = openCoreSync({ memoryBytes: 64 * 2 ** 20 });
  suite.row("iova/fast/1/live0/lifo", "pair", () => lifoJob(core));
  for (const live of [1000, 100_000]) {
    suite.row(`iova/fast/1/live${live}/random`, "pair", () => replaceJob(core, live, () => 1));
    const mixed = `iova/fast/1-${MAX_PAGES}/live${live}/random`;
    suite.row(mixed, "pair", () => replaceJob(core, live, mixedPages()));
  }
  assert.equal(core.check(), null);
};

function lifoJob({ exports }: Core): Job {
  const { iommuDomainAlloc, iommuDomainFree, iommuIovaAlloc, iommuIovaFree } = exports;
  const domain = iommuDomainAlloc();
  return {
    run(count) {
      let pages = 0;
      for (let i = 0; i < count; i++)
        pages += iommuIovaFree(domain, iommuIovaAlloc(domain, 1, LIMIT_PFN, 1));
      assert.equal(pages, count);
    },
    end: () => assert.equal(iommuDomainFree(domain), 0),
  };
}

/** Gives 1 to MAX_PAGES pages, evenly spread. */
function mixedPages(): () => number {
  const sizes = randomSizes(MAX_PAGES);
  let next = 0;
  return () => sizes[next++ & SIZE_MASK] ?? 1;
}

function replaceJob({ exports }: Core, live: number, nextPages: () => number): Job {
  const { iommuDomainAlloc, iommuDomainFree, iommuIovaAlloc, iommuIovaFree } = exports;
  const domain = iommuDomainAlloc();
  const pfns = new Uint32Array(live);
  const random = new Random();
  for (let i = 0; i < live; i++) {
    const pages = nextPages();
    const pfn = iommuIovaAlloc(domain, pages, LIMIT_PFN, 1);
    assert(pfn > 0);
    assert.equal(pfn % 2 ** Math.ceil(Math.log2(pages)), 0);
    pfns[i] = pfn;
  }
  assert.equal(new Set(pfns).size, live);
  return {
    run(count) {
      let refused = 0;
      for (let i = 0; i < count; i++) {
        const victim = random.below(live);
        if (iommuIovaFree(domain, pfns[victim] ?? 0) <= 0) refused++;
        const pfn = iommuIovaAlloc(domain, nextPages(), LIMIT_PFN, 1);
        if (pfn === 0) refused++;
        pfns[victim] = pfn;
      }
      assert.equal(refused, 0);
    },
    end: () => assert.equal(iommuDomainFree(domain), 0),
  };
}
