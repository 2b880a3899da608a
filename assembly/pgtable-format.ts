// What an IO page table looks like: its granule, stage and widths, and the record that says so.
//
//   granule    a page    a block           index bits   orders (2^order pages of 4 KiB)
//    4 KiB      4 KiB    2 MiB, 1 GiB          9         0   9  18   27
//   16 KiB     16 KiB    32 MiB               11         2  13   24
//   64 KiB     64 KiB    512 MiB              13         4  17   30
//                                                        └ leaves ┘   └ only tables
//
//   PageTable  ├ top, tables, last, format: 64 bytes ┼ attributes[64]: 512 bytes ┤
//   format     ├ flags: 3 bits ┼ stage: 2 ┼ granuleOrder: 3 ┼ device address bits: 6 ┼ physical: 6 ┤
//
// G7  granuleOrder is 0, 2 or 4; an entry of order granuleOrder is a page, one of indexBits more a
//     block, and with the 4 KiB granule so is one of 2 * indexBits more.
// G8  The top table reaches the device pages 0 .. lastPfn and has topEntries entries.
//
// The number of levels follows from the width of a device address, as in alloc_pgtable(). Stage 2
// puts up to 16 tables side by side at the top instead of a level with few entries above them.
//
// Compare arm_lpae_alloc_pgtable() in drivers/iommu/io-pgtable-arm.c in the kernel. The 32-bit form
// (ARM_32_LPAE_S1 and S2) is the 4 KiB granule with 32-bit device and 40-bit physical addresses.

import { NONE } from "./bits";
import { EINVAL } from "./errno";
import { FRAME_SHIFT } from "./layout";
import { PROTS, pteAttributes } from "./pte";

const STAGE_1: u32 = 1;
export const STAGE_2: u32 = 2;
export const ADDRESS_BITS: u32 = 44; // page numbers have 32 bits
const ADDRESS_BITS_MIN: u32 = 32;
const CONCATENATED_MAX: u32 = 16;
const LEVELS_MAX: u32 = 4;

export const STRICT_MAP: u32 = 1; // a call that maps looks at the whole range before it writes
export const DIRTY_BITS: u32 = 2; // writable leaves remember that a device wrote

/** The format of stage 1 with 4 KiB pages and 44-bit addresses. */
export const STAGE_1_FORMAT: u32 = (STAGE_1 << 3) | (ADDRESS_BITS << 8) | (ADDRESS_BITS << 14);

export const PAGE_TABLE_BYTES: usize = 576;
const ATTRIBUTES_OFFSET: usize = 64;

@unmanaged
export class PageTable {
  topAt: usize; // the top table; 0 before treeMake and after treeDrop
  tableFrames: u32; // G3
  lastKey: u32; // the range and order of the table reached last, 0 = none
  lastAt: usize; // G4
  granuleOrder: u32; // G7
  indexBits: u32;
  topOrder: u32; // of the top table's entries
  topEntries: u32; // G8
  blockOrder: u32; // the largest leaf
  lastPfn: u32; // device page; G8
  lastPhysPfn: u32;
  stage: u32; // STAGE_1, STAGE_2
  format: u32; // as it was asked for: STRICT_MAP, DIRTY_BITS

  static at(rootAt: usize): PageTable {
    return changetype<PageTable>(rootAt);
  }

  /** The bits of a leaf that do not depend on where it lies; 0: `prot` allows nothing. */
  @inline attributesOf(prot: u32): u64 {
    return Attributes.at(this, prot).bits;
  }

  /** The place of the entry of order `order` on the way to `iovaPfn` in its table. */
  @inline indexOf(iovaPfn: u32, order: u32): u32 {
    const mask = order == this.topOrder ? NONE : (1 << this.indexBits) - 1;
    return (iovaPfn >> order) & mask;
  }

  /** The entries of a table of order `order`. */
  entriesOf(order: u32): u32 {
    return order == this.topOrder ? this.topEntries : (<u32>1) << this.indexBits;
  }

