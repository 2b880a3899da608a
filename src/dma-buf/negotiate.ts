/**
 * Which storage suits a set of devices: a pure function over their limits.
 *
 * - NG1  The answer is a layout that every device can use, or the conflicts, each naming the
 *        devices, the field, what they allow and what would be needed. It does not depend on the
 *        devices' order.
 * - NG2  Scattered frames are preferred: contiguous ones are scarce, and only who needs them gets
 *        them.
 * - NG3  Behind an IOMMU a device sees any frames as one run, cut at its segment limits, unless it
 *        is untrusted: then entries are not joined. Without one it sees the storage itself; entries
 *        that are too long for it are cut for it, but who takes one segment only takes that at any
 *        length.
 *
 * Compare dma_set_seg_boundary() and its neighbours in the kernel's include/linux/dma-mapping.h;
 * Linux leaves the choice to each exporter.
 *
 * @module
 */

import { requireObject, requireObjects } from "../arguments.ts";
import { type DeviceLimits, segmentsOf } from "../device/device.ts";
import { requireInteger } from "../errors.ts";
import { ADDRESS_END, addressOf, FRAME_BYTES, framesOf, GiB, orderOf } from "../units.ts";
import { type Conflict, sortConflicts } from "./conflict.ts";
import type { PixelLayout } from "./formats.ts";
import { negotiatePixels, type PixelRequest } from "./negotiate-pixels.ts";

/** A device as the negotiation sees it. */
export interface Participant {
  readonly name: string;
  readonly limits: DeviceLimits;
}

/** What is to be stored. */
export interface StorageRequest {
  /** Bytes that the storage must hold; with pixels, the most that it may hold. */
  readonly sizeBytes?: number | undefined;
  /** A picture. */
  readonly pixels?: PixelRequest | undefined;
  /** Whether every device must be coherent: nobody tells them about the CPU's accesses. */
  readonly coherent?: boolean | undefined;
}

/** A storage that suits. */
export interface Layout {
  /** Scattered frames, or one run of a region. */
  readonly kind: "scattered" | "contiguous";
  /** In whole frames. */
  readonly sizeBytes: number;
  /** Frames lie below this device address. */
  readonly addressEnd: number;
  /** Runs begin at multiples of this device address. */
  readonly alignBytes: number;
  /** A run that is no longer than this crosses no multiple of it; a longer one begins at one. */
  readonly boundaryBytes: number;
  /** Whether every device is coherent. */
  readonly coherent: boolean;
  /** Where the picture lies; null when none was asked for. */
  readonly pixels: PixelLayout | null;
}

/** A layout, or the list of conflicts. */
export type Negotiation =
  | { readonly layout: Layout; readonly conflicts: null }
  | { readonly layout: null; readonly conflicts: readonly Conflict[] };

const MAX_BYTES: number = 4 * GiB - FRAME_BYTES;

/**
 * What all of `participants` can use for what is asked (NG1). EINVAL: the request asks for nothing,
 * for sizes that are no integers, or for a picture of which nobody knows the format.
 *
 * Where several pictures suit, the first counts: by the order of `request.pixels.formats`, or else
 * of {@link pixelFormats}; then the smaller one; then the lower number of the modifier, so LINEAR.
 */
export function negotiate(
  participants: readonly Participant[],
  request: StorageRequest,
): Negotiation {
  const operation = "negotiate a storage";
  requireObject(request, "the request", operation);
  requireObjects(participants, "the participants", operation);
  for (const { limits } of participants) requireObject(limits, "the limits", operation);
  if (request.sizeBytes !== undefined || request.pixels === undefined)
    requireInteger(request.sizeBytes ?? 0, "sizeBytes", 1, MAX_BYTES, operation);
  const picture = request.pixels
    ? negotiatePixels(participants, request.pixels, request.sizeBytes ?? MAX_BYTES)
    : { pixels: null, conflicts: [] };
  const bytes = request.sizeBytes ?? picture.pixels?.sizeBytes;
  const sizeBytes = bytes === undefined ? null : addressOf(framesOf(bytes));
  const conflicts = [
    ...picture.conflicts,
    ...participants.flatMap((one) => coherencyConflicts(one, request.coherent === true)),
    ...participants.flatMap((one) => (sizeBytes === null ? [] : sizeConflicts(one, sizeBytes))),
  ];
  if (conflicts.length > 0 || sizeBytes === null)
    return { layout: null, conflicts: sortConflicts(conflicts) };
  return { layout: layoutFor(participants, sizeBytes, picture.pixels), conflicts: null };
}

