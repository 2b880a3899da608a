/**
 * The deliberate differences: each a predicate over a record's input, and the result that we give
 * instead.
 *
 * - X1  A predicate reads inputs only, never a recorded result.
 * - X2  `instead` names facts; the judge compares them with what it says, not with the record.
 * - X3  Every class is a row of docs/differences-from-linux.md, under the same name.
 * - X4  A class that matches nothing in the repository's own records fails the run on them.
 *
 * @module
 */

import { EINVAL } from "./bed.ts";
import { parseOdd } from "./cma-odd.ts";
import { cutSegments, hasEntryAboveMaximum, isBehindIommu } from "./dma-map.ts";
import { cell, type Fields } from "./fields.ts";
import { needsProcess, ordinaryCounts } from "./gup.ts";
import { armInstead, isAboveOurWidth, unmapsUnlikeArm } from "./iommu-domains.ts";
import { beginsAtSegmentEnd, endsInsideSegment, exactSplit } from "./scatter-parts.ts";
import { refusedSteps } from "./scenario.ts";

const PAGE_BYTES = 4096;
const ERANGE = -34;
/** Entries of one allocation; Linux links a longer table together from several. */
const SG_MAX_SINGLE_ALLOC = 128;
/** Any size: whether a call leaves the region does not depend on it. */
const NOMINAL_PAGES = 4096;

/** A deliberate difference from Linux. */
export interface DifferenceClass {
  readonly name: string;
  readonly kinds: readonly string[];
  readonly matches: (fields: Fields) => boolean;
  /** Our result, by fact. */
  readonly instead: (fields: Fields) => Readonly<Record<string, unknown>>;
  /** Recorded fields without a counterpart: a matching record counts as explained, not as equal. */
  readonly leavesOut?: readonly string[];
}

/** All classes. */
export const classes: readonly DifferenceClass[] = [
  {
    name: "heaps-of-the-system",
    kinds: ["heaps"],
    matches: () => true,
    instead: () => ({ names: ["auto", "reserved", "system"] }),
  },
  {
    name: "size-must-fit-pages",
    kinds: ["odd_size"],
    matches: (fields) => !sizeFitsPages(fields),
    instead: () => ({ ret: EINVAL }),
  },
  {
    name: "no-empty-table",
    kinds: ["pcopy_to", "pcopy_from", "copy_to", "zero"],
    matches: (fields) => fields.number("nents") === 0,
    instead: () => ({ table: EINVAL }),
  },
  {
    name: "one-array-tables",
    kinds: ["alloc_table"],
    matches: (fields) => fields.number("n") > SG_MAX_SINGLE_ALLOC,
    instead: () => ({ chains: 0 }),
  },
  {
    name: "split-ends-where-asked",
    kinds: ["split"],
    matches: endsInsideSegment,
    instead: exactSplit,
  },
  {
    name: "split-no-empty-entries",
    kinds: ["split"],
    matches: beginsAtSegmentEnd,
    instead: () => ({}),
    leavesOut: ["entries of length 0"],
  },
  {
    name: "zero-count-release",
    kinds: ["odd"],
    matches: (fields) => {
      const { op, count } = parseOdd(fields.text("call"), NOMINAL_PAGES);
      return op === "release" && count === 0;
    },
    instead: () => ({ r: 0 }),
  },
  {
    name: "range-beyond-region",
    kinds: ["odd"],
    matches: (fields) => {
      const { op, page, count, hasArea } = parseOdd(fields.text("call"), NOMINAL_PAGES);
      const isInside = page !== null && page >= 0 && page < NOMINAL_PAGES;
      return op === "valid" && hasArea && isInside && page + count > NOMINAL_PAGES;
    },
    instead: () => ({ r: 0 }),
  },
  {
    name: "boot-machine",
    kinds: ["area"],
    matches: () => true,
    instead: () => ({ declareRet: 0 }),
    leavesOut: ["basePfn"],
  },
  {
    name: "iova-placement",
    kinds: ["plain", "fast"],
    matches: () => true,
    instead: () => ({}),
    leavesOut: ["the page numbers that the operations return"],
  },
  {
    name: "iova-internals",
    kinds: ["init"],
    matches: () => true,
    instead: (fields) => ({ init: fields.number("startPfn") === 0 ? EINVAL : 0 }),
    leavesOut: ["dma32Pfn", "max32AllocSize", "anchorLo", "shift", "sizeOf5to9"],
  },
  {
    name: "long-entries-are-cut",
    kinds: ["dma_map_sgtable"],
    matches: (fields) => isBehindIommu(fields) && hasEntryAboveMaximum(fields),
    instead: cutSegments,
  },
  {
    name: "addresses-of-44-bits",
    kinds: ["vtd_domain", "vtd_err"],
    matches: isAboveOurWidth,
    instead: () => ({ apertureEnd: String(2 ** 44 - 1), ret: ERANGE }),
  },
  {
    name: "unmaps-as-arm",
    kinds: ["pt", "vtd_err"],
    matches: unmapsUnlikeArm,
    instead: armInstead,
  },
  {
    name: "every-device-page-is-found",
    kinds: ["dma_exhaust"],
    matches: () => true,
    instead: (fields) => ({ count: 2 ** (fields.number("maskBits") - 12) - 1 }), // not page 0
    leavesOut: ["addrs"],
  },
  {
    name: "in-use-is-not-freed",
    kinds: ["scenario"],
    matches: (fields) => refusedSteps(fields).size > 0,
    instead: (fields) => Object.fromEntries(refusedSteps(fields)),
  },
  {
    name: "no-process-memory",
    kinds: ["gup"],
    matches: needsProcess,
    instead: ordinaryCounts,
    leavesOut: ["childSaw", "parentSeesAfterChildWrite"],
  },
];

/** Whether the bytes need no page that is not listed, and begin the last segment or reach it. */
function sizeFitsPages(fields: Fields): boolean {
  const maxPages = Math.floor(fields.number("maxSeg") / PAGE_BYTES);
  let pageCount = 0;
  let lastStart = 0; // pages before the last segment
  let pageEnd = -1;
  for (const run of fields.rows("runs")) {
    for (let page = cell(run, 0); page < cell(run, 0) + cell(run, 1); page++) {
      if (page !== pageEnd || pageCount - lastStart === maxPages) lastStart = pageCount;
      pageCount += 1;
      pageEnd = page + 1;
    }
  }
  const end = fields.number("offset") + fields.number("size");
  return end <= pageCount * PAGE_BYTES && end >= lastStart * PAGE_BYTES;
}
