/**
 * Plain-JavaScript page allocators, as one would write them without a core: what we are measured
 * against.
 *
 * They keep lists and no descriptors, check nothing and belong to one thread.
 *
 * @module
 */

/** A binary buddy: runs of a power of two pages. */
export class JsBuddy {
  static readonly MAX_ORDER = 10;
  readonly #heads: Int32Array = new Int32Array(JsBuddy.MAX_ORDER + 1).fill(-1);
  readonly #next: Int32Array;
  readonly #prev: Int32Array;
  readonly #freeOrder: Int8Array; // of a free block's first page; -1 elsewhere

  /** `pageCount` is a multiple of 2^MAX_ORDER. */
  constructor(pageCount: number) {
    this.#next = new Int32Array(pageCount).fill(-1);
    this.#prev = new Int32Array(pageCount).fill(-1);
    this.#freeOrder = new Int8Array(pageCount).fill(-1);
    for (let page = pageCount - 1024; page >= 0; page -= 1024)
      this.#insert(page, JsBuddy.MAX_ORDER);
  }

  /** The first page of a run of `count` pages, or -1. */
  alloc(count: number): number {
    const order = count === 1 ? 0 : 32 - Math.clz32(count - 1);
    let have = order;
    while (have <= JsBuddy.MAX_ORDER && this.#heads[have] === -1) have++;
    if (have > JsBuddy.MAX_ORDER) return -1;
    const page = this.#heads[have] ?? -1;
    this.#remove(page, have);
    while (have > order) {
      have--;
      this.#insert(page + (1 << have), have);
    }
    return page;
  }

  /** Frees what alloc(count) returned. */
  free(page: number, count: number): void {
    let first = page;
    let order = count === 1 ? 0 : 32 - Math.clz32(count - 1);
    while (order < JsBuddy.MAX_ORDER) {
      const buddy = first ^ (1 << order);
      if (this.#freeOrder[buddy] !== order) break;
      this.#remove(buddy, order);
      first &= buddy;
      order++;
    }
    this.#insert(first, order);
  }

  #insert(page: number, order: number): void {
    const head = this.#heads[order] ?? -1;
    this.#next[page] = head;
    this.#prev[page] = -1;
    if (head !== -1) this.#prev[head] = page;
    this.#heads[order] = page;
    this.#freeOrder[page] = order;
  }

  #remove(page: number, order: number): void {
    const next = this.#next[page] ?? -1;
    const prev = this.#prev[page] ?? -1;
    if (next !== -1) this.#prev[next] = prev;
    if (prev !== -1) this.#next[prev] = next;
    else this.#heads[order] = next;
    this.#freeOrder[page] = -1;
  }
}

/** A stack of free pages: single pages only. */
export class JsFreeList {
  readonly #free: Int32Array;
  #count: number;

  constructor(pageCount: number) {
    this.#free = Int32Array.from({ length: pageCount }, (_, i) => pageCount - 1 - i);
    this.#count = pageCount;
  }

  /** A page, or -1. */
  alloc(): number {
    if (this.#count === 0) return -1;
    return this.#free[--this.#count] ?? -1;
  }

  free(page: number): void {
    this.#free[this.#count++] = page;
  }
}

/** A bitmap searched from its start, as mm/cma.c does it: one byte a page. */
export class JsFirstFit {
  readonly #taken: Uint8Array;

  constructor(pageCount: number) {
    this.#taken = new Uint8Array(pageCount);
  }

  /** The first run of `count` free pages at a multiple of 2^alignOrder, or -1. */
  alloc(count: number, alignOrder: number): number {
    const step = 1 << alignOrder;
    const last = this.#taken.length - count;
    for (let page = this.#taken.indexOf(0); page >= 0 && page <= last; ) {
      const start = Math.ceil(page / step) * step;
      if (start > last) return -1;
      const hit = this.#taken.subarray(start, start + count).lastIndexOf(1);
      if (hit < 0) {
        this.#taken.fill(1, start, start + count);
        return start;
      }
      page = this.#taken.indexOf(0, start + hit + 1);
    }
    return -1;
  }

  free(page: number, count: number): void {
    this.#taken.fill(0, page, page + count);
  }
}
