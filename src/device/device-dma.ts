/**
 * DeviceDma: the DMA-mapping API of one device.
 *
 *     mapPage · mapSingle · mapSg · mapSgtable · mapResource ─► DeviceMapping ─► unmap… of the same kind
 *     allocCoherent · allocNoncontiguous                     ─► memory and its mapping in one
 *     iovaTryAlloc                                           ─► device addresses first, memory later
 *
 * - D8  What a mapping brings along is pinned while it lives: nobody frees it under the device.
 * - D9  A page, a single run or a resource that the device cannot address is ENOMEM, as
 *       dma_mapping_error() has it; the message keeps the reason.
 *
 * Compare the kernel's kernel/dma/mapping.c.
 *
 * @module
 */

import { requireBytes, requireInstance, requireObject, requireObjects } from "../arguments.ts";
import { type Direction, directionNumber } from "../direction.ts";
import {
  checked,
  codeOf,
  type ErrnoCode,
  fail,
  isErrno,
  requireInteger,
  requireJoined,
  textOf,
} from "../errors.ts";
import { type SgEntry, SgTable } from "../mm/sg-table.ts";
import { withWords, wordsOf } from "../mm/word-list.ts";
import { ADDRESS_END, FRAME_BYTES, formatAddress, NO_PFN, offsetOf, pfnOf } from "../units.ts";
import { CoherentBuffer } from "./coherent-buffer.ts";
import { DeviceAccess } from "./device-access.ts";
import { DeviceMapping, type MappingKind } from "./device-mapping.ts";
import { DmaIova } from "./dma-iova.ts";
import { attrsNumber, type MapAttrs, noAttrs } from "./map-attrs.ts";
import { NoncontiguousBuffer } from "./noncontiguous-buffer.ts";

/** Which bytes of a mapping to sync, and for whom the CPU's access is. */
export interface SyncRange {
  /** The first byte of the mapping. Default 0. */
  readonly offset?: number | undefined;
  /** How many bytes. Default: all that follow. */
  readonly lengthBytes?: number | undefined;
  /** What the CPU does, or the device did. Default: the mapping's direction. */
  readonly direction?: Direction | undefined;
}

