// A slow IO page table that is obviously right: a map of leaves, a set of tables and a number of
// frames that are left.
//
//   leaves  (order, first page) → the first physical page, and the protection
//   tables  (order, first page)   a table of order n starts at a multiple of 2^(n + 9) pages
//                                 (n + 11 and n + 13 with the larger granules)
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

export const NOEXEC = 8;
export const PRIV = 32;

/** What alloc_pgtable() is asked for. */
export interface ModelFormat {
  readonly stage: 1 | 2;
  readonly granuleBytes: 4096 | 16384 | 65536;
  readonly inputBits: number;
  readonly outputBits: number;
}

export const stage1: ModelFormat = {
  stage: 1,
  granuleBytes: 4096,
  inputBits: 44,
  outputBits: 44,
};

/** Orders of leaves, the smallest first, and the order of the top table with 44-bit addresses. */
const shapes = {
  4096: { leaves: [0, 9, 18], top: 27 },
  16384: { leaves: [2, 13], top: 24 },
  65536: { leaves: [4, 17], top: 30 },
};

/** Stage 2 puts no more tables than this side by side. */
const CONCATENATED = 16;

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

/** The entries of the top table and its order. */
function topOf({ stage, granuleBytes, inputBits }: ModelFormat, indexBits: number) {
  let order = shapes[granuleBytes].top;
  const entries = () => 2 ** (inputBits - 12 - order);
  while (entries() <= 1) order -= indexBits;
  const isLevel0 = granuleBytes === 4096 && order === 27;
  if (stage === 2 && isLevel0 && entries() <= CONCATENATED) order -= indexBits;
  return { order, entries: entries() };
}

export class PgtableModel {
  readonly leaves = new Map<number, Leaf>();
  readonly tables = new Set<number>();
  /** Frames that new tables can still be made of. */
  framesLeft: number;
  readonly format: ModelFormat;
  readonly leafOrders: readonly number[];
  /** Orders of tables, the top first. */
  readonly #orders: number[] = [];
  readonly #indexBits: number;
  readonly #topEntries: number;
  readonly #pagesEnd: number;
  readonly #physEnd: number;

