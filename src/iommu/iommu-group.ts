/**
 * IommuGroup: devices that an IOMMU cannot tell apart, and the domain that they go through.
 *
 *     default domain ──attach(domain)──► domain ──detach()──► default domain
 *           └─────claimDmaOwner()─────► blocked ──attach(domain)──► domain ──detach()──► blocked …
 *
 * - IG1  All devices of a group go through one domain.
 * - IG2  Buffers are mapped in the default domain, whatever domain the group is attached to.
 * - IG3  A group that is attached, or has an owner, is attached to nothing else before that ends.
 * - IG4  With lazy invalidation, device addresses are used again only after a flush; one comes at
 *        the latest 10 ms after an unmap, or with the 256th of them.
 * - IG5  Where a driver translates, the core lets nothing through: `#send` puts a blocked domain.
 *
 * Compare iommu_attach_group() and iommu_group_claim_dma_owner() in the kernel's
 * drivers/iommu/iommu.c, and dma-iommu.c for the default domain.
 *
 * @module
 */

import { requireObject, requireText } from "../arguments.ts";
import type { Clock } from "../clock.ts";
import type { Core } from "../core/core.ts";
import { checked, fail, textOf } from "../errors.ts";
import { FRAME_BYTES, pfnOf } from "../units.ts";
import { type Access, accessBits } from "./access.ts";
import { BuiltInDomain } from "./built-in-domain.ts";
import { Domain } from "./domain.ts";
import { iommuProt } from "./domain-ops.ts";
import type { DomainOptions, IotlbOptions } from "./domain-options.ts";
import { DriverMappings } from "./driver-mappings.ts";
import { IommuDomain } from "./iommu-domain.ts";
import { coreReasons, type IommuFaultResult, type RefusalReason } from "./iommu-fault.ts";
import type { PhysRange } from "./phys-range.ts";
import { endOf, mergeReserved, type ReservedRegion } from "./reserved-regions.ts";

/** A device, as far as a group knows it. */
export interface IommuMember {
  readonly name: string;
  readonly group: IommuGroup | null;
}

/** What a group may be made with. */
export interface IommuGroupOptions {
  /** For messages. */
  readonly name?: string | undefined;
  /**
   * "strict": what is unmapped is invalidated at once; "lazy": later, for many together, and an
   * access meanwhile is reported as stale. Default "strict".
   */
  readonly invalidation?: "strict" | "lazy" | undefined;
  /** The IOTLB of the default domain. Default: none. */
  readonly iotlb?: IotlbOptions | null | undefined;
  /** The default domain replaces nothing that is mapped. Default false. */
  readonly strictMap?: boolean | undefined;
  /** The default domain remembers what devices wrote. Default false. */
  readonly dirtyTracking?: boolean | undefined;
  /**
   * A domain over a driver's page table to map buffers in, with pages of 4 KiB: a model of an IOMMU
   * of one's own. Instead of `iotlb`, `strictMap` and `dirtyTracking`, which are then the driver's.
   */
  readonly defaultDomain?: IommuDomain | undefined;
  /** Device addresses that buffers are kept away from. */
  readonly reserved?: readonly ReservedRegion[] | undefined;
  /** What measures the 10 ms of lazy invalidation; the host's timers if it is not given. */
  readonly clock?: Pick<Clock, "after"> | undefined;
}

/** IOVA_FQ_TIMEOUT. */
const FLUSH_AFTER_MS = 10;

const hostTimers: Pick<Clock, "after"> = {
  after(delay, run) {
    const timer: unknown = setTimeout(run, delay);
    (timer as { unref?: () => void }).unref?.(); // what waits for it keeps no process alive
    return () => clearTimeout(timer as number);
  },
};

