/**
 * Area F, fixed: a device's default domain, and a domain that it is attached to.
 *
 * @module
 */

import { type BuiltInDomain, type Device, iommuProt } from "dmabuf";
import { PgtableModel } from "../model/pgtable.model.ts";
import { type Bed, NONE, PAGE_BYTES } from "./bed.ts";
import { cell, type Fields, MalformedRecord } from "./fields.ts";
import { factsOf, type Outcome, resultOf } from "./outcome.ts";

const READ_WRITE = iommuProt.read + iommuProt.write;
const MiB = 1024 * 1024;
/** __IOMMU_DOMAIN_PAGING, and __IOMMU_DOMAIN_DMA_API beside it. */
const [PAGING, DMA_API] = [1, 2];
const VTD_WIDTH = 2 ** 48;
/** Where the calls go whose addresses no record says. */
const ADDRESS = 0x40000000;
const NUMBERS =
  /^(map|unmap|iova_to_phys) (?:(\d+) (MiB|bytes) at )?(0x[0-9a-f]+)(?: to (0x[0-9a-f]+))?$/;

interface Attached {
  readonly domain: BuiltInDomain;
  readonly device: Device;
}

/** `default_domain`: what a device behind an IOMMU is in before anybody attaches it. */
export function defaultDomain(fields: Fields, bed: Bed): Outcome {
  const device = bed.system.addDevice({ name: "recorded", iommu: true });
  const domain = device.group?.defaultDomain;
  const { maxSegmentBytes, segmentBoundaryBytes } = device.limits;
  const facts = factsOf(fields, {
    present: domain === undefined ? 0 : 1,
    type: (domain?.type === "paging" ? PAGING : 0) + (domain?.isDefault ? DMA_API : 0),
    pgsizeBitmap: String(domain?.pgsizeBitmap),
    maxSegSize: maxSegmentBytes,
    segBoundary: String(segmentBoundaryBytes - 1),
  });
  device.remove();
  return { facts };
}

/** `vtd_domain`: a domain is made and attached; the `vtd_err` records behind it use it. */
export function vtdDomain(fields: Fields, bed: Bed): Outcome {
  const { domain } = attached(bed);
  const { start, end } = domain.aperture;
  const isForced = resultOf(() => domain.map(end + 1, 0, PAGE_BYTES, READ_WRITE)) < 0;
  return {
    facts: factsOf(fields, {
      attachRet: 0,
      pgsizeBitmap: String(domain.pgsizeBitmap),
      apertureStart: start,
      apertureEnd: String(end),
      forceAperture: isForced ? 1 : 0,
    }),
  };
}

function attached(bed: Bed): Attached {
  return bed.memo("attached domain", () => {
    const device = bed.system.addDevice({ name: "attached", iommu: true });
    const domain = bed.system.iommu.domain();
    domain.attachDevice(device);
    return { domain, device };
  });
}

/** `vtd_err`: one call of a sequence on one domain. */
export function vtdError(fields: Fields, bed: Bed): Outcome {
  const { domain, device } = attached(bed);
  const ret = resultOf(() => vtdCall(fields.text("what"), domain, device));
  return { facts: factsOf(fields, { ret }) };
}

function vtdCall(what: string, domain: BuiltInDomain, device: Device): number {
  const map = (iova: number, paddr: number, size: number, prot = READ_WRITE): number => {
    domain.map(iova, paddr, size, prot);
    return 0;
  };
  switch (what) {
    case "unaligned iova":
      return map(ADDRESS + 1, ADDRESS, PAGE_BYTES);
    case "unaligned paddr":
      return map(ADDRESS, ADDRESS + 1, PAGE_BYTES);
    case "unaligned size":
      return map(ADDRESS, ADDRESS, PAGE_BYTES + 1);
    case "iova beyond the address width":
      return map(VTD_WIDTH, ADDRESS, PAGE_BYTES);
    case "prot 0":
      return map(ADDRESS, ADDRESS, PAGE_BYTES, 0);
    case "iova_to_phys after prot 0":
      return domain.iovaToPhys(ADDRESS) ?? 0;
    case "unmap unaligned":
      return domain.unmap(ADDRESS + 1, PAGE_BYTES);
    case "unmap where nothing is mapped":
      return domain.unmap(ADDRESS, PAGE_BYTES);
    case "domain_for_dev is the attached one":
      return device.group?.domain === domain ? 1 : 0;
    default: {
      const { op, size, iova, paddr } = vtdNumbers(what);
      if (op === "iova_to_phys") return domain.iovaToPhys(iova) ?? 0;
      return op === "unmap" ? domain.unmap(iova, size) : map(iova, paddr, size);
    }
  }
}

