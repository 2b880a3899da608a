/**
 * Area F: the generic IOMMU layer over a driver that only logs what it is asked for.
 *
 * @module
 */

import { type DomainOps, type DomainType, IommuDomain, iommuProt } from "dmabuf";
import { cell, type Fields, MalformedRecord } from "./fields.ts";
import { factsOf, type Outcome, resultOf } from "./outcome.ts";

const READ_WRITE = iommuProt.read + iommuProt.write;
/** Any page size: none of these records says which. */
const PGSIZES = 0x1000n;
const ADDRESS = 0x12345;
const PAGES = 0x10000;

/** Where the recorded driver gives up; 0: never. Map and unmap calls are counted together. */
interface Faults {
  readonly maxPagesPerCall?: number;
  readonly failAtCall?: number;
  readonly stopAtCall?: number;
}

/** The recorded driver. */
class LoggingDriver implements DomainOps {
  readonly calls: (string | number)[][] = [];
  readonly pgsizeBitmap: bigint;
  readonly #faults: Faults;
  #callCount = 0;

  constructor(pgsizeBitmap: bigint, faults: Faults = {}) {
    this.pgsizeBitmap = pgsizeBitmap;
    this.#faults = faults;
  }

  mapPages(iova: number, paddr: number, pageBytes: number, pageCount: number) {
    this.#callCount += 1;
    const isFailing = this.#callCount === this.#faults.failAtCall;
    const taken = this.#taken(pageCount);
    const mappedBytes = (isFailing ? Math.floor(taken / 2) : taken) * pageBytes;
    const ret = isFailing ? -12 : 0;
    this.calls.push(["map", iova, paddr, pageBytes, pageCount, mappedBytes, ret]);
    return isFailing ? { mappedBytes, error: "ENOMEM" as const } : mappedBytes;
  }

  unmapPages(iova: number, pageBytes: number, pageCount: number): number {
    this.#callCount += 1;
    const stopAt = this.#faults.stopAtCall || Number.POSITIVE_INFINITY;
    const bytes = this.#callCount >= stopAt ? 0 : this.#taken(pageCount) * pageBytes;
    this.calls.push(["unmap", iova, pageBytes, pageCount, bytes]);
    return bytes;
  }

  iotlbSyncMap(iova: number, sizeBytes: number): void {
    this.calls.push(["iotlb_sync_map", iova, sizeBytes]);
  }

  iotlbSync(): void {
    this.calls.push(["iotlb_sync"]);
  }

  #taken(pageCount: number): number {
    return Math.min(pageCount, this.#faults.maxPagesPerCall || pageCount);
  }
}

function optional(fields: Fields, name: string): number {
  return fields.has(name) ? fields.number(name) : 0;
}

/** `core_map`, `core_unmap`, `core_map_sg`: the calls that the driver sees, and the result. */
export function coreCalls(fields: Fields): Outcome {
  const driver = new LoggingDriver(fields.wide("pgsizeBitmap"), {
    maxPagesPerCall: optional(fields, "maxPagesPerCall"),
    failAtCall: optional(fields, "failAtCall"),
    stopAtCall: optional(fields, "stopAtCall"),
  });
  const domain = new IommuDomain(driver);
  const iova = fields.number("iova");
  const ret = resultOf(() => {
    switch (fields.kind) {
      case "core_map":
        domain.map(iova, fields.number("paddr"), fields.number("size"), READ_WRITE);
        return 0;
      case "core_unmap":
        return domain.unmap(iova, fields.number("size"));
      default:
        return domain.mapSg(iova, rangesOf(fields), READ_WRITE);
    }
  });
  return { facts: factsOf(fields, { calls: driver.calls, ret }) };
}

function rangesOf(fields: Fields) {
  const rows = fields.rows("sg");
  return rows.map((row) => ({ address: cell(row, 0), lengthBytes: cell(row, 1) }));
}

/** `domain_error`: calls that no driver, no page size or the domain's type allows. */
export function domainError(fields: Fields): Outcome {
  const what = fields.text("case");
  const isBare = / no (map|unmap) op$/.test(what);
  const driver = new LoggingDriver(what.endsWith("pgsize_bitmap 0") ? 0n : PGSIZES);
  const ops: DomainOps = isBare ? { pgsizeBitmap: PGSIZES } : driver;
  const domain = new IommuDomain(ops, typeOf(what));
  const isEmpty = what.endsWith(" size 0");
  const [address, size] = isEmpty ? [0, 0] : [PAGES, PAGES];
  const ret = resultOf(() => {
    if (what.startsWith("map ") || what.startsWith("map,")) {
      domain.map(address, address, size, READ_WRITE);
      return 0;
    }
    if (what.startsWith("unmap")) return domain.unmap(address, size);
    if (what.startsWith("iova_to_phys")) return domain.iovaToPhys(ADDRESS) ?? 0;
    throw new MalformedRecord(`the replay does not know the case "${what}"`);
  });
  return { facts: factsOf(fields, { calls: driver.calls, ret }) };
}

function typeOf(what: string): DomainType {
  if (what.includes("identity")) return "identity";
  return what.includes("blocked") ? "blocked" : "paging";
}
