/**
 * DmaFault: an access of a device that was refused, as it is remembered and as it is thrown.
 *
 * @module
 */

import type { Core } from "../core/core.ts";
import { DmaBufError } from "../errors.ts";
import { type Access, accessBits } from "../iommu/access.ts";
import type { RefusalReason } from "../iommu/iommu-fault.ts";
import { formatAddress, offsetOf, pfnOf } from "../units.ts";

/** The last access that was refused. */
export interface DmaFault {
  /** Device address of the page. */
  readonly address: number;
  readonly access: Access;
  readonly reason: RefusalReason;
}

const texts: Readonly<Record<RefusalReason, (where: string, access: Access) => string>> = {
  translation: (where, access) => `no memory at ${where} is mapped for this device to ${access}`,
  permission: (where, access) => `${where} is mapped for this device, but not to ${access}`,
  "address-size": (where) => `${where} is wider than what this device or its domain can address`,
  blocked: (where) => `the domain of this device is blocked, and so is ${where}`,
  "not-memory": (where) => `what is mapped at ${where} for this device is not memory`,
};

/** Thrown with EFAULT by a device's access that was refused. */
export class DmaFaultError extends DmaBufError {
  /** The first byte that was refused: a device address. */
  readonly address: number;
  readonly access: Access;
  readonly reason: RefusalReason;

  constructor(operation: string, { address, access, reason }: DmaFault) {
    super("EFAULT", operation, texts[reason](formatAddress(address), access));
    this.address = address;
    this.access = access;
    this.reason = reason;
  }
}

const READ = 1;
const WRITE = 2;

/** A byte that is refused, and why. */
interface Refusal {
  readonly address: number;
  readonly reason: RefusalReason;
}

/**
 * The first byte from `address` on that the device `handle`, which has no IOMMU, cannot access:
 * there is one. Resources may be mapped there, memory is from `start` to `end`.
 */
export function directRefusal(
  { exports }: Core,
  handle: number,
  address: number,
  access: Access,
  { start, end }: { readonly start: number; readonly end: number },
): Refusal {
  const rights = (accessBits(access) ?? 0) & (READ | WRITE);
  const held = (bits: number): number =>
    exports.dmaHeldBytes(handle, pfnOf(address), offsetOf(address), bits) >>> 0;
  for (;;) {
    const bytes = held(rights);
    if (bytes === 0) return { address, reason: held(0) > 0 ? "permission" : "translation" };
    if (address < start || address >= end) return { address, reason: "not-memory" };
    address += bytes;
  }
}
