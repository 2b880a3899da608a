/**
 * Area C: tables that grow, are split, and are walked.
 *
 * @module
 */

import { type DmaSegment, SgTable, splitSegments } from "dmabuf";
import { type Bed, isErrno, need, PAGE_BYTES } from "./bed.ts";
import { cell, Fields } from "./fields.ts";
import { type Fact, factsOf, type Outcome } from "./outcome.ts";
import { normalised, positionOf, retOf, type Segment, segmentsOf, tableOf } from "./scatterlist.ts";

/** `append`: a table made of batches of pages; the whole list after each. */
export function append(fields: Fields, bed: Bed): Outcome {
  const facts: Fact[] = [];
  let table = 0; // none yet
  for (const [i, raw] of batchesOf(fields).entries()) {
    const batch = new Fields({ k: "batch", ...raw });
    const pfns = batch
      .rows("runs")
      .flatMap((run) => Array.from({ length: cell(run, 1) }, (_, n) => cell(run, 0) + n));
    const listAt = bed.store(pfns.map((page) => bed.pagesPfn + page));
    const result = bed.exports.sgTableAppend(
      table,
      listAt,
      pfns.length,
      batch.number("offset"),
      batch.number("size"),
      fields.number("maxSeg"),
    );
    const ret = retOf(result);
    facts.push({ name: `ret of batch ${i}`, actual: ret, recorded: batch.number("ret") });
    if (!isErrno(result)) table = result;
    if (ret !== 0 || batch.number("ret") !== 0) continue;
    const sgl = segmentsOf(bed, table);
    facts.push(
      { name: `nents after batch ${i}`, actual: sgl.length, recorded: batch.number("nents") },
      { name: `sgl after batch ${i}`, actual: sgl, recorded: normalised(batch.rows("sgl")) },
    );
  }
  if (table !== 0) need(bed.exports.sgTableFree(table), "the end of the table");
  return { facts };
}

function batchesOf(fields: Fields): readonly Readonly<Record<string, unknown>>[] {
  return fields.recorded("batches") as readonly Readonly<Record<string, unknown>>[];
}

/** `split`: parts of a list; the CPU side in the core, the DMA side of the segments given. */
export function split(fields: Fields, bed: Bed): Outcome {
  const sizes = fields.recorded("sizes") as readonly number[];
  const skip = fields.number("skip");
  const table = new SgTable(bed.core, need(tableOf(bed, fields.rows("in")), "the table"), "others");
  const outputs = outcomeOf(() => table.split(sizes, skip));
  const dma = fields.has("dma")
    ? outcomeOf(() => splitSegments(dmaSegmentsOf(fields), sizes, skip))
    : null;
  const ret = typeof outputs === "number" ? outputs : typeof dma === "number" ? dma : 0;
  const facts = factsOf(fields, { ret });
  if (typeof outputs !== "number") {
    const outs = outputs.map((output) => segmentsOf(bed, output.handle));
    for (const output of outputs) output.free();
    if (fields.number("ret") === 0)
      facts.push(...splitFacts(fields, outs, typeof dma === "number" ? null : dma));
  }
  table.free();
  return { facts };
}

/** Recorded lists are compared without their entries of length 0, of which we make none. */
function splitFacts(fields: Fields, outs: number[][][], dma: DmaSegment[][] | null): Fact[] {
  const recordedOuts = listsOf(fields, "outs").map((list) => withoutEmpty(normalised(list)));
  const facts: Fact[] = [{ name: "outs", actual: outs, recorded: recordedOuts }];
  const recordedDma = dma === null ? null : listsOf(fields, "outDma").map(withoutEmpty);
  if (dma !== null) {
    const outDma = dma.map((list) =>
      list.map(({ address, lengthBytes }) => [address, lengthBytes]),
    );
    facts.push({ name: "outDma", actual: outDma, recorded: recordedDma });
  }
  const empty = listsOf(fields, dma === null ? "outs" : "outDma").map(
    (list) => list.length - withoutEmpty(list).length,
  );
  const recordedMapped = fields.recorded("outMapped") as readonly number[];
  facts.push({
    name: "outMapped",
    actual: (dma ?? outs).map((list) => list.length),
    recorded: recordedMapped.map((count, i) => count - (empty[i] ?? 0)),
  });
  return facts;
}

/** What Linux would return: the value, or a negative errno. */
function outcomeOf<T>(call: () => T): T | number {
  try {
    return call();
  } catch (error) {
    if (error instanceof Error && "errno" in error && typeof error.errno === "number")
      return -error.errno;
    throw error;
  }
}

