/**
 * Faults: what a device was refused, told to whoever watches its domain.
 *
 *     access ─refused─► domain's handler ──► "retry": once more   "handled": noted   else: ENOSYS
 *
 * Compare report_iommu_fault() in the kernel's drivers/iommu/iommu.c.
 *
 * @module
 */

import type { Access } from "./access.ts";

/**
 * Why: nothing is mapped there; the protection forbids it; the address is wider than the domain's
 * or the device's; the domain is blocked; what is mapped is not memory, as a resource, and has no
 * bytes here; or `stale`: it was let through, by a translation that was unmapped and not yet
 * invalidated.
 */
export type IommuFaultReason =
  | "translation"
  | "permission"
  | "address-size"
  | "blocked"
  | "not-memory"
  | "stale";

/** Why an access was refused: all of them but `stale`. */
export type RefusalReason = Exclude<IommuFaultReason, "stale">;

/** An access through a domain that went wrong. */
export interface IommuFault {
  /** The device's name. */
  readonly device: string;
  /** The device address, at the start of its page. */
  readonly iova: number;
  readonly access: Access;
  readonly reason: IommuFaultReason;
}

/**
 * Called inside the access. "handled": the handler has dealt with it, and the access fails all the
 * same; "retry": it has mapped something, and the access is tried once more (the stall model of an
 * SMMU); anything else: nobody has, which counts as ENOSYS. Ignored for `stale`.
 */
export type IommuFaultHandler = (fault: IommuFault) => "handled" | "retry" | undefined;

/** What became of a report. */
export type IommuFaultResult = "handled" | "retry" | "ENOSYS";

/** The reasons as the core numbers them, from 1 on; 0: the domain lets the access through. */
export const coreReasons: readonly RefusalReason[] = [
  "translation",
  "permission",
  "address-size",
  "blocked",
];

/** The reasons that a driver may give. */
export const driverReasons: readonly RefusalReason[] = [...coreReasons, "not-memory"];