/** Devices behind one IOMMU unit. Made by `system.iommu.group()`, or for a device of its own. */
export class IommuGroup {
  readonly name: string;
  /** Where buffers are mapped for its devices. */
  readonly defaultDomain: Domain;
  /** The regions set aside, sorted and joined: iommu_get_group_resv_regions(). */
  readonly reserved: readonly ReservedRegion[];
  readonly invalidation: "strict" | "lazy";
  readonly #core: Core;
  readonly #devices = new Set<IommuMember>();
  readonly #clock: Pick<Clock, "after">;
  /** Which device pages are whose; it is the default domain, unless a driver's is. */
  readonly #record: BuiltInDomain;
  readonly #driver: DriverMappings | null;
  #domain: Domain | null = null;
  #blocked: BuiltInDomain | null = null;
  #owner: unknown = null;
  /** The handle of the domain that the core sends the accesses through; 0: the default one. */
  #through = 0;
  /** What is mapped for the reserved regions. */
  readonly #direct: PhysRange[] = [];
  /** The driver's domain that accesses go through; null: the core's. */
  #translator: IommuDomain | null = null;
  #cancelFlush: (() => void) | null = null;

  /** @internal EINVAL: an option; ENOMEM. */
  constructor(core: Core, options: IommuGroupOptions = {}) {
    requireObject(options, "the options", "make a group");
    const { name = "iommu group", invalidation = "strict", reserved = [] } = options;
    const operation = `make group ${textOf(name)}`;
    requireText(name, "the name", operation);
    if (invalidation !== "strict" && invalidation !== "lazy")
      fail("EINVAL", operation, "its invalidation must be strict or lazy");
    this.#core = core;
    this.name = name;
    this.invalidation = invalidation;
    this.#clock = options.clock ?? hostTimers;
    this.reserved = mergeReserved(reserved);
    const isLazy = invalidation === "lazy";
    const domain = checkDefault(options, operation);
    domain?.becomeDefault(core, isLazy, operation);
    try {
      this.#record = new BuiltInDomain(core, formatOf(options), { isDefault: true, isLazy });
    } catch (cause) {
      domain?.endDefault();
      throw cause;
    }
    this.defaultDomain = domain ?? this.#record;
    const { handle } = this.#record;
    this.#driver = domain === null ? null : new DriverMappings(core, handle, domain, isLazy);
    try {
      this.#driver?.keepInside(operation);
      if (this.#driver !== null) this.#send(this.defaultDomain, operation); // IG5
      for (const region of this.reserved) this.#setAside(region);
    } catch (cause) {
      this.#freeDomains();
      throw cause;
    }
  }

  /** iova_reserve_iommu_regions() and iommu_create_device_direct_mappings(). */
  #setAside(region: ReservedRegion): void {
    const { start, type, prot = iommuProt.read + iommuProt.write } = region;
    if (type === "sw-msi") return;
    const first = pfnOf(start);
    const pages = pfnOf(endOf(region) - 1) - first + 1;
    const result = this.#core.exports.iommuIovaReserve(this.handle, first, pages);
    checked(result, `set a region of group ${this.name} aside`, () => "no memory is left");
    if (type !== "direct" && type !== "direct-relaxable") return;
    const end = Math.ceil(endOf(region) / FRAME_BYTES) * FRAME_BYTES;
    for (let at = Math.ceil(start / FRAME_BYTES) * FRAME_BYTES; at < end; ) {
      const runEnd = this.#unmappedEnd(at, end);
      if (runEnd > at) {
        this.defaultDomain.map(at, at, runEnd - at, prot);
        this.#direct.push({ address: at, lengthBytes: runEnd - at });
      }
      at = runEnd + FRAME_BYTES;
    }
  }

