/**
 * SgFuzz: random events on scatterlists, beside naive lists and a second copy of the bytes.
 *
 *     frames, lists, appends, splits ─► tables, models    the same entries
 *     copies, zeros                  ─► arena, its twin   the same bytes
 *
 * @module
 */

import assert from "node:assert/strict";
import type { Core } from "dmabuf/core";
import {
  bytesOf,
  entriesAppended,
  entriesBetween,
  entriesForLength,
  entriesOfPages,
  type ModelEntry,
} from "../model/sg.model.ts";
import type { Prng } from "../support/prng.ts";

const PS = 4096;
const NONE = 0xffffffff;
const EINVAL = -22;
const ARENA_FRAMES = 24;
const TABLES_MAX = 12;
const ENTRIES_MAX = 40;
/** Frames of the test's own: one for lists, one for bytes to copy. */
const OWN_FRAMES = 2;
const maxima = [NONE, NONE, PS, 2 * PS, 3 * PS + 7, PS - 1] as const;

interface Live {
  readonly table: number;
  entries: readonly ModelEntry[];
}

/** The events and what must be true after them. */
export class SgFuzz {
  readonly #core: Core;
  readonly #random: Prng;
  readonly #arenaPfn: number;
  readonly #twin: Uint8Array; // of the arena
  readonly #listAt: number;
  readonly #bufferAt: number;
  readonly #live: Live[] = [];
  /** How many events of each kind had an effect. */
  readonly counts: Record<string, number> = {};

  constructor(core: Core, random: Prng) {
    this.#core = core;
    this.#random = random;
    this.#arenaPfn = core.exports.frameAlloc(ARENA_FRAMES, 0, NONE);
    this.#arena.fill(0);
    this.#twin = new Uint8Array(ARENA_FRAMES * PS);
    this.#listAt = core.exports.frameAlloc(OWN_FRAMES, 0, NONE) * PS;
    this.#bufferAt = this.#listAt + PS;
    assert.ok(this.#arenaPfn > 0 && this.#listAt > 0, "frames of the test's own");
  }

  get #arena(): Uint8Array {
    return this.#core.u8.subarray(this.#arenaPfn * PS, (this.#arenaPfn + ARENA_FRAMES) * PS);
  }

