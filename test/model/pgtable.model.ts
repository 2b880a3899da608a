// A slow IO page table that is obviously right: a map of leaves, a set of tables and a number of
// frames that are left.
//
//   leaves  (order, first page) → the first physical page, and the protection
//   tables  (order, first page)   a table of order n starts at a multiple of 2^(n + 9) pages
//
// It does what Linux 6.1 does, page by page and entry by entry: iommu_map() and iommu_unmap() cut a
// range into batches, and io-pgtable-arm maps or unmaps one batch. Every page number is an ordinary
// number, so nothing wraps.

export const EEXIST = -17;
export const EINVAL = -22;
export const ENOMEM = -12;
export const ERANGE = -34;
export const READ = 1;
export const WRITE = 2;

const ORDERS = [27, 18, 9, 0];
const PAGES_END = 2 ** 32;

interface Leaf {
  physPfn: number;
  prot: number;
}

export interface ModelSegment {
  physPfn: number;
  pageCount: number;
}

const keyOf = (order: number, pfn: number) => pfn * 32 + order;
const floorTo = (pfn: number, order: number) => pfn - (pfn % 2 ** order);

export class PgtableModel {
  readonly leaves = new Map<number, Leaf>();
  readonly tables = new Set<number>([keyOf(27, 0)]);
  /** Frames that new tables can still be made of. */
  framesLeft: number;

  constructor(framesLeft: number) {
    this.framesLeft = framesLeft;
  }

  // ---- ranges

  map(iovaPfn: number, physPfn: number, pageCount: number, prot: number): number {
    if (pageCount === 0) return 0;
    if ((prot & (READ | WRITE)) === 0) return EINVAL;
    if (iovaPfn + pageCount > PAGES_END || physPfn + pageCount > PAGES_END) return ERANGE;
    let done = 0;
    while (done < pageCount) {
      const plan = this.#plan(iovaPfn + done, physPfn + done, pageCount - done);
      const mapped = this.mapPages(iovaPfn + done, physPfn + done, plan.order, plan.count, prot);
      if (mapped < 0) {
        this.unmap(iovaPfn, done);
        return mapped;
      }
      done += mapped * 2 ** plan.order;
    }
    return 0;
  }

  unmap(iovaPfn: number, pageCount: number): number {
    pageCount = Math.min(pageCount, PAGES_END - iovaPfn);
    let done = 0;
    while (done < pageCount) {
      const plan = this.#plan(iovaPfn + done, iovaPfn + done, pageCount - done);
      const unmapped = this.unmapPages(iovaPfn + done, plan.order, plan.count);
      if (unmapped === 0) break;
      done += unmapped;
    }
    return done;
  }

  mapFrames(iovaPfn: number, segments: readonly ModelSegment[], prot: number): number {
    let done = 0;
    for (const { physPfn, pageCount } of segments) {
      const error = this.map(iovaPfn + done, physPfn, pageCount, prot);
      if (error < 0) {
        this.unmap(iovaPfn, done);
        return error;
      }
      done += pageCount;
    }
    return 0;
  }