  /** The end of the run of addresses from `at` on that nothing is mapped at. */
  #unmappedEnd(at: number, end: number): number {
    while (at < end && this.defaultDomain.iovaToPhys(at) === null) at += FRAME_BYTES;
    return at;
  }

  /** Its devices. */
  get devices(): readonly IommuMember[] {
    return [...this.#devices];
  }

  /** What its devices' accesses go through. */
  get domain(): Domain {
    return this.#domain ?? (this.#owner === null ? this.defaultDomain : this.#blockedDomain());
  }

  // ---- attach

  /**
   * Sends all its devices through `domain`. EBUSY: they go through another; EINVAL: the domain is
   * another system's, or a group's default one; ESTALE: it was freed; ENODEV: its driver cannot
   * translate.
   */
  attach(domain: Domain): void {
    const operation = `attach group ${this.name}`;
    if (!(domain instanceof Domain)) fail("EINVAL", operation, "that is no domain");
    domain.requireAttachable(this.#core, operation);
    if (this.#domain !== null) fail("EBUSY", operation, "it is attached to another domain"); // IG3
    this.#send(domain, operation);
    this.#domain = domain;
    domain.countGroup(1);
  }

  /** Ends attach(). EINVAL: the group is not attached, or not to `domain`. */
  detach(domain: Domain | null = this.#domain): void {
    const operation = `detach group ${this.name}`;
    if (domain === null || domain !== this.#domain) {
      fail("EINVAL", operation, "it is not attached to that domain");
    }
    this.#domain = null;
    domain.countGroup(-1);
    this.#send(this.domain, operation);
  }

  /**
   * Takes the devices away from their drivers, for `owner`: they reach nothing until it attaches
   * them. EPERM: they have an owner; EBUSY: they are attached; EINVAL: an owner is needed.
   */
  claimDmaOwner(owner: unknown): void {
    const operation = `claim group ${this.name}`;
    if (owner === null || owner === undefined) fail("EINVAL", operation, "it needs an owner");
    if (this.#owner !== null) fail("EPERM", operation, "it has an owner");
    if (this.#domain !== null) fail("EBUSY", operation, "it is attached to a domain");
    this.#send(this.#blockedDomain(), operation);
    this.#owner = owner;
  }

  /** Ends claimDmaOwner(). EINVAL: there is no owner; EBUSY: it has left the group attached. */
  releaseDmaOwner(): void {
    const operation = `release group ${this.name}`;
    if (this.#owner === null) fail("EINVAL", operation, "it has no owner");
    if (this.#domain !== null) fail("EBUSY", operation, "it is attached to a domain");
    this.#owner = null;
    this.#send(this.defaultDomain, operation);
  }

  #blockedDomain(): BuiltInDomain {
    this.#blocked ??= new BuiltInDomain(this.#core, { type: "blocked" });
    return this.#blocked;
  }

  #send(domain: Domain, operation: string): void {
    const inCore = domain instanceof BuiltInDomain ? domain : this.#blockedDomain(); // IG5
    const through = inCore === this.#record ? 0 : inCore.handle;
    const result = this.#core.exports.iommuAttach(this.handle, this.#through, through);
    checked(result, operation, (code) =>
      code === "EINVAL" ? "the domain is the default one of a group" : "another thread did it",
    );
    this.#through = through;
    this.#translator = domain instanceof IommuDomain ? domain : null;
  }

  // ---- for its devices

  /** @internal */
  join(device: IommuMember): void {
    this.#devices.add(device);
  }

  /** @internal With the last device no timer is left. */
  leave(device: IommuMember): void {
    this.#devices.delete(device);
    if (this.#devices.size === 0) this.flush();
  }

  /** @internal Whether it belongs to the memory of `core`. */
  isOn(core: Core): boolean {
    return this.#core.memory === core.memory;
  }

  /** @internal The core's number for what it keeps of the default domain. */
  get handle(): number {
    return this.#record.handle;
  }

  /** @internal The default domain's driver, to be shown what is mapped; null: it is the core's. */
  get driver(): DriverMappings | null {
    return this.#driver;
  }

  /**
   * @internal What a driver says of a device's page: the physical address, or why it refuses. Null:
   * it is the core that translates.
   */
  translate(iova: number, access: Access): number | RefusalReason | null {
    return this.#translator === null ? null : this.#translator.translate(iova, access);
  }

  /** @internal Why the core's domain refuses an access; null: it lets it through. */
  coreReason(pfn: number, access: Access): RefusalReason | null {
    const bits = accessBits(access) ?? 0;
    const number = this.#core.exports.iommuFaultReason(this.handle, pfn, bits);
    return coreReasons[number - 1] ?? null;
  }

  /** @internal A device was refused. */
  reportFault(
    device: string,
    iova: number,
    access: Access,
    reason: RefusalReason,
  ): IommuFaultResult {
    return this.domain.reportFault({ device, iova, access, reason });
  }

  /** @internal An access succeeded: reports it if it used what was unmapped. */
  reportStale(device: string, access: Access): void {
    const { domain } = this;
    const iova = domain.takeStale();
    if (iova !== null) domain.reportFault({ device, iova, access, reason: "stale" });
  }

  /** @internal A mapping ended: what it leaves in the queue is flushed in time (IG4). */
  unmapped(): void {
    if (this.invalidation !== "lazy") return;
    this.#driver?.settle();
    if (this.#cancelFlush !== null || this.queuedCount === 0) return;
    this.#cancelFlush = this.#clock.after(FLUSH_AFTER_MS, () => this.flush());
  }

  /** Ranges of device addresses that wait for a flush. */
  get queuedCount(): number {
    const hasNone = this.#record.isFreed || this.#core.hasLeft;
    return hasNone ? 0 : this.#core.exports.iommuQueuedCount(this.handle);
  }

  /** Invalidates now, and gives back what waited for it. How many ranges that were. */
  flush(): number {
    this.#cancelFlush?.();
    this.#cancelFlush = null;
    if (this.#record.isFreed || this.#core.hasLeft) return 0;
    this.#driver?.flush();
    return this.#core.exports.iommuFlushQueue(this.handle);
  }

  /** @internal Its only device is about to go. */
  dissolve(): void {
    if (this.#domain !== null) this.detach();
    if (this.#owner !== null) this.releaseDmaOwner();
    this.free();
  }

  /** Frees its domains. EBUSY: it has devices, or is attached or claimed. */
  free(): void {
    const operation = `free group ${this.name}`;
    if (this.#devices.size > 0) fail("EBUSY", operation, "it has devices; remove them first");
    if (this.#domain !== null || this.#owner !== null) {
      fail("EBUSY", operation, "it is attached or claimed");
    }
    this.flush();
    this.#freeDomains();
  }

  #freeDomains(): void {
    const { domain } = this.#driver ?? {};
    for (const { address, lengthBytes } of this.#direct) domain?.unmap(address, lengthBytes);
    domain?.endDefault();
    if (this.#through !== 0) this.#core.exports.iommuAttach(this.handle, this.#through, 0);
    this.#record.free();
    this.#blocked?.free();
    this.#blocked = null;
  }
}

/** The driver's domain that is asked for. EINVAL: it is none, or options are the driver's. */
function checkDefault(options: IommuGroupOptions, operation: string): IommuDomain | null {
  const { defaultDomain = null, iotlb, strictMap, dirtyTracking } = options;
  if (defaultDomain === null) return null;
  if (!(defaultDomain instanceof IommuDomain))
    fail("EINVAL", operation, "defaultDomain must be an IommuDomain");
  if ((iotlb ?? null) !== null || strictMap === true || dirtyTracking === true)
    fail("EINVAL", operation, "iotlb, strictMap and dirtyTracking are the matter of the driver");
  return defaultDomain;
}

function formatOf({ iotlb, strictMap, dirtyTracking }: IommuGroupOptions): DomainOptions {
  return {
    ...(iotlb === undefined ? {} : { iotlb }),
    ...(strictMap === undefined ? {} : { strictMap }),
    ...(dirtyTracking === undefined ? {} : { dirtyTracking }),
  };
}