  /** The frames of a table of order `order`, a power of two. */
  framesOf(order: u32): u32 {
    return order == this.topOrder
      ? max(<u32>1, this.topEntries >> (FRAME_SHIFT - 3))
      : (<u32>1) << this.granuleOrder;
  }

  /** Whether entries of `order` can be leaves (G7). */
  isLeafOrder(order: u32): bool {
    const above = order - this.granuleOrder;
    return order <= this.blockOrder && (above % this.indexBits) == 0; // huge when it is below
  }

  /** A number other than 0 for the table of order `order` on the way to `iovaPfn`. */
  keyOf(iovaPfn: u32, order: u32): u32 {
    return tableKey(iovaPfn, order, this.indexBits);
  }

  /** Whether page numbers are multiples of the granule. */
  isGranular(pages: u32): bool {
    return (pages & ((1 << this.granuleOrder) - 1)) == 0;
  }
}

/** PageTable.keyOf() for a known number of index bits. */
@inline export function tableKey(iovaPfn: u32, order: u32, indexBits: u32): u32 {
  return ((((iovaPfn >> order) >> indexBits) << 5) | order) + 1;
}

@unmanaged
class Attributes {
  bits: u64;

  static at(root: PageTable, prot: u32): Attributes {
    const offset = ((<usize>prot) & (PROTS - 1)) << 3;
    return changetype<Attributes>(changetype<usize>(root) + ATTRIBUTES_OFFSET + offset);
  }
}

if (offsetof<PageTable>() > ATTRIBUTES_OFFSET) ERROR("PageTable reaches into its attributes");
if (ATTRIBUTES_OFFSET + (<usize>PROTS << 3) != PAGE_TABLE_BYTES)
  ERROR("PAGE_TABLE_BYTES does not end behind the attributes");

/**
 * Chooses the format of a table whose record holds zeros: stage 1 or 2, granule order 0, 2 or 4,
 * the bits of device and of physical addresses, 32 to 44. 0, or EINVAL, with nothing written.
 */
export function formatInit(root: PageTable, format: u32): i32 {
  const stage = (format >> 3) & 3;
  const granuleOrder = (format >> 5) & 7;
  const inputBits = (format >> 8) & 63;
  const outputBits = format >> 14;
  if (stage != STAGE_1 && stage != STAGE_2) return EINVAL;
  if (granuleOrder != 0 && granuleOrder != 2 && granuleOrder != 4) return EINVAL;
  if (!isWidth(inputBits) || !isWidth(outputBits)) return EINVAL;
  const hasDirty = (format & DIRTY_BITS) != 0;
  if (hasDirty && stage == STAGE_2) return EINVAL; // stage 1 has them
  const indexBits: u32 = 9 + (granuleOrder >> 1) + (granuleOrder >> 1);
  const pageBits = inputBits - FRAME_SHIFT;
  const levels = (pageBits - granuleOrder + indexBits - 1) / indexBits;
  let topOrder = granuleOrder + (levels - 1) * indexBits;
  const isSmall = (<u32>1) << (pageBits - topOrder) <= CONCATENATED_MAX;
  if (stage == STAGE_2 && levels == LEVELS_MAX && isSmall) topOrder -= indexBits;
  root.stage = stage;
  root.format = format;
  root.granuleOrder = granuleOrder;
  root.indexBits = indexBits;
  root.topOrder = topOrder;
  root.topEntries = (<u32>1) << (pageBits - topOrder);
  root.blockOrder = granuleOrder + (granuleOrder == 0 ? 2 * indexBits : indexBits);
  root.lastPfn = lastPfnOf(inputBits);
  root.lastPhysPfn = lastPfnOf(outputBits);
  for (let prot: u32 = 0; prot < PROTS; prot++)
    Attributes.at(root, prot).bits = pteAttributes(prot, stage == STAGE_2, hasDirty);
  return 0;
}

function isWidth(bits: u32): bool {
  return bits >= ADDRESS_BITS_MIN && bits <= ADDRESS_BITS;
}

function lastPfnOf(bits: u32): u32 {
  return NONE >> (ADDRESS_BITS - bits);
}
