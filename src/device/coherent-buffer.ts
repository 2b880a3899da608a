/**
 * CoherentBuffer: memory that a device and the CPU share without syncs.
 *
 * - CB1  The frames are zero at first, and stay while the buffer lives; the device sees them as one
 *        segment below its coherent mask, never through a bounce pool or a simulated cache.
 * - CB2  Without an IOMMU, and with forceContiguous, they are one run. Else they may be scattered:
 *        nothing joins them for the CPU, so there is a view for each run.
 *
 * Compare dma_alloc_coherent() and dma_free_coherent() in the kernel's kernel/dma/mapping.c.
 *
 * @module
 */

import type { Core } from "../core/core.ts";
import { fail, requireInteger } from "../errors.ts";
import type { PinnedTable } from "../mm/pinned-table.ts";
import { addressOf, FRAME_BYTES, framesOf, GiB } from "../units.ts";
import { DeviceMapping } from "./device-mapping.ts";
import { allocFrames, type DeviceFrames, type DeviceMemory } from "./device-memory.ts";
import { attrBits } from "./map-attrs.ts";

const BIDIRECTIONAL = 0;

/** Memory of a device. Made by `device.dma.allocCoherent()`. */
export class CoherentBuffer {
  /** Bytes, in whole frames. */
  readonly lengthBytes: number;
  readonly mapping: DeviceMapping;
  readonly #frames: DeviceFrames;
  readonly #pinned: PinnedTable;
  #isFreed = false;

  /** @internal */
  constructor(
    core: Core,
    device: number,
    memory: DeviceMemory,
    lengthBytes: number,
    attrs: number,
    operation: string,
  ) {
    requireInteger(lengthBytes, "lengthBytes", 1, 4 * GiB - FRAME_BYTES, operation);
    const frameCount = framesOf(lengthBytes);
    const isRun = (attrs & attrBits.forceContiguous) !== 0;
    const request = { frameCount, maskBits: memory.coherentBits(), isRun };
    this.lengthBytes = addressOf(frameCount);
    this.#frames = allocFrames(core, memory, request, operation);
    const { table } = this.#frames;
    const bits = attrs + attrBits.oneSegment + attrBits.coherent;
    let pinned: PinnedTable | null = null;
    try {
      pinned = table.pin();
      const handle = core.exports.dmaMapTable(device, table.handle, BIDIRECTIONAL, bits);
      if (handle < 0) fail("ENOMEM", operation, "no device addresses or records are left there");
      this.mapping = new DeviceMapping(core, device, handle, "bidirectional", "coherent", memory);
    } catch (cause) {
      pinned?.unpin();
      this.#frames.free();
      throw cause;
    }
    this.#pinned = pinned;
    this.#frames.settle();
  }

  /** Where the device sees the first byte. ESTALE once freed. */
  get address(): number {
    return this.mapping.address;
  }

  /**
   * The bytes, as the CPU sees them. EINVAL: they are several runs (CB2), see {@link views}; ESTALE
   * once freed. Do not keep them beyond free().
   */
  get bytes(): Uint8Array<ArrayBufferLike> {
    const [first, ...others] = this.views;
    if (first === undefined || others.length > 0)
      return fail("EINVAL", "view coherent memory", "it lies in several runs of frames; use views");
    return first;
  }

  /** The bytes in order, one view for each run of frames. As {@link bytes}. */
  get views(): readonly Uint8Array<ArrayBufferLike>[] {
    return this.#pinned.views;
  }

  /**
   * Gives the memory back; the device faults there from now on. ESTALE: it was freed before; EBUSY:
   * somebody has mapped or pinned the frames on top (DF1).
   */
  free(): void {
    const operation = "free coherent memory";
    if (this.#isFreed) fail("ESTALE", operation, "it was freed before");
    this.#frames.requireUnused(operation);
    if (!this.mapping.isEnded) this.mapping.end(0, operation);
    if (this.#pinned.isPinned) this.#pinned.unpin();
    this.#frames.free();
    this.#isFreed = true;
  }

  [Symbol.dispose](): void {
    if (!this.#isFreed) this.free();
  }
}
