/**
 * Conflict: why devices cannot share a storage, field by field.
 *
 * @module
 */

import type { DeviceLimits } from "../device/device.ts";
import { DmaBufError, type ErrnoCode } from "../errors.ts";
import { formatBytes } from "../units.ts";

/** What clashes: a limit of a device, or something of the picture or the buffer. */
export type ConflictField = keyof DeviceLimits | "formats" | "modifiers" | "sizeBytes";

/** One thing that keeps devices from sharing a storage. */
export interface Conflict {
  readonly field: ConflictField;
  /** The devices whose limits clash, by name, sorted. */
  readonly devices: readonly string[];
  /** What they allow. */
  readonly allowed: number | string | boolean;
  /** What would be needed. */
  readonly needed: number | string | boolean;
}

const fields: readonly ConflictField[] = [
  "formats",
  "modifiers",
  "pixels",
  "sizeBytes",
  "coherent",
  "contiguousOnly",
  "maxSegments",
  "maxSegmentBytes",
  "segmentBoundaryBytes",
  "minAlignMask",
  "dmaMaskBits",
  "iommu",
];

/** Conflicts in the order of their fields, then of the devices' names. */
export function sortConflicts(conflicts: readonly Conflict[]): Conflict[] {
  const key = ({ field, devices, allowed, needed }: Conflict): string =>
    JSON.stringify([fields.indexOf(field) + 10, devices, allowed, needed]);
  return [...conflicts].sort((a, b) => (key(a) < key(b) ? -1 : 1));
}

/** Conflicts for a message. */
export function describeConflicts(conflicts: readonly Conflict[], sizeBytes: number): string {
  const lines = conflicts.map(
    ({ devices, field, allowed, needed }) =>
      `${devices.join(" and ")} ${devices.length === 1 ? "allows" : "allow"} ${field} ${allowed} ` +
      `and ${needed} would be needed`,
  );
  return `for ${formatBytes(sizeBytes)}, ${lines.join("; ")}`;
}

/** Thrown when a device cannot share a buffer's storage. */
export class ConflictError extends DmaBufError {
  /** What clashes. */
  readonly conflicts: readonly Conflict[];

  constructor(
    code: ErrnoCode,
    operation: string,
    reason: string,
    conflicts: readonly Conflict[],
    sizeBytes: number,
  ) {
    super(code, operation, `${reason}: ${describeConflicts(conflicts, sizeBytes)}`);
    this.conflicts = conflicts;
  }
}
