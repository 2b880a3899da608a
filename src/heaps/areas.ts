/**
 * Areas: CMA regions and carve-outs, cut from the top of memory when a system is opened.
 *
 *     frames of the buddy ………………………┼ carve-outs ┼ … ┼ second region ┼ first region ┤ end of memory
 *
 * Compare the `reusable` and `no-map` nodes of /reserved-memory in a kernel's device tree.
 *
 * @module
 */

import type { Core } from "../core/core.ts";
import { checked, type ErrnoCode, fail, requireInteger } from "../errors.ts";
import { CmaRegion } from "../mm/cma-region.ts";
import { formatBytes, GiB, PAGEBLOCK_BYTES, pfnOf } from "../units.ts";

/** Bytes by name, each a multiple of 4 MiB. */
export type AreaSizes = Readonly<Record<string, number>>;

/** Cuts `cma`, then `carveout`, from the top of memory. EINVAL: a size; ENOMEM: no room. */
export function cutAreas(core: Core, cma: AreaSizes, carveout: AreaSizes): CmaRegion[] {
  let end = Math.floor(core.u8.length / PAGEBLOCK_BYTES) * PAGEBLOCK_BYTES;
  const cut = (kind: string, [name, bytes]: [string, number]): CmaRegion => {
    const operation = `make ${kind} ${name}`;
    requireSize(core, bytes, end, operation);
    end -= bytes;
    const result =
      kind === "region"
        ? core.exports.cmaDeclare(pfnOf(end), pfnOf(bytes), 0)
        : core.exports.carveoutDeclare(pfnOf(end), pfnOf(bytes));
    const reason = (code: ErrnoCode): string => areaReason(code, bytes, core);
    return new CmaRegion(core, name, checked(result, operation, reason));
  };
  return [
    ...Object.entries(cma).map((entry) => cut("region", entry)),
    ...Object.entries(carveout).map((entry) => cut("carve-out", entry)),
  ];
}

function requireSize(core: Core, bytes: number, end: number, operation: string): void {
  requireInteger(bytes, "its size", PAGEBLOCK_BYTES, 4 * GiB, operation);
  const size = formatBytes(bytes);
  if (bytes % PAGEBLOCK_BYTES !== 0)
    fail("EINVAL", operation, `its size must be a multiple of 4 MiB, and is ${size}`);
  if (bytes >= end)
    fail("ENOMEM", operation, `${size} do not fit into ${formatBytes(core.u8.length)} of memory`);
}

function areaReason(code: ErrnoCode, bytes: number, core: Core): string {
  if (code === "ENOSPC") return `a system has at most ${core.exports.MAX_REGIONS.value} areas`;
  const memory = formatBytes(core.u8.length);
  return `${formatBytes(bytes)} do not fit beside the map of ${memory} of memory`;
}
