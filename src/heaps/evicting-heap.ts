/**
 * EvictingHeap: buffers in a small place that is quick, and in a large one when that is full.
 *
 *     near   ├ least recently used … ┼ … ┼ used last ┤      say a carve-out, "VRAM"
 *                  │ evicted, to make room    ▲ a buffer that is used comes back
 *     far    ├─────▼──────────────────────────┼──────┤      say the system heap
 *
 * - EV1  The list holds exactly the buffers that lie near, least recently used first. Being mapped,
 *        pinned, validated or allocated is being used.
 * - EV2  Room is made by evicting buffers from the front of the list that may move
 *        (evicting-buffer.ts, EB2); others are passed over. Nothing is evicted for what cannot fit
 *        even then.
 * - EV3  A buffer for which there is no room near lies far, and works there.
 * - EV4  Bytes that move are counted in `bytesCopied`, and in stats().
 *
 * Calls that do not wait pass over buffers whose fences are pending or whose reservation is locked;
 * the forms "…Async" wait for them. Importers that are dynamic see a move as moveNotify(), and what
 * they map next lies where the bytes are then.
 *
 * Compare the kernel's drivers/gpu/drm/ttm/ttm_bo.c.
 *
 * @module
 */

import { requireObject } from "../arguments.ts";
import { type AsyncOptions, withLock, withLockAsync } from "../dma-buf/buffer-lock.ts";
import { DmaBuf } from "../dma-buf/dma-buf.ts";
import type { Layout } from "../dma-buf/negotiate.ts";
import { negotiate } from "../dma-buf/negotiate.ts";
import { TimeLimit } from "../dma-buf/time-limit.ts";
import { DmaBufError, fail, textOf } from "../errors.ts";
import type { CmaRegion } from "../mm/cma-region.ts";
import { getForWait } from "../stacks.ts";
import { addressOf } from "../units.ts";
import type { HeapContext } from "./builtin.ts";
import { EvictingBuffer, type EvictingHost, type EvictingPlace } from "./evicting-buffer.ts";
import type { HeapRequest } from "./heap.ts";
import { placeInRegion, placeScattered } from "./place.ts";
import { PlacedStorage } from "./placed-storage.ts";

/** What an evicting heap is made with. */
export interface EvictingHeapOptions {
  /** The heap's name. */
  readonly name: string;
  /** A carve-out or CMA region: the small, quick place. */
  readonly near: string;
  /** `system`, or another carve-out or CMA region. */
  readonly far: string;
}

/** What an evicting heap holds and has done. */
export interface EvictingStats {
  readonly nearCount: number;
  readonly nearBytes: number;
  readonly farCount: number;
  readonly farBytes: number;
  /** Moves from near to far, and back. */
  readonly evictedCount: number;
  readonly validatedCount: number;
  /** Bytes of all moves. */
  readonly movedBytes: number;
}

interface Totals {
  count: number;
  bytes: number;
}

