/**
 * Domain: an address space that devices can be sent through, and who is told what fails there.
 *
 *     Domain ─┬─ BuiltInDomain   its table lies in the core
 *             └─ IommuDomain     its table is a driver's: DomainOps
 *
 * - DO1  Devices cannot tell which kind they go through: what is refused, counted and reported is
 *        the same.
 *
 * Compare `struct iommu_domain` in the kernel's include/linux/iommu.h.
 *
 * @module
 */

import { requireFunction } from "../arguments.ts";
import type { Core } from "../core/core.ts";
import { fail, nameOf, textOf } from "../errors.ts";
import { formatAddress } from "../units.ts";
import type { DirtyBitmap } from "./dirty-bitmap.ts";
import type { IommuFault, IommuFaultHandler, IommuFaultResult } from "./iommu-fault.ts";
import type { IommuGroup, IommuMember } from "./iommu-group.ts";
import type { PhysRange } from "./phys-range.ts";

/** Translated page by page, the same address on both sides, or nothing reachable. */
export type DomainType = "paging" | "identity" | "blocked";

/** What the IOTLB of a domain has done. */
export interface IotlbStats {
  readonly hits: number;
  readonly misses: number;
  readonly evictions: number;
}

/** What both kinds of domains are. */
export abstract class Domain {
  readonly type: DomainType;
  #handler: IommuFaultHandler | null = null;
  #unhandledCount = 0;

  /** @internal EINVAL: `type` is none. */
  constructor(type: DomainType) {
    if (!["paging", "identity", "blocked"].includes(type)) {
      fail("EINVAL", "make a domain", "its type must be paging, identity or blocked");
    }
    this.type = type;
  }

  /** The sizes of its pages and blocks, bit n for 2^n bytes; 0n: it maps nothing. */
  abstract get pgsizeBitmap(): bigint;

  /** Whether it is a group's default domain, which buffers are mapped in. */
  abstract get isDefault(): boolean;

  /** Maps `sizeBytes` bytes from `iova` to the physical ones from `paddr`. */
  abstract map(iova: number, paddr: number, sizeBytes: number, prot: number): void;

  /** Maps physical ranges one after the other from `iova` on. How many bytes that is. */
  abstract mapSg(iova: number, ranges: readonly PhysRange[], prot: number): number;

  /** Unmaps from `iova` on, up to the first hole. How many bytes that is. */
  abstract unmap(iova: number, sizeBytes: number): number;

  /** The physical address behind a device address; null for none. */
  abstract iovaToPhys(iova: number): number | null;

  /** @internal The device address of a stale access that was not taken yet; null: none. */
  takeStale(): number | null {
    return null;
  }

  /** @internal A group on some system began to go through it, or, with -1, ended that. */
  countGroup(_delta: 1 | -1): void {}

  /** @internal Throws unless groups on `core` can be attached to it. */
  abstract requireAttachable(core: Core, operation: string): void;

  /** What its IOTLB has done; null: it has none, or it is the driver's matter. */
  get iotlbStats(): IotlbStats | null {
    return null;
  }

  /** Accesses that went through a translation which was unmapped but not yet invalidated. */
  get staleCount(): number {
    return 0;
  }

  /**
   * The pages of a range that devices wrote to since they were last cleared, or mapped; then they
   * count as clean, unless `noClear`. A block is dirty as a whole. EOPNOTSUPP: the domain has no
   * dirty tracking; EINVAL: the range is empty, not of whole pages, or leaves the domain; ERANGE:
   * it leaves all addresses.
   */
  readAndClearDirty(
    iova: number,
    sizeBytes: number,
    _options: { readonly noClear?: boolean | undefined } = {},
  ): DirtyBitmap {
    const where = `${textOf(sizeBytes)} bytes at ${formatAddress(iova)}`;
    return fail("EOPNOTSUPP", `read the dirty pages of ${where}`, "it has no dirty tracking");
  }

  // ---- devices

  /**
   * Sends a device's accesses through this domain instead of its group's default one. ENODEV: it
   * has no group, or the driver cannot translate; EINVAL: its group has several devices
   * ({@link IommuGroup.attach} takes them all), or another IOMMU; EBUSY: its group goes through
   * another domain.
   */
  attachDevice(device: IommuMember): void {
    this.#groupOf(device, "attach").attach(this);
  }

  /** Ends attachDevice(). EINVAL: the device is not attached to this domain. */
  detachDevice(device: IommuMember): void {
    this.#groupOf(device, "detach").detach(this);
  }

  #groupOf(device: IommuMember, what: string): IommuGroup {
    const { name, group } = device ?? {};
    if (group === undefined) fail("EINVAL", `${what} a device`, `that is none: ${nameOf(device)}`);
    const operation = `${what} device ${name}`;
    if (group === null) fail("ENODEV", operation, "it is not behind an IOMMU");
    if (group.devices.length !== 1) {
      fail("EINVAL", operation, "its group has several devices: attach the group");
    }
    return group;
  }

  // ---- faults

  /** Calls `handler` for each access of a device that fails here; null: nobody. */
  setFaultHandler(handler: IommuFaultHandler | null): void {
    if (handler !== null) requireFunction(handler, "the handler", "set the fault handler");
    this.#handler = handler;
  }

  /** Faults that no handler dealt with. */
  get unhandledFaultCount(): number {
    return this.#unhandledCount;
  }

  /** @internal Tells the handler of a fault. */
  reportFault(fault: IommuFault): IommuFaultResult {
    const result = this.#handler?.(fault);
    if (result === "handled" || result === "retry") return result;
    if (fault.reason !== "stale") this.#unhandledCount += 1;
    return "ENOSYS";
  }
}
