/**
 * Area F: what a device sees of a table, directly and behind an IOMMU.
 *
 * @module
 */

import { type Bed, isErrno, need, PAGE_BYTES } from "./bed.ts";
import { cell, type Fields } from "./fields.ts";
import { type Fact, factsOf, type Outcome } from "./outcome.ts";
import { entriesOf, normalised, positionOf, retOf, type Segment, tableOf } from "./scatterlist.ts";

const MAPPING_NENTS = 3; // word of a mapping's payload: segments
const MAPPING_SEGMENTS_AT = 4;
const MAX_SEGMENTS = 0xffffffff;
/** Boundary masks of 32 bits and more: no mapping is that long. */
const NO_BOUNDARY = 0xffffffff;

/** Whether the record's device translates. */
export function isBehindIommu(fields: Fields): boolean {
  return fields.text("dev").includes("behind");
}

/**
 * `dma_map_sgtable`: segments relative to the first one's address. `nentsAfterUnmap` has no
 * counterpart: a mapping is an object of its own, and gone after the unmap.
 */
export function dmaMapSgtable(fields: Fields, bed: Bed): Outcome {
  const isTranslated = isBehindIommu(fields);
  const { exports } = bed;
  const sg = fields.rows("sg");
  const domain = isTranslated ? need(exports.iommuDomainAlloc(), "a domain") : 0;
  const limitPfn = 2 ** Math.min(fields.number("maskBits") - 12, 32) - 1;
  const limits = [fields.number("maxSegSize"), MAX_SEGMENTS, boundaryMaskOf(fields)] as const;
  const device = need(exports.dmaDeviceAdd(domain, limitPfn, ...limits, 0, 0, 64), "a device");
  const table = need(tableOf(bed, sg), "the table");
  const mapping = exports.dmaMapTable(device, table, fields.number("dir"), 0);
  const facts: Fact[] = [...factsOf(fields, { ret: retOf(mapping), origNents: sg.length })];
  if (!isErrno(mapping)) {
    facts.push(...segmentFacts(fields, bed, mapping, domain));
    need(exports.dmaUnmap(mapping, 0), "the unmap");
    const isGone = isErrno(exports.dmaMappingAt(mapping));
    facts.push({ name: "mapping gone after unmap", actual: isGone, recorded: true });
  }
  const origNents = bed.core.word(exports.sgTableAt(table) >>> 0, 1);
  facts.push(...factsOf(fields, { origNentsAfterUnmap: origNents }));
  need(exports.sgTableFree(table), "the end of the table");
  need(exports.dmaDeviceRemove(device), "the end of the device");
  if (isTranslated) need(exports.iommuDomainFree(domain), "the end of the domain");
  return { facts };
}

function boundaryMaskOf(fields: Fields): number {
  const mask = fields.wide("segBoundaryMask");
  return mask < NO_BOUNDARY ? Number(mask) : NO_BOUNDARY;
}

function segmentFacts(fields: Fields, bed: Bed, mapping: number, domain: number): Fact[] {
  const payload = bed.exports.dmaMappingAt(mapping) >>> 0;
  const at = bed.core.word(payload, MAPPING_SEGMENTS_AT);
  const segments = entriesOf(bed, at, bed.core.word(payload, MAPPING_NENTS), 0);
  const first = segments[0]?.[0] ?? 0;
  const seen = bytesSeen(bed, segments, domain);
  const listed = joined(normalised(fields.rows("sg")));
  return factsOf(fields, {
    nents: segments.length,
    dma: segments.map(([address = 0, length = 0]) => [address - first, length]),
    firstPageOffset: first % PAGE_BYTES,
    translationCoversListInOrder: JSON.stringify(seen) === JSON.stringify(listed),
  });
}

/** The positions in the block of pages that a device reaches through the segments, in order. */
function bytesSeen(bed: Bed, segments: readonly Segment[], domain: number): number[][] {
  const pieces = segments.flatMap((segment) => {
    const [start, end] = [cell(segment, 0), cell(segment, 0) + cell(segment, 1)];
    const cut: number[][] = [];
    for (let at = start; at < end; ) {
      const next = Math.min(end, (Math.floor(at / PAGE_BYTES) + 1) * PAGE_BYTES);
      const page = Math.floor(at / PAGE_BYTES);
      const phys = domain === 0 ? page : bed.exports.iommuIovaToPhys(domain, page) >>> 0;
      cut.push([(phys - bed.pagesPfn) * PAGE_BYTES + (at % PAGE_BYTES), next - at]);
      at = next;
    }
    return cut;
  });
  return joined(pieces);
}

/** [position, length] pieces with neighbours made one. */
function joined(pieces: readonly Segment[]): number[][] {
  const out: number[][] = [];
  for (const [position = 0, length = 0] of pieces) {
    const last = out[out.length - 1];
    if (last !== undefined && cell(last, 0) + cell(last, 1) === position) {
      last[1] = cell(last, 1) + length;
    } else {
      out.push([position, length]);
    }
  }
  return out;
}

/** Whether an input entry is longer than a segment of the device may be. */
export function hasEntryAboveMaximum(fields: Fields): boolean {
  const maximum = fields.number("maxSegSize");
  return fields.rows("sg").some((entry) => cell(entry, 2) > maximum);
}

/**
 * Our segments, by a model that goes through the list byte range by byte range: an entry that would
 * cross the boundary begins at one; an entry longer than the maximum is cut at pages and
 * boundaries; a neighbour joins while the sum stays within the maximum, but not at a boundary.
 */
export function cutSegments(fields: Fields): { nents: number; dma: number[][] } {
  const maximum = fields.number("maxSegSize");
  const boundary = boundaryMaskOf(fields) + 1;
  const dma: number[][] = [];
  let at = 0; // the device page that the next entry begins on, in bytes
  for (const entry of fields.rows("sg")) {
    const offset = positionOf(entry) % PAGE_BYTES;
    const length = cell(entry, 2);
    const pageBytes = Math.ceil((offset + length) / PAGE_BYTES) * PAGE_BYTES;
    const isCrossing = (at % boundary) + pageBytes > boundary;
    if (isCrossing) at = Math.ceil(at / boundary) * boundary;
    const start = at + offset;
    const last = dma[dma.length - 1];
    const isNeighbour = last !== undefined && cell(last, 0) + cell(last, 1) === start;
    if (isNeighbour && start % boundary !== 0 && cell(last, 1) + length <= maximum) {
      last[1] = cell(last, 1) + length;
    } else {
      dma.push(...cutEntry(start, length, maximum, boundary));
    }
    at += pageBytes;
  }
  const first = dma[0]?.[0] ?? 0;
  return { nents: dma.length, dma: dma.map((s) => [cell(s, 0) - first, cell(s, 1)]) };
}

function cutEntry(start: number, length: number, maximum: number, boundary: number): number[][] {
  if (length <= maximum) return [[start, length]];
  const end = start + length;
  const wholePages = Math.floor(maximum / PAGE_BYTES) * PAGE_BYTES;
  const pieces: number[][] = [];
  for (let at = start; at < end; ) {
    const pageStart = Math.floor(at / PAGE_BYTES) * PAGE_BYTES;
    const fits = end - at <= maximum ? end : pageStart + wholePages;
    const next = Math.min(fits, (Math.floor(at / boundary) + 1) * boundary);
    pieces.push([at, next - at]);
    at = next;
  }
  return pieces;
}
