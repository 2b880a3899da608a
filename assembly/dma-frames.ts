// Mappings that bring their own table: of a run of frames, a list, or a device's registers.
//
//   frames ──cleared, pinned──► table ──► mapping (OWNS_TABLE, PINS_FRAMES) ──dmaUnmap──► as before
//
// D8  While such a mapping lives, its frames are pinned: nobody frees them under the device. Bytes
//     of an earlier owner are cleared before the device can see them.
//
// Compare dma_map_page_attrs(), dma_map_sg_attrs() and dma_map_resource() in the kernel's
// kernel/dma/mapping.c.

import { dmaMapTable, tableRelease } from "./dma";
import { MMIO, OWNS_TABLE, PINS_FRAMES } from "./dma-device";
import { EINVAL, EIO } from "./errno";
import { FRAME_SHIFT, MAX_PHYS_PFN, header } from "./layout";
import { KIND_TABLE, objectFind } from "./object";
import { tablePin } from "./sg-pin";
import { SgTable, sgTableFromList, tableOfRun } from "./sg";

/**
 * Maps `length` bytes from byte `offset` of frame `pfn` on, which somebody holds. The mapping's
 * handle, or EINVAL (no frames, movable ones, or no bytes), ENOENT (nobody holds one), EOVERFLOW
 * (too many pins), dmaMapTable()'s errors.
 */
export function dmaMapRun(
  device: u32,
  pfn: u32,
  offset: u32,
  length: u32,
  direction: u32,
  attrs: u32,
): i32 {
  const frameCount = header().frameCount;
  const pageEnd = (<u64>pfn << FRAME_SHIFT) + offset + length;
  if (length == 0 || pageEnd > <u64>frameCount << FRAME_SHIFT) return EINVAL;
  return mapOwned(device, tableOfRun(pfn, offset, length), direction, attrs);
}

/** Maps the `count` segments listed at `listAt` (sgTableFromList). EIO for none, as in Linux. */
export function dmaMapList(
  device: u32,
  listAt: usize,
  count: u32,
  direction: u32,
  attrs: u32,
): i32 {
  if (count == 0) return EIO;
  return mapOwned(device, sgTableFromList(listAt, count), direction, attrs);
}

/**
 * Maps `length` bytes of something that is no memory of this system, from byte `offset` of the
 * physical page `physPfn` on. EINVAL: it is memory, or lies beyond all addresses.
 */
export function dmaMapResource(
  device: u32,
  physPfn: u32,
  offset: u32,
  length: u32,
  direction: u32,
  attrs: u32,
): i32 {
  const h = header();
  const pages = <u32>((<u64>offset + length + (1 << FRAME_SHIFT) - 1) >> FRAME_SHIFT);
  if (length == 0 || pages > MAX_PHYS_PFN - physPfn) return EINVAL;
  const isBelow = <u64>physPfn + pages <= h.physPfnBase;
  if (!isBelow && physPfn < h.physPfnBase + h.frameCount) return EINVAL;
  const table = tableOfRun(physPfn - h.physPfnBase, offset, length);
  if (table < 0) return table;
  return mapTaken(device, table, direction, attrs | OWNS_TABLE | MMIO);
}

/** Clears and pins the frames of a table, and maps it. */
function mapOwned(device: u32, table: i32, direction: u32, attrs: u32): i32 {
  if (table < 0) return table;
  const tablePayload = objectFind(table, KIND_TABLE);
  const error = tablePin(SgTable.at(tablePayload));
  if (error != 0) {
    tableRelease(tablePayload, 0);
    return error;
  }
  return mapTaken(device, table, direction, attrs | OWNS_TABLE | PINS_FRAMES);
}

function mapTaken(device: u32, table: u32, direction: u32, attrs: u32): i32 {
  const mapping = dmaMapTable(device, table, direction, attrs);
  if (mapping < 0) tableRelease(objectFind(table, KIND_TABLE), attrs);
  return mapping;
}
