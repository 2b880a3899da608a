/**
 * IommuDomain: the generic layer of an IOMMU, between "map these bytes" and a driver's page table.
 *
 *     map(iova, paddr, size) ─► mapPages(4 KiB × n) ─► mapPages(2 MiB × m) ─► … ─► iotlbSyncMap
 *                                         └─ error ─► unmapPages … ─► iotlbSync ─► throw
 *
 * - ID1  A map() or mapSg() that throws has unmapped what it had mapped, and synced. A driver that
 *        fails at that is reported to the host: the call throws what made it fail.
 * - ID2  iotlbSyncMap() comes once, after the last page; iotlbSync() ends every unmap, also an
 *        empty one, and one that the driver failed at.
 * - ID3  Only a paging domain maps; an identity domain translates to the same number, a blocked one
 *        to nothing.
 *
 * Compare iommu_map(), iommu_unmap() and iommu_map_sg() in the kernel's drivers/iommu/iommu.c.
 * Addresses are safe integers: they end at 2^53.
 *
 * @module
 */

import { hasKey, requireObject } from "../arguments.ts";
import type { Core } from "../core/core.ts";
import { type ErrnoCode, errno, fail, nameOf, reportError, textOf } from "../errors.ts";
import { FRAME_BYTES, formatAddress } from "../units.ts";
import type { Access } from "./access.ts";
import { Domain, type DomainType } from "./domain.ts";
import type { DomainOps, PartialMap } from "./domain-ops.ts";
import { driverReasons, type RefusalReason } from "./iommu-fault.ts";
import { IotlbGather } from "./iotlb-gather.ts";
import { type PagePlan, PageSizes } from "./page-sizes.ts";
import { type PhysRange, requireRange, runsOf } from "./phys-range.ts";

/** An address space of devices over a driver's page table. */
export class IommuDomain extends Domain {
  readonly #ops: DomainOps;
  readonly #sizes: PageSizes;
  #isDefault = false;
  #groupCount = 0;

  /** EINVAL: `ops.pgsizeBitmap` or `type` is none. */
  constructor(ops: DomainOps, type: DomainType = "paging") {
    super(type);
    requireObject(ops, "the ops", "make a domain");
    this.#ops = ops;
    this.#sizes = new PageSizes(ops.pgsizeBitmap);
  }

  /**
   * Maps `sizeBytes` bytes from `iova` to those from `paddr`. `prot` is a sum of
   * {@link iommuProt}. ENODEV: the driver cannot map; EINVAL: not a paging domain, or something is
   * not a multiple of the smallest page; ERANGE: an address ends above 2^53; and what the driver
   * fails with. Then nothing is mapped that was not before (ID1).
   */
  map(iova: number, paddr: number, sizeBytes: number, prot: number): void {
    const operation = `map ${textOf(sizeBytes)} bytes at ${at(iova)}`;
    requireRange(iova, sizeBytes, "iova", operation);
    requireRange(paddr, sizeBytes, "paddr", operation);
    this.#mapRun(iova, paddr, sizeBytes, prot, operation);
    this.#syncMap(iova, sizeBytes);
  }

  /**
   * Maps physical ranges one after the other from `iova` on; neighbours are mapped as one. How many
   * bytes that is. Errors as of map(); each run must be a multiple of the smallest page.
   */
  mapSg(iova: number, ranges: readonly PhysRange[], prot: number): number {
    const operation = `map ranges at ${at(iova)}`;
    const runs = runsOf(ranges, operation);
    const sizeBytes = runs.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
    requireRange(iova, sizeBytes, "iova", operation);
    let mapped = 0;
    try {
      for (const { address, lengthBytes } of runs) {
        this.#mapRun(iova + mapped, address, lengthBytes, prot, operation);
        mapped += lengthBytes;
      }
    } catch (cause) {
      this.#rollBack(iova, mapped);
      throw cause;
    }
    this.#syncMap(iova, mapped);
    return mapped;
  }

  /**
   * Unmaps from `iova` on, up to the first hole. How many bytes that is: 0 if nothing can be
   * unmapped or something is not a multiple of the smallest page, and more than `sizeBytes` if the
   * range ended inside a larger page.
   */
  unmap(iova: number, sizeBytes: number): number {
    const gather = this.gather();
    try {
      return this.unmapFast(iova, sizeBytes, gather);
    } finally {
      gather.sync(); // ID2
    }
  }