/** A heap that moves its buffers. Made by `system.addEvictingHeap()`. */
export class EvictingHeap implements EvictingHost {
  readonly name: string;
  readonly #context: HeapContext;
  readonly #areas: Readonly<Record<EvictingPlace, CmaRegion | null>>;
  /** EV1. */
  readonly #recent: Set<EvictingBuffer> = new Set();
  readonly #all: Map<DmaBuf, EvictingBuffer> = new Map();
  readonly #held: Record<EvictingPlace, Totals> = {
    near: { count: 0, bytes: 0 },
    far: { count: 0, bytes: 0 },
  };
  readonly #moved: Record<EvictingPlace, number> = { near: 0, far: 0 };
  #movedBytes = 0;

  /** @internal EINVAL: a place is unknown, or both are one. */
  constructor(context: HeapContext, options: EvictingHeapOptions) {
    requireObject(options, "the options", "add a heap");
    const { name, near, far } = options;
    const operation = `add heap ${textOf(name)}`;
    const area = (wanted: string): CmaRegion =>
      context.areas.find((one) => one.name === wanted) ??
      fail("EINVAL", operation, `there is no carve-out or region ${textOf(wanted)}`);
    if (near === far) fail("EINVAL", operation, "near and far are one place");
    this.name = name;
    this.#context = context;
    this.#areas = { near: area(near), far: far === "system" ? null : area(far) };
  }

  /** @internal What `system.heap(name).alloc()` makes: near if there is room (EV3). */
  make({ heapName, sizeBytes, name, flags, pixels, layout: picture }: HeapRequest): DmaBuf {
    if (pixels !== undefined)
      fail("EINVAL", `allocate a picture from heap ${heapName}`, "use heap auto for that");
    const ops = new EvictingBuffer(this, picture ?? null);
    const label = name === undefined ? {} : { name };
    const buf = this.#context.export({ ops, sizeBytes, exporterName: heapName, flags, ...label });
    const { layout } = negotiate([], { sizeBytes });
    try {
      const near = layout && this.#makeNear(buf, layout, ops);
      const storage = near ?? this.#newStorage("far", buf, layout as Layout, ops);
      this.#all.set(buf, ops);
      ops.begin(buf, near === null ? "far" : "near", storage.clear());
      this.#count(ops, ops.place, 1);
    } catch (error) {
      buf.put();
      throw error;
    }
    return buf;
  }

  /** Where a buffer lies. EINVAL: it is not of this heap. */
  placeOf(buf: DmaBuf): EvictingPlace {
    return this.#find(buf, "place").place;
  }

  /** What it holds and has done. */
  stats(): EvictingStats {
    const { near, far } = this.#held;
    return {
      nearCount: near.count,
      nearBytes: near.bytes,
      farCount: far.count,
      farBytes: far.bytes,
      evictedCount: this.#moved.far,
      validatedCount: this.#moved.near,
      movedBytes: this.#movedBytes,
    };
  }

  /**
   * Moves a buffer far; nothing, if it lies there. EBUSY: it may not move, and why; EAGAIN: its
   * reservation is locked; ENOMEM: there is no room.
   */
  evict(buf: DmaBuf): void {
    const ops = this.#find(buf, "evict");
    withLock(buf.resv, this, operationOf("evict", buf), () => this.#moveOrFail(ops, "far"));
  }

  /** The same after waiting for the reservation and for all fences. EINTR, ETIME. */
  async evictAsync(buf: DmaBuf, options: AsyncOptions = {}): Promise<void> {
    const ops = this.#find(buf, "evict");
    const limit = new TimeLimit(options, operationOf("evict", buf)());
    await this.#locked(buf, limit, () => this.#moveOrFail(ops, "far"));
  }

  /**
   * Moves a buffer near, and others far for that; it is the last to be evicted then. EBUSY, EAGAIN
   * as evict(); ENOMEM: no room can be made.
   */
  validate(buf: DmaBuf): void {
    const ops = this.#find(buf, "validate");
    withLock(buf.resv, this, operationOf("validate", buf), () => this.#moveOrFail(ops, "near"));
  }

  /** The same after waiting for this buffer, and for the others one by one. EINTR, ETIME. */
  async validateAsync(buf: DmaBuf, options: AsyncOptions = {}): Promise<void> {
    const ops = this.#find(buf, "validate");
    const limit = new TimeLimit(options, operationOf("validate", buf)());
    const tried = new Set<EvictingBuffer>([ops]);
    for (;;) {
      try {
        await this.#locked(buf, limit, () => this.#moveOrFail(ops, "near"));
        return;
      } catch (error) {
        const next = [...this.#recent].find((one) => !tried.has(one));
        if (next === undefined || !isCode(error, "ENOMEM")) throw error;
        tried.add(next);
        await limit.wait((rest) => this.#evictIfPossible(next, rest)); // no lock is held meanwhile
      }
    }
  }

  async #evictIfPossible({ buf }: EvictingBuffer, options: AsyncOptions): Promise<void> {
    try {
      await this.evictAsync(buf, options);
    } catch (error) {
      if (!isCode(error, "EBUSY")) throw error;
    }
  }

  /** Runs `call` with the reservation locked and all fences signaled; the buffer lives so long. */
  async #locked(buf: DmaBuf, limit: TimeLimit<AsyncOptions>, call: () => void): Promise<void> {
    const put = getForWait(buf);
    try {
      await withLockAsync(buf.resv, this, limit, async () => {
        await limit.wait((rest) => buf.resv.wait("bookkeep", rest));
        call();
      });
    } finally {
      put();
    }
  }

  #find(buf: DmaBuf, verb: string): EvictingBuffer {
    const ops = this.#all.get(buf);
    if (ops !== undefined) return ops;
    const name = buf instanceof DmaBuf ? buf.name : textOf(buf);
    return fail("EINVAL", `${verb} ${name}`, `it is not of ${this.name}`);
  }

  /** Moves a buffer whose reservation is held. EBUSY, ENOMEM. */
  #moveOrFail(ops: EvictingBuffer, place: EvictingPlace): void {
    const operation = operationOf(place === "near" ? "validate" : "evict", ops.buf)();
    if (ops.place === place) {
      this.#touch(ops);
      return;
    }
    const why = ops.whyItStays;
    if (why !== null) fail("EBUSY", operation, why);
    const layout = ops.layoutForDevices();
    if (layout === null || !this.suits(place, layout))
      fail("EBUSY", operation, `a device that is attached cannot use it ${place}`);
    else if (!this.#move(ops, place, layout))
      fail("EBUSY", operation, "an importer kept its mapping");
  }

  /** Moves a buffer that may move. False: an importer kept its mapping; ENOMEM. */
  #move(ops: EvictingBuffer, place: EvictingPlace, layout: Layout): boolean {
    const { buf, place: from } = ops;
    const to =
      place === "far"
        ? this.#newStorage(place, buf, layout, ops)
        : (this.#makeNear(buf, layout, ops) ??
          fail("ENOMEM", `move ${buf.name}`, "no room can be made for it near"));
    if (!ops.moveTo(place, to)) return false;
    this.#count(ops, from, -1);
    this.#count(ops, place, 1);
    this.#moved[place] += 1;
    this.#movedBytes += buf.sizeBytes;
    return true;
  }

  #newStorage(
    place: EvictingPlace,
    buf: DmaBuf,
    layout: Layout,
    { picture }: EvictingBuffer,
  ): PlacedStorage {
    const context = this.#context;
    const area = this.#areas[place];
    const handle =
      area === null
        ? placeScattered(context, buf, layout)
        : placeInRegion(context, buf, area, layout);
    return new PlacedStorage(context.core, context.physicalBase, handle, picture);
  }

  /** Storage near, after evicting what it takes (EV2); null: no room can be made. */
  #makeNear(buf: DmaBuf, layout: Layout, ops: EvictingBuffer): PlacedStorage | null {
    let victims: EvictingBuffer[] | null = null;
    for (;;) {
      try {
        return this.#newStorage("near", buf, layout, ops);
      } catch (error) {
        if (!isCode(error, "ENOMEM") && !isCode(error, "EBUSY")) throw error;
        victims ??= this.#victimsFor(buf.sizeBytes, ops);
        let victim = victims.shift();
        while (victim !== undefined && !this.#evictNow(victim)) victim = victims.shift();
        if (victim === undefined) return null;
      }
    }
  }

  /** Who may be evicted for `sizeBytes` bytes, in order; nobody, if that is not enough (EV2). */
  #victimsFor(sizeBytes: number, ops: EvictingBuffer): EvictingBuffer[] {
    const area = this.#areas.near as CmaRegion;
    const victims = [...this.#recent].filter((one) => one !== ops && one.whyItStays === null);
    const free = addressOf(area.frameCount - area.stats().usedFrames);
    const room = victims.reduce((sum, { buf }) => sum + buf.sizeBytes, free);
    return room < sizeBytes ? [] : victims;
  }

  /** Evicts a buffer if that can be done now. */
  #evictNow(ops: EvictingBuffer): boolean {
    if (!this.#recent.has(ops)) return true; // an importer that was told of a move saw to it
    const { buf } = ops;
    if (buf.resv.isLocked || ops.whyItStays !== null) return false;
    const layout = ops.layoutForDevices();
    if (layout === null || !this.suits("far", layout)) return false;
    return withLock(buf.resv, this, operationOf("evict", buf), () => this.#moveIfRoom(ops, layout));
  }

  #moveIfRoom(ops: EvictingBuffer, layout: Layout): boolean {
    try {
      return this.#move(ops, "far", layout);
    } catch (error) {
      if (isCode(error, "ENOMEM")) return false;
      throw error;
    }
  }

  /** @internal */
  used(ops: EvictingBuffer): void {
    this.#touch(ops);
    if (ops.place === "near" || ops.whyItStays !== null || ops.isMapped) return;
    const layout = ops.layoutForDevices();
    if (layout === null || !this.suits("near", layout)) return;
    try {
      this.#move(ops, "near", layout);
    } catch (error) {
      if (!isCode(error, "ENOMEM")) throw error; // EV3
    }
  }

  /** @internal */
  moveForDevices(ops: EvictingBuffer): void {
    const layout = ops.layoutForDevices();
    const place = ops.place === "near" ? "far" : "near";
    if (layout === null || ops.whyItStays !== null || !this.suits(place, layout)) return;
    this.#move(ops, place, layout);
  }

  /** @internal */
  suits(place: EvictingPlace, layout: Layout): boolean {
    const area = this.#areas[place];
    if (area === null) return layout.kind === "scattered";
    const end = this.#context.physicalBase + addressOf(area.basePfn + area.frameCount);
    return end <= layout.addressEnd && layout.sizeBytes <= addressOf(area.frameCount);
  }

  /** @internal */
  released(ops: EvictingBuffer): void {
    this.#count(ops, ops.place, -1);
    this.#all.delete(ops.buf);
  }

  /** EV1. */
  #touch(ops: EvictingBuffer): void {
    if (this.#recent.delete(ops)) this.#recent.add(ops);
  }

  /** Puts a buffer on the books of a place, or takes it off (EV1). */
  #count(ops: EvictingBuffer, place: EvictingPlace, by: 1 | -1): void {
    const totals = this.#held[place];
    totals.count += by;
    totals.bytes += by * ops.buf.sizeBytes;
    if (place === "far") return;
    if (by > 0) this.#recent.add(ops);
    else this.#recent.delete(ops);
  }
}

function isCode(error: unknown, code: string): boolean {
  return error instanceof DmaBufError && error.code === code;
}

function operationOf(verb: string, buf: DmaBuf): () => string {
  return () => `${verb} ${buf.name}`;
}
