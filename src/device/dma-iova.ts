/**
 * DmaIova: device addresses that are reserved first and filled later, piece by piece.
 *
 *     tryAlloc ─► reserved ──link(piece)──► linked ──sync()──► in use ──unlink()──► reserved ─► free()
 *
 * - IO1  A device reaches exactly the pages that are linked; a piece's frames are pinned meanwhile.
 * - IO2  Only the first byte may lie inside a page, and only the last piece may end inside one.
 *
 * No scatterlist is needed, and no record for each piece: one range of device pages serves all.
 *
 * Compare dma_iova_try_alloc(), dma_iova_link() and their kin (Linux 6.16) in the kernel's
 * drivers/iommu/dma-iommu.c.
 *
 * @module
 */

import type { Core } from "../core/core.ts";
import { type Direction, directionNumber } from "../direction.ts";
import { checked, type ErrnoCode, fail, requireInteger, textOf } from "../errors.ts";
import type { IommuGroup } from "../iommu/iommu-group.ts";
import { addressOf, framesOf, lastPfnOf, offsetOf, pfnOf } from "../units.ts";
import type { DeviceMemory } from "./device-memory.ts";
import { protOf } from "./dma-prot.ts";

/** A piece that is linked: which device pages show which frames. */
interface Piece {
  readonly pages: number;
  readonly pfn: number;
  readonly lengthBytes: number;
}

/** Reserved device addresses. Made by `device.dma.iovaTryAlloc()`. */
export class DmaIova {
  /** Where the device sees byte 0. */
  readonly address: number;
  readonly lengthBytes: number;
  readonly #core: Core;
  readonly #group: IommuGroup;
  readonly #memory: DeviceMemory;
  readonly #pieces: Map<number, Piece> = new Map(); // by their first device page
  #isFreed = false;

  private constructor(
    core: Core,
    group: IommuGroup,
    memory: DeviceMemory,
    address: number,
    lengthBytes: number,
  ) {
    this.#core = core;
    this.#group = group;
    this.#memory = memory;
    this.address = address;
    this.lengthBytes = lengthBytes;
    memory.count(1);
  }

  /** @internal Null when no range is free. */
  static tryAlloc(
    core: Core,
    group: IommuGroup,
    memory: DeviceMemory,
    lengthBytes: number,
    offset: number,
  ): DmaIova | null {
    const pages = framesOf(offset + lengthBytes);
    const { iommuIovaAlloc } = core.exports;
    const last = lastPfnOf(memory.maskBits());
    const low = Math.min(last, lastPfnOf(32));
    let pfn = iommuIovaAlloc(group.handle, pages, low, 1) >>> 0;
    if (pfn === 0 && last > low) pfn = iommuIovaAlloc(group.handle, pages, last, 1) >>> 0;
    if (pfn === 0) return null;
    return new DmaIova(core, group, memory, addressOf(pfn, offset), lengthBytes);
  }

  #requireLive(operation: string): void {
    if (this.#isFreed) fail("ESTALE", operation, "the addresses were freed");
  }

