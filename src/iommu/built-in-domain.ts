/**
 * BuiltInDomain: an address space whose page table lies in the core, as ARM's LPAE format has it.
 *
 *     domain.map(iova, paddr, size) ─► one call of the core ─► pages and blocks
 *     domain.attachDevice(device)   ─► its accesses go through this table
 *
 * - BD1  It does what {@link IommuDomain} does over a driver of the same table.
 * - BD2  A call that throws has mapped nothing; with `strictMap` it has not replaced anything.
 * - BD3  It is freed by free(), and not while devices go through it.
 *
 * Compare iommu_map() and its neighbours in the kernel's drivers/iommu/iommu.c, over
 * drivers/iommu/io-pgtable-arm.c.
 *
 * @module
 */

import { requireObject } from "../arguments.ts";
import type { Core } from "../core/core.ts";
import { tableFlags, tableFormatWord } from "../core/table-format.ts";
import { checked, type ErrnoCode, fail, requireInteger, textOf } from "../errors.ts";
import { ADDRESS_END, addressOf, FRAME_BYTES, formatAddress, NO_PFN, pfnOf } from "../units.ts";
import { DirtyBitmap } from "./dirty-bitmap.ts";
import { Domain, type IotlbStats } from "./domain.ts";
import {
  checkFormat,
  type DomainFormat,
  type DomainOptions,
  type IotlbFormat,
} from "./domain-options.ts";
import { IotlbGather } from "./iotlb-gather.ts";
import { type PhysRange, requireRange, runsOf } from "./phys-range.ts";

/** @internal What a group's own domain is for. */
interface DomainUse {
  readonly isDefault?: boolean | undefined;
  readonly isLazy?: boolean | undefined;
}

const TLB_AT = 7;
const STALE_COUNT = 8;
const STALE_PFN = 9;
const TLB_HITS = 4;
const CORE_TYPES = { blocked: 0, identity: 2 } as const;
const PROT_MAX = 63;

/** An address space of devices in the core. Made by `system.iommu.domain()`, or with a group. */
export class BuiltInDomain extends Domain {
  /** What it maps with; null for identity and blocked domains. */
  readonly format: DomainFormat | null;
  /** Whether it is a group's default domain, which buffers are mapped in. */
  readonly isDefault: boolean;
  readonly #core: Core;
  readonly #handle: number;
  readonly #at: number;
  #seenStale = 0;
  #isFreed = false;

  /** @internal EINVAL: an option; ENOMEM. */
  constructor(core: Core, options: DomainOptions, use: DomainUse = {}) {
    requireObject(options, "the options", "make a domain");
    const { type = "paging" } = options;
    super(type);
    const operation = "make a domain";
    const { exports } = core;
    this.#core = core;
    this.isDefault = use.isDefault === true;
    this.format = type === "paging" ? checkFormat(options, exports.IOTLB_ENTRIES_MAX.value) : null;
    const result =
      type === "paging"
        ? this.#alloc(use.isLazy === true)
        : exports.iommuDomainAllocFixed(CORE_TYPES[type]);
    this.#handle = checked(result, operation, () => "no memory is left for its tables");
    this.#at = exports.iommuDomainAt(this.#handle);
    if (this.format?.iotlb) this.#makeIotlb(this.format.iotlb, operation);
  }