  /** What unmapFast() collects for one sync(). */
  gather(): IotlbGather {
    return new IotlbGather((gather) => this.#ops.iotlbSync?.(gather));
  }

  /** As unmap(), but devices may go on using the pages until `gather.sync()`. */
  unmapFast(iova: number, sizeBytes: number, gather: IotlbGather): number {
    const operation = `unmap ${textOf(sizeBytes)} bytes at ${at(iova)}`;
    requireRange(iova, sizeBytes, "iova", operation);
    if (this.#ops.unmapPages === undefined || this.#sizes.minBytes === null) return 0;
    if (this.type !== "paging") return 0; // ID3
    if (!this.#sizes.isAligned(iova) || !this.#sizes.isAligned(sizeBytes)) return 0;
    let done = 0;
    while (done < sizeBytes) {
      const from = iova + done;
      const { pageBytes, pageCount } = this.#sizes.choose(from, from, sizeBytes - done);
      const bytes = this.#ops.unmapPages(from, pageBytes, pageCount, gather);
      if (!(Number.isSafeInteger(bytes) && bytes >= 0)) {
        fail("EIO", operation, `the driver's unmapPages() returned ${textOf(bytes)}`);
      }
      if (bytes === 0) break;
      done += bytes;
    }
    return done;
  }

  /**
   * The physical address behind a device address; null for none. ENODEV: the driver cannot say;
   * EIO: what it says makes no sense.
   */
  iovaToPhys(iova: number): number | null {
    const operation = `translate ${at(iova)}`;
    requireRange(iova, 0, "iova", operation);
    if (this.type === "identity") return iova;
    if (this.type === "blocked") return null;
    if (this.#ops.iovaToPhys === undefined) {
      fail("ENODEV", operation, "the driver has no iovaToPhys()");
    }
    const phys = this.#ops.iovaToPhys(iova);
    if (phys === null || (Number.isSafeInteger(phys) && phys >= 0)) return phys;
    const said = `the driver's iovaToPhys() returned ${describe(phys)}`;
    return fail("EIO", operation, `${said}, which is no address, and not null`);
  }

  /** What the driver said its pages are, bit n for 2^n bytes. */
  get pgsizeBitmap(): bigint {
    return this.#ops.pgsizeBitmap;
  }

  // ---- devices

  /** Whether it is a group's default domain, which buffers are mapped in. */
  get isDefault(): boolean {
    return this.#isDefault;
  }

  /** @internal EINVAL: a group's default domain, or smaller pages than frames; ENODEV. */
  requireAttachable(_: Core, operation: string): void {
    if (this.#isDefault) fail("EINVAL", operation, "the domain is the default one of a group");
    if (this.type !== "paging") return;
    if (this.#ops.translate === undefined && this.#ops.iovaToPhys === undefined)
      fail("ENODEV", operation, "the driver has neither translate() nor iovaToPhys()");
    if ((this.#sizes.minBytes ?? FRAME_BYTES) < FRAME_BYTES)
      fail("EINVAL", operation, `the driver's pages must be of ${FRAME_BYTES} bytes at least`);
  }

  /** @internal */
  override countGroup(delta: 1 | -1): void {
    this.#groupCount += delta;
  }

  /**
   * @internal From now on a group's default domain. EINVAL: nothing can be mapped in it; EBUSY: it
   * is one already, or groups are attached to it; as requireAttachable().
   */
  becomeDefault(core: Core, isLazy: boolean, operation: string): void {
    if (this.#isDefault || this.#groupCount > 0)
      fail("EBUSY", operation, "other groups go through its default domain");
    this.requireAttachable(core, operation);
    const { mapPages, unmapPages, flushIotlbAll } = this.#ops;
    if (this.type !== "paging" || this.#sizes.minBytes !== FRAME_BYTES)
      fail("EINVAL", operation, `its default domain must have pages of ${FRAME_BYTES} bytes`);
    if (mapPages === undefined || unmapPages === undefined)
      fail("ENODEV", operation, "the driver of its default domain cannot map and unmap");
    if (isLazy && flushIotlbAll === undefined)
      fail("ENODEV", operation, "lazy invalidation needs the driver's flushIotlbAll()");
    this.#isDefault = true;
  }

  /** @internal Ends becomeDefault(). */
  endDefault(): void {
    this.#isDefault = false;
  }

  /** @internal The addresses that its buffers are kept inside. */
  get aperture(): { readonly start: number; readonly end: number } | null {
    return this.#ops.aperture ?? null;
  }

  /** @internal Has devices forget everything. */
  flushIotlbAll(): void {
    this.#ops.flushIotlbAll?.();
  }

  /**
   * @internal The physical address of a page that a device accesses, or why it may not. EIO: the
   * driver's answer makes no sense.
   */
  translate(iova: number, access: Access): number | RefusalReason {
    if (this.type === "identity") return iova;
    if (this.type === "blocked") return "blocked";
    const { translate } = this.#ops;
    const answer =
      translate === undefined
        ? (this.iovaToPhys(iova) ?? "translation")
        : translate.call(this.#ops, iova, access);
    const isSane =
      typeof answer === "string"
        ? (driverReasons as readonly string[]).includes(answer)
        : Number.isSafeInteger(answer) && answer >= 0 && answer % FRAME_BYTES === 0;
    if (isSane) return answer as number | RefusalReason;
    const what = `translate ${at(iova)}`;
    return fail("EIO", what, `the driver said ${textOf(answer)}, which is no page and no reason`);
  }

  #syncMap(iova: number, sizeBytes: number): void {
    try {
      this.#ops.iotlbSyncMap?.(iova, sizeBytes);
    } catch (cause) {
      this.#rollBack(iova, sizeBytes);
      throw cause;
    }
  }

  /** ID1. The caller hears why mapping failed, the host what fails here. */
  #rollBack(iova: number, sizeBytes: number): void {
    reportError(() => this.unmap(iova, sizeBytes));
  }

  /** One run, without the sync at its end. */
  #mapRun(iova: number, paddr: number, sizeBytes: number, prot: number, operation: string): void {
    const ops = this.#ops;
    if (ops.mapPages === undefined || this.#sizes.minBytes === null) {
      fail("ENODEV", operation, "the driver has no mapPages() or no page sizes");
    }
    if (this.type !== "paging") fail("EINVAL", operation, `the domain is ${this.type}`); // ID3
    if (![iova, paddr, sizeBytes].every((bytes) => this.#sizes.isAligned(bytes))) {
      const reason = `addresses and sizes must be multiples of ${this.#sizes.minBytes} bytes`;
      fail("EINVAL", operation, reason);
    }
    let done = 0;
    try {
      while (done < sizeBytes) {
        const plan = this.#sizes.choose(iova + done, paddr + done, sizeBytes - done);
        const { pageBytes, pageCount } = plan;
        const result = ops.mapPages(iova + done, paddr + done, pageBytes, pageCount, prot);
        const { mappedBytes, error } = outcomeOf(result, plan, operation);
        done += mappedBytes;
        if (error !== null) fail(error, operation, `the driver stopped after ${done} bytes`);
      }
    } catch (cause) {
      this.#rollBack(iova, done);
      throw cause;
    }
  }
}

/** A driver's answer. EIO: it makes no sense. */
function outcomeOf(
  result: number | PartialMap,
  { pageBytes, pageCount }: PagePlan,
  operation: string,
): { readonly mappedBytes: number; readonly error: ErrnoCode | null } {
  const { mappedBytes, error } = partsOf(result);
  if (mappedBytes === 0 && error === null) return { mappedBytes, error: "EIO" };
  const asked = pageBytes * pageCount;
  const isPossible = mappedBytes >= 0 && mappedBytes <= asked && mappedBytes % pageBytes === 0;
  if (isPossible && (error === null || hasKey(errno, error))) return { mappedBytes, error };
  const said = `the driver's mapPages() returned ${describe(result)}`;
  const should = `and should map ${asked} bytes, some pages of ${pageBytes}, or say why not`;
  return fail("EIO", operation, `${said}, ${should}`);
}

/** What was mapped, and the error; NaN where the driver does not say how much. */
function partsOf(result: number | PartialMap): {
  readonly mappedBytes: number;
  readonly error: ErrnoCode | null;
} {
  if (typeof result === "number") return { mappedBytes: result, error: null };
  const { mappedBytes, error } = (result ?? {}) as Partial<PartialMap>;
  const isNumber = typeof mappedBytes === "number" && typeof error === "string";
  return isNumber ? { mappedBytes, error } : { mappedBytes: Number.NaN, error: null };
}

function describe(result: unknown): string {
  if (typeof result !== "object" || result === null) return String(result);
  if (!("mappedBytes" in result && "error" in result)) return nameOf(result);
  return `{ mappedBytes: ${textOf(result.mappedBytes)}, error: ${textOf(result.error)} }`;
}

function at(iova: number): string {
  return formatAddress(iova);
}