  /** The largest entry that fits, and how many of it before a larger one fits. */
  #plan(iovaPfn: number, physPfn: number, pageCount: number): { order: number; count: number } {
    const fits = (order: number, pages: number) =>
      2 ** order <= pages && iovaPfn % 2 ** order === 0 && physPfn % 2 ** order === 0;
    const order = [18, 9].find((o) => fits(o, pageCount)) ?? 0;
    const larger = 2 ** (order + 9);
    let pages = pageCount;
    if (order < 18 && iovaPfn % larger === physPfn % larger) {
      const ahead = larger - (iovaPfn % larger);
      if (ahead + larger <= pageCount) pages = ahead;
    }
    return { order, count: Math.floor(pages / 2 ** order) };
  }

  // ---- batches

  mapPages(iovaPfn: number, physPfn: number, order: number, count: number, prot: number): number {
    if (![0, 9, 18].includes(order) || (prot & (READ | WRITE)) === 0) return EINVAL;
    if (iovaPfn % 2 ** order !== 0 || physPfn % 2 ** order !== 0) return EINVAL;
    count = Math.min(count, 512 - (Math.floor(iovaPfn / 2 ** order) % 512));
    if (physPfn + count * 2 ** order > PAGES_END) return ERANGE;
    for (const above of ORDERS.filter((o) => o > order)) {
      if (this.leaves.has(keyOf(above, floorTo(iovaPfn, above)))) return EEXIST;
      if (!this.#tableMake(above - 9, floorTo(iovaPfn, above))) return ENOMEM;
    }
    for (let i = 0; i < count; i++) {
      const pfn = iovaPfn + i * 2 ** order;
      if (this.leaves.has(keyOf(order, pfn))) return EEXIST;
      this.#tableDrop(order - 9, pfn); // a block replaces a table
    }
    for (let i = 0; i < count; i++) {
      const leaf = { physPfn: physPfn + i * 2 ** order, prot };
      this.leaves.set(keyOf(order, iovaPfn + i * 2 ** order), leaf);
    }
    return count;
  }

  unmapPages(iovaPfn: number, order: number, count: number): number {
    if (![0, 9, 18].includes(order) || iovaPfn % 2 ** order !== 0 || count === 0) return 0;
    for (const above of ORDERS.filter((o) => o > order)) {
      const pfn = floorTo(iovaPfn, above);
      if (this.leaves.has(keyOf(above, pfn)) && !this.#split(above, pfn)) return 0;
      if (!this.tables.has(keyOf(above - 9, pfn))) return 0;
    }
    count = Math.min(count, 512 - (Math.floor(iovaPfn / 2 ** order) % 512));
    let done = 0;
    while (done < count) {
      const pfn = iovaPfn + done * 2 ** order;
      if (!this.leaves.delete(keyOf(order, pfn)) && !this.#tableDrop(order - 9, pfn)) break;
      done++;
    }
    return done * 2 ** order;
  }

  // ---- what a device sees

  leafAt(iovaPfn: number): Leaf | null {
    for (const order of [0, 9, 18]) {
      const first = floorTo(iovaPfn, order);
      const leaf = this.leaves.get(keyOf(order, first));
      if (leaf) return { physPfn: leaf.physPfn + iovaPfn - first, prot: leaf.prot };
    }
    return null;
  }

  lookup(iovaPfn: number): number {
    return this.leafAt(iovaPfn)?.physPfn ?? 0xffffffff;
  }

  /** Stage 1 cannot forbid reading. */
  prot(iovaPfn: number): number {
    const leaf = this.leafAt(iovaPfn);
    return leaf === null ? 0 : leaf.prot & WRITE ? READ | WRITE : READ;
  }

  // ---- tables

  #tableMake(order: number, pfn: number): boolean {
    if (this.tables.has(keyOf(order, pfn))) return true;
    if (this.framesLeft === 0) return false;
    this.framesLeft--;
    this.tables.add(keyOf(order, pfn));
    return true;
  }

  /** Removes the table with all that is below it; false if there is none. */
  #tableDrop(order: number, pfn: number): boolean {
    if (order < 0 || !this.tables.delete(keyOf(order, pfn))) return false;
    this.framesLeft++;
    for (let i = 0; i < 512; i++) {
      const below = pfn + i * 2 ** order;
      if (!this.leaves.delete(keyOf(order, below))) this.#tableDrop(order - 9, below);
    }
    return true;
  }

  #split(order: number, pfn: number): boolean {
    if (!this.#tableMake(order - 9, pfn)) return false;
    const block = this.leaves.get(keyOf(order, pfn)) as Leaf;
    this.leaves.delete(keyOf(order, pfn));
    for (let i = 0; i < 512; i++) {
      const inside = i * 2 ** (order - 9);
      const leaf = { physPfn: block.physPfn + inside, prot: block.prot };
      this.leaves.set(keyOf(order - 9, pfn + inside), leaf);
    }
    return true;
  }
}
