/**
 * A naive model of an IOVA domain: a sorted list of taken ranges, both ends inclusive.
 *
 * One model follows the recorded kernel, one follows the core; `mate` ties a recorded range to
 * ours.
 *
 * @module
 */

/** A taken range. */
export interface Range {
  lo: number;
  hi: number;
  /** The other side's range; null once the two sides went separate ways. */
  mate: Range | null;
}

/** The taken ranges of one side. */
export class IovaModel {
  readonly ranges: Range[] = [];
  readonly #startPfn: number;

  constructor(startPfn: number) {
    this.#startPfn = startPfn;
  }

  /** The index of the first range that ends at or above `pfn`. */
  #seek(pfn: number): number {
    let low = 0;
    let high = this.ranges.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.ranges[middle] as Range).hi < pfn) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The range that holds `pfn`. */
  find(pfn: number): Range | null {
    const range = this.ranges[this.#seek(pfn)];
    return range !== undefined && range.lo <= pfn ? range : null;
  }

  /** All ranges that share a page with [lo, hi]. */
  overlapping(lo: number, hi: number): Range[] {
    const first = this.#seek(lo);
    let end = first;
    while (end < this.ranges.length && (this.ranges[end] as Range).lo <= hi) end += 1;
    return this.ranges.slice(first, end);
  }

  /** Takes [lo, hi], which must be free. */
  insert(lo: number, hi: number): Range {
    const range: Range = { lo, hi, mate: null };
    this.ranges.splice(this.#seek(lo), 0, range);
    return range;
  }

  remove(range: Range): void {
    this.ranges.splice(this.ranges.indexOf(range), 1);
  }

  /**
   * reserve_iova(): overlapped ranges are stretched down, the rest is a new range. All ranges that
   * now cover [lo, hi], the one that Linux returns last.
   */
  reserve(lo: number, hi: number): Range[] {
    const touched: Range[] = [];
    let low = lo;
    for (const range of this.overlapping(lo, hi)) {
      range.lo = Math.min(range.lo, low);
      touched.push(range);
      if (hi <= range.hi) return touched;
      low = range.hi + 1;
    }
    touched.push(this.insert(low, hi));
    return touched;
  }

  /** Whether `count` pages fit at or below `limit`, at a multiple of `align`. */
  fits(count: number, limit: number, align: number): boolean {
    let high = limit; // the last page of the gap being looked at
    for (let i = this.overlapping(0, limit).length - 1; i >= -1; i--) {
      const below = this.ranges[i];
      const gapLo = Math.max(below === undefined ? 0 : below.hi + 1, this.#startPfn);
      if (Math.floor((high - count + 1) / align) * align >= gapLo) return true;
      if (below !== undefined) high = below.lo - 1;
    }
    return false;
  }

  /** A page that neither this side nor the other has, near `pfn` and at most `max`. */
  freeNear(pfn: number, max: number, other: IovaModel): number | null {
    for (let page = Math.min(pfn, max), step = -1; page >= 0 && page <= max; ) {
      const range = this.find(page) ?? other.find(page);
      if (range === null) return page;
      page = step < 0 ? range.lo - 1 : range.hi + 1;
      if (page < 0) [page, step] = [Math.min(pfn, max), 1];
    }
    return null;
  }
}