  #alloc(isLazy: boolean): number {
    const { stage, granuleBytes, ...format } = this.format as DomainFormat;
    const flags =
      (format.strictMap ? tableFlags.strictMap : 0) +
      (format.dirtyTracking ? tableFlags.dirtyBits : 0) +
      (isLazy ? tableFlags.lazy : 0);
    const word = tableFormatWord({
      stage,
      granuleOrder: Math.log2(granuleBytes / FRAME_BYTES),
      inputBits: format.addressBits,
      outputBits: format.outputBits,
      flags,
    });
    return this.#core.exports.iommuDomainAllocAs(word);
  }

  #makeIotlb({ entries, ways, eviction }: IotlbFormat, operation: string): void {
    const { exports } = this.#core;
    const isLru = eviction === "lru" ? 1 : 0;
    const result = exports.iommuIotlbMake(this.#handle, entries / ways, ways, isLru);
    if (result < 0) exports.iommuDomainFree(this.#handle);
    checked(result, operation, () => "no memory is left for its IOTLB");
  }

  /** The sizes of its pages and blocks, bit n for 2^n bytes; 0n: it maps nothing. */
  get pgsizeBitmap(): bigint {
    return this.format?.pgsizeBitmap ?? 0n;
  }

  /** The device addresses that it translates: the first, and the last. */
  get aperture(): { readonly start: number; readonly end: number } {
    return { start: 0, end: this.format === null ? ADDRESS_END - 1 : this.#end - 1 };
  }

  get #end(): number {
    return 2 ** (this.format?.addressBits ?? 44);
  }

  // ---- mapping

  /**
   * Maps `sizeBytes` bytes from `iova` to the physical ones from `paddr`. `prot` is a sum of
   * {@link iommuProt}. EINVAL: not a paging domain, neither read nor write, or something is not a
   * multiple of the smallest page; EEXIST: something is mapped there; ERANGE: wider than the domain
   * takes; ENOMEM. See BD2.
   */
  map(iova: number, paddr: number, sizeBytes: number, prot: number): void {
    const operation = `map ${textOf(sizeBytes)} bytes at ${formatAddress(iova)}`;
    this.#requireLive(operation);
    requireInteger(prot, "prot", 0, PROT_MAX, operation);
    requireRange(iova, sizeBytes, "iova", operation, ADDRESS_END);
    requireRange(paddr, sizeBytes, "paddr", operation, ADDRESS_END);
    if (this.type !== "paging") fail("EINVAL", operation, `the domain is ${this.type}`);
    this.#requireAligned([iova, paddr, sizeBytes], operation);
    const pages = pagesOf(sizeBytes, operation);
    const result = this.#core.exports.iommuMap(
      this.#handle,
      pfnOf(iova),
      pfnOf(paddr),
      pages,
      prot,
    );
    checked(result, operation, (code) => this.#mapReason(code));
  }

  /**
   * Maps physical ranges one after the other from `iova` on; neighbours are mapped as one. How many
   * bytes that is. Errors as of map(), and then nothing of the list is mapped.
   */
  mapSg(iova: number, ranges: readonly PhysRange[], prot: number): number {
    const operation = `map ranges at ${formatAddress(iova)}`;
    const runs = runsOf(ranges, operation);
    const sizeBytes = runs.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
    requireRange(iova, sizeBytes, "iova", operation, ADDRESS_END);
    let mapped = 0;
    try {
      for (const { address, lengthBytes } of runs) {
        this.map(iova + mapped, address, lengthBytes, prot);
        mapped += lengthBytes;
      }
    } catch (cause) {
      this.unmap(iova, mapped); // BD2
      throw cause;
    }
    return mapped;
  }

  /**
   * Unmaps from `iova` on, up to the first hole, and has the IOTLB forget it. How many bytes that
   * is: 0 if nothing can be unmapped or something is not a multiple of the smallest page.
   */
  unmap(iova: number, sizeBytes: number): number {
    return this.#unmap(iova, sizeBytes, this.#core.exports.iommuUnmap);
  }

  /** What unmapFast() collects for one sync(). */
  gather(): IotlbGather {
    return new IotlbGather((gather) => {
      if (gather.isEmpty || this.#isFreed) return;
      const { iommuIotlbSync } = this.#core.exports;
      for (const [at, bytes] of partsOf(gather.iova, gather.iovaEnd - gather.iova))
        iommuIotlbSync(this.#handle, pfnOf(at), pfnOf(bytes));
    });
  }

  /** As unmap(), but the IOTLB may go on knowing the pages until `gather.sync()`. */
  unmapFast(iova: number, sizeBytes: number, gather: IotlbGather): number {
    const bytes = this.#unmap(iova, sizeBytes, this.#core.exports.iommuUnmapFast);
    if (bytes > 0) gather.addRange(iova, bytes);
    return bytes;
  }

  #unmap(
    iova: number,
    sizeBytes: number,
    call: (domain: number, iovaPfn: number, pageCount: number) => number,
  ): number {
    const operation = `unmap ${textOf(sizeBytes)} bytes at ${formatAddress(iova)}`;
    this.#requireLive(operation);
    requireRange(iova, sizeBytes, "iova", operation);
    if (this.format === null || iova >= this.#end || sizeBytes === 0) return 0;
    const { granuleBytes } = this.format;
    if (iova % granuleBytes !== 0 || sizeBytes % granuleBytes !== 0) return 0;
    let done = 0;
    for (const [at, bytes] of partsOf(iova, Math.min(sizeBytes, this.#end - iova))) {
      if (at > iova + done) break; // a hole
      const pages = call(this.#handle, pfnOf(at), pfnOf(bytes));
      done += addressOf(checked(pages, operation, () => "another thread holds the domain"));
    }
    return done;
  }

  /** The physical address behind a device address; null for none. */
  iovaToPhys(iova: number): number | null {
    const operation = `translate ${formatAddress(iova)}`;
    this.#requireLive(operation);
    this.#core.requireJoined(operation);
    requireRange(iova, 0, "iova", operation);
    if (this.type === "identity") return iova;
    if (iova >= this.#end) return null;
    const pfn = this.#core.exports.iommuIovaToPhys(this.#handle, pfnOf(iova)) >>> 0;
    return pfn === NO_PFN ? null : addressOf(pfn, iova % FRAME_BYTES);
  }

  // ---- the IOTLB

  override get iotlbStats(): IotlbStats | null {
    const at = this.#isFreed || this.#core.hasLeft ? 0 : this.#core.word(this.#at, TLB_AT);
    if (at === 0) return null;
    const [hits, misses, evictions] = [0, 1, 2].map((i) => this.#core.word(at, TLB_HITS + i));
    return { hits: hits ?? 0, misses: misses ?? 0, evictions: evictions ?? 0 };
  }

  override get staleCount(): number {
    const isOver = this.#isFreed || this.#core.hasLeft;
    return isOver ? this.#seenStale : this.#core.word(this.#at, STALE_COUNT);
  }

  /** @internal */
  override takeStale(): number | null {
    if (this.format?.iotlb == null) return null;
    const { staleCount } = this;
    if (staleCount === this.#seenStale) return null;
    this.#seenStale = staleCount;
    return addressOf(this.#core.word(this.#at, STALE_PFN));
  }

  // ---- dirty tracking

  override readAndClearDirty(
    iova: number,
    sizeBytes: number,
    options: { readonly noClear?: boolean | undefined } = {},
  ): DirtyBitmap {
    const where = `${textOf(sizeBytes)} bytes at ${formatAddress(iova)}`;
    const operation = `read the dirty pages of ${where}`;
    this.#requireLive(operation);
    requireObject(options, "the options", operation);
    const { noClear = false } = options;
    requireRange(iova, sizeBytes, "iova", operation, ADDRESS_END);
    const { exports, scratch } = this.#core;
    const { granuleBytes = FRAME_BYTES, dirtyTracking } = this.format ?? {};
    if (!dirtyTracking) fail("EOPNOTSUPP", operation, "the domain has no dirty tracking");
    if (sizeBytes === 0) fail("EINVAL", operation, "the range is empty");
    this.#requireAligned([iova, sizeBytes], operation);
    const reason = (): string => "the range leaves the domain";
    if (iova + sizeBytes > this.#end) fail("EINVAL", operation, reason());
    const pageCount = sizeBytes / granuleBytes;
    const words = new Uint32Array(Math.ceil(pageCount / 32));
    const partPages = exports.DIRTY_BITS_MAX.value;
    for (let page = 0; page < pageCount; page += partPages) {
      const pages = Math.min(partPages, pageCount - page);
      const pfn = pfnOf(iova + page * granuleBytes);
      const result = exports.iommuReadDirty(this.#handle, pfn, pfnOf(pages * granuleBytes));
      checked(result, operation, reason);
      words.set(scratch.subarray(0, Math.ceil(pages / 32)), page / 32);
    }
    if (!noClear) {
      const pages = pagesOf(sizeBytes, operation);
      checked(exports.iommuClearDirty(this.#handle, pfnOf(iova), pages), operation, reason);
    }
    return new DirtyBitmap(iova, granuleBytes, pageCount, words);
  }

  // ---- the end

  get isFreed(): boolean {
    return this.#isFreed;
  }

  /** Frees the domain with its tables. EBUSY: devices go through it; ESTALE: freed before. */
  free(): void {
    const operation = "free a domain";
    this.#requireLive(operation);
    const stale = this.staleCount;
    const result = this.#core.exports.iommuDomainFree(this.#handle);
    checked(result, operation, () => "devices go through it; detach them first");
    this.#seenStale = stale;
    this.#isFreed = true;
  }

  [Symbol.dispose](): void {
    if (!this.#isFreed) this.free();
  }

  /** @internal */
  get handle(): number {
    return this.#handle;
  }

  /** @internal EINVAL: another system's, or a group's default one; ESTALE: freed. */
  requireAttachable(core: Core, operation: string): void {
    if (this.#core.memory !== core.memory)
      fail("EINVAL", operation, "the domain is not of this system's IOMMU");
    this.#requireLive(operation);
    if (this.isDefault) fail("EINVAL", operation, "the domain is the default one of a group");
  }

  #requireLive(operation: string): void {
    if (this.#isFreed) fail("ESTALE", operation, "the domain was freed");
  }

  #requireAligned(bytes: readonly number[], operation: string): void {
    const { granuleBytes = FRAME_BYTES } = this.format ?? {};
    if (bytes.every((value) => value % granuleBytes === 0)) return;
    const reason = `addresses and sizes must be multiples of ${granuleBytes} bytes`;
    fail("EINVAL", operation, reason);
  }

  #mapReason(code: ErrnoCode): string {
    if (code === "EEXIST") return "something is mapped there; unmap it first";
    if (code === "EINVAL") return "prot must have read or write";
    if (code === "ERANGE") {
      const { addressBits, outputBits } = this.format as DomainFormat;
      return `the domain has ${addressBits}-bit addresses, for ${outputBits}-bit physical ones`;
    }
    return code === "ENOMEM" ? "no frame is left for a table" : "another thread holds the domain";
  }
}

/** A range in parts, of which the core can count the pages: a domain has 2^32 of them. */
function* partsOf(iova: number, sizeBytes: number): Generator<[at: number, bytes: number]> {
  const most = ADDRESS_END / 2;
  for (let done = 0; done < sizeBytes; done += most)
    yield [iova + done, Math.min(most, sizeBytes - done)];
}

/** A size in pages. A domain has 2^32, one more than the number can say. */
function pagesOf(sizeBytes: number, operation: string): number {
  const pages = sizeBytes / FRAME_BYTES;
  if (pages > NO_PFN) fail("ERANGE", operation, "the size must be below 2^44 bytes");
  return pages;
}
