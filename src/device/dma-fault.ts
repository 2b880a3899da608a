/**
 * DmaFault: an access of a device that was refused, as it is remembered and as it is thrown.
 *
 * @module
 */

import type { Core } from "../core/core.ts";
import { DmaBufError } from "../errors.ts";
import { type Access, accessBits } from "../iommu/access.ts";
import type { RefusalReason } from "../iommu/iommu-fault.ts";
import { addressOf, formatAddress } from "../units.ts";

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

const FIRST_MAPPING = 5; // words of a device and of a mapping (assembly/dma-device.ts)
const DIRECTION = 2;
const NENTS = 3;
const SEGMENTS_AT = 4;
const NEXT = 7;

const READ = 1;
const WRITE = 2;

/** A byte that is refused, and why. */
interface Refusal {
  readonly address: number;
  readonly reason: RefusalReason;
}

/**
 * The first byte from `address` on that a device without an IOMMU, whose words lie at `device`,
 * cannot access: there is one. Resources may be mapped there, memory is from `start` to `end`.
 */
export function directRefusal(
  core: Core,
  device: number,
  address: number,
  access: Access,
  { start, end }: { readonly start: number; readonly end: number },
): Refusal {
  const rights = (accessBits(access) ?? 0) & (READ | WRITE);
  for (;;) {
    const holding = segmentsHolding(core, device, address);
    const open = holding.find(({ direction }) => (direction & rights) === rights);
    if (open === undefined) {
      return { address, reason: holding.length > 0 ? "permission" : "translation" };
    }
    if (address < start || address >= end) return { address, reason: "not-memory" };
    address = open.end;
  }
}

/** A segment's end, and the rights that its mapping gives. */
interface Holding {
  readonly end: number;
  readonly direction: number;
}

function segmentsHolding(core: Core, device: number, address: number): Holding[] {
  const found: Holding[] = [];
  for (let handle = core.word(device, FIRST_MAPPING); handle !== 0; ) {
    const mapping = core.exports.dmaMappingAt(handle) >>> 0;
    const end = endOfHolding(core, mapping, address);
    const direction = core.word(mapping, DIRECTION) || READ | WRITE;
    if (end !== null) found.push({ end, direction });
    handle = core.word(mapping, NEXT);
  }
  return found;
}

/** Where the segment ends that has the byte, of the mapping whose words lie at `mapping`. */
function endOfHolding(core: Core, mapping: number, address: number): number | null {
  const segments = core.word(mapping, SEGMENTS_AT);
  for (let i = 0; i < core.word(mapping, NENTS); i++) {
    const at = segments + i * core.exports.ENTRY_BYTES.value;
    const start = addressOf(core.word(at, 0), core.word(at, 1));
    const end = start + core.word(at, 2);
    if (address >= start && address < end) return end;
  }
  return null;
}
