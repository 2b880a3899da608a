/**
 * The naive twin of the core's memory: who holds each frame, how often it is pinned, and where a
 * region places a run. Arrays, and loops over all of them.
 *
 * What it cannot know, frames for the core's own records, it reads from the frames' words.
 */

import { BitmapModel, NONE } from "./bitmap.model.ts";

const [ENOMEM, EBUSY] = [-12, -16] as const;

/** Memory that somebody holds. */
export interface Holding {
  readonly id: number;
  readonly kind: "run" | "list" | "region" | "movable";
  /** Frames, in order; a movable's are read from the core whenever they are needed. */
  readonly pfns: number[];
  /** The region, or the movable's handle. */
  readonly handle: number;
  /** Pins of a whole movable. */
  pins: number;
  /** A movable that was freed while pinned. */
  isDying: boolean;
}

/** A region as the model sees it: a byte for each bit. */
export class RegionModel {
  readonly basePfn: number;
  readonly frameCount: number;
  readonly orderPerBit: number;
  readonly #bits: BitmapModel;

  constructor(basePfn: number, frameCount: number, orderPerBit: number) {
    this.basePfn = basePfn;
    this.frameCount = frameCount;
    this.orderPerBit = orderPerBit;
    this.#bits = new BitmapModel(frameCount / this.#unit, basePfn / this.#unit);
    this.#bits.markFree(0, frameCount / this.#unit);
  }

  get #unit(): number {
    return 2 ** this.orderPerBit;
  }

  holds(pfn: number): boolean {
    return pfn >= this.basePfn && pfn < this.basePfn + this.frameCount;
  }

  /** A count in whole bits. */
  rounded(frameCount: number): number {
    return Math.ceil(frameCount / this.#unit) * this.#unit;
  }

  /**
   * Where the run goes: the first place without a pinned frame, or EBUSY when all have one, or
   * ENOMEM. Behind a pinned place the search goes on one alignment unit further, as in Linux.
   */
  place(frameCount: number, alignOrder: number, pins: Uint32Array): number {
    const bits = this.rounded(frameCount) / this.#unit;
    const mask = 2 ** Math.max(0, alignOrder - this.orderPerBit) - 1;
    const find = (start: number): number =>
      this.#bits.findFrom(start, bits, mask, this.basePfn / this.#unit);
    let bit = find(0);
    if (bit === NONE) return ENOMEM;
    for (; bit !== NONE; bit = find(bit + mask + 1)) {
      const first = this.basePfn + bit * this.#unit;
      const isPinned = pins.subarray(first, first + bits * this.#unit).some((count) => count > 0);
      if (!isPinned) return first;
    }
    return EBUSY;
  }

  mark(pfn: number, frameCount: number, isFree: boolean): void {
    const bit = (pfn - this.basePfn) / this.#unit;
    const bits = this.rounded(frameCount) / this.#unit;
    if (isFree) this.#bits.markFree(bit, bits);
    else this.#bits.markTaken(bit, bits);
  }
}

/** Who holds what. */
export class MemoryModel {
  /** Holding ids by frame; 0 = nobody the model knows. */
  readonly owners: Uint32Array;
  /** Pins by frame. */
  readonly pins: Uint32Array;
  readonly regions: readonly RegionModel[];
  readonly holdings: Holding[] = [];
  heldFrames = 0;
  #lastId = 0;

  constructor(frameCount: number, regions: readonly RegionModel[]) {
    this.owners = new Uint32Array(frameCount);
    this.pins = new Uint32Array(frameCount);
    this.regions = regions;
  }

  regionOf(pfn: number): RegionModel | undefined {
    return this.regions.find((region) => region.holds(pfn));
  }

  /** A new holding; throws when somebody has one of its frames. */
  hold(kind: Holding["kind"], pfns: number[], handle: number): Holding {
    this.#lastId += 1;
    const holding = { id: this.#lastId, kind, pfns, handle, pins: 0, isDying: false };
    this.claim(holding, pfns);
    this.holdings.push(holding);
    return holding;
  }

  claim(holding: Holding, pfns: readonly number[]): void {
    for (const pfn of pfns) {
      if (this.owners[pfn] !== 0) throw new Error(`frame ${pfn} belongs to ${this.owners[pfn]}`);
      this.owners[pfn] = holding.id;
    }
    this.heldFrames += pfns.length;
  }

  drop(pfns: readonly number[]): void {
    for (const pfn of pfns) this.owners[pfn] = 0;
    this.heldFrames -= pfns.length;
  }

  remove(holding: Holding): void {
    const i = this.holdings.indexOf(holding);
    const last = this.holdings.pop();
    if (last !== undefined && last !== holding) this.holdings[i] = last;
  }

  pin(pfns: readonly number[], delta: number): void {
    for (const pfn of pfns) this.pins[pfn] = (this.pins[pfn] ?? 0) + delta;
  }

  isPinned(pfns: readonly number[]): boolean {
    return pfns.some((pfn) => (this.pins[pfn] ?? 0) > 0);
  }
}
