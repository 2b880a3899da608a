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
import { checked, type ErrnoCode, errno, fail, requireInteger } from "../errors.ts";
import { type Access, accessBits, accessOf } from "../iommu/access.ts";
import type { IommuFaultReason } from "../iommu/iommu-fault.ts";
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

/** The last access that was refused. */
export interface DmaFault {
  /** Device address of the page. */
  readonly address: number;
  readonly access: Access;
}

const MAPPING_COUNT = 6;
const FAULT_COUNT = 7;
const FAULT_PFN = 8;
const FAULT_ACCESS = 9;

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
    return this.#finalFaultCount ?? this.#field(FAULT_COUNT);
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
    return {
      address: addressOf(this.#field(FAULT_PFN)),
      access: accessOf(this.#field(FAULT_ACCESS)),
    };
  }

  #field(index: number): number {
    const at = checked(
      this.core.exports.dmaDeviceAt(this.handle),
      `read device ${this.name}`,
      () => "it was removed",
    );
    return this.core.word(at, index);
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
    const where = `${lengthBytes} bytes at ${formatAddress(address)}`;
    const operation = `${access} ${where} as ${this.name}`;
    requireInteger(address, "address", 0, ADDRESS_END - 1, operation);
    requireInteger(lengthBytes, "lengthBytes", 0, this.core.u8.length, operation);
    const bits = accessBits(access);
    if (bits === undefined) {
      fail("EINVAL", operation, "the access must be read, write, read-write or execute");
    }
    const views: Uint8Array<ArrayBufferLike>[] = [];
    for (let done = 0; done < lengthBytes; ) {
      const at = address + done;
      const result = this.#spansAt(at, lengthBytes - done, access, bits);
      const count = checked(result, operation, (code) => this.#faultReason(code));
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
   * Translates into the scratch words; a fault is reported, and the access tried again where the
   * handler asks for that, once for each page.
   */
  #spansAt(at: number, lengthBytes: number, access: Access, bits: number): number {
    const { dmaSpans, dmaSpanAt } = this.core.exports;
    const first = pfnOf(at);
    const offset = offsetOf(at);
    for (let triedPfn = -1; ; ) {
      const answer = this.group === null ? null : this.group.translate(addressOf(first), access);
      const result =
        answer === null
          ? dmaSpans(this.handle, first, offset, lengthBytes, bits)
          : dmaSpanAt(this.handle, first, offset, lengthBytes, bits, physPfnOf(answer));
      if (result !== -errno.EFAULT || this.group === null) return result;
      const pfn = this.#field(FAULT_PFN);
      const refusal = answer === null ? this.group.coreReason(pfn, access) : refusalOf(answer);
      const reason = refusal ?? this.#ownReason(pfn);
      const outcome = this.group.reportFault(this.name, pfn, access, reason);
      if (outcome !== "retry" || pfn === triedPfn) return result;
      triedPfn = pfn;
    }
  }

  /** Why an access fails that the domain lets through. */
  #ownReason(pfn: number): IommuFaultReason {
    const bits = Math.max(this.memory.maskBits(), this.memory.coherentBits());
    return pfn > lastPfnOf(bits) ? "address-size" : "not-memory";
  }

  #faultReason(code: ErrnoCode): string {
    if (code !== "EFAULT") return "the device was removed";
    const fault = this.lastFault;
    const address = formatAddress(fault?.address ?? 0);
    return `no memory at ${address} is mapped for this device to ${fault?.access}`;
  }
}

/** The frame of a driver's answer, as the core takes it. */
function physPfnOf(answer: number | IommuFaultReason): number {
  return typeof answer === "string" ? NO_PFN : Math.min(pfnOf(answer), NO_PFN);
}

/** Why a driver refuses; null: it does not. */
function refusalOf(answer: number | IommuFaultReason): IommuFaultReason | null {
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
