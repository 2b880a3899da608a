// The segment boundary of a device: where in a range of device pages the entries of a list lie when
// no segment may cross a multiple of boundaryPageMask + 1 pages.
//
//   boundary  ┊               ┊               ┊       entries of 3, 2 and 1 pages, a boundary of 4
//   range     ├ entry 0 ─┤hole├ entry 1 ┤ 2 ├
//
// D6  An entry that would cross a boundary begins at it; an entry longer than the boundary begins
//     at one. The pages between are a hole: they belong to the range, and nothing maps them.
// D7  A range longer than the boundary begins at one, as it is aligned to its size; so the holes
//     are the same wherever the range lies.
//
// NO_BOUNDARY gives no holes. Compare iommu_dma_map_sg() in the kernel's drivers/iommu/dma-iommu.c,
// which maps the pages of a hole too: to what follows the entry before it.

import { NONE } from "./bits";
import { SgEntry, entriesPages } from "./sg-entries";

export const NO_BOUNDARY: u32 = NONE;

/** Pages of the hole before an entry of `pages` pages when `done` pages lie before it (D6). */
@inline export function holePages(done: u32, pages: u32, boundaryPageMask: u32): u32 {
  const hole = (boundaryPageMask - done + 1) & boundaryPageMask;
  return hole < pages ? hole : 0;
}

/** Device pages that a list needs, holes included. */
export function pagesOf(entriesAt: usize, count: u32, boundaryPageMask: u32): u32 {
  if (boundaryPageMask == NO_BOUNDARY) return entriesPages(entriesAt, count);
  let done: u32 = 0;
  for (let i: u32 = 0; i < count; i++) {
    const pages = SgEntry.at(entriesAt, i).pageCount;
    done += holePages(done, pages, boundaryPageMask) + pages;
  }
  return done;
}
