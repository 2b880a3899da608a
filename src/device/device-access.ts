/**
 * DeviceAccess: what a device does with memory, always at its own addresses.
 *
 *     write(address, bytes) ─► translate page by page ─► frames        any page not mapped for it: a fault
 *
 * - D1  A device reaches exactly what is mapped for it, in the mapping's direction; anything else
 *       throws EFAULT, is counted, and has moved nothing.
 * - D5  `bytes` counts what read(), write() and copy() moved and what spans() showed; the library's
 *       own copies are counted elsewhere (`system.stats().bytesCopied`).
 *
 * @module
 */

import { requireBytes } from "../arguments.ts";
import type { Core } from "../core/core.ts";
import { checked, errno, fail, requireInteger, textOf } from "../errors.ts";
import { type Access, accessBits } from "../iommu/access.ts";
import type { RefusalReason } from "../iommu/iommu-fault.ts";
import type { IommuGroup } from "../iommu/iommu-group.ts";
import {
  ADDRESS_END,
  addressOf,
  formatAddress,
  lastPfnOf,
  NO_PFN,
  offsetOf,
  pfnOf,
} from "../units.ts";
import type { DeviceMemory } from "./device-memory.ts";
import { type DmaFault, DmaFaultError, directRefusal } from "./dma-fault.ts";

const MAPPING_COUNT = 6;
const FAULT_COUNT = 7;
const FAULT_PFN = 8;

/** How a device reaches memory: the part of `device.dma` that goes through its addresses. */
export class DeviceAccess {
  /** @internal */
  protected readonly core: Core;
  /** @internal The core's number for the device. */
  protected readonly handle: number;
  /** @internal */
  protected readonly name: string;
  /** @internal */
  protected readonly memory: DeviceMemory;
  #bytes = 0;
  /** Faults at addresses too wide for a page number, which the core does not see. */
  #wideFaultCount = 0;
  #lastFault: DmaFault | null = null;
  #finalFaultCount: number | null = null;

  /** @internal */
  constructor(core: Core, handle: number, name: string, memory: DeviceMemory) {
    this.core = core;
    this.handle = handle;
    this.name = name;
    this.memory = memory;
  }

  /** @internal The group whose domain it goes through; null: there is no IOMMU. */
  protected get group(): IommuGroup | null {
    return this.memory.group;
  }

  /** Bytes that went through the device's addresses (D5). */
  get bytes(): number {
    return this.#bytes;
  }

  /** @internal Mappings that are alive. */
  get mappingCount(): number {
    return this.#field(MAPPING_COUNT);
  }

  /** Accesses refused since the device was added. */
  get faultCount(): number {
    return this.#finalFaultCount ?? this.#field(FAULT_COUNT) + this.#wideFaultCount;
  }

  /** @internal The device is about to go: its counts stay. */
  retire(faultCount: number): void {
    this.#finalFaultCount = faultCount;
  }

  /** @internal ESTALE: the device was removed; ENODEV: its system is closed. */
  protected requireLive(operation: string): void {
    this.core.requireJoined(operation);
    if (this.#finalFaultCount !== null) fail("ESTALE", operation, "the device was removed");
  }

  /** The last refused access; null if none was. */
  get lastFault(): DmaFault | null {
    if (this.#finalFaultCount !== null || this.faultCount === 0) return null;
    return this.#lastFault;
  }

  #field(index: number): number {
    return this.core.word(this.#recordAt(), index);
  }

  #recordAt(): number {
    const result = this.core.exports.dmaDeviceAt(this.handle);
    return checked(result, `read device ${this.name}`, () => "it was removed");
  }

  /**
   * The bytes at a device address, for a device that works in place: views in order, one per run of
   * frames. They are the device's until its mapping ends; do not keep them longer. EFAULT (D1).
   */
  spans(
    address: number,
    lengthBytes: number,
    access: Access = "read-write",
  ): Uint8Array<ArrayBufferLike>[] {
    const views = this.#translate(address, lengthBytes, access);
    this.#bytes += lengthBytes;
    return views;
  }

  /** The device writes `bytes` at `address`. EFAULT (D1). */
  write(address: number, bytes: Uint8Array): void {
    requireBytes(bytes, "the bytes", `write as ${this.name}`);
    let done = 0;
    for (const view of this.#translate(address, bytes.length, "write")) {
      view.set(bytes.subarray(done, done + view.length));
      done += view.length;
    }
    this.#bytes += done;
  }

  /** The device reads `into.length` bytes from `address`. EFAULT (D1). */
  read(address: number, into: Uint8Array): void {
    requireBytes(into, "the buffer", `read as ${this.name}`);
    let done = 0;
    for (const view of this.#translate(address, into.length, "read")) {
      into.set(view, done);
      done += view.length;
    }
    this.#bytes += done;
  }

  /**
   * The device copies `lengthBytes` bytes between two of its addresses. Where they share bytes of
   * memory, the result is as if all were read before the first is written (memmove). EFAULT (D1).
   */
  copy(to: number, from: number, lengthBytes: number): void {
    const sources = this.#translate(from, lengthBytes, "read");
    const targets = this.#translate(to, lengthBytes, "write");
    if (!isSharing(sources, targets)) copySpans(targets, sources);
    else
      copySpans(
        targets,
        sources.map((source) => source.slice()),
      );
    this.#bytes += lengthBytes;
  }

  #translate(address: number, lengthBytes: number, access: Access): Uint8Array<ArrayBufferLike>[] {
    const where = `${textOf(lengthBytes)} bytes at ${formatAddress(address)}`;
    const operation = `${textOf(access)} ${where} as ${this.name}`;
    requireInteger(address, "address", 0, Number.MAX_SAFE_INTEGER, operation);
    requireInteger(lengthBytes, "lengthBytes", 0, this.core.u8.length, operation);
    const bits = accessBits(access);
    if (bits === undefined) {
      fail("EINVAL", operation, "the access must be read, write, read-write or execute");
    }
    const views: Uint8Array<ArrayBufferLike>[] = [];
    for (let done = 0; done < lengthBytes; ) {
      const at = address + done;
      const count = this.#spansAt(at, lengthBytes - done, access, bits, operation);
      for (let i = 0; i < count; i++) {
        const length = this.core.scratch[2 * i + 1] ?? 0;
        views.push(this.core.view(this.core.scratch[2 * i] ?? 0, length));
        done += length;
      }
    }
    this.group?.reportStale(this.name, access);
    return views;
  }

