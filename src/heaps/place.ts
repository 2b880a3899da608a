/**
 * Places: where a buffer's frames come from, as tables that own them.
 *
 *     scattered   blocks of 1 MiB, 64 KiB and 4 KiB, as the buddy has them; no larger again once a
 *                 size failed
 *     in a region one run, first fit, aligned to its size up to 1 MiB in a CMA region
 *
 * Compare the kernel's drivers/dma-buf/heaps/system_heap.c and cma_heap.c.
 *
 * @module
 */

import type { Core } from "../core/core.ts";
import type { DmaBuf } from "../dma-buf/dma-buf.ts";
import type { Layout } from "../dma-buf/negotiate.ts";
import { checked, codeOf, errno, fail, requireJoined } from "../errors.ts";
import type { CmaRegion } from "../mm/cma-region.ts";
import { ADDRESS_END, addressOf, formatBytes, framesOf, NO_PFN, orderOf, pfnOf } from "../units.ts";

/** Where frames are. */
export interface Places {
  readonly core: Core;
  readonly physicalBase: number;
  /** CMA regions, in the order they were given. Carve-outs serve only who asks for them. */
  readonly regions: readonly CmaRegion[];
}

const MAX_ALIGN_ORDER = 8; // CONFIG_CMA_ALIGNMENT: 1 MiB

/** What suits a layout. ENOMEM: no frames, or no run, where the devices reach; EAGAIN. */
export function placeAnywhere(places: Places, buf: DmaBuf, layout: Layout): number {
  return layout.kind === "scattered"
    ? placeScattered(places, buf, layout)
    : placeContiguous(places, buf, layout);
}

/** Blocks that every device reaches. ENOMEM, EAGAIN. */
export function placeScattered(
  { core, physicalBase }: Places,
  buf: DmaBuf,
  { addressEnd, alignBytes }: Layout,
): number {
  const pfnEnd = addressEnd >= ADDRESS_END ? NO_PFN : Math.max(0, pfnOf(addressEnd - physicalBase));
  const alignOrder = blockOrder(alignBytes);
  const result = core.exports.storageAllocBlocks(framesOf(buf.sizeBytes), pfnEnd, alignOrder);
  return checked(result, `place ${buf.name}`, () => scatteredReason(buf));
}

function scatteredReason(buf: DmaBuf): string {
  return `fewer than ${framesOf(buf.sizeBytes)} frames are free where all its devices reach`;
}

/** The first region that every device reaches and that has a run long enough. */
function placeContiguous(places: Places, buf: DmaBuf, layout: Layout): number {
  const refusals: string[] = [];
  for (const region of places.regions) {
    const regionEnd = places.physicalBase + addressOf(region.basePfn + region.frameCount);
    if (regionEnd > layout.addressEnd) {
      refusals.push(`region ${region.name} reaches beyond what a device can address`);
      continue;
    }
    const handle = regionAlloc(places, buf, region, layout);
    if (handle >= 0) return handle;
    requireJoined(handle, `place ${buf.name}`);
    const wanted = wantedOf(places, buf, region, layout);
    refusals.push(`region ${region.name}: ${region.explain(codeOf(handle), wanted)}`);
  }
  const reason =
    refusals.length > 0
      ? refusals.join("; ")
      : "the system has no CMA region; open it with cma: { default: bytes }";
  return fail(
    "ENOMEM",
    `place ${buf.name}`,
    `a device needs ${formatBytes(buf.sizeBytes)} in one run, and ${reason}`,
  );
}

/** One run of a region or carve-out. ENOMEM, EAGAIN; EBUSY: pinned frames are in the way. */
export function placeInRegion(
  places: Places,
  buf: DmaBuf,
  region: CmaRegion,
  layout: Layout,
): number {
  const result = regionAlloc(places, buf, region, layout);
  return checked(result, `place ${buf.name}`, (code) => {
    const reason = region.explain(code, wantedOf(places, buf, region, layout));
    return `it needs ${formatBytes(buf.sizeBytes)} in one run of ${region.name}, and ${reason}`;
  });
}

/** The table's handle, or a negative errno. */
function regionAlloc(places: Places, buf: DmaBuf, region: CmaRegion, layout: Layout): number {
  const { frameCount, alignOrder } = wantedOf(places, buf, region, layout);
  if (frameCount > region.frameCount) return -errno.ENOMEM;
  return places.core.exports.storageAllocRegion(region.handle, frameCount, alignOrder);
}

/** What a region is asked for. A carve-out packs its runs. */
function wantedOf(
  { physicalBase }: Places,
  { sizeBytes }: DmaBuf,
  region: CmaRegion,
  { alignBytes, boundaryBytes }: Layout,
): { readonly frameCount: number; readonly alignOrder: number } {
  const sizeOrder = blockOrder(sizeBytes);
  const usual = region.isReusable ? Math.min(sizeOrder, MAX_ALIGN_ORDER) : 0;
  const first = physicalBase + addressOf(region.basePfn);
  const last = first + addressOf(region.frameCount) - 1;
  const hasBoundary = Math.floor(first / boundaryBytes) !== Math.floor(last / boundaryBytes);
  const bounded = hasBoundary ? Math.min(sizeOrder, blockOrder(boundaryBytes)) : 0;
  const alignOrder = Math.max(usual, bounded, blockOrder(alignBytes));
  return { frameCount: framesOf(sizeBytes), alignOrder };
}

/** The order of the smallest block that holds `bytes` bytes. */
function blockOrder(bytes: number): number {
  return orderOf(framesOf(bytes));
}
