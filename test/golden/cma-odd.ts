/**
 * Area D, fixed: single calls on one region, in order, and the machine that they ran on.
 *
 * `odd` records carry a call as text, such as "cma_alloc(area,pages+1,0)"; it is parsed, so any
 * call of that grammar is replayed. `odd_env` and `odd_env2` say how large the region is.
 *
 * @module
 */

import { type CmaOptions, GiB } from "dmabuf";
import { type Bed, type BedRegion, isErrno } from "./bed.ts";
import { errnoOr } from "./fence-world.ts";
import { type Fields, MalformedRecord } from "./fields.ts";
import { factsOf, type Outcome } from "./outcome.ts";

const ENV = "odd region";
const ENV2 = "default region";
/** Any multiple of a pageblock: the records count pages from the start of the region. */
const DEVICE_PFN = 65536;

interface Sequence extends BedRegion {
  readonly pages: number;
  /** The page that the last cma_alloc returned; -1 for NULL. */
  last: number;
}

/** A call of an `odd` record. `page` and `count` in pages from the region's start. */
export interface OddCall {
  readonly op: "alloc" | "retry" | "release" | "valid" | "refcount";
  readonly hasArea: boolean;
  /** Null is Linux's null page. */
  readonly page: number | null;
  readonly count: number;
  readonly alignOrder: number;
}

/** `odd_env`: opens the region of the calls that follow. */
export function oddEnv(fields: Fields, bed: Bed): Outcome {
  const pages = fields.number("pages");
  bed.forget(ENV);
  const { core } = bed.memo(ENV, () => {
    const region = bed.region(DEVICE_PFN, pages, fields.number("orderPerBit"));
    return { ...region, pages, last: -1 };
  });
  const pageblock = 2 ** core.exports.PAGEBLOCK_ORDER.value;
  return {
    facts: factsOf(fields, {
      pageblockNrPages: pageblock,
      cmaMinAlignmentPages: pageblock,
      maxOrderNrPages: 2 ** core.exports.MAX_ORDER.value,
    }),
  };
}

/** `odd`: one call. NULL is recorded as null or -1. */
export function odd(fields: Fields, bed: Bed): Outcome {
  const sequence = bed.memo<Sequence>(ENV, () => {
    throw new MalformedRecord("an odd record needs an odd_env record before it");
  });
  const call = parseOdd(fields.text("call"), sequence.pages);
  const recorded = fields.recorded("r") ?? -1;
  return { facts: [{ name: "r", actual: perform(call, sequence), recorded }] };
}

function perform(call: OddCall, sequence: Sequence): number {
  const { core, basePfn } = sequence;
  const handle = call.hasArea ? sequence.handle : 0;
  const pfn = call.page === null ? 0 : basePfn + call.page;
  switch (call.op) {
    case "retry":
      if (sequence.last !== -1) return sequence.last;
      return allocate(handle, call.count, call.alignOrder, sequence);
    case "alloc":
      return allocate(handle, call.count, call.alignOrder, sequence);
    case "release":
      return core.exports.cmaRelease(handle, pfn, call.count) === 0 ? 1 : 0;
    case "valid":
      return isValid(handle, pfn, call.count, sequence) ? 1 : 0;
    case "refcount": // a frame has one owner or none
      return core.exports.cmaRelease(handle, pfn, 1) === 0 && takeBack(pfn, 1, sequence) ? 1 : 0;
  }
}

function allocate(handle: number, count: number, order: number, sequence: Sequence): number {
  const pfn = sequence.core.exports.cmaAlloc(handle, count, order);
  sequence.last = isErrno(pfn) ? -1 : (pfn >>> 0) - sequence.basePfn;
  return sequence.last;
}

/** The core has no such question: what a release does not refuse as EINVAL is valid. */
function isValid(handle: number, pfn: number, count: number, sequence: Sequence): boolean {
  const result = sequence.core.exports.cmaRelease(handle, pfn, count);
  return result === 0 && takeBack(pfn, count, sequence);
}

/** Undoes a release in a region that is full otherwise. */
function takeBack(pfn: number, count: number, { core, handle }: Sequence): boolean {
  return core.exports.cmaAlloc(handle, count, 0) >>> 0 === pfn;
}