function listsOf(fields: Fields, name: string): readonly (readonly Segment[])[] {
  return fields.recorded(name) as readonly (readonly Segment[])[];
}

/** A list without what has no bytes: the length comes last, in records and in ours. */
function withoutEmpty<T extends Segment>(list: readonly T[]): T[] {
  return list.filter((segment) => segment.at(-1) !== 0);
}

function dmaSegmentsOf(fields: Fields): DmaSegment[] {
  return fields.rows("dma").map((row) => ({ address: cell(row, 0), lengthBytes: cell(row, 1) }));
}

/** A side of a list to be split: [position or address, length]. */
type Side = readonly (readonly number[])[];

function sidesOf(fields: Fields): Side[] {
  const cpu = normalised(fields.rows("in"));
  return fields.has("dma") ? [cpu, fields.rows("dma")] : [cpu];
}

function sizesOf(fields: Fields): readonly number[] {
  return fields.recorded("sizes") as readonly number[];
}

/** Where each segment of a side ends, in bytes from the side's start. */
function endsOf(side: Side): number[] {
  let end = 0;
  return side.map((segment) => {
    end += cell(segment, 1);
    return end;
  });
}

/** Whether both sides hold what is asked for. */
function holdsSizes(fields: Fields): boolean {
  const end = sizesOf(fields).reduce((sum, size) => sum + size, fields.number("skip"));
  return sidesOf(fields).every((side) => end <= (endsOf(side).at(-1) ?? 0));
}

/** Whether the last output of a split ends inside a segment that is not the list's last. */
export function endsInsideSegment(fields: Fields): boolean {
  const end = sizesOf(fields).reduce((sum, size) => sum + size, fields.number("skip"));
  return (
    holdsSizes(fields) &&
    sidesOf(fields).some((side) => {
      const ends = endsOf(side);
      return !ends.includes(end) && end < (ends.at(-2) ?? 0);
    })
  );
}

/** Whether a split begins exactly where a segment ends. */
export function beginsAtSegmentEnd(fields: Fields): boolean {
  const skip = fields.number("skip");
  return holdsSizes(fields) && sidesOf(fields).some((side) => endsOf(side).includes(skip));
}

/** The facts of a split into exactly the bytes asked for, segment by segment. */
export function exactSplit(fields: Fields): Readonly<Record<string, unknown>> {
  const [outs, outDma] = sidesOf(fields).map((side) => naiveSplit(side, fields));
  const outMapped = (outDma ?? outs ?? []).map((list) => list.length);
  return outDma === undefined ? { outs, outMapped } : { outs, outDma, outMapped };
}

function naiveSplit(side: Side, fields: Fields): number[][][] {
  const ends = endsOf(side);
  let from = fields.number("skip");
  return sizesOf(fields).map((size) => {
    const to = from + size;
    const output = side.flatMap((segment, i) => {
      const begin = (ends[i] as number) - cell(segment, 1);
      const [first, last] = [Math.max(from, begin), Math.min(to, ends[i] as number)];
      return first < last ? [[cell(segment, 0) + first - begin, last - first]] : [];
    });
    from = to;
    return output;
  });
}

/** `iter`: the page iterator, and the mapping iterator behind a skip. */
export function iterate(fields: Fields, bed: Bed): Outcome {
  const table = new SgTable(bed.core, need(tableOf(bed, fields.rows("in")), "the table"), "others");
  const skip = fields.number("skip");
  const pages = Array.from(
    table.pages(fields.number("pgoffset")),
    (pfn) => (pfn - bed.pagesPfn) * PAGE_BYTES,
  );
  const spans = Array.from(table.spans(skip), ({ pfn, offset, lengthBytes }) => {
    return [(pfn - bed.pagesPfn) * PAGE_BYTES + offset, lengthBytes];
  });
  const recordedPages = fields.recorded("pages") as readonly number[];
  const facts: Fact[] = [
    ...factsOf(fields, { skipOk: skip <= table.lengthBytes }),
    { name: "pages", actual: pages, recorded: recordedPages.map((page) => page * PAGE_BYTES) },
    { name: "miter", actual: spans, recorded: fields.rows("miter").map(spanOf) },
  ];
  table.free();
  return { facts };
}

function spanOf(row: Segment): number[] {
  return [positionOf(row), cell(row, 2)];
}
