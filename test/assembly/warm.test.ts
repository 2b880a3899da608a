/**
 * The domain and the region named last, which are found without a look-up: by their handle, while
 * they live, and by no other number.
 */

import { describe, expect, test } from "vitest";
import { type CoreVariant, eachCore, type TestCore } from "../support/cores.ts";
import { NOTHING_AT, warmWord } from "../support/header.ts";
import { expectSound } from "../support/sound.ts";

const ESTALE = -116;
const L7 = 7607;
const O5 = 7905;
const KIND_REGION = 1;
const KIND_DOMAIN = 3;
const IDENTITY = 2;
const LIMIT = 0xfffff;
const GENERATIONS = 8191;
const SLAB_RECORDS = 64;

interface Opened extends TestCore {
  readonly domain: number;
  readonly region: number;
}

function withBoth(build: CoreVariant): Opened {
  const core = build.open(4096);
  const region = core.exports.cmaDeclare(3072, 1024, 0);
  return { ...core, domain: core.exports.iommuDomainAlloc(), region };
}

/** Names a domain and a region in each way that keeps them in mind. A page and a frame. */
function name({ exports, domain, region }: Opened): { page: number; frame: number } {
  const page = exports.iommuIovaAlloc(domain, 1, LIMIT, 1);
  const frame = exports.cmaAlloc(region, 1, 0);
  expect(page).toBeGreaterThan(0);
  expect(frame).toBe(3072);
  expect(exports.iommuIovaFree(domain, page)).toBe(1);
  expect(exports.cmaRelease(region, frame, 1)).toBe(0);
  return { page, frame };
}

const PAGES = [0, 1, 1023, 1024, LIMIT, 0xffffffff];

function expectNoDomain({ exports }: TestCore, handle: number): void {
  for (const limit of [0, 1, LIMIT, 0xffffffff])
    for (const pages of [0, 1, 2, 5000])
      expect(exports.iommuIovaAlloc(handle, pages, limit, 1), `alloc in ${handle}`).toBe(0);
  for (const pfn of PAGES)
    expect(exports.iommuIovaFree(handle, pfn), `free in ${handle}`).toBe(ESTALE);
}

function expectNoRegion({ exports }: TestCore, handle: number): void {
  for (const count of [0, 1, 64]) {
    expect(exports.cmaAlloc(handle, count, 0), `alloc in ${handle}`).toBe(ESTALE);
    for (const pfn of [...PAGES, 3072])
      expect(exports.cmaRelease(handle, pfn, count), `release in ${handle}`).toBe(ESTALE);
  }
}

const words = ({ memory }: TestCore): Uint32Array => new Uint32Array(memory.buffer);

describe.each(eachCore)("the object named last, $name", (build) => {
  test("is found by no number but its handle", () => {
    const core = withBoth(build);
    const { exports, domain, region } = core;
    const fence = exports.fenceAlloc(1, 1);
    const nobody = [0, 1, 63, 64, 65, -1, 2 ** 31, 2 ** 31 - 1, 2 ** 18, 2 ** 18 - 1, 4096, fence];
    for (const round of ["none was named", "both were"]) {
      const near = [domain, region].flatMap((one) => [one + 2 ** 18, one + 2 ** 31, one & 0x3ffff]);
      for (const handle of [...nobody, ...near]) {
        expectNoDomain(core, handle);
        expectNoRegion(core, handle);
      }
      expectNoDomain(core, region);
      expectNoRegion(core, domain);
      expectSound(core, round);
      name(core);
    }
  });

  test("is gone with its object, whoever has the record next", () => {
    const core = withBoth(build);
    const { exports, domain } = core;
    const { page } = name(core);
    expect(exports.iommuDomainFree(domain)).toBe(0);
    expectNoDomain(core, domain);
    expectSound(core);
    const next = exports.iommuDomainAllocFixed(IDENTITY);
    expect((next - domain) % 2 ** 18).toBe(0); // its record
    expectNoDomain(core, domain);
    expect(exports.iommuIovaAlloc(next, 1, LIMIT, 1)).toBe(0);
    expect(exports.iommuIovaFree(next, page)).toBe(0); // it has no addresses
    expectSound(core);
  });

  test("is not found by its handle in the next round of generations", () => {
    const core = withBoth(build);
    const { exports, domain } = core;
    const { page } = name(core);
    expect(exports.iommuDomainFree(domain)).toBe(0);
    let other = 0;
    for (let i = 0; i < GENERATIONS; i++) {
      other = exports.iommuDomainAllocFixed(IDENTITY);
      if (i < GENERATIONS - 1) expect(exports.iommuDomainFree(other)).toBe(0);
    }
    expect(other).toBe(domain);
    expect(exports.iommuIovaAlloc(domain, 1, LIMIT, 1)).toBe(0);
    expect(exports.iommuIovaFree(domain, page)).toBe(0);
    expectSound(core);
  });

  test("is gone with its slab", () => {
    const core = withBoth(build);
    const { exports } = core;
    const fences = Array.from({ length: SLAB_RECORDS }, () => exports.fenceAlloc(1, 1));
    const domain = exports.iommuDomainAlloc(); // in a slab of its own
    name({ ...core, domain });
    for (const fence of fences) exports.fenceFree(fence);
    expect(exports.iommuDomainFree(domain)).toBe(0);
    expectNoDomain(core, domain);
    expectSound(core);
  });

  test("has nothing to do with what callers leave in the bytes that nobody uses", () => {
    for (const isNamed of [false, true]) {
      const core = withBoth(build);
      if (isNamed) name(core);
      expect(core.exports.bulkFramesAlloc(0, 256)).toBe(0); // a list at address 0: a mistake
      expectNoDomain(core, 0);
      expectNoRegion(core, 0);
      expectSound(core);
    }
  });

  test("check() finds one that is not there, or may not be", () => {
    const core = withBoth(build);
    const { exports, domain, region } = core;
    const { page } = name(core);
    const isKept = build.name === "release, unshared";
    for (const [kind, handle] of [
      [KIND_DOMAIN, domain],
      [KIND_REGION, region],
    ] as const) {
      const at = warmWord(kind);
      const kept = words(core).slice(at, at + 2);
      expect([...kept]).toEqual(isKept ? [handle, expect.any(Number)] : [0, NOTHING_AT]);
      for (const wrong of [
        [handle, NOTHING_AT],
        [handle, exports.iommuDomainAt(domain) + 64],
        [handle + 2 ** 18, kept[1] as number],
        [0, 0],
      ]) {
        words(core).set(wrong, at);
        expect(exports.check(0)).toBe(O5);
      }
      words(core).set(kept, at);
      expectSound(core);
    }
    expect(exports.iommuIovaAlloc(domain, 1, LIMIT, 1)).toBe(page);
  });

  test("check() finds bytes in what is nothing", () => {
    const core = build.open(1024);
    for (const at of [NOTHING_AT, NOTHING_AT + 2047, NOTHING_AT + 4095]) {
      const bytes = new Uint8Array(core.memory.buffer);
      bytes[at] = 1;
      expect(core.exports.check(0)).toBe(L7);
      bytes[at] = 0;
      expectSound(core);
    }
  });
});
