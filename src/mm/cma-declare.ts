/**
 * Declaring CMA regions: the rules for their size and place, and the search for one.
 *
 *     physicalBase                                  end of memory, or `limit` if that is lower
 *     ├ map, records ┼ … free frames … ┼─ second ─┼─ first ─┤   as high as `alignment` allows
 *
 * - CD1  A size is rounded up and a limit down to whole units of the alignment, which is 4 MiB or
 *        more.
 * - CD2  A fixed region lies at `base` or nowhere; another one anywhere in [base, limit).
 *
 * Compare cma_declare_contiguous() in the kernel's mm/cma.c. Linux prefers places above 4 GiB when
 * there is such memory; here a region lies as high as it can.
 *
 * @module
 */

import type { Core } from "../core/core.ts";
import { codeOf, type ErrnoCode, errno, fail, requireInteger } from "../errors.ts";
import { ADDRESS_END, formatBytes, framesOf, PAGEBLOCK_BYTES, pfnOf } from "../units.ts";
import { CmaRegion } from "./cma-region.ts";

/** A region to declare. Addresses are what a device without an IOMMU sees. */
export interface CmaOptions {
  /** Bytes, rounded up to the alignment (CD1). */
  readonly sizeBytes: number;
  /** The lowest address, or the address itself if `isFixed`; 0: anywhere. */
  readonly base?: number | undefined;
  /** The end of the highest place, rounded down (CD1); 0: the end of memory. */
  readonly limit?: number | undefined;
  /** Bytes, a power of two; 4 MiB if it is less. */
  readonly alignmentBytes?: number | undefined;
  /** The region is handed out in units of 2^orderPerBit frames; 0 if it is not given. */
  readonly orderPerBit?: number | undefined;
  /** Exactly at `base`. Ignored without one, as Linux has it. */
  readonly isFixed?: boolean | undefined;
}

/** The core's call that takes the frames. */
type Declare = Core["exports"]["cmaDeclare"];

const MAX_ORDER_PER_BIT = 31;

/** The options in whole units. */
interface Place {
  readonly sizeBytes: number;
  readonly base: number;
  readonly limit: number;
  readonly alignmentBytes: number;
  readonly orderPerBit: number;
  readonly isFixed: boolean;
}

/**
 * Makes a region of free frames. EINVAL: no memory could have such a region; EBUSY: the fixed place
 * is taken; ENOMEM: no place is free; ENOSPC: there are too many regions.
 */
export function declareRegion(
  core: Core,
  physicalBase: number,
  name: string,
  options: CmaOptions | number,
  declare: Declare = core.exports.cmaDeclare,
): CmaRegion {
  const operation = `make region ${name}`;
  const memoryEnd = physicalBase + core.u8.length;
  const place = placeOf(
    typeof options === "number" ? { sizeBytes: options } : options,
    memoryEnd,
    operation,
  );
  const handle = place.isFixed
    ? declareAt(declare, physicalBase, place, place.base)
    : declareHighest(declare, physicalBase, place);
  if (handle >= 0) return new CmaRegion(core, name, handle);
  const code = codeOf(handle);
  return fail(code, operation, refusal(code, place, core));
}

/** The place that is asked for, in whole units (CD1). */
function placeOf(options: CmaOptions, memoryEnd: number, operation: string): Place {
  const { sizeBytes, base = 0, limit = 0, alignmentBytes = 0, orderPerBit = 0 } = options;
  const isFixed = options.isFixed === true && base !== 0;
  requireInteger(sizeBytes, "its size", 1, Number.MAX_SAFE_INTEGER, operation);
  requireInteger(base, "its base", 0, ADDRESS_END, operation);
  requireInteger(limit, "its limit", 0, ADDRESS_END, operation);
  requireInteger(orderPerBit, "its orderPerBit", 0, MAX_ORDER_PER_BIT, operation);
  requireInteger(alignmentBytes, "its alignment", 0, ADDRESS_END, operation);
  if (alignmentBytes > 0 && !Number.isInteger(Math.log2(alignmentBytes)))
    fail("EINVAL", operation, `its alignment must be a power of two, and is ${alignmentBytes}`);

  const unit = Math.max(alignmentBytes, PAGEBLOCK_BYTES);
  if (isFixed && base % unit !== 0)
    fail("EINVAL", operation, `its base must be a multiple of ${formatBytes(unit)}`);
  const size = Math.ceil(sizeBytes / unit) * unit;
  if (framesOf(size) % 2 ** orderPerBit !== 0)
    fail("EINVAL", operation, `${formatBytes(size)} are no multiple of 2^${orderPerBit} frames`);
  const start = Math.ceil(base / unit) * unit;
  const wantedEnd = Math.floor(limit / unit) * unit;
  const end = wantedEnd === 0 ? memoryEnd : Math.min(wantedEnd, memoryEnd);
  if (start + size > end)
    fail("EINVAL", operation, `${formatBytes(size)} from ${start} on end above ${end}`);
  return {
    sizeBytes: size,
    base: start,
    limit: end,
    alignmentBytes: unit,
    orderPerBit,
    isFixed,
  };
}

/** The handle of the highest place that is free, or a negative errno. */
function declareHighest(declare: Declare, physicalBase: number, place: Place): number {
  const { sizeBytes, alignmentBytes, limit } = place;
  const lowest = Math.max(place.base, physicalBase);
  let at = Math.floor((limit - sizeBytes) / alignmentBytes) * alignmentBytes;
  for (; at >= lowest; at -= alignmentBytes) {
    const handle = declareAt(declare, physicalBase, place, at);
    if (handle !== -errno.EBUSY) return handle;
  }
  return -errno.ENOMEM;
}

function declareAt(declare: Declare, physicalBase: number, place: Place, at: number): number {
  if (at < physicalBase) return -errno.EBUSY; // no memory is there, so it is nobody's to give
  const basePfn = pfnOf(at - physicalBase);
  return declare(basePfn, pfnOf(place.sizeBytes), place.orderPerBit);
}

function refusal(code: ErrnoCode, { sizeBytes, base, isFixed }: Place, core: Core): string {
  if (code === "ENOSPC") return `a system has at most ${core.exports.MAX_REGIONS.value} regions`;
  const size = formatBytes(sizeBytes);
  if (isFixed && code === "EBUSY") return `${size} at ${base} are not free`;
  const memory = formatBytes(core.u8.length);
  return `no ${size} are free beside the map and the regions of ${memory} of memory`;
}
