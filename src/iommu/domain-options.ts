/**
 * What a domain of the core may be asked for: its page table's format, and its IOTLB.
 *
 * Compare `struct io_pgtable_cfg` in the kernel's include/linux/io-pgtable.h.
 *
 * @module
 */

import { fail, requireInteger } from "../errors.ts";
import { GiB, KiB, MiB } from "../units.ts";
import type { DomainType } from "./domain.ts";

/** A model of a TLB. */
export interface IotlbOptions {
  /** Translations it holds, at most 254; each is one page of 4 KiB. */
  readonly entries: number;
  /** Entries that a page can be in; `entries / ways` is a power of two. Default: all. */
  readonly ways?: number | undefined;
  /** Which entry of a full set goes: the one unused for longest, or the oldest. Default "lru". */
  readonly eviction?: "lru" | "fifo" | undefined;
}

/** An IOTLB, with nothing left open. */
export interface IotlbFormat {
  readonly entries: number;
  readonly ways: number;
  readonly eviction: "lru" | "fifo";
}

/** A domain's type and format; the defaults are those of a device's own domain. */
export interface DomainOptions {
  /** Default "paging". */
  readonly type?: DomainType | undefined;
  /** The smallest page: 4, 16 or 64 KiB. Default 4 KiB. */
  readonly granuleBytes?: number | undefined;
  /** 1: what a device driver maps; 2: what a hypervisor does. Default 1. */
  readonly stage?: number | undefined;
  /** Bits of device addresses, 32 to 44. Default 44. */
  readonly addressBits?: number | undefined;
  /** Bits of physical addresses, 32 to 44. Default 44. */
  readonly outputBits?: number | undefined;
  /** A call that maps checks everything before it writes, and replaces nothing. Default false. */
  readonly strictMap?: boolean | undefined;
  /** Leaves remember that a device wrote; stage 1 only. Default false. */
  readonly dirtyTracking?: boolean | undefined;
  /** Without one, devices walk the tables at each access, and every unmap is seen at once. */
  readonly iotlb?: IotlbOptions | null | undefined;
}

/** A format, checked and complete. */
export interface DomainFormat {
  readonly granuleBytes: number;
  readonly stage: number;
  readonly addressBits: number;
  readonly outputBits: number;
  readonly strictMap: boolean;
  readonly dirtyTracking: boolean;
  readonly iotlb: IotlbFormat | null;
  readonly pgsizeBitmap: bigint;
}

/** The format of ARM_32_LPAE_S1: 32-bit device addresses, 40-bit physical ones, 4 KiB pages. */
export const arm32Lpae: DomainOptions = { addressBits: 32, outputBits: 40 };

/** By granule. */
const pageSizes: ReadonlyMap<number, readonly number[]> = new Map([
  [4 * KiB, [4 * KiB, 2 * MiB, GiB]],
  [16 * KiB, [16 * KiB, 32 * MiB]],
  [64 * KiB, [64 * KiB, 512 * MiB]],
]);

const ADDRESS_BITS = 44;

/** The complete format of a paging domain. EINVAL: which option is none. */
export function checkFormat(options: DomainOptions, iotlbEntriesMax: number): DomainFormat {
  const operation = "make a domain";
  const { granuleBytes = 4 * KiB, stage = 1 } = options;
  const { addressBits = ADDRESS_BITS, outputBits = ADDRESS_BITS } = options;
  const { strictMap = false, dirtyTracking = false, iotlb = null } = options;
  const sizes = pageSizes.get(granuleBytes);
  if (sizes === undefined) fail("EINVAL", operation, "granuleBytes must be 4, 16 or 64 KiB");
  requireInteger(stage, "stage", 1, 2, operation);
  requireInteger(addressBits, "addressBits", 32, ADDRESS_BITS, operation);
  requireInteger(outputBits, "outputBits", 32, ADDRESS_BITS, operation);
  if (dirtyTracking && stage !== 1) fail("EINVAL", operation, "stage 2 has no dirty tracking");
  return {
    granuleBytes,
    stage,
    addressBits,
    outputBits,
    strictMap,
    dirtyTracking,
    iotlb: iotlb === null ? null : checkIotlb(iotlb, iotlbEntriesMax, operation),
    pgsizeBitmap: sizes.reduce((bits, size) => bits + BigInt(size), 0n),
  };
}

function checkIotlb(options: IotlbOptions, max: number, operation: string): IotlbFormat {
  const { entries, ways = entries, eviction = "lru" } = options;
  requireInteger(entries, "the entries of the IOTLB", 1, max, operation);
  requireInteger(ways, "the ways of the IOTLB", 1, entries, operation);
  if (!Number.isInteger(Math.log2(entries / ways))) {
    fail("EINVAL", operation, "entries / ways of the IOTLB must be a power of two");
  }
  if (eviction !== "lru" && eviction !== "fifo") {
    fail("EINVAL", operation, "the eviction of the IOTLB must be lru or fifo");
  }
  return { entries, ways, eviction };
}