  /**
   * Shows `lengthBytes` bytes from byte `pfnOffset` of frame `pfn` on at byte `offset` of the
   * range. EINVAL: outside the range, movable, or inside a page where IO2 forbids it; EEXIST:
   * something is linked there; ENOENT: nobody holds a frame; ENOMEM: no page tables. Then nothing
   * changed.
   */
  link(
    offset: number,
    pfn: number,
    pfnOffset: number,
    lengthBytes: number,
    direction: Direction,
  ): void {
    const what = `${textOf(lengthBytes)} bytes of frame ${textOf(pfn)}`;
    const operation = `link ${what} at ${textOf(offset)}`;
    this.#requireLive(operation);
    const prot = protOf(directionNumber(direction, operation), 0, this.#memory.isCoherent());
    requireInteger(offset, "offset", 0, this.lengthBytes - 1, operation);
    requireInteger(lengthBytes, "lengthBytes", 1, this.lengthBytes - offset, operation);
    requireInteger(pfn, "pfn", 0, pfnOf(this.#core.u8.length) - 1, operation);
    requireInteger(pfnOffset, "pfnOffset", 0, this.#core.u8.length - addressOf(pfn), operation);
    const at = addressOf(pfn, pfnOffset);
    const end = this.address + offset + lengthBytes;
    if (offsetOf(this.address + offset) !== offsetOf(at) || (offset > 0 && offsetOf(at) !== 0))
      fail("EINVAL", operation, "only byte 0 lies inside a page, where it was reserved (IO2)");
    if (offsetOf(end) !== 0 && offset + lengthBytes < this.lengthBytes)
      fail("EINVAL", operation, "only the last piece ends inside a page (IO2)");
    this.#map(pfnOf(this.address + offset), at, lengthBytes, prot, operation);
  }

  #map(iovaPfn: number, at: number, lengthBytes: number, prot: number, operation: string): void {
    const { frameClearRun, pinRange, unpinRange, iommuMap, iommuUnmap } = this.#core.exports;
    const pfn = pfnOf(at);
    const pages = framesOf(offsetOf(at) + lengthBytes);
    checked(frameClearRun(pfn, pages), operation, linkReason);
    checked(pinRange(pfn, pages), operation, linkReason);
    const physPfn = pfnOf(this.#memory.physicalBase) + pfn;
    const domain = this.#group.handle;
    try {
      checked(iommuMap(domain, iovaPfn, physPfn, pages, prot), operation, linkReason);
    } catch (cause) {
      unpinRange(pfn, pages);
      throw cause;
    }
    try {
      this.#group.driver?.show(iovaPfn, pages, prot);
    } catch (cause) {
      iommuUnmap(domain, iovaPfn, pages);
      unpinRange(pfn, pages);
      throw cause;
    }
    this.#pieces.set(iovaPfn, { pages, pfn, lengthBytes });
  }

  /**
   * After the links: makes [offset, offset + lengthBytes) ready for the device, at once for all
   * pieces. EINVAL: a byte of it is not linked.
   */
  sync(offset = 0, lengthBytes: number = this.lengthBytes - offset): void {
    const operation = `sync ${textOf(lengthBytes)} bytes at ${textOf(offset)}`;
    this.#piecesOf(offset, lengthBytes, operation);
  }

  /**
   * Takes [offset, offset + lengthBytes) away from the device, in whole pieces, and at once, with
   * lazy invalidation too. EINVAL: a byte is not linked, or a piece would be cut.
   */
  unlink(offset: number, lengthBytes: number): void {
    const operation = `unlink ${textOf(lengthBytes)} bytes at ${textOf(offset)}`;
    for (const iovaPfn of this.#piecesOf(offset, lengthBytes, operation)) {
      const piece = this.#pieces.get(iovaPfn);
      if (piece === undefined) continue;
      this.#group.driver?.hide(iovaPfn, piece.pages, false);
      this.#core.exports.iommuUnmap(this.#group.handle, iovaPfn, piece.pages);
      this.#core.exports.unpinRange(piece.pfn, piece.pages);
      this.#pieces.delete(iovaPfn);
    }
  }

  /** The first pages of the pieces that make up a range exactly. */
  #piecesOf(offset: number, lengthBytes: number, operation: string): number[] {
    this.#requireLive(operation);
    requireInteger(offset, "offset", 0, this.lengthBytes, operation);
    requireInteger(lengthBytes, "lengthBytes", 0, this.lengthBytes - offset, operation);
    const found: number[] = [];
    let at = this.address + offset;
    const end = at + lengthBytes;
    while (at < end) {
      const piece = this.#pieces.get(pfnOf(at));
      const isFirst = at === this.address || offsetOf(at) === 0;
      if (piece === undefined || !isFirst || at + piece.lengthBytes > end)
        return fail("EINVAL", operation, `no piece begins at byte ${at - this.address} and fits`);
      found.push(pfnOf(at));
      at += piece.lengthBytes;
    }
    return found;
  }

  /** Gives the addresses back. EBUSY: pieces are linked; ESTALE: they were given back before. */
  free(): void {
    const operation = "free device addresses";
    this.#requireLive(operation);
    if (this.#pieces.size > 0)
      fail("EBUSY", operation, `${this.#pieces.size} pieces are linked; unlink them first`);
    this.#core.exports.iommuIovaFree(this.#group.handle, pfnOf(this.address));
    this.#isFreed = true;
    this.#memory.count(-1);
  }

  /** Unlinks the first `linkedBytes` bytes and frees the addresses. EINVAL, ESTALE, EBUSY. */
  destroy(linkedBytes: number): void {
    this.unlink(0, linkedBytes);
    this.free();
  }

  [Symbol.dispose](): void {
    if (this.#isFreed) return;
    for (const [iovaPfn, { lengthBytes }] of this.#pieces) {
      const at = Math.max(this.address, addressOf(iovaPfn));
      this.unlink(at - this.address, lengthBytes);
    }
    this.free();
  }
}

function linkReason(code: ErrnoCode): string {
  if (code === "EEXIST") return "something is linked there";
  if (code === "ENOENT") return "nobody holds a frame of it";
  if (code === "EINVAL") return "a frame is movable or no frame of the memory";
  if (code === "EOVERFLOW") return "a frame has as many pins as can be counted";
  return "no page table is left, or another thread holds the domain";
}
