/**
 * Storage that exists, as devices see it: what they have against it, and how its entries are cut
 * for one that takes shorter segments.
 *
 * @module
 */

import { type DeviceLimits, segmentsOf } from "../device/device.ts";
import type { SgEntry, SgTable } from "../mm/sg-table.ts";
import { addressOf, FRAME_BYTES, framesOf, NO_PFN, pfnOf } from "../units.ts";
import type { Conflict } from "./conflict.ts";
import type { PixelLayout } from "./formats.ts";
import {
  type Participant,
  pieceBytesOf,
  seesEntries,
  segmentsNeeded,
  sizeConflicts,
} from "./negotiate.ts";
import { pixelConflicts } from "./negotiate-pixels.ts";

/** What devices look at in a storage of whole frames. */
export interface ExistingStorage {
  readonly table: SgTable;
  readonly physicalBase: number;
  readonly sizeBytes: number;
  readonly origNents: number;
  /** One past the last device address. */
  readonly addressEnd: number;
  /** The longest entry. */
  readonly maxEntryBytes: number;
  /** The power of two that every entry begins at a multiple of. */
  readonly alignBytes: number;
  /** No entry crosses a multiple of this power of two. */
  readonly spanBytes: number;
  /** The picture in it; null when none was asked for. */
  readonly pixels: PixelLayout | null;
}

/** Looks at a table once, so that devices need not. */
export function describeStorage(
  table: SgTable,
  physicalBase: number,
  pixels: PixelLayout | null,
): ExistingStorage {
  const basePfn = pfnOf(physicalBase);
  let [pfnEnd, maxFrames, places, spanFrames, origNents] = [0, 0, 0, 1, 0];
  for (const { pfn, offset, lengthBytes } of table.entries()) {
    const frames = framesOf(offset + lengthBytes);
    const first = basePfn + pfn;
    const last = first + frames - 1;
    origNents += 1;
    pfnEnd = Math.max(pfnEnd, last + 1);
    maxFrames = Math.max(maxFrames, frames);
    places |= first;
    spanFrames = Math.max(spanFrames, 2 ** (32 - Math.clz32(first ^ last)));
  }
  const lowestBit = places & -places;
  return {
    table,
    physicalBase,
    sizeBytes: table.lengthBytes,
    origNents,
    addressEnd: addressOf(pfnEnd),
    maxEntryBytes: addressOf(maxFrames),
    alignBytes: addressOf(lowestBit >>> 0),
    spanBytes: addressOf(spanFrames),
    pixels,
  };
}

/** What keeps a device from using storage that exists already; empty when it can. */
export function conflictsWith(participant: Participant, storage: ExistingStorage): Conflict[] {
  const { name, limits } = participant;
  const conflicts = sizeConflicts(participant, storage.sizeBytes);
  if (storage.pixels !== null) conflicts.push(...pixelConflicts(participant, storage.pixels));
  if (!seesEntries(limits)) return conflicts;
  const add = (field: Conflict["field"], allowed: number, needed: number): void => {
    if (conflicts.every((conflict) => conflict.field !== field))
      conflicts.push({ field, devices: [name], allowed, needed });
  };
  const most = segmentsOf(limits);
  const nents = conflicts.length > 0 || most === NO_PFN ? 0 : segmentsSeen(limits, storage);
  if (nents > most) add("maxSegments", most, nents);
  if (limits.iommu) return conflicts;
  if (most === 1 && storage.spanBytes > limits.segmentBoundaryBytes)
    add("segmentBoundaryBytes", limits.segmentBoundaryBytes, storage.spanBytes);
  if (storage.alignBytes % (limits.minAlignMask + 1) !== 0)
    add("minAlignMask", limits.minAlignMask, storage.alignBytes - 1);
  if (storage.addressEnd > 2 ** limits.dmaMaskBits)
    add("dmaMaskBits", limits.dmaMaskBits, Math.ceil(Math.log2(storage.addressEnd)));
  return conflicts;
}

/** Whether a device without an IOMMU needs the storage's entries cut. */
export function needsCut(limits: DeviceLimits, storage: ExistingStorage): boolean {
  if (limits.iommu || segmentsOf(limits) === 1) return false;
  const { maxSegmentBytes, segmentBoundaryBytes } = limits;
  return storage.maxEntryBytes > maxSegmentBytes || storage.spanBytes > segmentBoundaryBytes;
}

function segmentsSeen(limits: DeviceLimits, storage: ExistingStorage): number {
  let count = 0;
  if (limits.iommu) {
    if (storage.maxEntryBytes <= pieceBytesOf(limits)) return storage.origNents;
    for (const { lengthBytes } of storage.table.entries())
      count += segmentsNeeded(limits, lengthBytes);
    return count;
  }
  if (!needsCut(limits, storage)) return storage.origNents;
  for (const _ of cutEntries(limits, storage)) count += 1;
  return count;
}

/** The storage's entries in pieces that a device without an IOMMU takes. */
export function* cutEntries(limits: DeviceLimits, storage: ExistingStorage): Generator<SgEntry> {
  const boundary = limits.segmentBoundaryBytes;
  const pieceBytes = Math.max(FRAME_BYTES, pieceBytesOf(limits));
  for (const { pfn, lengthBytes } of storage.table.entries()) {
    for (let done = 0; done < lengthBytes; ) {
      const address = storage.physicalBase + addressOf(pfn) + done;
      const bytes = Math.min(lengthBytes - done, pieceBytes, boundary - (address % boundary));
      yield { pfn: pfn + pfnOf(done), offset: 0, lengthBytes: bytes };
      done += bytes;
    }
  }
}
