/**
 * DomainOps: what a driver of an IOMMU's page table provides.
 *
 * Compare `struct iommu_domain_ops` in the kernel's include/linux/iommu.h.
 *
 * @module
 */

import type { ErrnoCode } from "../errors.ts";
import type { Access } from "./access.ts";
import type { IommuFaultReason } from "./iommu-fault.ts";
import type { IotlbGather } from "./iotlb-gather.ts";

/** What a mapping allows and how it behaves, as bits to be added up. Drivers get them as given. */
export const iommuProt = {
  /** The device may read. */
  read: 1,
  /** The device may write. */
  write: 2,
  /** Accesses go through the CPU's caches. */
  cache: 4,
  /** The device may not fetch instructions. */
  noexec: 8,
  /** What lies behind the address is a device, not memory. */
  mmio: 16,
  /** Only privileged accesses. */
  priv: 32,
} as const;

/** A call of mapPages() that failed after some pages. */
export interface PartialMap {
  /** Bytes mapped before the error. */
  readonly mappedBytes: number;
  readonly error: ErrnoCode;
}

/**
 * The callbacks of a page table. The generic layer calls them with pages of a size that
 * `pgsizeBitmap` has; iova and paddr are multiples of that size.
 */
export interface DomainOps {
  /** Bit n is set if the table has pages of 2^n bytes. 0n: it cannot map at all. */
  readonly pgsizeBitmap: bigint;

  /**
   * Optional: the first and the last device address that it translates, which buffers are kept
   * inside when this is a group's default domain. Default: all. Linux's `geometry`.
   */
  readonly aperture?: { readonly start: number; readonly end: number } | undefined;

  /**
   * Optional: identity and blocked domains do not have it. Maps `pageCount` pages one after the
   * other. Returns how many bytes it mapped; if that is less than asked for, it is called again for
   * the rest. Returns a {@link PartialMap} if it failed; what it throws means that this call mapped
   * nothing. Either way the generic layer unmaps what the operation mapped so far.
   */
  mapPages?(
    iova: number,
    paddr: number,
    pageBytes: number,
    pageCount: number,
    prot: number,
  ): number | PartialMap;

  /**
   * Optional, as mapPages(). Unmaps `pageCount` pages and returns how many bytes are gone: less
   * than asked for and it is called again, 0 and the operation ends there. It may be more, when a
   * larger page lay there. Must not throw. `gather` is for its own use, until iotlbSync().
   */
  unmapPages?(iova: number, pageBytes: number, pageCount: number, gather: IotlbGather): number;

  /** Optional. Called once after all of a map() or mapSg() was mapped. */
  iotlbSyncMap?(iova: number, sizeBytes: number): void;

  /** Optional. Devices must forget the translations of `gather` before it returns. */
  iotlbSync?(gather: IotlbGather): void;

  /**
   * Optional. Devices must forget all translations before it returns. Without it no group with
   * lazy invalidation has this as its default domain.
   */
  flushIotlbAll?(): void;

  /** Optional. The physical address behind a device address; null for none. */
  iovaToPhys?(iova: number): number | null;

  /**
   * Optional: what the hardware does. The physical address of the page at `iova`, a multiple of 4
   * KiB, for a device that accesses it; or why it may not. Without it iovaToPhys() is asked, and
   * whatever is mapped may be read and written. Called for each page of each access: a model of a
   * TLB, of permissions and of dirty bits belongs here.
   */
  translate?(iova: number, access: Access): number | IommuFaultReason;
}
