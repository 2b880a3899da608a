/**
 * Seeded events on an IO page table of the core and on its naive twin.
 *
 * @module
 */

import { expect } from "vitest";
import { type ModelFormat, PgtableModel, READ, stage1, WRITE } from "../model/pgtable.model.ts";
import type { TestCore } from "./cores.ts";
import { ROOT_BYTES, Table } from "./page-table.ts";

const RW = READ | WRITE;
const CACHE = 4;
const FRAMES = 4096;
const PAGES_2M = 2 ** 9;
const PAGES_1G = 2 ** 18;
const PAGES_END = 2 ** 32;

// ---- memory pressure

/** Takes all frames: into tables of one frame, to be given back singly, and one large table. */
export function exhaust(core: TestCore): { tables: number[]; spare: number } {
  const tables = Array.from({ length: 64 }, (_, i) => core.scratchAt + 4096 + i * ROOT_BYTES);
  for (const at of tables) expect(core.exports.pgtInit(at)).toBe(0);
  const hog = core.scratchAt + 4096 + 64 * ROOT_BYTES;
  expect(core.exports.pgtInit(hog)).toBe(0);
  let iovaPfn = 0;
  while (core.exports.pgtMap(hog, iovaPfn, 1, 1, RW) === 0) iovaPfn += PAGES_2M;
  return { tables, spare: hog + ROOT_BYTES };
}

// ---- fuzz

/** Numbers in [0, 2^32) that depend on the seed only. */
function mulberry32(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (t ^ (t >>> 14)) >>> 0;
  };
}

/** What one event did on both sides, and where it was. */
interface Outcome {
  readonly what: readonly unknown[];
  readonly ours: number;
  readonly wanted: number;
}

/** Random arguments close to each other and to the ends of tables. */
class Dice {
  readonly next: () => number;
  /** Pages of a granule, and of a block in the table above. */
  readonly #granule: number;
  readonly #block: number;
  readonly #end: number;

  constructor(seed: number, { granuleBytes, inputBits }: ModelFormat) {
    this.next = mulberry32(seed);
    this.#granule = granuleBytes / 4096;
    this.#block = this.#granule * 2 ** (9 + Math.log2(this.#granule));
    this.#end = 2 ** (inputBits - 12);
  }

  /** Mostly a multiple of the granule. */
  #granular(pages: number): number {
    return this.below(24) === 0 ? pages : pages - (pages % this.#granule);
  }

  below(n: number): number {
    return this.next() % n;
  }

  oneOf(...values: readonly number[]): number {
    return values[this.below(values.length)] ?? 0;
  }

