/**
 * Area D: where CMA places runs.
 *
 * As cma_alloc() does it: a bit stands for 2^orderPerBit pages, a run is rounded up to bits, and an
 * alignment counts from page 0 of the machine, so bit 0 has the number basePfn >> orderPerBit.
 *
 * @module
 */

import { type Bed, isErrno, NONE, need } from "./bed.ts";
import { cell, type Fields } from "./fields.ts";
import { fnv1a } from "./fnv.ts";
import type { Fact, Outcome } from "./outcome.ts";

const ALLOC = 0;
const RELEASE = 1;
const CHECK = 2;

/** `zero_area`: bitmap_find_next_zero_area_off() on a bitmap of taken and free bits. */
export function zeroArea(fields: Fields, bed: Bed): Outcome {
  const size = fields.number("size");
  const at = freeBitmap(bed, size, 0);
  for (const run of fields.rows("set")) bed.exports.bitmapTake(at, cell(run, 0), cell(run, 1));
  const facts = fields.rows("q").map((row): Fact => {
    const [start, count, mask, offset, result] = [0, 1, 2, 3, 4].map((i) => cell(row, i)) as [
      number,
      number,
      number,
      number,
      number,
    ];
    const found = bed.exports.bitmapFindFrom(at, start, count, mask, offset) >>> 0;
    const isThere = result + count <= size; // else any number past the end means "not found"
    return {
      name: `find(${row.slice(0, 4).join(", ")})`,
      actual: found === NONE ? "not found" : found,
      recorded: isThere ? result : "not found",
    };
  });
  return { facts: [...facts, isSound(bed, at)] };
}

/** `script`: the bitmap steps of cma_alloc() and cma_release(), at any base. */
export function script(fields: Fields, bed: Bed): Outcome {
  const orderPerBit = fields.number("orderPerBit");
  const bitCount = fields.number("count") >>> orderPerBit;
  const at = freeBitmap(bed, bitCount, fields.number("basePfn") >>> orderPerBit);
  const bitsFor = (pages: number) => Math.ceil(pages / 2 ** orderPerBit);
  const facts = fields.rows("ops").map((row, i): Fact => {
    const name = `op ${i} [${row.join(", ")}]`;
    if (cell(row, 0) === ALLOC) {
      const order = Math.max(0, cell(row, 2) - orderPerBit);
      const bit = bed.exports.bitmapAlloc(at, bitsFor(cell(row, 1)), order) | 0;
      return { name, actual: bit, recorded: cell(row, 3) };
    }
    if (cell(row, 0) === RELEASE) {
      const bit = cell(row, 1) >>> orderPerBit;
      const count = bitsFor(cell(row, 2));
      const isTaken = bed.exports.bitmapIsTaken(at, bit, count) !== 0;
      if (isTaken) bed.exports.bitmapFree(at, bit, count);
      return { name, actual: isTaken, recorded: true };
    }
    if (cell(row, 0) !== CHECK) return unknownOp(name);
    return { name, actual: bed.exports.bitmapTakenCount(at), recorded: cell(row, 1) };
  });
  const isTaken = (bit: number) => bed.exports.bitmapIsTaken(at, bit, 1) !== 0;
  facts.push(...finalFacts(fields, bitCount, isTaken), isSound(bed, at));
  return { facts };
}

/** `real`: a region of the core at the recorded page number, through cmaAlloc and cmaRelease. */
export function real(fields: Fields, bed: Bed): Outcome {
  const orderPerBit = fields.number("orderPerBit");
  const count = fields.number("count");
  const { core, handle, basePfn } = bed.region(fields.number("basePfn"), count, orderPerBit);
  const stateOf = (bit: number) => core.exports.frameWord(basePfn + bit * 2 ** orderPerBit) & 15;
  const freeState = stateOf(0); // of every frame of a region that was just declared
  const facts = fields.rows("ops").map((row, i): Fact => {
    const name = `op ${i} [${row.join(", ")}]`;
    if (cell(row, 0) === ALLOC) {
      const pfn = core.exports.cmaAlloc(handle, cell(row, 1), cell(row, 2));
      const bit = isErrno(pfn) ? -1 : ((pfn >>> 0) - basePfn) / 2 ** orderPerBit;
      return { name, actual: bit, recorded: cell(row, 3) };
    }
    if (cell(row, 0) !== RELEASE) return unknownOp(name);
    const result = core.exports.cmaRelease(handle, basePfn + cell(row, 1), cell(row, 2));
    return { name, actual: result === 0 ? 1 : 0, recorded: cell(row, 3) };
  });
  const isTaken = (bit: number) => stateOf(bit) !== freeState;
  facts.push(...finalFacts(fields, count >>> orderPerBit, isTaken));
  return { facts };
}

function unknownOp(name: string): Fact {
  return { name, actual: "an operation that the replay does not know", recorded: "known" };
}

/** The weight and the hash of the bitmap that the script leaves. */
function finalFacts(
  fields: Fields,
  bitCount: number,
  isTaken: (bit: number) => boolean,
): readonly Fact[] {
  const bytes = new Uint8Array(Math.ceil(bitCount / 64) * 8);
  let weight = 0;
  for (let bit = 0; bit < bitCount; bit++) {
    if (!isTaken(bit)) continue;
    weight += 1;
    bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) | (1 << (bit & 7));
  }
  return [
    { name: "finalWeight", actual: weight, recorded: fields.recorded("finalWeight") },
    { name: "finalFnv", actual: fnv1a(bytes), recorded: fields.recorded("finalFnv") },
  ];
}

/** A bitmap in the work area with all bits free; bit 0 has the number `base`. */
function freeBitmap(bed: Bed, bitCount: number, base: number): number {
  const bytes = need(bed.exports.bitmapBytes(bitCount, base), "a bitmap");
  if (bytes > 4 * 1024 * 1024) throw new RangeError(`a bitmap of ${bitCount} bits is too long`);
  bed.exports.bitmapInit(bed.workAt, bitCount, base);
  bed.exports.bitmapFree(bed.workAt, 0, bitCount);
  return bed.workAt;
}

function isSound(bed: Bed, at: number): Fact {
  return { name: "bitmapCheck", actual: bed.exports.bitmapCheck(at), recorded: 0 };
}