/** The call that a record's text spells out. */
function vtdNumbers(what: string) {
  const match = NUMBERS.exec(what);
  if (match === null) throw new MalformedRecord(`the replay does not know "${what}"`);
  const [, op, count = "0", unit, iova, paddr = "0"] = match;
  const size = Number(count) * (unit === "MiB" ? MiB : 1);
  return { op, size, iova: Number(iova), paddr: Number(paddr) };
}

// ---- where VT-d's table and ours part

/** Whether an address of the record is wider than ours. */
export function isAboveOurWidth(fields: Fields): boolean {
  return fields.kind === "vtd_domain" || fields.text("what") === "iova beyond the address width";
}

/** Whether the record unmaps a part of a block, or goes on behind a hole, on VT-d. */
export function unmapsUnlikeArm(fields: Fields): boolean {
  if (fields.kind === "vtd_err") return armResults.has(fields.text("what"));
  return fields.text("backend").startsWith("intel vt-d") && modelRun(fields).isUnlikeArm;
}

/** ARM's results of a record that unmapsUnlikeArm(), by a naive table. */
export function armInstead(fields: Fields): Readonly<Record<string, unknown>> {
  if (fields.kind === "vtd_err") return { ret: armResults.get(fields.text("what")) };
  return modelRun(fields).results;
}

/** The calls on 4 MiB at 0x10000000: a part of a block splits it, and a hole ends an unmap. */
const armResults: ReadonlyMap<string, number> = new Map([
  ["unmap where nothing is mapped", 0],
  ["unmap 4096 bytes at 0x10000000", PAGE_BYTES],
  ["iova_to_phys 0x101ff000", 0x201ff000],
  ["unmap 4 MiB at 0x10200000", 2 * MiB],
]);

/** The operations of a `pt` record on the naive model of ARM's table. */
function modelRun(fields: Fields) {
  const model = new PgtableModel(Number.POSITIVE_INFINITY);
  const results: Record<string, number> = {};
  let isUnlikeArm = false;
  for (const [i, row] of fields.rows("ops").entries()) {
    const iova = cell(row, 1);
    const pfn = Math.floor(iova / PAGE_BYTES);
    const name = `op ${i} [${row.join(", ")}]`;
    if (cell(row, 0) === 0) {
      const size = cell(row, 3) / PAGE_BYTES;
      results[name] = model.map(pfn, cell(row, 2) / PAGE_BYTES, size, READ_WRITE);
    } else if (cell(row, 0) === 1) {
      const pages = cell(row, 2) / PAGE_BYTES;
      isUnlikeArm ||= isPartial(model, pfn, pages);
      results[name] = model.unmap(pfn, pages) * PAGE_BYTES;
    } else {
      const phys = model.lookup(pfn);
      results[name] = phys === NONE ? 0 : phys * PAGE_BYTES + (iova % PAGE_BYTES);
    }
  }
  return { results, isUnlikeArm };
}

/** Whether a range begins or ends inside a block, or is not mapped throughout. */
function isPartial(model: PgtableModel, pfn: number, pages: number): boolean {
  const end = pfn + pages;
  for (let at = pfn; at < end; ) {
    const block = model.leafRange(at);
    if (block === null || block.first < pfn || block.end > end) return true;
    at = block.end;
  }
  return false;
}
