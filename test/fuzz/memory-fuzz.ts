/**
 * Random events on the memory core, each compared with a naive model: frames, lists of frames,
 * regions, movable memory, pins and compaction.
 *
 *     step() ──► one event: the core's result against the model's (MF1, MF2)
 *     verify() ──► all of memory: owners, pins, bytes, and the core's own walker (MF3)
 *
 * - MF1  What the core hands out belongs to nobody, and is zero once it was cleared.
 * - MF2  What the core refuses had to be refused: the model finds no room either.
 * - MF3  Each live frame holds what its owner wrote, wherever it was moved.
 *
 * @module
 */

import { type Core, invariantName } from "dmabuf/core";
import { type Holding, MemoryModel, RegionModel } from "../model/memory.model.ts";
import type { Prng } from "../support/prng.ts";
import { CMA, CoreView, expectEqual, isNobodys, MOVABLE, OWNED, PIN } from "./core-view.ts";

const NONE = 0xffffffff;
const [ENOENT, ENOMEM, EBUSY, EINVAL, ESTALE] = [-2, -12, -16, -22, -116] as const;
const PHASE_EVENTS = 4000;

/** The regions of the fuzz: first frame, frames, frames of a bit as an order. */
const REGIONS = [
  [7168, 1024, 2],
  [5120, 2048, 0],
] as const;

/** Memory that the fuzz needs. */
export const FUZZ_MEMORY_BYTES: number = 8192 * 4096;

/** A core under random events. */
export class MemoryFuzz {
  readonly #core: Core;
  readonly #random: Prng;
  readonly #model: MemoryModel;
  readonly #regions: readonly { readonly handle: number; readonly model: RegionModel }[];
  readonly #view: CoreView;
  #events = 0;
  #targetFrames = 0;

