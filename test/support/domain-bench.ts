// A domain of a core with one device, for the tests of the core.

import { expect } from "vitest";
import { tableFormatWord } from "../../src/core/index.ts";
import type { CoreVariant, TestCore } from "./cores.ts";

const NONE = 0xffffffff;
const RW = 3;
const FRAMES = 4096;

/** The core's word of a format with 4 KiB pages. */
export const formatWord = (flags: number, stage = 1): number =>
  tableFormatWord({ stage, granuleOrder: 0, inputBits: 44, outputBits: 44, flags });

/** A domain with one device, and runs of frames to map. */
export class Bench {
  readonly core: TestCore;
  readonly domain: number;
  readonly device: number;
  readonly exports: TestCore["exports"];

  constructor(build: CoreVariant, flags = 0, stage = 1) {
    this.core = build.open(FRAMES);
    this.exports = this.core.exports;
    this.domain = this.exports.iommuDomainAllocAs(formatWord(flags, stage));
    this.device = this.exports.dmaDeviceAdd(this.domain, NONE, 65536, NONE, NONE);
    expect(this.device).toBeGreaterThan(0);
  }

  map(iovaPfn: number, pfn: number, pages = 1, prot = RW, domain = this.domain): number {
    return this.exports.iommuMap(domain, iovaPfn, pfn, pages, prot);
  }

  /** The frame that the device reaches, or an errno. */
  access(iovaPfn: number, access = RW): number {
    const count = this.exports.dmaSpans(this.device, iovaPfn, 0, 1, access);
    return count < 0 ? count : (this.core.core.scratch[0] ?? 0) / 4096;
  }

  /** staleCount and stalePfn of the domain. */
  get stale(): [count: number, pfn: number] {
    const at = this.exports.iommuDomainAt(this.domain) / 4;
    return [this.core.core.u32[at + 8] ?? NONE, this.core.core.u32[at + 9] ?? NONE];
  }

  /** Hits, misses and evictions of the domain's IOTLB. */
  get tlb(): number[] {
    const at = this.core.core.u32[this.exports.iommuDomainAt(this.domain) / 4 + 7] ?? 0;
    return [...this.core.core.u32.subarray(at / 4 + 4, at / 4 + 7)];
  }

  sound(): void {
    expect(this.core.core.check(true)).toBeNull();
  }
}
