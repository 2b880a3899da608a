/**
 * Area F: IO page tables of every format that was recorded.
 *
 * @module
 */

import { tableFormatWord } from "dmabuf/core";
import { type Bed, EINVAL, isErrno, NONE, need, PAGE_BYTES } from "./bed.ts";
import { cell, type Fields, MalformedRecord } from "./fields.ts";
import { type Fact, factsOf, notYet, type Outcome } from "./outcome.ts";

/** Device addresses and physical addresses have 44 bits. */
const ADDRESS_END = 2 ** 44;

const ERANGE = -34;
const READ_WRITE = 3;
/** The page sizes of the table that `arm_map_pages` and `arm_unmap_pages` are recorded of. */
const PAGE_SIZES: readonly number[] = [PAGE_BYTES, 2 ** 21, 2 ** 30];
/** A backend's name: input width, stage, granule. */
const BACKEND = /^ARM_(64|32)_LPAE_S([12]) (4|16|64)K$/;
/** A table with the same pages and blocks as ours has with 4 KiB pages. */
const VTD = "intel vt-d (emulated)";

/** `pt`: maps, unmaps and translations in one table, through a domain. */
export function pageTable(fields: Fields, bed: Bed): Outcome {
  const backend = fields.text("backend");
  const format = BACKEND.exec(backend === VTD ? "ARM_64_LPAE_S1 4K" : backend);
  if (format === null) return notYet(backend);
  const [inputBits, outputBits] = format[1] === "64" ? [44, 44] : [32, 40];
  const granuleOrder = Math.log2(Number(format[3]) / 4);
  const word = tableFormatWord({ stage: Number(format[2]), granuleOrder, inputBits, outputBits });
  const domain = need(bed.exports.iommuDomainAllocAs(word), "a domain");
  const facts = fields.rows("ops").map((row, i): Fact => {
    const recorded = cell(row, row.length - 1);
    return { name: `op ${i} [${row.join(", ")}]`, actual: step(bed, domain, row), recorded };
  });
  bed.exports.iommuDomainFree(domain);
  return { facts };
}

function step(bed: Bed, domain: number, row: readonly number[]): number {
  const iova = cell(row, 1);
  switch (cell(row, 0)) {
    case 0:
      return map(bed, domain, iova, cell(row, 2), cell(row, 3));
    case 1:
      if (!areWholePages(iova, cell(row, 2)) || !isInRange(iova, cell(row, 2))) return 0;
      return bed.exports.iommuUnmap(domain, pages(iova), pages(cell(row, 2))) * PAGE_BYTES;
    case 2:
      return isInRange(iova, 1)
        ? address(bed.exports.iommuIovaToPhys(domain, Math.floor(iova / PAGE_BYTES)), iova)
        : 0;
    default:
      throw new MalformedRecord(`the replay does not know the operation [${row.join(", ")}]`);
  }
}

function map(bed: Bed, domain: number, iova: number, paddr: number, size: number): number {
  if (!areWholePages(iova, paddr, size)) return EINVAL;
  if (!isInRange(iova, size) || !isInRange(paddr, size)) return ERANGE;
  return bed.exports.iommuMap(domain, pages(iova), pages(paddr), pages(size), READ_WRITE);
}

/** `arm_map_pages`: one call of the table itself; all records of a file share the table. */
export function armMapPages(fields: Fields, bed: Bed): Outcome {
  const { iova, pgsize, pgcount, order } = pagesArguments(fields);
  const paddr = fields.number("paddr");
  const root = sharedTable(bed);
  const mapped =
    order === null
      ? EINVAL
      : !isInRange(iova, 1) || !isInRange(paddr, 1)
        ? ERANGE
        : bed.raw.pgtMapPages(
            root,
            pages(iova),
            pages(paddr),
            order,
            pgcount,
            fields.number("prot"),
          );
  const phys = isInRange(iova, 1) ? address(bed.raw.pgtLookup(root, pages(iova)), iova) : 0;
  return {
    facts: [
      ...factsOf(fields, {
        ret: isErrno(mapped) ? mapped : 0,
        mapped: isErrno(mapped) ? 0 : mapped * pgsize,
        phys,
      }),
      { name: "pgtCheck", actual: bed.raw.pgtCheck(root), recorded: 0 },
    ],
  };
}

/** `arm_unmap_pages`: bytes unmapped. */
export function armUnmapPages(fields: Fields, bed: Bed): Outcome {
  const { iova, pgcount, order } = pagesArguments(fields);
  const root = sharedTable(bed);
  const count =
    isInRange(iova, 1) && order !== null
      ? bed.raw.pgtUnmapPages(root, pages(iova), order, pgcount)
      : 0;
  return {
    facts: [
      ...factsOf(fields, { ret: count * PAGE_BYTES }),
      { name: "pgtCheck", actual: bed.raw.pgtCheck(root), recorded: 0 },
    ],
  };
}

function pagesArguments(fields: Fields) {
  const pgsize = fields.number("pgsize");
  return {
    iova: fields.number("iova"),
    pgsize,
    pgcount: fields.number("pgcount"),
    order: PAGE_SIZES.includes(pgsize) ? Math.log2(pgsize / PAGE_BYTES) : null,
  };
}

function sharedTable(bed: Bed): number {
  return bed.memo("shared page table", () => {
    const root = bed.zeroFrameAt();
    need(bed.raw.pgtInit(root), "a page table");
    bed.atEnd(() => bed.raw.pgtFini(root)); // its tables belong to no domain
    return root;
  });
}

/** Whether page numbers can say it: the smallest page of every format is at least as large. */
function areWholePages(...values: readonly number[]): boolean {
  return values.every((bytes) => bytes % PAGE_BYTES === 0);
}

function isInRange(start: number, size: number): boolean {
  return start + size <= ADDRESS_END;
}

/** A page number of an address that is a multiple of a page. */
function pages(bytes: number): number {
  if (bytes % PAGE_BYTES === 0) return bytes / PAGE_BYTES;
  throw new MalformedRecord(`${bytes} is not a multiple of ${PAGE_BYTES}`);
}

/** The physical address behind `iova`, as iova_to_phys() gives it: 0 for none. */
function address(pfn: number, iova: number): number {
  return pfn >>> 0 === NONE ? 0 : (pfn >>> 0) * PAGE_BYTES + (iova % PAGE_BYTES);
}
