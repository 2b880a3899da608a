/**
 * Reserved regions: device addresses that are not for mapping buffers, and why.
 *
 *     ├─ direct ──┼───────────┼─ msi ─┤         sorted by start, then type
 *           ├─ reserved ─┤                      types overlap; one type's regions are joined
 *
 * Compare iommu_insert_resv_region() in the kernel's drivers/iommu/iommu.c.
 *
 * @module
 */

import { requireObjects } from "../arguments.ts";
import { fail, requireInteger } from "../errors.ts";
import { ADDRESS_END, FRAME_BYTES } from "../units.ts";
import { iommuProt } from "./domain-ops.ts";

/**
 * `direct`: identity mapped whenever the default domain is used; `direct-relaxable`: the same, but
 * somebody who takes the device over may drop it; `reserved`: never an address of a buffer; `msi`:
 * the hardware's window for interrupts, never one either; `sw-msi`: a window that software places,
 * and that no addresses are kept free for.
 */
export type ReservedType = "direct" | "direct-relaxable" | "reserved" | "msi" | "sw-msi";

/** A range of device addresses that is set aside. */
export interface ReservedRegion {
  readonly start: number;
  readonly lengthBytes: number;
  readonly type: ReservedType;
  /** What a direct region lets devices do, a sum of {@link iommuProt}. Default: read, write. */
  readonly prot?: number | undefined;
}

/** As the kernel numbers them, which is their order. */
const types: readonly ReservedType[] = ["direct", "direct-relaxable", "reserved", "msi", "sw-msi"];

/** The regions sorted, those of one type that touch joined. EINVAL: one is no region. */
export function mergeReserved(regions: readonly ReservedRegion[]): ReservedRegion[] {
  requireObjects(regions, "the regions", "set regions aside");
  const sorted = regions.map(checkRegion).sort(compareRegions);
  const merged: ReservedRegion[] = [];
  for (const region of sorted) {
    const i = merged.map(({ type }) => type).lastIndexOf(region.type);
    const top = merged[i];
    if (top === undefined || region.start > endOf(top)) merged.push(region);
    else merged[i] = { ...top, lengthBytes: Math.max(endOf(top), endOf(region)) - top.start };
  }
  return merged;
}

/** The first address behind a region. */
export function endOf({ start, lengthBytes }: ReservedRegion): number {
  return start + lengthBytes;
}

function compareRegions(a: ReservedRegion, b: ReservedRegion): number {
  return a.start - b.start || types.indexOf(a.type) - types.indexOf(b.type);
}

function checkRegion(region: ReservedRegion): ReservedRegion {
  const operation = "set a region aside";
  const { start, lengthBytes, type, prot = iommuProt.read + iommuProt.write } = region;
  if (!types.includes(type)) fail("EINVAL", operation, `its type must be ${types.join(", ")}`);
  requireInteger(start, "its start", 0, ADDRESS_END - FRAME_BYTES, operation);
  requireInteger(lengthBytes, "its length", 1, ADDRESS_END - start, operation);
  return { start, lengthBytes, type, prot };
}