  constructor(framesLeft: number, format: ModelFormat = stage1) {
    this.framesLeft = framesLeft;
    this.format = format;
    this.leafOrders = shapes[format.granuleBytes].leaves;
    const [page = 0, block = 0] = this.leafOrders;
    this.#indexBits = block - page;
    const top = topOf(format, this.#indexBits);
    for (let order = top.order; order >= page; order -= this.#indexBits) this.#orders.push(order);
    this.#topEntries = top.entries;
    this.#pagesEnd = 2 ** (format.inputBits - 12);
    this.#physEnd = 2 ** (format.outputBits - 12);
    this.tables.add(keyOf(top.order, 0));
  }

  /** Frames that the tables occupy. */
  get tableFrames(): number {
    const top = Math.max(1, (this.#topEntries * 8) / 4096);
    return top + ((this.tables.size - 1) * this.format.granuleBytes) / 4096;
  }

  get #top(): number {
    return this.#orders[0] ?? 0;
  }

  /** `count`, or as many entries as the table has left. */
  #entriesLeft(iovaPfn: number, order: number, count: number): number {
    const entries = order === this.#top ? this.#topEntries : 2 ** this.#indexBits;
    return Math.min(count, entries - (Math.floor(iovaPfn / 2 ** order) % entries));
  }

  #above(order: number): number[] {
    return this.#orders.filter((above) => above > order);
  }

  // ---- ranges

  map(iovaPfn: number, physPfn: number, pageCount: number, prot: number): number {
    if (pageCount === 0) return 0;
    const granule = this.format.granuleBytes / 4096;
    if ([iovaPfn, physPfn, pageCount].some((pages) => pages % granule !== 0)) return EINVAL;
    if (iovaPfn + pageCount > this.#pagesEnd || physPfn + pageCount > this.#physEnd) return ERANGE;
    if ((prot & (READ | WRITE)) === 0) return EINVAL;
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
    const granule = this.format.granuleBytes / 4096;
    if (iovaPfn % granule !== 0 || pageCount % granule !== 0) return 0;
    pageCount = Math.min(pageCount, this.#pagesEnd - iovaPfn);
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
    const order = this.leafOrders.filter((o) => fits(o, pageCount)).pop() ?? 0;
    const larger = 2 ** (order + this.#indexBits);
    let pages = pageCount;
    if (order !== this.leafOrders.at(-1) && iovaPfn % larger === physPfn % larger) {
      const ahead = larger - (iovaPfn % larger);
      if (ahead + larger <= pageCount) pages = ahead;
    }
    return { order, count: Math.floor(pages / 2 ** order) };
  }

  // ---- batches

  mapPages(iovaPfn: number, physPfn: number, order: number, count: number, prot: number): number {
    if (!this.leafOrders.includes(order)) return EINVAL;
    if (iovaPfn % 2 ** order !== 0 || physPfn % 2 ** order !== 0) return EINVAL;
    if (iovaPfn >= this.#pagesEnd || physPfn >= this.#physEnd) return ERANGE;
    if ((prot & (READ | WRITE)) === 0) return EINVAL;
    if (count === 0) return 0;
    count = this.#entriesLeft(iovaPfn, order, count);
    if (physPfn + count * 2 ** order > this.#physEnd) return ERANGE;
    for (const above of this.#above(order)) {
      if (this.leaves.has(keyOf(above, floorTo(iovaPfn, above)))) return EEXIST;
      if (!this.#tableMake(above - this.#indexBits, floorTo(iovaPfn, above))) return ENOMEM;
    }
    for (let i = 0; i < count; i++) {
      const pfn = iovaPfn + i * 2 ** order;
      if (this.leaves.has(keyOf(order, pfn))) return EEXIST;
      this.#tableDrop(order - this.#indexBits, pfn); // a block replaces a table
    }
    for (let i = 0; i < count; i++) {
      const leaf = { physPfn: physPfn + i * 2 ** order, prot };
      this.leaves.set(keyOf(order, iovaPfn + i * 2 ** order), leaf);
    }
    return count;
  }

  unmapPages(iovaPfn: number, order: number, count: number): number {
    if (!this.leafOrders.includes(order) || iovaPfn % 2 ** order !== 0 || count === 0) return 0;
    if (iovaPfn >= this.#pagesEnd) return 0;
    for (const above of this.#above(order)) {
      const pfn = floorTo(iovaPfn, above);
      if (this.leaves.has(keyOf(above, pfn)) && !this.#split(above, pfn)) return 0;
      if (!this.tables.has(keyOf(above - this.#indexBits, pfn))) return 0;
    }
    count = this.#entriesLeft(iovaPfn, order, count);
    let done = 0;
    while (done < count) {
      const pfn = iovaPfn + done * 2 ** order;
      const isLeaf = this.leaves.delete(keyOf(order, pfn));
      if (!isLeaf && !this.#tableDrop(order - this.#indexBits, pfn)) break;
      done++;
    }
    return done * 2 ** order;
  }

  // ---- what a device sees

  leafAt(iovaPfn: number): Leaf | null {
    for (const order of this.leafOrders) {
      const first = floorTo(iovaPfn, order);
      const leaf = this.leaves.get(keyOf(order, first));
      if (leaf) return { physPfn: leaf.physPfn + iovaPfn - first, prot: leaf.prot };
    }
    return null;
  }

  /** The pages that the leaf over a page maps; null: there is none. */
  leafRange(iovaPfn: number): { first: number; end: number } | null {
    for (const order of this.leafOrders) {
      const first = floorTo(iovaPfn, order);
      if (this.leaves.has(keyOf(order, first))) return { first, end: first + 2 ** order };
    }
    return null;
  }

  lookup(iovaPfn: number): number {
    return this.leafAt(iovaPfn)?.physPfn ?? 0xffffffff;
  }

  /** Stage 1 cannot forbid reading, stage 2 does not know privileges. */
  prot(iovaPfn: number): number {
    const leaf = this.leafAt(iovaPfn);
    if (leaf === null) return 0;
    return this.format.stage === 1
      ? (leaf.prot & (WRITE | NOEXEC | PRIV)) | READ
      : leaf.prot & (READ | WRITE | NOEXEC);
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
    if (order < (this.leafOrders[0] ?? 0) || !this.tables.delete(keyOf(order, pfn))) return false;
    this.framesLeft++;
    for (let i = 0; i < 2 ** this.#indexBits; i++) {
      const below = pfn + i * 2 ** order;
      if (!this.leaves.delete(keyOf(order, below))) this.#tableDrop(order - this.#indexBits, below);
    }
    return true;
  }

  #split(order: number, pfn: number): boolean {
    const below = order - this.#indexBits;
    if (!this.#tableMake(below, pfn)) return false;
    const block = this.leaves.get(keyOf(order, pfn)) as Leaf;
    this.leaves.delete(keyOf(order, pfn));
    for (let i = 0; i < 2 ** this.#indexBits; i++) {
      const inside = i * 2 ** below;
      const leaf = { physPfn: block.physPfn + inside, prot: block.prot };
      this.leaves.set(keyOf(below, pfn + inside), leaf);
    }
    return true;
  }
}
