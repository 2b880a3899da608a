/**
 * NoncontiguousBuffer: memory that a device sees in one piece, and the CPU wherever it lies.
 *
 *     frames  ▒▒ ▒ ▒▒▒ ─► table (origNents) ─► one IOVA range ─► mapping of 1 segment
 *                └─ vmap(), mmap(): views, between syncs
 *
 * - NC1  The device's segment is one, whatever its limits: behind an IOMMU the frames may be
 *        scattered, else they are one run.
 *
 * Compare dma_alloc_noncontiguous(), dma_vmap_noncontiguous() and dma_mmap_noncontiguous() in the
 * kernel's kernel/dma/mapping.c.
 *
 * @module
 */

import type { Core } from "../core/core.ts";
import type { Direction } from "../direction.ts";
import { fail, requireInteger } from "../errors.ts";
import type { PinnedTable } from "../mm/pinned-table.ts";
import type { SgTable } from "../mm/sg-table.ts";
import { addressOf, FRAME_BYTES, framesOf, GiB } from "../units.ts";
import { DeviceMapping } from "./device-mapping.ts";
import { allocFrames, type DeviceFrames, type DeviceMemory } from "./device-memory.ts";
import { attrBits } from "./map-attrs.ts";

/** @internal Who the memory is for. */
interface NoncontiguousTarget {
  readonly device: number;
  readonly memory: DeviceMemory;
}

/** Memory of a device. Made by `device.dma.allocNoncontiguous()`. */
export class NoncontiguousBuffer {
  /** Bytes, in whole frames. */
  readonly lengthBytes: number;
  /** One segment; what `device.dma.syncForCpu()` and its kin take. */
  readonly mapping: DeviceMapping;
  /** The CPU side. */
  readonly table: SgTable;
  readonly #frames: DeviceFrames;
  readonly #views: Set<PinnedTable> = new Set();
  #isFreed = false;

  /** @internal */
  constructor(
    core: Core,
    { device, memory }: NoncontiguousTarget,
    lengthBytes: number,
    direction: Direction,
    directionNumber: number,
    operation: string,
  ) {
    requireInteger(lengthBytes, "lengthBytes", 1, 4 * GiB - FRAME_BYTES, operation);
    const frameCount = framesOf(lengthBytes);
    this.lengthBytes = addressOf(frameCount);
    const request = { frameCount, maskBits: memory.maskBits(), isRun: false };
    this.#frames = allocFrames(core, memory, request, operation);
    this.table = this.#frames.table;
    const { handle } = this.table;
    const { oneSegment } = attrBits;
    try {
      const result = core.exports.dmaMapTable(device, handle, directionNumber, oneSegment);
      if (result < 0)
        fail("ENOMEM", operation, "no device addresses, page tables or records are left");
      this.mapping = new DeviceMapping(core, device, result, direction, "noncontiguous", memory);
    } catch (cause) {
      this.#frames.free();
      throw cause;
    }
    this.#frames.settle();
  }

  /** Where the device sees the first byte. ESTALE once freed. */
  get address(): number {
    return this.mapping.address;
  }

  /**
   * The bytes for the CPU, one view for each run of frames, pinned until `unpin()`. Here nothing
   * can make them look like one run. EBUSY keeps free() from going on while one is out.
   */
  vmap(): PinnedTable {
    return this.#pin();
  }

  /** The same for a user of the buffer: compare dma_mmap_noncontiguous(). */
  mmap(): PinnedTable {
    return this.#pin();
  }

  #pin(): PinnedTable {
    if (this.mapping.isEnded) fail("ESTALE", "map noncontiguous memory", "it was freed");
    const pinned = this.table.pin();
    this.#views.add(pinned);
    return pinned;
  }

  /**
   * Gives the memory back. ESTALE: it was freed before; EBUSY: a view is out, or somebody has
   * mapped or pinned the frames (DF1).
   */
  free(): void {
    const operation = "free noncontiguous memory";
    if (this.#isFreed) fail("ESTALE", operation, "it was freed before");
    for (const pinned of this.#views) if (!pinned.isPinned) this.#views.delete(pinned);
    if (this.#views.size > 0)
      fail("EBUSY", operation, `${this.#views.size} views of it are out; unpin them first`);
    this.#frames.requireUnused(operation);
    if (!this.mapping.isEnded) this.mapping.end(0, operation);
    this.#frames.free();
    this.#isFreed = true;
  }

  [Symbol.dispose](): void {
    if (!this.#isFreed) this.free();
  }
}
