/**
 * The naive twin of `assembly/iova.ts`: an array of ranges in address order.
 *
 * A fit is found by looking at every gap from the top down, and a reservation merges as Linux's
 * reserve_iova() does. Numbers do not wrap here, so the twin is also the reference near page 2^32.
 */

export const MAX_PFN = 0xffffffff;

/** Both ends inclusive, as in the core. */
export interface ModelRange {
  low: number;
  high: number;
}

export class IovaModel {
  readonly startPfn: number;
  /** In address order, disjoint. */
  readonly ranges: ModelRange[] = [];

  constructor(startPfn: number) {
    this.startPfn = startPfn;
  }

  /** The highest page where the shape fits at or below `limit`; 0 when it fits nowhere. */
  fit(pageCount: number, limit: number, isSizeAligned: boolean): number {
    const unit = isSizeAligned ? alignment(pageCount) : 1;
    if (pageCount === 0) return 0;
    for (let i = this.ranges.length; i >= 0; i--) {
      const gap = i === 0 ? this.startPfn : this.#at(i - 1).high + 1;
      const gapEnd = i === this.ranges.length ? MAX_PFN + 1 : this.#at(i).low;
      const last = Math.min(gapEnd, limit + 1) - pageCount;
      const pfn = Math.floor(last / unit) * unit;
      if (pfn >= gap) return pfn;
    }
    return 0;
  }

  /** Whether nobody has a page of [low, high], and all of them may be given. */
  isFree(low: number, high: number): boolean {
    if (low < this.startPfn || high > MAX_PFN) return false;
    const next = this.ranges[this.#firstEndingFrom(low)];
    return next === undefined || next.low > high;
  }

  insert(low: number, high: number): void {
    this.ranges.splice(this.#firstEndingFrom(low), 0, { low, high });
  }

  find(pfn: number): ModelRange | undefined {
    const range = this.ranges[this.#firstEndingFrom(pfn)];
    return range !== undefined && range.low <= pfn ? range : undefined;
  }

  /** The page count of the range that held `pfn`, or 0. */
  free(pfn: number): number {
    const range = this.find(pfn);
    if (range === undefined) return 0;
    this.ranges.splice(this.ranges.indexOf(range), 1);
    return range.high - range.low + 1;
  }

  reserve(pfn: number, high: number): void {
    let low = Math.max(pfn, this.startPfn);
    if (high < low) return;
    let next = this.ranges[this.#firstEndingFrom(low)];
    while (next !== undefined && next.low <= high) {
      next.low = Math.min(next.low, low);
      if (high <= next.high) return;
      low = next.high + 1;
      next = this.ranges[this.#firstEndingFrom(low)];
    }
    this.insert(low, high);
  }

  #at(i: number): ModelRange {
    return this.ranges[i] as ModelRange;
  }

  /** The index of the first range that ends at or above `pfn`. */
  #firstEndingFrom(pfn: number): number {
    let from = 0;
    let end = this.ranges.length;
    while (from < end) {
      const middle = (from + end) >> 1;
      if (this.#at(middle).high < pfn) from = middle + 1;
      else end = middle;
    }
    return from;
  }
}

/** The lowest power of two that is not below `pageCount`. */
export function alignment(pageCount: number): number {
  let unit = 1;
  while (unit < pageCount) unit *= 2;
  return unit;
}
