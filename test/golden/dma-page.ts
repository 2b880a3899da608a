/**
 * Area F, fixed: single pages mapped for a device, and masks so small that they run out.
 *
 * Absolute addresses depend on all that was mapped before; counts, offsets and translations do not.
 *
 * @module
 */

import { type Bed, isErrno, NONE, need, PAGE_BYTES } from "./bed.ts";
import { isBehindIommu } from "./dma-map.ts";
import type { Fields } from "./fields.ts";
import { factsOf, type Outcome } from "./outcome.ts";
import { retOf, tableOf } from "./scatterlist.ts";

/** The longest segment of the recorded device. */
const MAX_SEGMENT_BYTES = 65536;
const MAX_SEGMENTS = 0xffffffff;
const ENOMEM = -12;
/** The page that is mapped: any. */
const PAGE = 40;

/** A device of a record, with a domain of its own if it translates. */
class RecordDevice {
  readonly #bed: Bed;
  readonly #handle: number;
  readonly #tables: number[] = [];
  readonly domain: number;

  constructor(fields: Fields, bed: Bed) {
    const { exports } = bed;
    this.#bed = bed;
    this.domain = isBehindIommu(fields) ? need(exports.iommuDomainAlloc(), "a domain") : 0;
    const limitPfn = 2 ** Math.min(fields.number("maskBits") - 12, 32) - 1;
    const limits = [limitPfn, MAX_SEGMENT_BYTES, MAX_SEGMENTS, NONE] as const;
    const device = exports.dmaDeviceAdd(this.domain, ...limits, 0, 0, 64);
    this.#handle = need(device, "a device");
  }

  /** Maps a list of [page, offset, length]; the mapping's handle or an errno. */
  map(list: readonly (readonly number[])[], direction: number): number {
    const table = need(tableOf(this.#bed, list), "the table");
    this.#tables.push(table);
    return this.#bed.exports.dmaMapTable(this.#handle, table, direction, 0);
  }

  /** The first segment's page, and its offset in it. */
  first(mapping: number): { readonly pfn: number; readonly offset: number } {
    const at = this.#word(mapping, 4);
    return { pfn: this.#bed.core.word(at, 0), offset: this.#bed.core.word(at, 1) };
  }

  nents(mapping: number): number {
    return this.#word(mapping, 3);
  }

  #word(mapping: number, index: number): number {
    return this.#bed.core.word(this.#bed.exports.dmaMappingAt(mapping) >>> 0, index);
  }

  /** Ends the mappings that are left, and everything else. */
  close(mappings: readonly number[]): void {
    const { exports } = this.#bed;
    for (const mapping of mappings) need(exports.dmaUnmap(mapping, 0), "an unmap");
    for (const table of this.#tables) need(exports.sgTableFree(table), "the end of a table");
    need(exports.dmaDeviceRemove(this.#handle), "the end of the device");
    if (this.domain !== 0) need(exports.iommuDomainFree(this.domain), "the end of the domain");
  }
}

/** `dma_map_page`: the same bytes mapped twice, and what is left after the first unmap. */
export function dmaMapPage(fields: Fields, bed: Bed): Outcome {
  const device = new RecordDevice(fields, bed);
  const offset = fields.number("offset");
  const list = [[PAGE, offset, fields.number("len")]];
  const mapping = device.map(list, fields.number("dir"));
  if (isErrno(mapping)) {
    device.close([]);
    return { facts: factsOf(fields, { error: 1 }) };
  }
  const second = need(device.map(list, fields.number("dir")), "a second mapping");
  const { pfn, offset: lowBits } = device.first(mapping);
  const page = bed.pagesPfn + PAGE + Math.floor(offset / PAGE_BYTES);
  const actual: Record<string, unknown> = { error: 0, lowBits };
  const isTranslated = device.domain !== 0;
  if (isTranslated) {
    const target = bed.exports.iommuIovaToPhys(device.domain, pfn) >>> 0;
    actual.translationOk = target === page && pfn !== device.first(second).pfn ? 1 : 0;
  } else {
    actual.equalsPhys = pfn === page ? 1 : 0;
  }
  need(bed.exports.dmaUnmap(mapping, 0), "the unmap");
  if (isTranslated) {
    actual.afterUnmap = bed.exports.iommuIovaToPhys(device.domain, pfn) === -1 ? 0 : 1;
  }
  device.close([second]);
  return { facts: factsOf(fields, actual) };
}

/** `dma_map_small_mask`: `pages` pages that are no neighbours, under a mask of few bits. */
export function dmaMapSmallMask(fields: Fields, bed: Bed): Outcome {
  const device = new RecordDevice(fields, bed);
  const count = fields.number("pages");
  const list = Array.from({ length: count }, (_, i) => [2 * i, 0, PAGE_BYTES]);
  const mapping = device.map(list, 0);
  const nents = isErrno(mapping) ? count : device.nents(mapping);
  const facts = factsOf(fields, { ret: retOf(mapping), nents });
  device.close(isErrno(mapping) ? [] : [mapping]);
  return { facts };
}

/** `dma_exhaust`: single pages until an error; how many there were, and whether all come back. */
export function dmaExhaust(fields: Fields, bed: Bed): Outcome {
  const device = new RecordDevice(fields, bed);
  const mapOne = () => device.map([[PAGE, 0, PAGE_BYTES]], 0);
  const mappings: number[] = [];
  let mapping = mapOne();
  while (!isErrno(mapping)) {
    mappings.push(mapping);
    mapping = mapOne();
  }
  const pfns = new Set(mappings.map((one) => device.first(one).pfn));
  for (const one of mappings) need(bed.exports.dmaUnmap(one, 0), "an unmap");
  const again = mapOne();
  device.close(isErrno(again) ? [] : [again]);
  return {
    facts: factsOf(fields, {
      count: pfns.size, // a page given twice would count once
      thenError: mapping === ENOMEM,
      afterFreeAllWorks: isErrno(again) ? 0 : 1,
    }),
  };
}