  /** One event. */
  step(): void {
    const event = this.#random.below(16);
    if (event === 0 || this.#live.length === 0) this.#fromPages();
    else if (event === 1) this.#fromList();
    else if (event === 2) this.#fromRange();
    else if (event === 3) this.#split();
    else if (event < 6) this.#append();
    else if (event === 6) this.#nents();
    else if (event === 7) this.#zero();
    else this.#copy(event < 12);
  }

  /** The core is sound, and tables and bytes are as the model has them. */
  verify(): void {
    assert.equal(this.#core.check(), null);
    for (const live of this.#live) this.#compare(live);
    assert.equal(Buffer.compare(this.#arena, this.#twin), 0, "the bytes of the arena");
  }

  /** Frees everything. */
  finish(): void {
    while (this.#live.length > 0) this.#free();
    const { frameFree } = this.#core.exports;
    assert.equal(frameFree(this.#arenaPfn, ARENA_FRAMES), 0);
    assert.equal(frameFree(this.#listAt / PS, OWN_FRAMES), 0);
    assert.equal(this.#core.check(), null);
  }

  // ---- tables

  #fromPages(): void {
    const random = this.#random;
    const pfns = this.#pfns();
    const offset = random.below(20) === 0 ? PS : random.below(2) * random.below(PS);
    const size = this.#sizeFor(pfns, offset);
    const max = random.pick(maxima);
    const { sgTableFromPages } = this.#core.exports;
    const table = sgTableFromPages(this.#store(pfns), pfns.length, offset, size, max);
    this.#born("from pages", table, entriesOfPages(pfns, offset, size, max));
  }

  /** Most sizes end in the last frame. */
  #sizeFor(pfns: readonly number[], offset: number): number {
    const random = this.#random;
    const total = pfns.length * PS - offset;
    const dice = random.below(10);
    if (dice < 4) return total;
    return dice < 8 ? Math.max(0, total - random.below(PS)) : random.below(total + PS);
  }

  #fromList(): void {
    const random = this.#random;
    const list = Array.from({ length: 1 + random.below(8) }, (): ModelEntry => {
      const length = random.below(30) === 0 ? 0 : 1 + random.below(2 * PS);
      return [this.#pfn(4), random.below(2) * random.below(2 * PS), length];
    });
    const words = list.flatMap((entry) => [...entry, 0]);
    const table = this.#core.exports.sgTableFromList(this.#store(words), list.length);
    const isEmpty = list.some(([, , length]) => length === 0);
    const entries = list.map(
      ([pfn, offset, length]): ModelEntry => [pfn + Math.floor(offset / PS), offset % PS, length],
    );
    this.#born("from list", table, isEmpty ? null : entries);
  }

  #fromRange(): void {
    const count = this.#random.below(9);
    const pfn = this.#pfn(8);
    const max = this.#random.pick(maxima);
    const table = this.#core.exports.sgTableFromRange(pfn, count, max);
    const pfns = Array.from({ length: count }, (_, i) => pfn + i);
    this.#born("from range", table, entriesOfPages(pfns, 0, count * PS, max));
  }

  #append(): void {
    const live = this.#random.pick(this.#live);
    const pfns = this.#pfns(live.entries.at(-1));
    const size = this.#sizeFor(pfns, 0);
    const max = this.#random.pick(maxima);
    const entries = entriesAppended(live.entries, pfns, size, max);
    if ((entries?.length ?? 0) > ENTRIES_MAX) return;
    const { sgTableAppend } = this.#core.exports;
    const { table } = live;
    const result = sgTableAppend(table, this.#store(pfns), pfns.length, 0, size, max);
    assert.equal(result, entries === null ? EINVAL : table, `append ${size} bytes of ${pfns}`);
    live.entries = entries ?? live.entries;
    this.#compare(live);
    this.#count(entries === null ? "append: EINVAL" : "append");
  }

  #split(): void {
    const random = this.#random;
    const { table, entries } = random.pick(this.#live);
    const total = bytesOf(entries);
    const skip = random.below(total);
    const sizes = Array.from({ length: 1 + random.below(3) }, () => 1 + random.below(total));
    const isLonger = skip + sizes.reduce((sum, size) => sum + size, 0) > total;
    const at = this.#store(sizes);
    const result = this.#core.exports.sgSplit(table, skip, at, sizes.length);
    assert.equal(result, isLonger ? EINVAL : 0, `split ${sizes} behind ${skip} of ${total}`);
    if (isLonger) {
      this.#count("split: EINVAL");
      return;
    }
    const outputs = [...this.#core.u32.subarray(at / 4, at / 4 + sizes.length)];
    let from = skip;
    for (const [i, size] of sizes.entries()) {
      this.#born("split", outputs[i] ?? 0, entriesBetween(entries, from, from + size));
      from += size;
    }
  }

  #born(kind: string, table: number, entries: readonly ModelEntry[] | null): void {
    if (entries === null) {
      assert.equal(table, EINVAL, kind);
      this.#count(`${kind}: EINVAL`);
      return;
    }
    assert.ok(table > 0, `${kind} gives ${table}`);
    this.#compare({ table, entries });
    this.#live.push({ table, entries });
    while (this.#live.length > TABLES_MAX) this.#free();
    this.#count(kind);
  }

  #free(): void {
    const [live] = this.#live.splice(this.#random.below(this.#live.length), 1);
    if (live === undefined) return;
    this.#compare(live);
    assert.equal(this.#core.exports.sgTableFree(live.table), 0);
    this.#count("free");
  }

  /** A table's entries and length are the model's. */
  #compare({ table, entries }: Live): void {
    const words = this.#core.u32;
    const at = this.#core.exports.sgTableAt(table) / 4;
    assert.equal(words[at + 1], entries.length, "origNents");
    assert.equal(words[at + 2], bytesOf(entries), "lengthBytes");
    const entriesAt = (words[at] ?? 0) / 4;
    for (const [i, entry] of entries.entries())
      for (const [field, value] of entry.entries())
        if (words[entriesAt + 4 * i + field] !== value)
          assert.fail(`entry ${i}, field ${field} is not ${value}`);
  }

  // ---- bytes

  #nents(): void {
    const { table, entries } = this.#random.pick(this.#live);
    const length = this.#random.below(bytesOf(entries) + PS);
    const result = this.#core.exports.sgNentsForLen(table, length);
    const expected = entriesForLength(entries, length);
    assert.equal(result, expected ?? EINVAL, `entries of ${length} bytes`);
    this.#count(expected === null ? "nents: EINVAL" : "nents");
  }

  #zero(): void {
    const { table, entries } = this.#random.pick(this.#live);
    const [skip, length] = this.#span(entries);
    const spans = this.#spans(entries, skip, length);
    const result = this.#core.exports.sgZero(table, skip, length);
    assert.equal(result, spans.bytes, `zero ${length} bytes from ${skip} on`);
    for (const view of spans.views) view.fill(0);
    this.#count("zero");
  }

  #copy(isToBuffer: boolean): void {
    const { table, entries } = this.#random.pick(this.#live);
    const [skip, length] = this.#span(entries);
    const spans = this.#spans(entries, skip, length);
    const buffer = this.#core.u8.subarray(this.#bufferAt, this.#bufferAt + length);
    buffer.fill(this.#random.below(256));
    const before = buffer.slice();
    const { sgCopy } = this.#core.exports;
    const result = sgCopy(table, skip, this.#bufferAt, length, isToBuffer ? 1 : 0);
    assert.equal(result, spans.bytes, `copy ${length} bytes from ${skip} on`);
    let done = 0;
    for (const view of spans.views) {
      if (isToBuffer) before.set(view, done);
      else view.set(before.subarray(done, done + view.length));
      done += view.length;
    }
    assert.equal(Buffer.compare(buffer, before), 0, "the bytes of the buffer");
    this.#count(isToBuffer ? "copy out" : "copy in");
  }

  /** Where to begin, and how many bytes: now and then beyond the end. */
  #span(entries: readonly ModelEntry[]): [skip: number, length: number] {
    const random = this.#random;
    const length = random.below(8) === 0 ? random.below(PS) : random.below(200);
    return [random.below(bytesOf(entries) + 100), length];
  }

  /** The twin's bytes that a span covers, in order. */
  #spans(
    entries: readonly ModelEntry[],
    skip: number,
    length: number,
  ): { readonly views: readonly Uint8Array[]; readonly bytes: number } {
    const parts = entriesBetween(entries, skip, skip + length);
    const views = parts.map(([pfn, offset, bytes]) => {
      const at = (pfn - this.#arenaPfn) * PS + offset;
      return this.#twin.subarray(at, at + bytes);
    });
    return { views, bytes: bytesOf(parts) };
  }

  // ---- random numbers

  /** A frame of the arena with `after` behind it. */
  #pfn(after = 0): number {
    return this.#arenaPfn + this.#random.below(ARENA_FRAMES - after);
  }

  /** A few frames, some in a row; they may go on behind an entry. */
  #pfns(behind?: ModelEntry): number[] {
    const random = this.#random;
    const end = behind === undefined ? 0 : behind[0] + Math.ceil((behind[1] + behind[2]) / PS);
    const isNext = behind !== undefined && random.below(2) === 0 && this.#isFrame(end);
    const pfns = [isNext ? end : this.#pfn()];
    const count = 1 + random.below(7);
    while (pfns.length < count) {
      const next = (pfns.at(-1) ?? 0) + 1;
      pfns.push(random.below(3) > 0 && this.#isFrame(next) ? next : this.#pfn());
    }
    return pfns;
  }

  #isFrame(pfn: number): boolean {
    return pfn < this.#arenaPfn + ARENA_FRAMES;
  }

  #store(words: readonly number[]): number {
    this.#core.u32.set(words, this.#listAt / 4);
    return this.#listAt;
  }

  #count(kind: string): void {
    this.counts[kind] = (this.counts[kind] ?? 0) + 1;
  }
}
