/**
 * PageSizes: with which page size, and for how many pages, a driver is called next.
 *
 *     size   ├──── 4 KiB ────┼────────── 2 MiB ──────────┼── 4 KiB ──┤
 *            iova            ▲ iova and paddr both begin a large page here
 *
 * - PZ1  A page is no longer than the bytes that are left, and iova and paddr are multiples of it.
 * - PZ2  Small pages end early only where a whole page of the next size follows.
 *
 * Compare iommu_pgsize() in the kernel's drivers/iommu/iommu.c.
 *
 * @module
 */

import { fail } from "../errors.ts";

const WORD = 2 ** 32;
const BITMAP_END = 2n ** 64n;

/** One call of a driver. */
export interface PagePlan {
  readonly pageBytes: number;
  readonly pageCount: number;
}

/** The page sizes of a domain. */
export class PageSizes {
  /** Ascending. */
  readonly #sizes: readonly number[];

  /** Bit n of `bitmap` stands for pages of 2^n bytes. EINVAL: it has more than 64 bits. */
  constructor(bitmap: bigint) {
    if (typeof bitmap !== "bigint" || bitmap < 0n || bitmap >= BITMAP_END) {
      fail("EINVAL", "make a domain", "pgsizeBitmap must be a bigint of 64 bits, not negative");
    }
    const bits = [...bitmap.toString(2)].reverse();
    this.#sizes = bits.flatMap((bit, order) => (bit === "1" ? [2 ** order] : []));
  }

  /** The smallest page, or null: there is none. */
  get minBytes(): number | null {
    return this.#sizes[0] ?? null;
  }

  /** Whether an address or a size is a multiple of the smallest page. */
  isAligned(bytes: number): boolean {
    return bytes % (this.#sizes[0] ?? 1) === 0;
  }

  /** The call for `sizeBytes` > 0 bytes; all three arguments are multiples of the smallest page. */
  choose(iova: number, paddr: number, sizeBytes: number): PagePlan {
    const limit = Math.min(sizeBytes, lowestBit(iova), lowestBit(paddr)); // PZ1
    let i = 0;
    while ((this.#sizes[i + 1] ?? Infinity) <= limit) i += 1;
    const pageBytes = this.#sizes[i] as number;
    const next = this.#sizes[i + 1];
    let bytes = sizeBytes;
    if (next !== undefined && iova % next === paddr % next) {
      const toNext = next - (iova % next);
      if (toNext + next <= sizeBytes) bytes = toNext; // PZ2
    }
    return { pageBytes, pageCount: Math.floor(bytes / pageBytes) };
  }
}

/** The largest power of two that divides a safe integer; Infinity for 0. */
function lowestBit(value: number): number {
  const low = value % WORD;
  if (low !== 0) return (low & -low) >>> 0;
  const high = value / WORD;
  return high === 0 ? Infinity : ((high & -high) >>> 0) * WORD;
}