const CALL = /^cma_(alloc|release|pages_valid)\((area|NULL),([^,]+),([^,)]+)(?:,[^)]*)?\)/;
const REFCOUNT = /^page refcount of (first|last) page after cma_alloc$/;
const RETRY = /^cma_alloc retry align (\d+)$/;

/** A call of a region of `pages` pages. */
export function parseOdd(text: string, pages: number): OddCall {
  const refcount = REFCOUNT.exec(text);
  if (refcount !== null) {
    const page = refcount[1] === "first" ? 0 : pages - 1;
    return { op: "refcount", hasArea: true, page, count: 1, alignOrder: 0 };
  }
  const retry = RETRY.exec(text);
  if (retry !== null) {
    return { op: "retry", hasArea: true, page: null, count: 1, alignOrder: Number(retry[1]) };
  }
  const [, name, area, first = "", second = ""] = CALL.exec(text) ?? refuse(text);
  const hasArea = area === "area";
  if (name === "alloc") {
    const alignOrder = Number(/\d+$/.exec(second.trim())?.[0] ?? refuse(text));
    return { op: "alloc", hasArea, page: null, count: countOf(first, pages), alignOrder };
  }
  const op = name === "release" ? "release" : "valid";
  const page = pageOf(first, pages);
  return { op, hasArea, page, count: countOf(second, pages), alignOrder: 0 };
}

function countOf(text: string, pages: number): number {
  const [, word, more = "0"] = /^(pages|\d+)(?:\+(\d+))?$/.exec(text) ?? refuse(text);
  return (word === "pages" ? pages : Number(word)) + Number(more);
}

function pageOf(text: string, pages: number): number | null {
  const fixed = new Map([
    ["NULL", null],
    ["first page", 0],
    ["last page", pages - 1],
    ["page just below", -1],
    ["page just above", pages],
  ]).get(text);
  return fixed !== undefined ? fixed : Number(/^page (\d+)$/.exec(text)?.[1] ?? refuse(text));
}

function refuse(text: string): never {
  throw new MalformedRecord(`the replay does not know the call "${text}"`);
}

/** `odd_env2`: opens the default area, from which dma_alloc_from_contiguous takes. */
export function oddEnv2(fields: Fields, bed: Bed): Outcome {
  const pages = fields.number("defaultAreaPages");
  bed.forget(ENV2);
  const { handle, core, basePfn } = bed.memo(ENV2, () => ({
    ...bed.region(fields.number("defaultBasePfn"), pages, 0),
    maxOrder: fields.number("configCmaAlignment"),
  }));
  const held = core.exports.cmaAlloc(handle, 1, 0) >>> 0;
  return { facts: [{ name: "page held", actual: held - basePfn, recorded: 0 }] };
}

/** `dma_alloc_from_contiguous`: the alignment is capped; page 0 is held, others go at once. */
export function dmaAllocFromContiguous(fields: Fields, bed: Bed): Outcome {
  const area = bed.memo<BedRegion & { maxOrder: number }>(ENV2, () => {
    throw new MalformedRecord("this record needs an odd_env2 record before it");
  });
  const { core, handle, basePfn, maxOrder } = area;
  const order = Math.min(fields.number("align"), maxOrder);
  const count = fields.number("count");
  const pfn = core.exports.cmaAlloc(handle, count, order);
  if (!isErrno(pfn)) core.exports.cmaRelease(handle, pfn, count);
  return { facts: factsOf(fields, { page: isErrno(pfn) ? -1 : (pfn >>> 0) - basePfn }) };
}

/** `area`: a region where the recording machine had one. */
export function area(fields: Fields, bed: Bed): Outcome {
  const { handle } = bed.region(fields.number("basePfn"), fields.number("pages"), 0);
  return { facts: factsOf(fields, { declareRet: isErrno(handle) ? handle : 0 }) };
}

/** `declare`: the argument rules, on memory as large as the recording machine's. */
export function declare(fields: Fields, bed: Bed): Outcome {
  const region: CmaOptions = {
    sizeBytes: fields.number("size"),
    base: fields.number("base"),
    limit: fields.number("limit"),
    alignmentBytes: fields.number("alignment"),
    orderPerBit: fields.number("orderPerBit"),
    isFixed: fields.boolean("fixed"),
  };
  const opened = errnoOr(() => bed.openSystem({ memoryBytes: GiB, cma: { region } }));
  return { facts: factsOf(fields, { ret: typeof opened === "number" ? opened : 0 }) };
}
