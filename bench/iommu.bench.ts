/**
 * What does it cost to write translations, to remove them, and to look one up?
 *
 *     map+unmap/4K/C   64 MiB in calls of C pages each, then unmapped in the same calls
 *     map+unmap/2M/C   1 GiB in calls of C blocks of 2 MiB each
 *     translate        iommuIovaToPhys of a random byte of 64 MiB
 *
 * The physical side is moved by one page (or block) against the device side, so that no larger
 * entry can stand for several: 4K rows write an entry a page, 2M rows one a block. Calls of 512
 * pages and more unmap whole tables, which the core takes out at once instead of entry by entry;
 * the others find the tables of the round before. Nanoseconds per page or block, map and unmap
 * together.
 *
 * @module
 */

import assert from "node:assert/strict";
import { type Core, openCoreSync } from "dmabuf/core";
import { Random } from "./random.ts";
import type { Family, Job, Suite } from "./suite.ts";

const IOVA_PFN = 0x40000; // 1 GiB
const PHYS_PFN = 0x100000; // 4 GiB
const PROT = 7; // read, write, cache
const PAGES = 16384;
const BLOCKS = 512;
const BLOCK_PAGES = 512;

/** Adds the rows. */
export const family: Family = (suite: Suite) => {
  const core = openCoreSync({ memoryBytes: 64 * 2 ** 20 });
  for (const chunk of [1, 16, 512, 4096]) {
    const name = `iommu/map+unmap/4K/${chunk}`;
    suite.row(name, "page", () => mapJob(core, 1, PAGES, chunk));
    if (chunk === 512) suite.peer(name, "Map", "page", mapPeer);
  }
  for (const chunk of [1, 512])
    suite.row(`iommu/map+unmap/2M/${chunk}`, "block", () =>
      mapJob(core, BLOCK_PAGES, BLOCKS, chunk),
    );
  suite.row("iommu/translate/4K/random", "call", () => translateJob(core));
  suite.peer("iommu/translate/4K/random", "Map", "call", translatePeer);
  assert.equal(core.check(), null);
};

/** Maps and unmaps `entries` entries of `entryPages` pages each, `chunk` entries a call. */
function mapJob({ exports }: Core, entryPages: number, entries: number, chunk: number): Job {
  const { iommuDomainAlloc, iommuDomainFree, iommuMap, iommuUnmap, iommuIovaToPhys } = exports;
  const domain = iommuDomainAlloc();
  const physPfn = PHYS_PFN + entryPages;
  const pages = entryPages * entries;
  const step = entryPages * chunk;
  const mapAll = (): number => {
    let seen = 0;
    for (let page = 0; page < pages; page += step)
      seen |= iommuMap(domain, IOVA_PFN + page, physPfn + page, step, PROT);
    return seen;
  };
  const unmapAll = (): number => {
    let unmapped = 0;
    for (let page = 0; page < pages; page += step)
      unmapped += iommuUnmap(domain, IOVA_PFN + page, step);
    return unmapped;
  };
  assert.equal(mapAll(), 0);
  for (let page = 0; page < pages; page += entryPages)
    assert.equal(iommuIovaToPhys(domain, IOVA_PFN + page), physPfn + page);
  assert.equal(unmapAll(), pages);
  assert.equal(iommuIovaToPhys(domain, IOVA_PFN), -1);
  return {
    opsPerRun: entries,
    run(count) {
      for (let i = 0; i < count; i++) {
        assert.equal(mapAll(), 0);
        assert.equal(unmapAll(), pages);
      }
    },
    end: () => assert.equal(iommuDomainFree(domain), 0),
  };
}

function translateJob({ exports }: Core): Job {
  const { iommuDomainAlloc, iommuDomainFree, iommuMap, iommuUnmap, iommuIovaToPhys } = exports;
  const domain = iommuDomainAlloc();
  const physPfn = PHYS_PFN + 1;
  assert.equal(iommuMap(domain, IOVA_PFN, physPfn, PAGES, PROT), 0);
  const random = new Random();
  return {
    run(count) {
      let isWrong = 0;
      for (let i = 0; i < count; i++) {
        const page = random.below(PAGES * 4096) >>> 12;
        isWrong |= iommuIovaToPhys(domain, IOVA_PFN + page) ^ (physPfn + page);
      }
      assert.equal(isWrong, 0);
    },
    end() {
      assert.equal(iommuUnmap(domain, IOVA_PFN, PAGES), PAGES);
      assert.equal(iommuDomainFree(domain), 0);
    },
  };
}

/** A JavaScript Map from device page to frame: no permissions, no check for what is there. */
function mapPeer(): Job {
  const pages = new Map<number, number>();
  return {
    opsPerRun: PAGES,
    run(count) {
      for (let i = 0; i < count; i++) {
        for (let page = 0; page < PAGES; page++) pages.set(IOVA_PFN + page, PHYS_PFN + page);
        assert.equal(pages.size, PAGES);
        for (let page = 0; page < PAGES; page++) pages.delete(IOVA_PFN + page);
      }
    },
  };
}

function translatePeer(): Job {
  const pages = new Map<number, number>();
  for (let page = 0; page < PAGES; page++) pages.set(IOVA_PFN + page, PHYS_PFN + page);
  const random = new Random();
  return {
    run(count) {
      let isWrong = 0;
      for (let i = 0; i < count; i++) {
        const page = random.below(PAGES * 4096) >>> 12;
        isWrong |= (pages.get(IOVA_PFN + page) ?? 0) ^ (PHYS_PFN + page);
      }
      assert.equal(isWrong, 0);
    },
  };
}
