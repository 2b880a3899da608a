/**
 * Heap: a named source of buffers.
 *
 *     system   scattered frames, chosen at alloc: blocks of 1 MiB, 64 KiB, 4 KiB, as they come
 *     <region> one run of a CMA region, chosen at alloc
 *     auto     nothing at alloc; at the first use, what the devices attached then can all address
 *
 * - HP1  Sizes are rounded up to whole frames for storage; the buffer keeps the rounded size, as
 *        Linux has it.
 * - HP2  A heap that cannot serve throws ENOMEM and holds nothing.
 *
 * Compare the kernel's drivers/dma-buf/dma-heap.c.
 *
 * @module
 */

import type { Core } from "../core/core.ts";
import type { DmaBuf } from "../dma-buf/dma-buf.ts";
import { negotiate } from "../dma-buf/negotiate.ts";
import type { ExportInfo } from "../dma-buf/ops.ts";
import { checked, codeOf, type ErrnoCode, errno, fail, requireInteger } from "../errors.ts";
import type { CmaRegion } from "../mm/cma-region.ts";
import {
  ADDRESS_END,
  addressOf,
  FRAME_BYTES,
  formatBytes,
  framesOf,
  GiB,
  NO_PFN,
  pfnOf,
} from "../units.ts";
import { HeapBuffer, type Place } from "./heap-buffer.ts";

/** What a buffer is allocated with. */
export interface AllocOptions {
  /** A label for people. */
  readonly name?: string;
}

/** What heaps need from their system. */
export interface HeapContext {
  readonly core: Core;
  readonly physicalBase: number;
  readonly regions: ReadonlyMap<string, CmaRegion>;
  export(info: ExportInfo): DmaBuf;
}

const MAX_ALIGN_ORDER = 8; // CONFIG_CMA_ALIGNMENT: 1 MiB

/** A heap of a system. Found by `system.heap(name)`. */
export class Heap {
  readonly name: string;
  readonly #context: HeapContext;
  readonly #place: Place;
  readonly #isLate: boolean;

  /** @internal `isLate`: storage is chosen at the first use, not at alloc. */
  constructor(context: HeapContext, name: string, place: Place, isLate: boolean) {
    this.#context = context;
    this.name = name;
    this.#place = place;
    this.#isLate = isLate;
  }

  /**
   * A buffer of `sizeBytes` bytes, rounded up to whole frames (HP1), all zero. EINVAL: size 0;
   * ENOMEM (HP2).
   */
  alloc(sizeBytes: number, { name }: AllocOptions = {}): DmaBuf {
    requireInteger(
      sizeBytes,
      "sizeBytes",
      1,
      4 * GiB - FRAME_BYTES,
      `allocate from heap ${this.name}`,
    );
    const { core, physicalBase } = this.#context;
    const ops = new HeapBuffer(core, physicalBase, this.#place);
    const rounded = framesOf(sizeBytes) * FRAME_BYTES;
    const buf = this.#context.export({
      ops,
      sizeBytes: rounded,
      exporterName: this.name,
      ...(name === undefined ? {} : { name }),
    });
    if (this.#isLate) return buf;
    try {
      ops.decide(buf);
    } catch (error) {
      buf.put();
      throw error;
    }
    return buf;
  }
}

/**
 * The heaps that every system has: `system`, `auto`, and one per CMA region under the region's
 * name.
 */
export function createHeaps(context: HeapContext): Map<string, Heap> {
  const heaps = new Map<string, Heap>();
  heaps.set(
    "system",
    new Heap(context, "system", (buf) => placeScattered(context, buf, ADDRESS_END), false),
  );
  heaps.set("auto", new Heap(context, "auto", (buf) => placeForAttached(context, buf), true));
  for (const region of context.regions.values()) {
    heaps.set(
      region.name,
      new Heap(context, region.name, (buf) => placeInRegion(context, buf, region), false),
    );
  }
  return heaps;
}

/** The storage that all attached devices can use. */
function placeForAttached(context: HeapContext, buf: DmaBuf): number {
  const devices = buf.attachments.map(({ device }) => device);
  const { storage } = negotiate(devices, buf.sizeBytes);
  if (storage === null)
    return fail("EINVAL", `place ${buf.name}`, "the attached devices have no storage in common");
  if (storage.kind === "scattered") return placeScattered(context, buf, storage.addressEnd);
  return placeContiguous(context, buf, storage.addressEnd);
}

function placeScattered(
  { core, physicalBase }: HeapContext,
  buf: DmaBuf,
  addressEnd: number,
): number {
  const pfnEnd = addressEnd >= ADDRESS_END ? NO_PFN : Math.max(0, pfnOf(addressEnd - physicalBase));
  const result = core.exports.storageAllocBlocks(framesOf(buf.sizeBytes), pfnEnd);
  return checked(result, `place ${buf.name}`, (code) => scatteredReason(code, buf));
}

function scatteredReason(code: ErrnoCode, buf: DmaBuf): string {
  if (code === "EAGAIN") return "another thread holds the allocator; try again";
  return `fewer than ${framesOf(buf.sizeBytes)} frames are free where all its devices reach`;
}

/** The first region below `addressEnd` that has a run long enough. */
function placeContiguous(context: HeapContext, buf: DmaBuf, addressEnd: number): number {
  const refusals: string[] = [];
  for (const region of context.regions.values()) {
    const regionEnd = context.physicalBase + addressOf(region.basePfn + region.frameCount);
    if (regionEnd > addressEnd) {
      refusals.push(`region ${region.name} reaches beyond what a device can address`);
      continue;
    }
    const handle = regionAlloc(context, buf, region);
    if (handle >= 0) return handle;
    refusals.push(`region ${region.name}: ${region.explain(codeOf(handle))}`);
  }
  const reason =
    refusals.length > 0
      ? refusals.join("; ")
      : "the system has no CMA region; open it with cma: { default: bytes }";
  return fail(
    "ENOMEM",
    `place ${buf.name}`,
    `a device needs ${formatBytes(buf.sizeBytes)} in one run, and ${reason}`,
  );
}

function placeInRegion(context: HeapContext, buf: DmaBuf, region: CmaRegion): number {
  return checked(regionAlloc(context, buf, region), `place ${buf.name}`, (code) =>
    region.explain(code),
  );
}

/** A run aligned to its size, up to 1 MiB. The table's handle, or a negative errno. */
function regionAlloc({ core }: HeapContext, buf: DmaBuf, region: CmaRegion): number {
  const frames = framesOf(buf.sizeBytes);
  if (frames > region.frameCount) return -errno.ENOMEM;
  const alignOrder = Math.min(Math.ceil(Math.log2(frames)), MAX_ALIGN_ORDER);
  return core.exports.storageAllocRegion(region.handle, frames, alignOrder);
}