  constructor(core: Core, random: Prng) {
    this.#core = core;
    this.#random = random;
    this.#regions = REGIONS.map(([basePfn, frames, orderPerBit]) => ({
      handle: core.exports.cmaDeclare(basePfn, frames, orderPerBit),
      model: new RegionModel(basePfn, frames, orderPerBit),
    }));
    this.#view = new CoreView(core);
    this.#model = new MemoryModel(
      this.#view.frameCount,
      this.#regions.map(({ model }) => model),
    );
  }

  /** One event. Throws what went wrong. */
  step(): void {
    if (this.#events % PHASE_EVENTS === 0)
      this.#targetFrames = Math.floor(
        this.#view.frameCount * (0.1 + this.#random.below(100) / 100),
      );
    this.#events += 1;
    const shallGrow = this.#model.heldFrames < this.#targetFrames;
    const kind = this.#random.below(100);
    if (kind < (shallGrow ? 55 : 25)) this.#take();
    else if (kind < 80) this.#give();
    else if (kind < 94) this.#pinOrUnpin();
    else if (kind < 99) this.#misuse();
    else if (this.#random.below(20) === 0) this.#compact();
  }

  // ---- taking

  #take(): void {
    const kind = this.#random.below(100);
    if (kind < 40) this.#takeRun();
    else if (kind < 48) this.#takeList();
    else if (kind < 50) this.#takePlace();
    else if (kind < 75) this.#takeRegion();
    else this.#takeMovable();
  }

  #size(most: number): number {
    const bits = this.#random.below(Math.log2(most) + 1);
    return Math.min(most, 1 + this.#random.below(2 ** bits));
  }

  #takeRun(): void {
    const count = this.#random.below(50) === 0 ? this.#size(1024) : this.#size(64);
    const align = this.#random.below(4) === 0 ? this.#random.below(7) : 0;
    const isLimited = this.#random.below(8) === 0;
    const limit = isLimited ? 1024 + this.#random.below(4096) : NONE;
    const pfn = this.#core.exports.frameAlloc(count, align, limit);
    const what = `frameAlloc(${count}, ${align}, ${limit})`;
    if (pfn < 0) {
      expectEqual(pfn, ENOMEM, what);
      const order = Math.max(Math.ceil(Math.log2(count)), align);
      const block = this.#view.freeBlock(
        order,
        Math.min(limit, this.#view.frameCount),
        this.#model,
      );
      if (block >= 0) throw new Error(`${what} refuses, and ${block} is free`); // MF2
      return;
    }
    if (pfn % 2 ** align !== 0 || pfn + count > limit) throw new Error(`${what} gives ${pfn}`);
    this.#receive("run", sequence(pfn, count), 0, OWNED);
  }

  #takeList(): void {
    const count = this.#size(256);
    const listAt = this.#core.exports.scratchAt() >>> 0;
    const result = this.#core.exports.bulkFramesAlloc(listAt, count);
    if (result < 0) {
      expectEqual(result, ENOMEM, `bulkFramesAlloc(${count})`);
      if (this.#view.listed >= count)
        throw new Error(`${count} frames refused, ${this.#view.listed} free`);
      return;
    }
    this.#receive("list", [...this.#core.scratch.subarray(0, count)], 0, OWNED);
  }

  /** Asks for certain frames; movable ones there make room. */
  #takePlace(): void {
    const count = this.#size(128);
    const pfn = this.#random.below(this.#view.frameCount - count);
    const result = this.#core.exports.contigAlloc(pfn, count);
    this.#followMovables();
    if (result === 0) this.#receive("run", sequence(pfn, count), 0, OWNED);
    else if (result !== EBUSY && result !== ENOMEM)
      throw new Error(`contigAlloc(${pfn}, ${count}): ${result}`);
  }

  #takeRegion(): void {
    const { handle, model } = this.#random.pick(this.#regions);
    const count = this.#random.below(50) === 0 ? this.#size(model.frameCount) : this.#size(256);
    const align = this.#random.below(3) === 0 ? this.#random.below(8) : 0;
    const expected = model.place(count, align, this.#model.pins);
    const isLent = expected > 0 && this.#view.isLent(expected, model.rounded(count));
    const pfn = this.#core.exports.cmaAlloc(handle, count, align);
    this.#followMovables(); // some may have moved, also when there is no room for all
    const what = `cmaAlloc(${model.basePfn}, ${count}, ${align})`;
    const canMove = this.#view.listed > this.#view.reserve || this.#canLend(expected, model, count);
    expectEqual(pfn, pfn === ENOMEM && isLent && !canMove ? ENOMEM : expected, what);
    if (pfn < 0) return;
    model.mark(pfn, count, false);
    this.#receive("region", sequence(pfn, model.rounded(count)), handle, CMA);
  }

  /** Whether a region could lend a frame outside of a run that was about to be handed out. */
  #canLend(pfn: number, model: RegionModel, count: number): boolean {
    const free = this.#model.regions.reduce((sum, region) => sum + this.#view.freeIn(region), 0);
    return pfn > 0 && free > this.#view.freeAt(pfn, model.rounded(count));
  }

  #takeMovable(): void {
    const count = this.#size(64);
    const free = this.#model.regions.reduce((sum, region) => sum + this.#view.freeIn(region), 0);
    const room = Math.max(0, this.#view.listed - this.#view.reserve) + free;
    const handle = this.#core.exports.movableAlloc(count);
    if (handle < 0) {
      expectEqual(handle, ENOMEM, `movableAlloc(${count})`);
      // The handle and the list of frames are never lent frames.
      const hasRecords = this.#view.freeOutside(this.#model) > 2;
      if (hasRecords && count + 70 < room)
        throw new Error(`${count} movable frames refused, room for ${room}`);
      return;
    }
    this.#receive("movable", this.#view.movableFrames(handle), handle, MOVABLE);
  }

  /** Checks and marks what the core handed out (MF1). */
  #receive(kind: Holding["kind"], pfns: number[], handle: number, state: number): void {
    const holding = this.#model.hold(kind, pfns, handle);
    for (const [i, pfn] of pfns.entries()) {
      expectEqual(this.#view.state(pfn), state, `the state of frame ${pfn}`);
      const mayLieThere = kind === "movable" || (kind === "region") === !!this.#model.regionOf(pfn);
      if (!mayLieThere) throw new Error(`frame ${pfn} of a ${kind} lies in the wrong place`);
      if (kind !== "movable") this.#core.exports.frameClearRun(pfn, 1);
      this.#view.mark(holding, i);
    }
  }

  // ---- giving back

  #give(): void {
    const holding = this.#pick();
    if (holding === undefined) return;
    this.#view.expectMarks(holding);
    if (this.#random.below(5) > 0) this.#unpinAll(holding);
    if (holding.pfns.length === 0) return; // the last unpin freed it
    if (holding.kind === "movable") this.#giveMovable(holding);
    else if (holding.kind === "list") this.#giveList(holding);
    else this.#giveRun(holding);
  }

  #pick(): Holding | undefined {
    const { holdings } = this.#model;
    return holdings.length === 0 ? undefined : this.#random.pick(holdings);
  }

  /** Takes all pins off, so that not all of memory is pinned in the end. */
  #unpinAll(holding: Holding): void {
    while (holding.pins > 0) this.#movableUnpin(holding);
    if (holding.kind === "movable") return;
    for (const pfn of holding.pfns) {
      for (; (this.#model.pins[pfn] ?? 0) > 0; this.#model.pin([pfn], -1))
        expectEqual(this.#core.exports.unpinRange(pfn, 1), 0, `unpinRange(${pfn}, 1)`);
    }
  }

  #giveRun(holding: Holding): void {
    const region = this.#regions.find(({ handle }) => handle === holding.handle);
    const all = holding.pfns.length;
    const unit = region === undefined ? 1 : 2 ** region.model.orderPerBit;
    const some = unit * (1 + this.#random.below(all / unit));
    const count = this.#random.below(4) === 0 ? some : all;
    const part = holding.pfns.slice(all - count); // the end: what is left keeps its marks
    const first = part[0] ?? 0;
    const result =
      region === undefined
        ? this.#core.exports.frameFree(first, count)
        : this.#core.exports.cmaRelease(region.handle, first, count);
    const expected = this.#model.isPinned(part) ? EBUSY : 0;
    expectEqual(result, expected, `free ${count} of the ${holding.kind} at ${holding.pfns[0]}`);
    if (result !== 0) return;
    region?.model.mark(first, count, true);
    this.#forget(holding, part);
  }

  #giveList(holding: Holding): void {
    const { exports, scratch } = this.#core;
    scratch.set(holding.pfns);
    const result = exports.bulkFramesFree(exports.scratchAt() >>> 0, holding.pfns.length);
    expectEqual(result, this.#model.isPinned(holding.pfns) ? EBUSY : 0, "bulkFramesFree()");
    if (result === 0) this.#forget(holding, holding.pfns.slice());
  }

  #forget(holding: Holding, pfns: readonly number[]): void {
    this.#model.drop(pfns);
    holding.pfns.length -= pfns.length;
    if (holding.pfns.length === 0) this.#model.remove(holding);
  }

  #giveMovable(holding: Holding): void {
    const result = this.#core.exports.movableFree(holding.handle);
    if (holding.isDying) {
      expectEqual(result, ESTALE, "movableFree() again");
    } else if (holding.pins > 0) {
      expectEqual(result, 1, "movableFree() while pinned");
      holding.isDying = true;
    } else {
      expectEqual(result, 0, "movableFree()");
      this.#forget(holding, holding.pfns.slice());
    }
  }

  // ---- pins

  #pinOrUnpin(): void {
    const holding = this.#pick();
    if (holding === undefined) return;
    if (holding.kind === "movable") this.#pinMovable(holding);
    else if (holding.kind !== "list") this.#pinRange(holding);
    else this.#pinFrame(this.#random.pick(holding.pfns), 1);
  }

  #pinRange(holding: Holding): void {
    const from = this.#random.below(holding.pfns.length);
    const count = 1 + this.#random.below(holding.pfns.length - from);
    this.#pinFrame(holding.pfns[from] ?? 0, count);
  }

  #pinFrame(pfn: number, count: number): void {
    const pfns = sequence(pfn, count);
    if (this.#random.below(5) < 2) {
      expectEqual(this.#core.exports.pinRange(pfn, count), 0, `pinRange(${pfn}, ${count})`);
      this.#model.pin(pfns, 1);
      return;
    }
    const isAllPinned = pfns.every((one) => (this.#model.pins[one] ?? 0) > 0);
    const result = this.#core.exports.unpinRange(pfn, count);
    expectEqual(result, isAllPinned ? 0 : EINVAL, `unpinRange(${pfn}, ${count})`);
    if (isAllPinned) this.#model.pin(pfns, -1);
  }

  #pinMovable(holding: Holding): void {
    if (this.#random.below(5) < 2) this.#movablePin(holding, this.#random.below(2));
    else this.#movableUnpin(holding);
  }

  #movablePin(holding: Holding, isLongterm: number): void {
    const isInRegion = holding.pfns.some((pfn) => this.#model.regionOf(pfn) !== undefined);
    const result = this.#core.exports.movablePin(holding.handle, isLongterm);
    this.#followMovables();
    const what = `movablePin(${holding.handle}, ${isLongterm})`;
    const mustMove = isLongterm === 1 && isInRegion;
    const canMove = this.#view.listed > this.#view.reserve;
    let expected: number = mustMove && holding.pins > 0 ? EBUSY : 0;
    if (mustMove && expected === 0 && result === ENOMEM && !canMove) expected = ENOMEM;
    expectEqual(result, holding.isDying ? ESTALE : expected, what);
    if (result !== 0) return;
    if (isLongterm === 1 && holding.pfns.some((pfn) => this.#model.regionOf(pfn) !== undefined))
      throw new Error(`${what} left a frame in a region`);
    holding.pins += 1;
    this.#model.pin(holding.pfns, 1);
  }

  #movableUnpin(holding: Holding): void {
    const result = this.#core.exports.movableUnpin(holding.handle);
    expectEqual(result, holding.pins > 0 ? 0 : EINVAL, `movableUnpin(${holding.handle})`);
    if (result !== 0) return;
    holding.pins -= 1;
    this.#model.pin(holding.pfns, -1);
    if (holding.isDying && holding.pins === 0) this.#forget(holding, holding.pfns.slice());
  }

  // ---- mistakes, and compaction

  /** What nobody may free or pin. */
  #misuse(): void {
    const pfn = this.#random.below(this.#view.frameCount);
    const state = this.#view.state(pfn);
    const { exports } = this.#core;
    if (state !== OWNED) expectEqual(exports.frameFree(pfn, 1), ENOENT, `frameFree(${pfn})`);
    if (isNobodys(state)) {
      expectEqual(exports.pinRange(pfn, 1), ENOENT, `pinRange(${pfn})`);
      expectEqual(exports.unpinRange(pfn, 1), ENOENT, `unpinRange(${pfn})`);
    }
    for (const { handle, model } of this.#regions) {
      if (state === CMA && model.holds(pfn)) continue;
      const code = model.holds(pfn) ? ENOENT : EINVAL;
      expectEqual(exports.cmaRelease(handle, pfn, 1), code, `cmaRelease(${pfn})`);
    }
  }

  #compact(): void {
    this.#core.exports.compact();
    this.#followMovables();
  }

  /** Lets the model follow frames that may have moved; a pinned one must not have. */
  #followMovables(): void {
    const moved: [Holding, number[]][] = [];
    for (const holding of this.#model.holdings) {
      if (holding.kind !== "movable") continue;
      const now = this.#view.movableFrames(holding.handle);
      if (now.every((pfn, i) => pfn === holding.pfns[i])) continue;
      if (holding.pins > 0) throw new Error(`pinned movable ${holding.handle} moved`);
      moved.push([holding, now]);
    }
    for (const [holding] of moved) this.#model.drop(holding.pfns);
    for (const [holding, now] of moved) {
      this.#model.claim(holding, now);
      holding.pfns.splice(0, now.length, ...now);
    }
  }

  // ---- all of memory

  /** Compares everything (MF3). */
  verify(): void {
    const broken = this.#core.exports.check(1) >>> 0;
    if (broken !== 0) throw new Error(`the core breaks its invariant ${invariantName(broken)}`);
    for (const holding of this.#model.holdings) this.#view.expectMarks(holding);
    for (const [pfn, word] of this.#view.words.entries()) {
      const isHeld = [OWNED, MOVABLE, CMA].some((state) => state === word % 16);
      const isKnown = this.#model.owners[pfn] !== 0;
      if (isHeld !== isKnown) throw new Error(`frame ${pfn} has state ${word % 16}`);
      expectEqual(Math.floor(word / PIN), this.#model.pins[pfn], `the pins of frame ${pfn}`);
    }
  }
}

function sequence(first: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => first + i);
}
