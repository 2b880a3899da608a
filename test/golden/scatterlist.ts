/**
 * Area C: tables made of pages and lists, and what they answer.
 *
 * Pages are compared as positions, `page * 4096 + offset`; page 0 is the first of the bed's pages.
 *
 * @module
 */

import { type Bed, isErrno, PAGE_BYTES } from "./bed.ts";
import { cell, type Fields } from "./fields.ts";
import { fnv1a } from "./fnv.ts";
import { type Fact, factsOf, type Outcome } from "./outcome.ts";

/** A segment of the records: page index, offset, length. */
export type Segment = readonly number[];

/** Where a segment begins in the block of pages. */
export function positionOf(segment: Segment): number {
  return cell(segment, 0) * PAGE_BYTES + cell(segment, 1);
}

/** `from_pages`, and `odd_size`, where the size does not match the pages. */
export function fromPages(fields: Fields, bed: Bed): Outcome {
  const pfns = fields
    .rows("runs")
    .flatMap((run) => Array.from({ length: cell(run, 1) }, (_, i) => cell(run, 0) + i));
  const listAt = bed.store(pfns.map((page) => bed.pagesPfn + page));
  const table = bed.exports.sgTableFromPages(
    listAt,
    pfns.length,
    fields.number("offset"),
    fields.number("size"),
    fields.number("maxSeg"),
  );
  const facts: Fact[] = [{ name: "ret", actual: retOf(table), recorded: fields.number("ret") }];
  if (isErrno(table)) return { facts };
  const sgl = segmentsOf(bed, table);
  bed.exports.sgTableFree(table);
  if (fields.number("ret") !== 0) return { facts };
  facts.push(...factsOf(fields, { nents: sgl.length, origNents: sgl.length }));
  facts.push({ name: "sgl", actual: sgl, recorded: normalised(fields.rows("sgl")) });
  return { facts };
}

/** `alloc_table`: empty tables. What Linux leaves in the struct after the free is not compared. */
export function allocTable(fields: Fields, bed: Bed): Outcome {
  const table = bed.exports.sgTableAlloc(fields.number("n"));
  const facts = factsOf(fields, { ret: retOf(table) });
  const count = isErrno(table) ? 0 : segmentsOf(bed, table).length;
  facts.push(...factsOf(fields, { nents: count, origNents: count }));
  if (fields.has("sglNull")) facts.push(...factsOf(fields, { sglNull: isErrno(table) }));
  if (isErrno(table)) return { facts };
  facts.push(...factsOf(fields, { walk: count, chains: 0 }));
  bed.exports.sgTableFree(table);
  const isGone = isErrno(bed.exports.sgTableAt(table));
  facts.push(...factsOf(fields, { afterFreeSglNull: isGone }));
  return { facts };
}

/** `nents_for_len`: how many entries hold a length. */
export function nentsForLen(fields: Fields, bed: Bed): Outcome {
  const table = tableOf(bed, fields.rows("in"));
  const facts = factsOf(fields, { nents: segmentsOf(bed, table).length });
  for (const row of fields.rows("q")) {
    facts.push({
      name: `nents_for_len(${cell(row, 0)})`,
      actual: bed.exports.sgNentsForLen(table, cell(row, 0)),
      recorded: cell(row, 1),
    });
  }
  bed.exports.sgTableFree(table);
  return { facts };
}

