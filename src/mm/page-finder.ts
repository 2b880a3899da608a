/**
 * PageFinder: which entry of a table holds its page `n`, found by bisection, not by a walk.
 *
 *     entries   ├── 2 pages ──┼─ 1 ─┼──── 3 pages ────┤      page 4 is page 1 of entry 2
 *     starts    0             2     3
 *
 * - SP1 In a paged table only the first entry may begin inside a frame, and only the last may end
 *       inside one: then the bytes before an entry tell the pages before it.
 * - SP2 In any other table an entry can count a frame that the one before counted: the starts are
 *       summed up when first asked for, and forgotten when the table grows.
 *
 * @module
 */

import { addressOf, framesOf, offsetOf, pfnOf } from "../units.ts";
import type { Run } from "./pinned-table.ts";

/** What is asked of a table. */
interface Entries {
  readonly origNents: number;
  readonly lengthBytes: number;
  cpu(i: number): Run;
  entries(): Iterable<Run>;
  bytesBefore(i: number): number;
  nentsForLen(lengthBytes: number): number;
}

/** A page of a table: page `into` of entry `i`, which is none where the table ends before. */
interface PagePlace {
  readonly i: number;
  readonly into: number;
}

/** Whether a table of these runs is paged (SP1). */
export function isPaged(runs: readonly Run[]): boolean {
  return runs.every(
    ({ offset, lengthBytes }, i) =>
      (i === 0 || offset === 0) && (i === runs.length - 1 || offsetOf(offset + lengthBytes) === 0),
  );
}

/** @internal Finds the pages of one table. */
export class PageFinder {
  #isPaged: boolean;
  #starts: Uint32Array | null = null;

  constructor(isPaged: boolean) {
    this.#isPaged = isPaged;
  }

  /** Whether the table is known to be paged; so is each of its parts. */
  get isPaged(): boolean {
    return this.#isPaged;
  }

  /** Where page `page` is. Cost: O(log n), but for the first in a table that is not paged. */
  find(table: Entries, page: number): PagePlace {
    if (page === 0) return { i: 0, into: 0 };
    if (this.#isPaged) return findPaged(table, page);
    this.#starts ??= startsOf(table);
    return findStarted(this.#starts, page);
  }

  /** The last `addedBytes` bytes of the table are new (SP2). */
  grown(table: Entries, addedBytes: number): void {
    const end = table.cpu(0).offset + table.lengthBytes - addedBytes; // where the new ones begin
    this.#isPaged &&= offsetOf(end) === 0;
    this.#starts = null;
  }
}

function findPaged(table: Entries, page: number): PagePlace {
  const { offset } = table.cpu(0);
  const at = addressOf(page) - offset;
  if (at >= table.lengthBytes) return { i: table.origNents, into: 0 };
  const i = table.nentsForLen(at + 1) - 1;
  return { i, into: i === 0 ? page : page - pfnOf(offset + table.bytesBefore(i)) };
}

function startsOf(table: Entries): Uint32Array {
  const starts = new Uint32Array(table.origNents);
  let pages = 0;
  let i = 0;
  for (const { offset, lengthBytes } of table.entries()) {
    starts[i++] = pages;
    pages += framesOf(offset + lengthBytes);
  }
  return starts;
}

function findStarted(starts: Uint32Array, page: number): PagePlace {
  let low = 0;
  for (let high = starts.length; high - low > 1; ) {
    const middle = Math.floor((low + high) / 2);
    if ((starts[middle] ?? 0) <= page) low = middle;
    else high = middle;
  }
  return { i: low, into: page - (starts[low] ?? 0) };
}
