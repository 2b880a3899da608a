/**
 * Area E: device address ranges, judged by a contract instead of by place.
 *
 *     recorded ranges  ──mate──►  ours      a recorded page acts on ours at the same offset
 *
 * - N1  An allocation lies inside [startPfn, limit], is aligned if asked, and overlaps nothing.
 * - N2  Where Linux succeeds, the core does. Where Linux gives up, the core gives up too, or the
 *       naive model says that the shape fits; such a range is freed at once.
 * - N3  A page in a live range frees or finds exactly that range; one that is free in both, none.
 * - N4  A reservation takes what the model takes. Where the two sides then differ in shape, both
 *       ranges part: ours is freed, and what the record does to its own later is only counted.
 *
 * @module
 */

import { type Bed, isErrno } from "./bed.ts";
import { cell, type Fields, MalformedRecord } from "./fields.ts";
import { IovaModel, type Range } from "./iova-model.ts";
import type { Fact, Outcome } from "./outcome.ts";

/** The last device page: 44 bits. Limits above it are clamped. */
const MAX_PFN = 0xffffffff;

/** `init`: a fresh domain; what its structure holds has no counterpart. */
export function init(fields: Fields, bed: Bed): Outcome {
  const spaceAt = bed.zeroFrameAt();
  const actual = bed.raw.iovaInit(spaceAt, fields.number("startPfn"));
  bed.raw.iovaFini(spaceAt);
  return { facts: [{ name: "init", actual, recorded: 0 }] };
}

/** `plain` and `fast`. */
export function iovaScript(fields: Fields, bed: Bed): Outcome {
  const replay = new IovaReplay(bed, fields.number("startPfn"));
  const facts = fields.rows("ops").map((row, i): Fact => {
    const recorded = "kept";
    return { name: `op ${i} [${row.join(", ")}]`, actual: replay.step(row) ?? recorded, recorded };
  });
  facts.push(...replay.close());
  return { facts, notes: replay.notes };
}

class IovaReplay {
  readonly notes = {
    "placed elsewhere": 0,
    "found where Linux gave up": 0,
    "freed on both sides before a reserve": 0,
    "ranges that parted": 0,
    "operations on a parted range": 0,
    "reserves above 44 bits": 0,
  };
  readonly #bed: Bed;
  readonly #spaceAt: number;
  readonly #startPfn: number;
  readonly #ours: IovaModel;
  readonly #theirs: IovaModel;

  constructor(bed: Bed, startPfn: number) {
    this.#bed = bed;
    this.#startPfn = startPfn;
    this.#spaceAt = bed.zeroFrameAt();
    if (bed.raw.iovaInit(this.#spaceAt, startPfn) !== 0) throw new Error("no room for a domain");
    this.#ours = new IovaModel(startPfn);
    this.#theirs = new IovaModel(startPfn);
  }

  /** Replays one operation; what it broke, or null. */
  step(row: readonly number[]): string | null {
    const a = cell(row, 1);
    switch (cell(row, 0)) {
      case 0:
        return this.#alloc(a, a, cell(row, 2), cell(row, 3) !== 0, cell(row, 4));
      case 1:
        return this.#free(a);
      case 2:
        return this.#find(a, cell(row, 2), cell(row, 3));
      case 3:
        return this.#reserve(a, cell(row, 2), cell(row, 3), cell(row, 4));
      case 4: // below 32 pages Linux rounds up, so that any freed range of the class serves
        return this.#alloc(a, a < 32 ? powerOf2(a) : a, cell(row, 2), true, cell(row, 4) || -1);
      case 5:
        return this.#free(a);
      default:
        throw new MalformedRecord(`the replay does not know the operation [${row.join(", ")}]`);
    }
  }

  #alloc(size: number, theirSize: number, limit: number, isAligned: boolean, recorded: number) {
    const top = Math.min(limit, MAX_PFN);
    const align = isAligned ? powerOf2(size) : 1;
    const fits = this.#ours.fits(size, top, align);
    const lo = this.#bed.raw.iovaAlloc(this.#spaceAt, size, top, isAligned ? 1 : 0) >>> 0;
    const theirHi = recorded + theirSize - 1;
    if (recorded >= 0 && (theirHi > limit || this.#theirs.overlapping(recorded, theirHi).length)) {
      return "the record contradicts itself: the range is taken or above the limit";
    }
    const theirs = recorded < 0 ? null : this.#theirs.insert(recorded, theirHi);
    if (lo === 0) {
      if (fits) return "no range, though one fits";
      return theirs === null ? null : "no range, where Linux finds one";
    }
    const hi = lo + size - 1;
    if (lo < this.#startPfn || hi > top) return `[${lo}, ${hi}] leaves the limits`;
    if (lo % align !== 0) return `${lo} is not aligned to ${align}`;
    if (this.#ours.overlapping(lo, hi).length > 0) return `[${lo}, ${hi}] is taken already`;
    const ours = this.#ours.insert(lo, hi);
    if (theirs !== null) {
      [ours.mate, theirs.mate] = [theirs, ours];
      if (lo !== recorded) this.notes["placed elsewhere"] += 1;
      return null;
    }
    this.notes["found where Linux gave up"] += 1;
    return this.#release(ours, lo);
  }

  /** Frees our range by one of its pages. */
  #release(ours: Range, pfn: number): string | null {
    const count = this.#bed.raw.iovaFree(this.#spaceAt, pfn);
    this.#ours.remove(ours);
    if (ours.mate !== null) ours.mate.mate = null;
    const expected = ours.hi - ours.lo + 1;
    return count === expected ? null : `the free of ${pfn} gave ${count} pages, not ${expected}`;
  }

  #free(pfn: number): string | null {
    const theirs = this.#theirs.find(pfn);
    if (theirs === null) {
      const page = this.#ours.freeNear(pfn, MAX_PFN, this.#theirs);
      const count = page === null ? 0 : this.#bed.raw.iovaFree(this.#spaceAt, page);
      return count === 0 ? null : `the free of ${page}, which nobody has, gave ${count} pages`;
    }
    this.#theirs.remove(theirs);
    if (theirs.mate !== null) return this.#release(theirs.mate, pageIn(theirs.mate, theirs, pfn));
    this.notes["operations on a parted range"] += 1;
    return null;
  }

  #find(pfn: number, lo: number, hi: number): string | null {
    const theirs = this.#theirs.find(pfn);
    if ((theirs?.lo ?? -1) !== lo || (theirs?.hi ?? -1) !== hi) {
      return `the record contradicts itself: ${pfn} was in ${show(theirs)}`;
    }
    if (theirs !== null && theirs.mate === null) {
      this.notes["operations on a parted range"] += 1;
      return null;
    }
    const ours = theirs?.mate ?? null;
    const page =
      theirs === null || ours === null
        ? this.#ours.freeNear(pfn, MAX_PFN, this.#theirs)
        : pageIn(ours, theirs, pfn);
    return page === null ? null : this.#mustFind(page, ours);
  }

  #mustFind(page: number, range: Range | null): string | null {
    const at = this.#bed.raw.iovaFind(this.#spaceAt, page) >>> 0;
    const { core } = this.#bed;
    const found = at === 0 ? null : { lo: core.word(at, 0), hi: core.word(at, 1), mate: null };
    return show(found) === show(range) ? null : `${page} is in ${show(found)}, not ${show(range)}`;
  }

