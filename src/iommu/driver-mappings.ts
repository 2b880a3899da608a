/**
 * DriverMappings: what the DMA API maps, shown to the driver of a group's default domain.
 *
 *     device pages ─► the core's table: who has which ─► show(): mapPages of the driver
 *     the end      ◄─ given back to the core          ◄─ hide(): unmapPages, iotlbSync
 *
 * - DM1  The driver maps a device page exactly while the core has it mapped: it is shown after the
 *        core's call, and hidden before the core gives the device page back.
 * - DM2  With lazy invalidation the driver's flushIotlbAll() runs before a device page is used
 *        again; a page that waits in no flush queue is forgotten at once, by iotlbSync().
 *
 * Compare __iommu_dma_unmap() and fq_flush_iotlb() in the kernel's drivers/iommu/dma-iommu.c.
 *
 * @module
 */

import type { Core } from "../core/core.ts";
import { fail, reportError } from "../errors.ts";
import { addressOf, FRAME_BYTES, NO_PFN, pfnOf } from "../units.ts";
import type { IommuDomain } from "./iommu-domain.ts";
import type { PhysRange } from "./phys-range.ts";

/** Device addresses in a row that are mapped, and what to. */
interface MappedRun {
  readonly iova: number;
  readonly ranges: readonly PhysRange[];
  readonly sizeBytes: number;
}

/** @internal A group's default domain over a driver, kept as the core's table is. */
export class DriverMappings {
  readonly domain: IommuDomain;
  readonly #core: Core;
  readonly #record: number;
  readonly #isLazy: boolean;
  #queuedCount = 0;

  /** `record`: the core's domain, whose table says what is mapped. */
  constructor(core: Core, record: number, domain: IommuDomain, isLazy: boolean) {
    this.#core = core;
    this.#record = record;
    this.domain = domain;
    this.#isLazy = isLazy;
  }

  /** Keeps the DMA API inside the domain's aperture. EINVAL: it is none. */
  keepInside(operation: string): void {
    if (this.domain.aperture === null) return;
    const { start, end } = this.domain.aperture;
    const isRange = Number.isSafeInteger(start) && Number.isSafeInteger(end) && start >= 0;
    if (!isRange || end < start + FRAME_BYTES - 1)
      fail("EINVAL", operation, "the driver's aperture must hold a page");
    const first = pfnOf(Math.ceil(start / FRAME_BYTES) * FRAME_BYTES);
    const afterLast = Math.floor((end + 1) / FRAME_BYTES);
    this.#keepOut(0, first);
    if (afterLast <= NO_PFN) this.#keepOut(afterLast, NO_PFN - afterLast + 1);
  }

  #keepOut(pfn: number, pageCount: number): void {
    const { iommuIovaReserve } = this.#core.exports;
    if (pageCount > 0 && iommuIovaReserve(this.#record, pfn, pageCount) < 0)
      fail("ENOMEM", "keep buffers inside an aperture", "no memory is left");
  }

  /** Maps what the core has mapped of a range. What the driver fails with, and nothing is shown. */
  show(iovaPfn: number, pageCount: number, prot: number): void {
    this.settle(); // DM2
    let shownPages = 0;
    try {
      for (const { iova, ranges, sizeBytes } of this.#runs(iovaPfn, pageCount)) {
        this.domain.mapSg(iova, ranges, prot);
        shownPages = pfnOf(iova + sizeBytes) - iovaPfn;
      }
    } catch (cause) {
      this.hide(iovaPfn, shownPages);
      throw cause;
    }
  }

  /**
   * Unmaps what the core has mapped of a range; devices may go on knowing it if `isQueued`: the
   * core puts it into its flush queue (DM2). A driver that fails at it is reported to the host: the
   * core's mapping ends all the same.
   */
  hide(iovaPfn: number, pageCount: number, isQueued: boolean = this.#isLazy): void {
    const gather = this.domain.gather();
    reportError(() => {
      for (const { iova, sizeBytes } of this.#runs(iovaPfn, pageCount)) {
        const bytes = this.domain.unmapFast(iova, sizeBytes, gather);
        if (bytes < sizeBytes)
          fail("EIO", "end a mapping", `the driver unmapped ${bytes} of ${sizeBytes} bytes`);
      }
    });
    if (!isQueued) reportError(() => gather.sync());
  }

  /** After a call of the core: it may have emptied its flush queue on its own. */
  settle(): void {
    if (!this.#isLazy) return;
    const count = this.#core.exports.iommuQueuedCount(this.#record);
    if (count < this.#queuedCount) this.domain.flushIotlbAll(); // DM2
    this.#queuedCount = count;
  }

  /** The core's flush queue is about to be emptied. */
  flush(): void {
    this.domain.flushIotlbAll();
    this.#queuedCount = 0;
  }

  /** What the core has mapped of a range, from hole to hole. */
  *#runs(iovaPfn: number, pageCount: number): Generator<MappedRun> {
    let ranges: PhysRange[] = [];
    let runAt = iovaPfn;
    for (let i = 0; i <= pageCount; i++) {
      const pfn = iovaPfn + i;
      const physPfn = i < pageCount ? this.#physOf(pfn) : NO_PFN;
      if (physPfn !== NO_PFN) {
        ranges.push({ address: addressOf(physPfn), lengthBytes: FRAME_BYTES });
        continue;
      }
      if (ranges.length > 0)
        yield { iova: addressOf(runAt), ranges, sizeBytes: addressOf(pfn - runAt) };
      ranges = [];
      runAt = pfn + 1;
    }
  }

  #physOf(iovaPfn: number): number {
    return this.#core.exports.iommuIovaToPhys(this.#record, iovaPfn) >>> 0;
  }
}
