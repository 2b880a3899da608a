/**
 * A driver for the generic layer of an IOMMU whose page table is a Map; it writes its calls down.
 *
 * @module
 */

import { expect } from "vitest";
import { type DomainOps, type IotlbGather, KiB } from "../../src/index.ts";

const PS = 4 * KiB;
/** Pages of 4 KiB, 2 MiB and 1 GiB. */
export const MAP_TABLE_SIZES = 0x40201000n;

/** A page table that is a Map of whole pages; fails at map call `failAt`, counted from 1. */
export class MapTable implements DomainOps {
  readonly pgsizeBitmap: bigint;
  readonly pages = new Map<number, number>();
  readonly log: string[] = [];
  failAt = 0;
  maxPages = Infinity;
  #calls = 0;

  constructor(pgsizeBitmap = MAP_TABLE_SIZES) {
    this.pgsizeBitmap = pgsizeBitmap;
  }

  mapPages(iova: number, paddr: number, pageBytes: number, pageCount: number) {
    this.#calls += 1;
    expect([iova % pageBytes, paddr % pageBytes]).toEqual([0, 0]);
    const isFailing = this.#calls === this.failAt;
    const taken = Math.min(pageCount, this.maxPages);
    const count = isFailing ? Math.floor(taken / 2) : taken;
    this.log.push(`map ${pageCount} of ${pageBytes / KiB} KiB`);
    for (let at = 0; at < count * pageBytes; at += PS) {
      if (this.pages.has(iova + at)) {
        const mappedBytes = Math.floor(at / pageBytes) * pageBytes;
        for (let back = mappedBytes; back < at; back += PS) this.pages.delete(iova + back);
        return { mappedBytes, error: "EEXIST" as const };
      }
      this.pages.set(iova + at, paddr + at);
    }
    const mappedBytes = count * pageBytes;
    return isFailing ? { mappedBytes, error: "ENOMEM" as const } : mappedBytes;
  }

  unmapPages(iova: number, pageBytes: number, pageCount: number, gather: IotlbGather): number {
    let done = 0;
    while (done < pageBytes * pageCount && this.pages.delete(iova + done)) {
      gather.addPage(iova + done, PS);
      done += PS;
    }
    this.log.push(`unmap ${pageCount} of ${pageBytes / KiB} KiB`);
    return done;
  }

  iotlbSyncMap(_: number, sizeBytes: number): void {
    this.log.push(`sync map ${sizeBytes / KiB} KiB`);
  }

  iotlbSync({ isEmpty, iova, iovaEnd }: IotlbGather): void {
    this.log.push(isEmpty ? "sync" : `sync ${iova / PS} to ${iovaEnd / PS}`);
  }

  iovaToPhys(iova: number): number | null {
    const page = this.pages.get(iova - (iova % PS));
    return page === undefined ? null : page + (iova % PS);
  }
}