  #reserve(lo: number, hi: number, rlo: number, rhi: number): string | null {
    for (const ours of this.#ours.overlapping(lo, hi)) {
      const { mate } = ours;
      if (mate !== null && mate.lo <= hi && mate.hi >= lo) continue;
      this.notes["freed on both sides before a reserve"] += 1;
      const broken = this.#release(ours, ours.lo);
      if (broken !== null) return broken;
    }
    const theirPieces = this.#theirs.reserve(lo, hi);
    const last = theirPieces[theirPieces.length - 1] ?? null;
    if (last?.lo !== rlo || last.hi !== rhi) {
      return `the record contradicts itself: the reserve ends in ${show(last)}`;
    }
    const broken = lo > MAX_PFN ? null : this.#reserveOurs(lo, Math.min(hi, MAX_PFN));
    if (lo > MAX_PFN) this.notes["reserves above 44 bits"] += 1;
    return broken ?? this.#pairPieces(theirPieces, lo, hi);
  }

  #reserveOurs(lo: number, hi: number): string | null {
    const result = this.#bed.raw.iovaReserve(this.#spaceAt, lo, hi + 1);
    if (isErrno(result)) return `the reserve failed with ${result}`;
    if (hi < this.#startPfn) return null;
    const low = Math.max(lo, this.#startPfn);
    for (const piece of this.#ours.reserve(low, hi)) {
      const broken = this.#mustFind(piece.lo, piece) ?? this.#mustFind(piece.hi, piece);
      if (broken !== null) return broken;
    }
    return null;
  }

  /** Ties the pieces that are the same on both sides together, and parts the others. */
  #pairPieces(theirPieces: readonly Range[], lo: number, hi: number): string | null {
    const pieces = this.#ours.overlapping(lo, hi);
    for (const theirs of theirPieces) {
      if (theirs.mate !== null) theirs.mate.mate = null;
      theirs.mate = null;
    }
    for (const ours of pieces) {
      const twin = theirPieces.find((theirs) => theirs.lo === ours.lo && theirs.hi === ours.hi);
      if (twin !== undefined) [ours.mate, twin.mate] = [twin, ours];
    }
    return this.#dropUnmated(theirPieces, pieces);
  }

  #dropUnmated(theirPieces: readonly Range[], pieces: readonly Range[]): string | null {
    for (const theirs of theirPieces) {
      if (theirs.mate === null) this.notes["ranges that parted"] += 1;
    }
    const unmated = this.#ours.ranges.filter((ours) => ours.mate === null);
    for (const ours of new Set([...unmated, ...pieces.filter((piece) => piece.mate === null)])) {
      const broken = this.#release(ours, ours.hi);
      if (broken !== null) return broken;
    }
    return null;
  }

  /** The facts that hold at the end of a record. */
  close(): Fact[] {
    const { raw } = this.#bed;
    const facts = [
      { name: "iovaCheck", actual: raw.iovaCheck(this.#spaceAt), recorded: 0 },
      {
        name: "iovaRangeCount",
        actual: raw.iovaRangeCount(this.#spaceAt),
        recorded: this.#ours.ranges.length,
      },
    ];
    raw.iovaFini(this.#spaceAt);
    return facts;
  }
}

/** Our page at the offset that `pfn` has in theirs. */
function pageIn(ours: Range, theirs: Range, pfn: number): number {
  return Math.min(ours.lo + (pfn - theirs.lo), ours.hi); // a fast range may be shorter on our side
}

function powerOf2(count: number): number {
  return 2 ** Math.ceil(Math.log2(count));
}

function show(range: Range | null): string {
  return range === null ? "no range" : `[${range.lo}, ${range.hi}]`;
}