  /**
   * Translates into the scratch words: how many spans. A fault is reported, and the access tried
   * again where the handler asks for that, once for each page. EFAULT, ESTALE, ENODEV.
   */
  #spansAt(
    at: number,
    lengthBytes: number,
    access: Access,
    bits: number,
    operation: string,
  ): number {
    for (let tried = -1; ; ) {
      if (at >= ADDRESS_END) this.requireLive(operation);
      const outcome =
        at < ADDRESS_END
          ? this.#attempt(at, lengthBytes, access, bits)
          : this.#wideFault(at, access);
      if (typeof outcome === "number")
        return checked(outcome, operation, () => "the device was removed");
      const page = outcome.address - offsetOf(outcome.address);
      this.#lastFault = { ...outcome, address: page };
      const answer = this.group?.reportFault(this.name, page, access, outcome.reason);
      if (answer !== "retry" || page === tried) throw new DmaFaultError(operation, outcome);
      tried = page;
    }
  }

  /** How many spans there are, an errno, or the fault, at its first byte. */
  #attempt(at: number, lengthBytes: number, access: Access, bits: number): number | DmaFault {
    const { dmaSpans, dmaSpanAt } = this.core.exports;
    const first = pfnOf(at);
    const offset = offsetOf(at);
    const length = Math.min(lengthBytes, ADDRESS_END - at); // page numbers do not wrap
    const answer = this.group === null ? null : this.group.translate(addressOf(first), access);
    const result =
      answer === null
        ? dmaSpans(this.handle, first, offset, length, bits)
        : dmaSpanAt(this.handle, first, offset, length, bits, physPfnOf(answer));
    if (result !== -errno.EFAULT) return result;
    const pfn = this.#field(FAULT_PFN);
    const address = Math.max(at, addressOf(pfn));
    if (this.group === null) return { access, ...this.#directRefusal(address, access) };
    const refusal = answer === null ? this.group.coreReason(pfn, access) : refusalOf(answer);
    return { address, access, reason: refusal ?? this.#ownReason(pfn) };
  }

  #directRefusal(address: number, access: Access): Pick<DmaFault, "address" | "reason"> {
    const start = this.memory.physicalBase;
    const memory = { start, end: start + this.core.u8.length };
    return directRefusal(this.core, this.handle, address, access, memory);
  }

  /** The fault at an address that no device has bits for. */
  #wideFault(at: number, access: Access): DmaFault {
    this.#wideFaultCount += 1;
    const reason = this.group?.domain.type === "blocked" ? "blocked" : "address-size";
    return { address: at, access, reason };
  }

  /** Why an access fails that the domain lets through. */
  #ownReason(pfn: number): RefusalReason {
    const bits = Math.max(this.memory.maskBits(), this.memory.coherentBits());
    return pfn > lastPfnOf(bits) ? "address-size" : "not-memory";
  }
}

/** The frame of a driver's answer, as the core takes it. */
function physPfnOf(answer: number | RefusalReason): number {
  return typeof answer === "string" ? NO_PFN : Math.min(pfnOf(answer), NO_PFN);
}

/** Why a driver refuses; null: it does not. */
function refusalOf(answer: number | RefusalReason): RefusalReason | null {
  return typeof answer === "string" ? answer : null;
}

/** Whether any two runs of the two lists, all of one memory, have a byte in common. */
function isSharing(sources: readonly Uint8Array[], targets: readonly Uint8Array[]): boolean {
  const runs = [
    ...sources.map(({ byteOffset, length }) => ({
      at: byteOffset,
      end: byteOffset + length,
      side: 0,
    })),
    ...targets.map(({ byteOffset, length }) => ({
      at: byteOffset,
      end: byteOffset + length,
      side: 1,
    })),
  ].sort((one, other) => one.at - other.at);
  const ends = [0, 0]; // where the runs of each side end that began so far
  return runs.some(({ at, end, side }) => {
    const isShared = at < (ends[1 - side] ?? 0);
    ends[side] = Math.max(ends[side] ?? 0, end);
    return isShared;
  });
}

/** Copies one list of runs to another of the same length. */
function copySpans(targets: Uint8Array[], sources: Uint8Array[]): void {
  let target = targets.shift();
  for (let source of sources) {
    while (source.length > 0 && target !== undefined) {
      const length = Math.min(source.length, target.length);
      target.set(source.subarray(0, length));
      source = source.subarray(length);
      target = length === target.length ? targets.shift() : target.subarray(length);
    }
  }
}
