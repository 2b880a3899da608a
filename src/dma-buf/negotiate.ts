/**
 * Which storage suits a set of devices: a pure function over their limits.
 *
 * - NG1  The answer is a storage that every device can use, or the conflicts, each naming the
 *        device, the field, what it allows and what would be needed. It does not depend on the
 *        devices' order.
 * - NG2  Scattered frames are preferred: contiguous ones are scarce, and only who needs them gets
 *        them.
 *
 * @module
 */

import type { DeviceLimits } from "../device/device.ts";
import { ADDRESS_END, FRAME_BYTES, formatBytes, framesOf } from "../units.ts";

/** A device as the negotiation sees it. */
export interface Participant {
  readonly name: string;
  readonly limits: DeviceLimits;
}

/** Where bytes may come from: scattered frames, or a region's run, below some device address. */
export interface StorageChoice {
  readonly kind: "scattered" | "contiguous";
  /** Frames lie below this device address. */
  readonly addressEnd: number;
}

/** Why one device cannot use what the others need. */
export interface Conflict {
  readonly device: string;
  readonly field: keyof DeviceLimits;
  readonly allowed: number;
  readonly needed: number;
}

/** A layout, or the list of conflicts. */
export type Negotiation =
  | { readonly storage: StorageChoice; readonly conflicts: null }
  | { readonly storage: null; readonly conflicts: readonly Conflict[] };

/** What all of `participants` can use for `sizeBytes` bytes (NG1). */
export function negotiate(participants: readonly Participant[], sizeBytes: number): Negotiation {
  const conflicts = participants.flatMap((participant) => conflictsOf(participant, sizeBytes));
  if (conflicts.length > 0) return { storage: null, conflicts };
  const direct = participants.filter(({ limits }) => !limits.iommu);
  const frames = framesOf(sizeBytes);
  const isScattered = direct.every(({ limits }) => limits.maxSegments >= frames); // NG2
  const addressEnd = Math.min(ADDRESS_END, ...direct.map(({ limits }) => 2 ** limits.dmaMaskBits));
  return {
    storage: { kind: isScattered ? "scattered" : "contiguous", addressEnd },
    conflicts: null,
  };
}

/** Limits that no storage of `sizeBytes` bytes can meet. */
function conflictsOf({ name, limits }: Participant, sizeBytes: number): Conflict[] {
  if (!limits.iommu) return [];
  const needed = segmentsNeeded(limits, sizeBytes);
  return needed > limits.maxSegments
    ? [{ device: name, field: "maxSegments", allowed: limits.maxSegments, needed }]
    : [];
}

/** Segments that `sizeBytes` bytes of whole frames become behind an IOMMU. */
function segmentsNeeded(limits: DeviceLimits, sizeBytes: number): number {
  const boundary = limits.segmentBoundaryBytes;
  const maxBytes = Math.min(limits.maxSegmentBytes, boundary);
  const wholeBytes = Math.floor(maxBytes / FRAME_BYTES) * FRAME_BYTES;
  const bytes = framesOf(sizeBytes) * FRAME_BYTES;
  const restBytes = bytes % boundary;
  return (
    Math.floor(bytes / boundary) * Math.ceil(boundary / wholeBytes) +
    Math.ceil(restBytes / wholeBytes)
  );
}

/** Storage that exists: how many entries it has and where it ends. */
export interface ExistingStorage {
  readonly origNents: number;
  readonly addressEnd: number;
  readonly sizeBytes: number;
}

/** What keeps a device from using storage that exists already; empty when it can. */
export function conflictsWith({ name, limits }: Participant, storage: ExistingStorage): Conflict[] {
  const conflicts = conflictsOf({ name, limits }, storage.sizeBytes);
  if (limits.iommu) return conflicts;
  if (storage.origNents > limits.maxSegments) {
    conflicts.push({
      device: name,
      field: "maxSegments",
      allowed: limits.maxSegments,
      needed: storage.origNents,
    });
  }
  if (storage.addressEnd > 2 ** limits.dmaMaskBits) {
    conflicts.push({
      device: name,
      field: "dmaMaskBits",
      allowed: limits.dmaMaskBits,
      needed: Math.ceil(Math.log2(storage.addressEnd)),
    });
  }
  return conflicts;
}

/** Conflicts for a message. */
export function describeConflicts(conflicts: readonly Conflict[], sizeBytes: number): string {
  const lines = conflicts.map(
    ({ device, field, allowed, needed }) =>
      `${device} allows ${field} ${allowed} and ${needed} would be needed`,
  );
  return `for ${formatBytes(sizeBytes)}, ${lines.join("; ")}`;
}
