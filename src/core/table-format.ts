/**
 * TableFormat: what an IO page table looks like, as the core takes it.
 *
 * @module
 */

import { requireObject } from "../arguments.ts";
import { requireInteger } from "../errors.ts";

/** A format, with the numbers as the core has them (assembly/pgtable-format.ts). */
export interface TableFormat {
  /** 1 or 2. */
  readonly stage: number;
  /** The smallest page is 4096 << granuleOrder bytes: 0, 2 or 4. */
  readonly granuleOrder: number;
  /** Bits of device addresses, 32 to 44. */
  readonly inputBits: number;
  /** Bits of physical addresses, 32 to 44. */
  readonly outputBits: number;
  /** A sum of {@link tableFlags}. Default 0. */
  readonly flags?: number | undefined;
}

/** What a table does beside translating, as bits to be added up. */
export const tableFlags = {
  /** A call that maps checks everything before it writes, and replaces nothing. */
  strictMap: 1,
  /** Leaves remember that a device wrote. */
  dirtyBits: 2,
  /** What the DMA API unmaps waits for a flush. */
  lazy: 4,
} as const;

/** The word of a format that `iommuDomainAllocAs` and `pgtInitAs` of the core take. */
export function tableFormatWord(format: TableFormat): number {
  const operation = "describe a page table";
  requireObject(format, "the format", operation);
  const { stage, granuleOrder, inputBits, outputBits, flags = 0 } = format;
  requireInteger(flags, "flags", 0, 7, operation);
  requireInteger(stage, "stage", 0, 3, operation);
  requireInteger(granuleOrder, "granuleOrder", 0, 7, operation);
  requireInteger(inputBits, "inputBits", 0, 63, operation);
  requireInteger(outputBits, "outputBits", 0, 63, operation);
  return flags + stage * 2 ** 3 + granuleOrder * 2 ** 5 + inputBits * 2 ** 8 + outputBits * 2 ** 14;
}