  iovaPfn(): number {
    const [block, end] = [this.#block, this.#end];
    const inside = this.oneOf(0, 0x200, 0x3fe00, 0x40000, block, 2 * block);
    const origin = this.oneOf(inside, 0, end / 2 - 512, end - 512, end - 0x40000, end - block);
    const near = this.oneOf(1, this.below(16), this.below(600), 512, 511, block, block - 1);
    return this.#granular((origin + this.oneOf(0, 0, near)) % PAGES_END);
  }

  physPfn(iovaPfn: number): number {
    const origin = this.oneOf(0, 0x200, 0x40000, 0x100000, 0xffffff00, 0x345600, this.#block);
    const same = this.oneOf(iovaPfn % PAGES_2M, iovaPfn % PAGES_1G, iovaPfn % this.#block);
    return this.#granular((origin + this.oneOf(same, same, 0, this.below(PAGES_2M))) % PAGES_END);
  }

  pageCount(): number {
    const small = this.oneOf(0, 1, 1, 1, 2, this.below(20), this.below(600));
    const large = this.oneOf(this.below(2000), this.below(2000), PAGES_1G, this.#block);
    const pages = this.oneOf(small, small, small, 512, 513, 1024, large, this.#block);
    return this.#granular(pages * this.oneOf(1, this.#granule));
  }

  prot(): number {
    return this.oneOf(RW, RW, RW, READ, WRITE, RW | CACHE, 63, CACHE, this.below(64));
  }

  segments(): number[][] {
    return Array.from({ length: this.oneOf(1, 2, 5, this.below(40), this.below(300)) }, () => {
      const pages = this.oneOf(1, 1, 1, 1, 1, 2, this.below(40) + 1, PAGES_2M) * this.#granule;
      const pfn = this.#granular(this.oneOf(this.below(FRAMES), this.below(8) * PAGES_2M));
      const offset = this.oneOf(0, 0, this.below(4096));
      return [pfn, offset, pages * 4096 - this.oneOf(0, this.below(4096))];
    });
  }
}

function mapEvent(dice: Dice, table: Table, model: PgtableModel, iovaPfn: number): Outcome {
  const args = [iovaPfn, dice.physPfn(iovaPfn), dice.pageCount(), dice.prot()] as const;
  return { what: ["map", ...args], ours: table.map(...args), wanted: model.map(...args) };
}

function unmapEvent(dice: Dice, table: Table, model: PgtableModel, iovaPfn: number): Outcome {
  const args = [iovaPfn, dice.pageCount()] as const;
  return { what: ["unmap", ...args], ours: table.unmap(...args), wanted: model.unmap(...args) };
}

function batchEvent(dice: Dice, table: Table, model: PgtableModel, iovaPfn: number): Outcome {
  const order = dice.oneOf(0, 0, 9, 18, 4, ...model.leafOrders, ...model.leafOrders);
  const count = dice.oneOf(1, 1, 2, 16, dice.below(600), 512);
  const first = iovaPfn - (iovaPfn % 2 ** order);
  if (dice.below(2) === 0) {
    const ours = table.unmapPages(first, order, count);
    const wanted = model.unmapPages(first, order, count);
    return { what: ["unmapPages", first, order, count], ours, wanted };
  }
  const physPfn = dice.physPfn(iovaPfn);
  const args = [first, physPfn - (physPfn % 2 ** order), order, count, dice.prot()] as const;
  const ours = table.mapPages(...args);
  return { what: ["mapPages", ...args], ours, wanted: model.mapPages(...args) };
}

function framesEvent(dice: Dice, table: Table, model: PgtableModel, iovaPfn: number): Outcome {
  const segments = dice.segments();
  const prot = dice.prot();
  const rounded = segments.map(([pfn = 0, offset = 0, length = 0]) => {
    const pageCount = Math.ceil((offset + length) / 4096);
    return { physPfn: table.physPfnBase + pfn, pageCount };
  });
  const ours = table.mapFrames(iovaPfn, segments, prot);
  return {
    what: ["mapFrames", iovaPfn, segments, prot],
    ours,
    wanted: model.mapFrames(iovaPfn, rounded, prot),
  };
}

const EVENTS = [mapEvent, mapEvent, unmapEvent, unmapEvent, batchEvent, framesEvent];

/** The first difference between the two sides near `iovaPfn`, or null. */
function difference(dice: Dice, table: Table, model: PgtableModel, iovaPfn: number): string | null {
  if (table.tableFrames !== model.tableFrames) {
    return `${table.tableFrames} frames of tables, the model has ${model.tableFrames}`;
  }
  for (const inside of [0, 1, dice.below(600), dice.below(4096), PAGES_END - 1]) {
    const pfn = (iovaPfn + inside) % PAGES_END;
    if (table.lookup(pfn) !== model.lookup(pfn)) return `translation of page ${pfn}`;
    if (table.prot(pfn) !== model.prot(pfn)) return `protection of page ${pfn}`;
  }
  return null;
}

/**
 * Runs events on a fresh table of a format and on its twin; with tables of one frame, every other
 * seed leaves few frames for them.
 */
export function fuzzTable(core: TestCore, seed: number, events: number, format = stage1): void {
  const dice = new Dice(seed, format);
  const table = new Table(core, format);
  const model = new PgtableModel(Number.POSITIVE_INFINITY, format);
  if (seed % 2 === 0 && format.granuleBytes === 4096) {
    const { tables } = exhaust(core);
    model.framesLeft = dice.oneOf(0, 2, 5, 20, 60);
    for (const at of tables.slice(0, model.framesLeft)) core.exports.pgtFini(at);
  }
  for (let event = 0; event < events; event++) {
    const iovaPfn = dice.iovaPfn();
    const run = EVENTS[dice.below(EVENTS.length)] ?? mapEvent;
    const { what, ours, wanted } = run(dice, table, model, iovaPfn);
    let wrong =
      ours === wanted ? difference(dice, table, model, iovaPfn) : `${ours}, not ${wanted}`;
    if (event % 32 === 0 && table.check() !== 0) wrong = `broken invariant ${table.check()}`;
    if (wrong !== null) {
      expect.fail(`seed ${seed}, event ${event}, ${JSON.stringify(what)}: ${wrong}`);
    }
  }
  core.exports.pgtFini(table.at);
  expect(table.tableFrames, `seed ${seed}`).toBe(0);
}
