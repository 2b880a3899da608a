/**
 * CoherentBuffer: memory that a device and the CPU share without syncs.
 *
 * - CB1  The frames are one run, zero at first, and stay while the buffer lives; the device sees
 *        them below its coherent mask, never through a bounce pool or a simulated cache.
 *
 * Compare dma_alloc_coherent() and dma_free_coherent() in the kernel's kernel/dma/mapping.c.
 *
 * @module
 */

import type { Core } from "../core/core.ts";
import { DmaBufError, fail, requireInteger } from "../errors.ts";
import type { IommuGroup } from "../iommu/iommu-group.ts";
import type { CmaRegion } from "../mm/cma-region.ts";
import type { FramePool } from "../mm/frame-pool.ts";
import type { FrameRange, PinnedRange } from "../mm/frame-range.ts";
import { addressOf, FRAME_BYTES, framesOf, GiB } from "../units.ts";
import { DeviceMapping } from "./device-mapping.ts";
import { attrBits } from "./map-attrs.ts";

/** @internal Where a device's allocations come from, and what it can reach. */
export interface DeviceMemory {
  readonly frames: FramePool;
  readonly regions: () => readonly CmaRegion[];
  readonly physicalBase: number;
  readonly coherentBits: () => number;
  readonly maskBits: () => number;
  readonly isCoherent: () => boolean;
  /** Whether pages may be shown to it as they are, past the mapping calls. */
  readonly canLink: () => boolean;
  /** Counts device addresses that are out without a mapping: 1 more, or 1 less. */
  readonly count: (delta: number) => void;
  /** The devices that it shares an IOMMU's domain with; null: there is no IOMMU. */
  readonly group: IommuGroup | null;
}

const RUN_FRAMES_MAX = 1024;
const MAX_ALIGN_ORDER = 8; // CONFIG_CMA_ALIGNMENT: 1 MiB
const BIDIRECTIONAL = 0;

/**
 * A run of frames below `maskBits` address bits: of the pool while it is short enough, else of the
 * first region that reaches no further. ENOMEM.
 */
export function runBelow(
  memory: DeviceMemory,
  frameCount: number,
  maskBits: number,
  operation: string,
): FrameRange {
  const order = Math.ceil(Math.log2(frameCount));
  const reasons: string[] = [];
  const tries: (() => FrameRange)[] = [];
  if (frameCount <= RUN_FRAMES_MAX)
    tries.push(() =>
      memory.frames.alloc(frameCount, { alignOrder: order, maskBits: Math.max(12, maskBits) }),
    );
  for (const region of memory.regions()) {
    const end = memory.physicalBase + addressOf(region.basePfn + region.frameCount);
    if (end > 2 ** maskBits || frameCount > region.frameCount) continue;
    tries.push(() => region.alloc(frameCount, { alignOrder: Math.min(order, MAX_ALIGN_ORDER) }));
  }
  for (const attempt of tries) {
    try {
      return attempt();
    } catch (error) {
      if (!(error instanceof DmaBufError)) throw error;
      reasons.push(error.message);
    }
  }
  const why = reasons.join("; ") || "no region is that long where the device reaches";
  return fail("ENOMEM", operation, `it must be one run of ${frameCount} frames, and ${why}`);
}

/** Memory of a device. Made by `device.dma.allocCoherent()`. */
export class CoherentBuffer {
  /** Bytes, in whole frames. */
  readonly lengthBytes: number;
  readonly mapping: DeviceMapping;
  readonly #range: FrameRange;
  readonly #pinned: PinnedRange;

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
    this.lengthBytes = addressOf(frameCount);
    this.#range = runBelow(memory, frameCount, memory.coherentBits(), operation);
    this.#pinned = this.#range.pin();
    const bits = attrs + attrBits.oneSegment + attrBits.coherent;
    const { dmaMapRun } = core.exports;
    const pfn = this.#range.pfn;
    try {
      const handle = dmaMapRun(device, pfn, 0, this.lengthBytes, BIDIRECTIONAL, bits);
      if (handle < 0) fail("ENOMEM", operation, "no device addresses or records are left there");
      this.mapping = new DeviceMapping(core, device, handle, "bidirectional", "coherent", memory);
    } catch (cause) {
      this.#pinned.unpin();
      this.#range.free();
      throw cause;
    }
  }

  /** Where the device sees the first byte. ESTALE once freed. */
  get address(): number {
    return this.mapping.address;
  }

  /** The bytes, as the CPU sees them. ESTALE once freed. Do not keep them beyond free(). */
  get bytes(): Uint8Array<ArrayBufferLike> {
    return this.#pinned.bytes;
  }

  /** Gives the memory back; the device faults there from now on. ESTALE: it was freed before. */
  free(): void {
    this.mapping.end(0, "free coherent memory");
    this.#pinned.unpin();
    this.#range.free();
  }

  [Symbol.dispose](): void {
    if (!this.mapping.isEnded) this.free();
  }
}