/** `pcopy_to`, `pcopy_from`, `copy_to`: bytes between a list and a buffer. */
export function copy(fields: Fields, bed: Bed): Outcome {
  const isToBuffer = fields.kind !== "pcopy_from";
  const list = fields.rows("in");
  const length = fields.number("buflen");
  if (length > 768 * PAGE_BYTES) throw new RangeError(`a buffer of ${length} bytes is too long`);
  const bufferAt = bed.workAt + PAGE_BYTES * 256; // behind the list
  bed.core.u8.set(pagesPattern(bed), bed.pagesPfn * PAGE_BYTES);
  const buffer = bed.core.view(bufferAt, length);
  for (let i = 0; i < length; i++) buffer[i] = (i * 5 + 3) & 255;

  const table = tableOf(bed, list.slice(0, fields.number("nents")));
  const facts: Fact[] = [{ name: "table", actual: retOf(table), recorded: 0 }];
  const skip = fields.number("skip");
  const copied = isErrno(table)
    ? 0
    : bed.exports.sgCopy(table, skip, bufferAt, length, isToBuffer ? 1 : 0);
  if (!isErrno(table)) bed.exports.sgTableFree(table);
  facts.push(...factsOf(fields, { copied }));
  if (isToBuffer) {
    facts.push(...factsOf(fields, { bufFnv: fnv1a(buffer.subarray(0, copied)) }));
    return { facts };
  }
  facts.push(...listFacts(fields, bed));
  return { facts };
}

/** `zero`: a part of a list filled with zeros. */
export function zero(fields: Fields, bed: Bed): Outcome {
  const list = fields.rows("in");
  bed.core.u8.set(pagesPattern(bed), bed.pagesPfn * PAGE_BYTES);
  const table = tableOf(bed, list.slice(0, fields.number("nents")));
  const facts: Fact[] = [{ name: "table", actual: retOf(table), recorded: 0 }];
  const [skip, length] = [fields.number("skip"), fields.number("buflen")];
  const copied = isErrno(table) ? 0 : bed.exports.sgZero(table, skip, length);
  if (!isErrno(table)) bed.exports.sgTableFree(table);
  facts.push(...factsOf(fields, { copied }), ...listFacts(fields, bed));
  return { facts };
}

/** The length and the bytes of a whole list, as they are now. */
function listFacts(fields: Fields, bed: Bed): Fact[] {
  const parts = fields
    .rows("in")
    .map((segment) =>
      bed.core.view(bed.pagesPfn * PAGE_BYTES + positionOf(segment), cell(segment, 2)),
    );
  const listLen = parts.reduce((sum, part) => sum + part.length, 0);
  return factsOf(fields, { listLen, listFnv: fnv1a(...parts) });
}

/** What all pages hold before a copy. */
function pagesPattern(bed: Bed): Uint8Array {
  return bed.memo("pages pattern", () => {
    const pattern = new Uint8Array(1024 * PAGE_BYTES);
    for (let i = 0; i < pattern.length; i++) {
      const o = i % PAGE_BYTES;
      pattern[i] = Math.floor(i / PAGE_BYTES) * 31 + o * 7 + (o >> 8) * 13;
    }
    return pattern;
  });
}

/** The table of a list, or an errno. */
export function tableOf(bed: Bed, list: readonly Segment[]): number {
  const words = list.flatMap((segment) => {
    return [bed.pagesPfn + cell(segment, 0), cell(segment, 1), cell(segment, 2), 0];
  });
  return bed.exports.sgTableFromList(bed.store(words), list.length);
}

/** The entries of a table, as [position, length]. */
export function segmentsOf(bed: Bed, table: number): number[][] {
  const payload = bed.exports.sgTableAt(table) >>> 0;
  const entriesAt = bed.core.word(payload, 0);
  const count = bed.core.word(payload, 1);
  return entriesOf(bed, entriesAt, count, bed.pagesPfn);
}

/** `count` entries of a list of the core, as [position from page `firstPfn` on, length]. */
export function entriesOf(bed: Bed, at: number, count: number, firstPfn: number): number[][] {
  return Array.from({ length: count }, (_, i) => {
    const word = (index: number) => bed.core.word(at, i * 4 + index);
    return [(word(0) - firstPfn) * PAGE_BYTES + word(1), word(2)];
  });
}

/** Recorded segments as [position, length]. */
export function normalised(list: readonly Segment[]): number[][] {
  return list.map((segment) => [positionOf(segment), cell(segment, 2)]);
}

/** 0 for a handle, else the errno: what Linux returns. */
export function retOf(handle: number): number {
  return isErrno(handle) ? handle : 0;
}