/** A device's view of memory. Found as `device.dma`. */
export class DeviceDma extends DeviceAccess {
  /**
   * Maps `lengthBytes` bytes from byte `offset` of frame `pfn` on; they may go on in the frames
   * behind it. Somebody holds the frames, as a range or through a heap. EINVAL, ENOENT: nobody
   * does; ENOMEM (D9). Compare dma_map_page().
   */
  mapPage(
    pfn: number,
    offset: number,
    lengthBytes: number,
    direction: Direction,
    attrs: MapAttrs = noAttrs,
  ): DeviceMapping {
    const operation = `map ${textOf(lengthBytes)} bytes of frame ${textOf(pfn)} for ${this.name}`;
    requireInteger(pfn, "pfn", 0, NO_PFN, operation);
    requireInteger(offset, "offset", 0, NO_PFN, operation);
    requireInteger(lengthBytes, "lengthBytes", 0, NO_PFN, operation);
    return this.#map("page", direction, attrs, operation, (number, bits) =>
      this.core.exports.dmaMapRun(this.handle, pfn, offset, lengthBytes, number, bits),
    );
  }

  /**
   * Maps the bytes under a view of this system's memory: what a pin or a CPU mapping shows. EINVAL:
   * the view is of other memory, as a vmalloc address is for dma_map_single(); ENOMEM (D9).
   */
  mapSingle(view: Uint8Array, direction: Direction, attrs: MapAttrs = noAttrs): DeviceMapping {
    requireBytes(view, "the view", `map bytes for ${this.name}`);
    const operation = `map ${view.length} bytes for ${this.name}`;
    const at = this.core.byteOffsetOf(view);
    if (at === null) return fail("EINVAL", operation, "they are not in the memory of this system");
    return this.#map("single", direction, attrs, operation, (number, bits) =>
      this.core.exports.dmaMapRun(this.handle, pfnOf(at), offsetOf(at), view.length, number, bits),
    );
  }

  /**
   * Maps listed segments, in order. EIO: there is none, or the device cannot address one; EINVAL,
   * ENOENT, ENOMEM. Compare dma_map_sg().
   */
  mapSg(
    segments: readonly SgEntry[],
    direction: Direction,
    attrs: MapAttrs = noAttrs,
  ): DeviceMapping {
    const operation = `map a list for ${this.name}`;
    requireObjects(segments, "the segments", operation);
    const numbers = segments.flatMap((one) => [one.pfn, one.offset, one.lengthBytes, 0]);
    const words = wordsOf(numbers, "a segment's number", operation);
    return this.#map("sg", direction, attrs, operation, (number, bits) =>
      withWords(this.core, words, operation, (at) =>
        this.core.exports.dmaMapList(this.handle, at, segments.length, number, bits),
      ),
    );
  }

  /**
   * Maps a table, which is not freed before it is unmapped. EINVAL: more segments than the device
   * takes; EIO: it cannot address a frame, and nothing bounces it; ENOMEM: no device addresses or
   * page tables are left. Compare dma_map_sgtable().
   */
  mapSgtable(table: SgTable, direction: Direction, attrs: MapAttrs = noAttrs): DeviceMapping {
    const operation = `map a table for ${this.name}`;
    directionNumber(direction, operation);
    requireInstance(table, SgTable, "the table", operation);
    if (!table.isOn(this.core)) fail("EINVAL", operation, "the table is of another system");
    return this.#map("sgtable", direction, attrs, operation, (number, bits) =>
      this.core.exports.dmaMapTable(this.handle, table.handle, number, bits),
    );
  }

  /**
   * Maps something that is no memory of this system, as the registers of another device: it gets
   * device addresses, and is neither synced nor bounced. An access there faults here, because no
   * bytes lie there: "not-memory". EINVAL: it is memory; ENOMEM (D9). Compare dma_map_resource().
   */
  mapResource(
    physicalAddress: number,
    lengthBytes: number,
    direction: Direction,
    attrs: MapAttrs = noAttrs,
  ): DeviceMapping {
    const where = formatAddress(physicalAddress);
    const operation = `map ${textOf(lengthBytes)} bytes of a resource at ${where} for ${this.name}`;
    requireInteger(physicalAddress, "physicalAddress", 0, ADDRESS_END - 1, operation);
    requireInteger(lengthBytes, "lengthBytes", 0, NO_PFN, operation);
    return this.#map("resource", direction, attrs, operation, (number, bits) =>
      this.core.exports.dmaMapResource(
        this.handle,
        pfnOf(physicalAddress),
        offsetOf(physicalAddress),
        lengthBytes,
        number,
        bits,
      ),
    );
  }

  #map(
    kind: MappingKind,
    direction: Direction,
    attrs: MapAttrs,
    operation: string,
    call: (direction: number, attrs: number) => number,
  ): DeviceMapping {
    const number = directionNumber(direction, operation);
    const result = call(number, attrsNumber(attrs, operation));
    if (isErrno(result)) {
      requireJoined(result, operation);
      const code = codeOf(result);
      const isAddress = kind === "page" || kind === "single" || kind === "resource";
      fail(isAddress && code === "EIO" ? "ENOMEM" : code, operation, mapReason(code, kind)); // D9
    }
    return new DeviceMapping(this.core, this.handle, result, direction, kind, this.memory);
  }

  // ---- unmap

  /** Ends a mapPage(): the device faults there from now on. EINVAL: another kind; ESTALE: ended. */
  unmapPage(mapping: DeviceMapping, attrs: MapAttrs = noAttrs): void {
    this.#unmap("page", mapping, attrs);
  }

  /** Ends a mapSingle(). EINVAL, ESTALE. */
  unmapSingle(mapping: DeviceMapping, attrs: MapAttrs = noAttrs): void {
    this.#unmap("single", mapping, attrs);
  }

  /** Ends a mapSg(). EINVAL, ESTALE. */
  unmapSg(mapping: DeviceMapping, attrs: MapAttrs = noAttrs): void {
    this.#unmap("sg", mapping, attrs);
  }

  /** Ends a mapSgtable(). EINVAL, ESTALE. */
  unmapSgtable(mapping: DeviceMapping, attrs: MapAttrs = noAttrs): void {
    this.#unmap("sgtable", mapping, attrs);
  }

  /** Ends a mapResource(). EINVAL, ESTALE. */
  unmapResource(mapping: DeviceMapping, attrs: MapAttrs = noAttrs): void {
    this.#unmap("resource", mapping, attrs);
  }

  #unmap(kind: MappingKind, mapping: DeviceMapping, attrs: MapAttrs): void {
    const operation = `unmap ${nounOf[kind]} for ${this.name}`;
    this.#requireOwn(mapping, operation);
    if (mapping.kind !== kind)
      fail("EINVAL", operation, `it was mapped as ${nounOf[mapping.kind]}`);
    mapping.end(attrsNumber(attrs, operation), operation);
  }

  #requireOwn(mapping: DeviceMapping, operation: string): void {
    if (!(mapping instanceof DeviceMapping) || !mapping.isOf(this.core, this.handle))
      fail("EINVAL", operation, "it is no mapping of this device");
    if (mapping.isEnded) fail("ESTALE", operation, "it was unmapped before");
  }

  // ---- sync

  /**
   * Whether syncing this mapping does anything: it was bounced, or its device's cache is simulated.
   * Compare dma_need_sync().
   */
  needSync(mapping: DeviceMapping): boolean {
    const operation = `ask whether a mapping of ${this.name} needs a sync`;
    this.#requireOwn(mapping, operation);
    this.core.requireJoined(operation);
    return this.core.exports.dmaNeedsSync(mapping.handle) === 1;
  }

  /**
   * The CPU's turn: it sees what the device wrote to the mapping, or to a range of it. EINVAL: the
   * range is not mapped, or the direction is not the mapping's. Compare dma_sync_single_for_cpu(),
   * dma_sync_single_range_for_cpu() and dma_sync_sg_for_cpu().
   */
  syncForCpu(mapping: DeviceMapping, range: SyncRange = {}): void {
    this.#sync(mapping, range, 0);
  }

  /**
   * The device's turn: it sees what the CPU wrote. EINVAL as syncForCpu(). Compare
   * dma_sync_single_for_device() and its kin.
   */
  syncForDevice(mapping: DeviceMapping, range: SyncRange = {}): void {
    this.#sync(mapping, range, 1);
  }

  #sync(mapping: DeviceMapping, range: SyncRange, isForDevice: number): void {
    const operation = `sync a mapping of ${this.name} for the ${isForDevice ? "device" : "CPU"}`;
    this.#requireOwn(mapping, operation);
    requireObject(range, "the range", operation);
    const { offset = 0, direction = mapping.direction } = range;
    requireInteger(offset, "offset", 0, mapping.lengthBytes, operation);
    const { lengthBytes = mapping.lengthBytes - offset } = range;
    requireInteger(lengthBytes, "lengthBytes", 0, mapping.lengthBytes - offset, operation);
    const number = directionNumber(direction, operation);
    if (mapping.direction !== "bidirectional" && direction !== mapping.direction)
      fail("EINVAL", operation, `it is mapped ${mapping.direction}, not ${direction}`);
    checked(
      this.core.exports.dmaSync(mapping.handle, offset, lengthBytes, number, isForDevice),
      operation,
      () => "it was unmapped before",
    );
  }

  /**
   * @internal What an exporter does around a CPU access to a buffer, whatever direction each of
   * its mappings has: only what both directions let pass is copied.
   */
  syncAccess(mapping: DeviceMapping, direction: Direction, isForDevice: boolean): void {
    const operation = `sync a mapping of ${this.name}`;
    this.#requireOwn(mapping, operation);
    const number = directionNumber(direction, operation);
    const { handle, lengthBytes } = mapping;
    this.core.exports.dmaSync(handle, 0, lengthBytes, number, isForDevice ? 1 : 0);
  }

  // ---- memory and mapping in one

  /**
   * Memory that CPU and device both see without syncs: zeros, whole frames, one segment below the
   * coherent mask. Without an IOMMU, and with `forceContiguous`, the frames are one run. EINVAL;
   * ENOMEM; ESTALE. Compare dma_alloc_coherent().
   */
  allocCoherent(lengthBytes: number, attrs: MapAttrs = noAttrs): CoherentBuffer {
    const operation = `allocate ${textOf(lengthBytes)} coherent bytes for ${this.name}`;
    this.requireLive(operation);
    const bits = attrsNumber(attrs, operation);
    return new CoherentBuffer(this.core, this.handle, this.memory, lengthBytes, bits, operation);
  }

  /**
   * Memory that the device sees as one segment, wherever its frames are; the CPU sees it by vmap()
   * or mmap(), between syncs. EINVAL; ENOMEM. Compare dma_alloc_noncontiguous().
   */
  allocNoncontiguous(lengthBytes: number, direction: Direction): NoncontiguousBuffer {
    const operation = `allocate ${textOf(lengthBytes)} bytes for ${this.name}`;
    this.requireLive(operation);
    const number = directionNumber(direction, operation);
    const target = { device: this.handle, memory: this.memory };
    return new NoncontiguousBuffer(this.core, target, lengthBytes, direction, number, operation);
  }

  /**
   * Device addresses for `lengthBytes` bytes, into which memory is linked piece by piece. Null when
   * the device has no IOMMU of its own, is untrusted, or has a simulated cache: map in the ordinary
   * way then. `offset`: of the first byte in its page. Compare dma_iova_try_alloc().
   */
  iovaTryAlloc(lengthBytes: number, offset = 0): DmaIova | null {
    const operation = `reserve device addresses for ${this.name}`;
    this.requireLive(operation);
    requireInteger(offset, "offset", 0, FRAME_BYTES - 1, operation);
    requireInteger(lengthBytes, "lengthBytes", 1, NO_PFN - offset, operation);
    if (this.group === null || !this.memory.canLink()) return null;
    return DmaIova.tryAlloc(this.core, this.group, this.memory, lengthBytes, offset);
  }
}

const nounOf: Record<MappingKind, string> = {
  page: "a page",
  single: "a single run",
  sg: "a list",
  sgtable: "a table",
  resource: "a resource",
  coherent: "coherent memory",
  noncontiguous: "noncontiguous memory",
};

function mapReason(code: ErrnoCode, kind: MappingKind): string {
  if (code === "EINVAL") {
    if (kind === "sgtable") return "it needs more segments than the device takes, or several runs";
    if (kind === "resource") return "it is memory of the system, is empty, or ends nowhere";
    return "it is empty, leaves memory, is movable, or needs more segments than the device takes";
  }
  if (code === "EIO")
    return "the device cannot address all of it, and there is no room to bounce it";
  if (code === "ENOENT") return "nobody holds a frame of it";
  if (code === "EOVERFLOW") return "a frame has as many pins as can be counted";
  if (code === "ESTALE") return "the table was freed or the device removed";
  return "no device addresses, page tables or records are left";
}