function layoutFor(
  participants: readonly Participant[],
  sizeBytes: number,
  pixels: PixelLayout | null,
): Layout {
  const all = participants.map(({ limits }) => limits);
  const direct = all.filter(({ iommu }) => !iommu);
  const frames = framesOf(sizeBytes);
  const isScattered = all.filter(seesEntries).every((one) => segmentsOf(one) >= frames); // NG2
  return {
    kind: isScattered ? "scattered" : "contiguous",
    sizeBytes,
    addressEnd: Math.min(ADDRESS_END, ...direct.map(({ dmaMaskBits }) => 2 ** dmaMaskBits)),
    alignBytes: Math.max(FRAME_BYTES, ...direct.map(({ minAlignMask }) => minAlignMask + 1)),
    boundaryBytes: Math.min(4 * GiB, ...direct.map((limits) => limits.segmentBoundaryBytes)),
    coherent: participants.every(({ limits }) => limits.coherent),
    pixels,
  };
}

/** What a device that must be told about the CPU's accesses has against nobody telling it. */
function coherencyConflicts({ name, limits }: Participant, isNeeded: boolean): Conflict[] {
  if (!isNeeded || limits.coherent) return [];
  return [{ field: "coherent", devices: [name], allowed: false, needed: true }];
}

/** Limits that no storage of `sizeBytes` bytes can meet. */
export function sizeConflicts(one: Participant, sizeBytes: number): Conflict[] {
  const { name, limits } = one;
  const needed = addressBitsNeeded(limits, sizeBytes);
  const allowed = limits.dmaMaskBits;
  const conflicts = segmentConflicts(one, sizeBytes);
  if (needed > allowed) conflicts.push({ field: "dmaMaskBits", devices: [name], allowed, needed });
  return conflicts;
}

/**
 * Address bits below which `sizeBytes` bytes can lie at all. Device addresses behind an IOMMU begin
 * at a multiple of the next power of two of pages, other than 0.
 */
function addressBitsNeeded({ iommu }: DeviceLimits, sizeBytes: number): number {
  return iommu ? orderOf(2 * FRAME_BYTES) + orderOf(framesOf(sizeBytes)) : orderOf(sizeBytes);
}

function segmentConflicts({ name, limits }: Participant, sizeBytes: number): Conflict[] {
  const conflict = (field: Conflict["field"], allowed: number, needed: number): Conflict[] => [
    { field, devices: [name], allowed, needed },
  ];
  const { iommu, maxSegmentBytes, segmentBoundaryBytes, contiguousOnly } = limits;
  const most = segmentsOf(limits);
  if (most === 1 && sizeBytes > segmentBoundaryBytes)
    return conflict("segmentBoundaryBytes", segmentBoundaryBytes, sizeBytes);
  if (most === 1 && !iommu) return []; // NG3
  if (contiguousOnly && sizeBytes > maxSegmentBytes)
    return conflict("maxSegmentBytes", maxSegmentBytes, sizeBytes);
  if (pieceBytesOf(limits) === 0)
    return conflict("maxSegmentBytes", maxSegmentBytes, limits.minAlignMask + 1);
  const needed = segmentsNeeded(limits, sizeBytes);
  return needed > most ? conflict("maxSegments", most, needed) : [];
}

/**
 * The longest segment of whole frames that a device takes, such that one behind it is aligned too;
 * 0: there is none. Alignment is asked of memory only: an IOMMU's addresses are not the storage's.
 */
export function pieceBytesOf(limits: DeviceLimits): number {
  const { iommu, maxSegmentBytes, segmentBoundaryBytes, minAlignMask } = limits;
  const unit = iommu ? FRAME_BYTES : Math.max(FRAME_BYTES, minAlignMask + 1);
  return Math.floor(Math.min(maxSegmentBytes, segmentBoundaryBytes) / unit) * unit;
}

/** Whether a device has at least a segment for each entry of the storage (NG3). */
export function seesEntries({ iommu, untrusted }: DeviceLimits): boolean {
  return !iommu || untrusted;
}

/** Segments that one run becomes which begins at a boundary, or crosses none. */
export function segmentsNeeded(limits: DeviceLimits, sizeBytes: number): number {
  const boundary = limits.segmentBoundaryBytes;
  const pieceBytes = pieceBytesOf(limits);
  return (
    Math.floor(sizeBytes / boundary) * Math.ceil(boundary / pieceBytes) +
    Math.ceil((sizeBytes % boundary) / pieceBytes)
  );
}
