/**
 * A driver of an IOMMU that is written in TypeScript: the naive page table as DomainOps.
 *
 * @module
 */

import {
  type Access,
  type DomainOps,
  type ErrnoCode,
  errno,
  type IommuFaultReason,
  type PartialMap,
} from "dmabuf";
import {
  type ModelFormat,
  NOEXEC,
  PgtableModel,
  PRIV,
  READ,
  stage1,
  WRITE,
} from "../model/pgtable.model.ts";

const PAGE = 4096;

/** What an access needs: bits of a leaf that must be there, and bits that must not. */
function needsOf(access: Access): { readonly wanted: number; readonly forbidden: number } {
  const isPrivileged = access.startsWith("privileged-");
  const kind = isPrivileged ? access.slice("privileged-".length) : access;
  const wanted = { read: READ, write: WRITE, "read-write": READ | WRITE, execute: READ }[kind] ?? 0;
  const forbidden = (kind === "execute" ? NOEXEC : 0) | (isPrivileged ? 0 : PRIV);
  return { wanted, forbidden };
}

/** The page table and what it was asked for. */
export class ModelDriver implements DomainOps {
  readonly model: PgtableModel;
  readonly pgsizeBitmap: bigint;
  /** The call of mapPages() that fails, counted from 1; 0: none. */
  failAt = 0;
  failWith: ErrnoCode = "ENOMEM";
  readonly calls: Record<"map" | "unmap" | "syncMap" | "sync" | "flushAll", number> = {
    map: 0,
    unmap: 0,
    syncMap: 0,
    sync: 0,
    flushAll: 0,
  };

  constructor(format: ModelFormat = stage1) {
    this.model = new PgtableModel(Number.POSITIVE_INFINITY, format);
    const { leafOrders } = this.model;
    this.pgsizeBitmap = leafOrders.reduce((bits, order) => bits + BigInt(PAGE * 2 ** order), 0n);
  }

  mapPages(
    iova: number,
    paddr: number,
    pageBytes: number,
    pageCount: number,
    prot: number,
  ): number | PartialMap {
    this.calls.map += 1;
    if (this.calls.map === this.failAt) return { mappedBytes: 0, error: this.failWith };
    const order = Math.log2(pageBytes / PAGE);
    const result = this.model.mapPages(iova / PAGE, paddr / PAGE, order, pageCount, prot);
    if (result >= 0) return result * pageBytes;
    const code = Object.entries(errno).find(([, number]) => number === -result)?.[0] as ErrnoCode;
    return { mappedBytes: 0, error: code };
  }

  unmapPages(iova: number, pageBytes: number, pageCount: number): number {
    this.calls.unmap += 1;
    return this.model.unmapPages(iova / PAGE, Math.log2(pageBytes / PAGE), pageCount) * PAGE;
  }

  iotlbSyncMap(): void {
    this.calls.syncMap += 1;
  }

  iotlbSync(): void {
    this.calls.sync += 1;
  }

  flushIotlbAll(): void {
    this.calls.flushAll += 1;
  }

  iovaToPhys(iova: number): number | null {
    const leaf = this.model.leafAt(Math.floor(iova / PAGE));
    return leaf === null ? null : leaf.physPfn * PAGE + (iova % PAGE);
  }

  translate(iova: number, access: Access): number | IommuFaultReason {
    if (iova >= 2 ** this.model.format.inputBits) return "address-size";
    const pfn = iova / PAGE;
    const leaf = this.model.leafAt(pfn);
    if (leaf === null) return "translation";
    const prot = this.model.prot(pfn);
    const { wanted, forbidden } = needsOf(access);
    if ((prot & wanted) !== wanted || (prot & forbidden) !== 0) return "permission";
    return leaf.physPfn * PAGE;
  }
}
