/**
 * The bitmap of the core, straight on the exports of each build: tables at the boundaries of each
 * level, then seeded random events on the core and on its naive twin.
 */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { BitmapModel, NONE } from "../model/bitmap.model.ts";
import { eachCore } from "../support/cores.ts";

/** The exports under test, by the names that `assembly/bitmap.ts` gives them. */
interface BitmapExports {
  bitmapBytes(bitCount: number, base: number): number;
  bitmapInit(at: number, bitCount: number, base: number): void;
  bitmapAlloc(at: number, count: number, alignOrder: number): number;
  bitmapTake(at: number, first: number, count: number): void;
  bitmapFree(at: number, first: number, count: number): void;
  bitmapFindFrom(
    at: number,
    start: number,
    count: number,
    alignMask: number,
    alignOffset: number,
  ): number;
  bitmapIsFree(at: number, first: number, count: number): number;
  bitmapIsTaken(at: number, first: number, count: number): number;
  bitmapTakenCount(at: number): number;
  bitmapLargestFree(at: number): number;
  bitmapCheck(at: number): number;
}

const MEMORY_FRAMES = 2048;
const CANARY = 0xab;
const CANARY_BYTES = 64;

/** The core's bitmap with the calls of its model, and words that nobody may touch around it. */
class CoreBitmap {
  readonly bitCount: number;
  readonly at: number;
  readonly bytes: number;
  readonly memory: WebAssembly.Memory;
  readonly exports: BitmapExports;

  constructor(core: Core, bitCount: number, base: number) {
    this.bitCount = bitCount;
    this.memory = core.memory;
    this.exports = core.exports as BitmapExports;
    this.at = (core.scratchAt + CANARY_BYTES + 15) & ~15;
    this.bytes = this.exports.bitmapBytes(bitCount, base) >>> 0;
    const view = new Uint8Array(core.memory.buffer);
    view.fill(CANARY, this.at - CANARY_BYTES, this.at + this.bytes + CANARY_BYTES);
    this.exports.bitmapInit(this.at, bitCount, base);
  }

  alloc(count: number, alignOrder = 0): number {
    return this.exports.bitmapAlloc(this.at, count, alignOrder) >>> 0;
  }

  markTaken(first: number, count: number): void {
    this.exports.bitmapTake(this.at, first, count);
  }

  markFree(first: number, count: number): void {
    this.exports.bitmapFree(this.at, first, count);
  }

  findFrom(start: number, count: number, alignMask = 0, alignOffset = 0): number {
    return this.exports.bitmapFindFrom(this.at, start, count, alignMask, alignOffset) >>> 0;
  }

  isFree(first: number, count: number): boolean {
    return this.exports.bitmapIsFree(this.at, first, count) !== 0;
  }

  isTaken(first: number, count: number): boolean {
    return this.exports.bitmapIsTaken(this.at, first, count) !== 0;
  }

  takenCount(): number {
    return this.exports.bitmapTakenCount(this.at);
  }

  largestFree(): number {
    return this.exports.bitmapLargestFree(this.at);
  }

  /** 0, or the number of the invariant that is broken. */
  check(): number {
    return this.exports.bitmapCheck(this.at);
  }

  areNeighboursUntouched(): boolean {
    const view = new Uint8Array(this.memory.buffer);
    const end = this.at + this.bytes;
    const before = view.subarray(this.at - CANARY_BYTES, this.at);
    const behind = view.subarray(end, end + CANARY_BYTES);
    return [before, behind].every((side) => side.every((byte) => byte === CANARY));
  }
}

type Core = ReturnType<(typeof eachCore)[number]["open"]>;

/** A bitmap in which every bit is free. */
function freeBitmap(core: Core, bitCount: number, base = 0): CoreBitmap {
  const bitmap = new CoreBitmap(core, bitCount, base);
  bitmap.markFree(0, bitCount);
  return bitmap;
}

// A word, a node of 16 words, a word of any-free bits, and nodes of 16 nodes upwards.
const BOUNDARIES = [
  ["word", 64],
  ["2 words", 128],
  ["bounds' cap of 3 words", 192],
  ["level 0 node", 16 * 64],
  ["any-free word", 64 * 64],
  ["level 1 node", 256 * 64],
  ["any-free group", 4096 * 64],
] as const;

/** Lengths around which a run is found in another way. */
const COUNTS = [1, 2, 63, 64, 65, 127, 128, 129, 191, 192, 193, 255, 256, 1000];

describe.each(eachCore)("bitmap on the $name core", (build) => {
  const core = build.open(MEMORY_FRAMES);

  describe("bitmapInit()", () => {
    test.each([0, 1, 63, 64, 65, 1000, 1024, 4095, 4097, 70_000, 300_000])(
      "takes all of %i bits, whatever the base",
      (bitCount) => {
        for (const base of [0, 7, 1023, 1024, 65_543, 0xfffffff0]) {
          const bitmap = new CoreBitmap(core, bitCount, base);
          expect(bitmap.check()).toBe(0);
          expect(bitmap.takenCount()).toBe(bitCount);
          expect(bitmap.largestFree()).toBe(0);
          expect(bitmap.alloc(1)).toBe(NONE);
          expect(bitmap.areNeighboursUntouched()).toBe(true);
        }
      },
    );

    test.each([0, 1, 63, 64, 65, 1000, 1024, 4095, 4097, 70_000, 300_000])(
      "takes part in a life of %i bits: all free, all taken in one run, all free",
      (bitCount) => {
        const bitmap = freeBitmap(core, bitCount, 7);
        expect(bitmap.largestFree()).toBe(bitCount);
        expect(bitmap.alloc(bitCount)).toBe(bitCount === 0 ? NONE : 0);
        expect(bitmap.takenCount()).toBe(bitCount);
        expect(bitmap.alloc(1)).toBe(NONE);
        bitmap.markFree(0, bitCount);
        expect(bitmap.takenCount()).toBe(0);
        expect(bitmap.check()).toBe(0);
        expect(bitmap.areNeighboursUntouched()).toBe(true);
      },
    );
  });

  describe.each(BOUNDARIES)("at the boundary of a %s", (_name, boundary) => {
    const bitCount = boundary * 2 + 4096;

    test("bitmapAlloc() finds the only run where it begins before, at and behind it", () => {
      for (const count of COUNTS) {
        const bitmap = new CoreBitmap(core, bitCount, 0);
        for (const first of [boundary - count, boundary - 1, boundary, boundary + 1]) {
          if (first < 0) continue;
          bitmap.markFree(first, count);
          expect(bitmap.alloc(count + 1), `${count + 1} bits`).toBe(NONE);
          expect(bitmap.alloc(count), `${count} bits`).toBe(first);
          expect(bitmap.takenCount()).toBe(bitCount);
        }
        expect(bitmap.check()).toBe(0);
      }
    });

    test("bitmapAlloc() sees a run that two frees have joined, from either side", () => {
      for (const count of COUNTS) {
        const bitmap = new CoreBitmap(core, bitCount, 0);
        const first = Math.max(boundary - count, 0);
        const leftCount = boundary - first;
        for (const isLeftFirst of [true, false]) {
          if (isLeftFirst) bitmap.markFree(first, leftCount);
          bitmap.markFree(boundary, count);
          if (!isLeftFirst) bitmap.markFree(first, leftCount);
          expect(bitmap.alloc(leftCount + count + 1)).toBe(NONE);
          expect(bitmap.alloc(leftCount + count)).toBe(first);
        }
        expect(bitmap.check()).toBe(0);
      }
    });

    test("bitmapAlloc() aligns to it", () => {
      const order = Math.log2(boundary);
      if (!Number.isInteger(order)) return;
      const bitmap = freeBitmap(core, bitCount);
      expect(bitmap.alloc(1)).toBe(0);
      expect(bitmap.alloc(1, order)).toBe(boundary);
      expect(bitmap.alloc(3, order)).toBe(boundary * 2);
      expect(bitmap.alloc(1)).toBe(1);
      expect(bitmap.check()).toBe(0);
    });

    test("bitmapIsFree(), bitmapIsTaken() and bitmapLargestFree() look over it", () => {
      const bitmap = freeBitmap(core, bitCount);
      expect(bitmap.isFree(boundary - 1, 2)).toBe(true);
      bitmap.markTaken(boundary, 1);
      expect(bitmap.isFree(boundary - 1, 2)).toBe(false);
      expect(bitmap.isTaken(boundary - 1, 2)).toBe(false);
      expect(bitmap.largestFree()).toBe(Math.max(boundary, bitCount - boundary - 1));
      bitmap.markTaken(boundary - 1, 1);
      expect(bitmap.isTaken(boundary - 1, 2)).toBe(true);
      expect(bitmap.takenCount()).toBe(2);
    });
  });

  describe("bitmapAlloc()", () => {
    test.each([
      // base, order, first answer, second answer
      [0, 0, 0, 1],
      [1, 1, 1, 3],
      [7, 3, 1, 9],
      [1023, 10, 1, 1025],
      [65_543, 6, 57, 121],
      [65_543, 12, 4089, 8185],
      [0xfffffff0, 31, 16, NONE],
      [0x80000000, 31, 0, NONE],
      [1, 31, NONE, NONE],
    ])("counts alignment from base %i, order %i: %i, then %i", (base, order, first, second) => {
      const bitmap = freeBitmap(core, 10_000, base);
      expect(bitmap.alloc(1, order)).toBe(first);
      expect(bitmap.alloc(1, order)).toBe(second);
      expect(bitmap.check()).toBe(0);
    });

    test.each([0, 101, 4096, 0xffffffff])("refuses %i of 100 bits", (count) => {
      const bitmap = freeBitmap(core, 100);
      expect(bitmap.alloc(count)).toBe(NONE);
      expect(bitmap.takenCount()).toBe(0);
    });

    // Word 4096 does not exist, and no node would lie above it.
    test("passes a long run at the very end that is too short", () => {
      for (const bitCount of [1024, 16_384, 262_144]) {
        for (let order = 0; order <= 12; order++) {
          const bitmap = new CoreBitmap(core, bitCount, 0);
          bitmap.markFree(bitCount - 512, 512);
          expect(bitmap.alloc(513, order)).toBe(NONE);
          expect(bitmap.check()).toBe(0);
          expect(bitmap.areNeighboursUntouched()).toBe(true);
          expect(bitmap.alloc(512, Math.min(order, 9))).toBe(bitCount - 512);
        }
      }
    });

    test("passes all the runs that are too short, for a request over the bounds' cap", () => {
      const bitmap = freeBitmap(core, 70_000);
      for (let bit = 299; bit < 60_000; bit += 300) bitmap.markTaken(bit, 1);
      expect(bitmap.alloc(299)).toBe(0);
      expect(bitmap.alloc(300)).toBe(60_000);
      expect(bitmap.alloc(299, 6)).toBe(4800);
      expect(bitmap.alloc(256, 8)).toBe(1536);
      expect(bitmap.check()).toBe(0);
    });

    test("finds 2 behind a checkerboard, again and again", () => {
      const bitmap = freeBitmap(core, 262_144);
      for (let bit = 0; bit < 262_142; bit += 2) bitmap.markTaken(bit, 1);
      for (let round = 0; round < 3; round++) {
        expect(bitmap.alloc(2)).toBe(262_141);
        bitmap.markFree(262_141, 2);
      }
      expect(bitmap.largestFree()).toBe(3);
      expect(bitmap.check()).toBe(0);
    });
  });

  describe("bitmapTake() and bitmapFree()", () => {
    test("mark what they are told, whatever it was", () => {
      const bitmap = freeBitmap(core, 1000, 3);
      bitmap.markTaken(10, 500);
      bitmap.markTaken(400, 200);
      expect(bitmap.isTaken(10, 590)).toBe(true);
      bitmap.markFree(300, 600);
      bitmap.markFree(299, 2);
      expect(bitmap.isFree(299, 701)).toBe(true);
      expect(bitmap.takenCount()).toBe(289);
      expect(bitmap.check()).toBe(0);
    });

    test("do nothing for a count of 0", () => {
      const bitmap = freeBitmap(core, 128);
      bitmap.markTaken(128, 0);
      bitmap.markFree(0, 0);
      expect(bitmap.takenCount()).toBe(0);
      expect(bitmap.check()).toBe(0);
    });
  });

  describe("bitmapFindFrom()", () => {
    test.each([
      // start, count, alignMask, alignOffset, answer: bits 100 to 199 of 1000 are taken
      [0, 100, 0, 0, 0],
      [0, 101, 0, 0, 200],
      [1, 100, 0, 0, 200],
      [150, 1, 0, 0, 200],
      [0, 101, 63, 0, 256],
      [0, 101, 63, 1, 255],
      [0, 101, 63, 0xffffffff, 257],
      [0, 1, 0xffffffff, 0, 0],
      [1, 1, 0xffffffff, 0, NONE],
      [0, 1, 0xffffffff, 0xffffff00, 256],
      [999, 1, 0, 0, 999],
      [999, 2, 0, 0, NONE],
      [1000, 1, 0, 0, NONE],
      [0xffffffff, 1, 0, 0, NONE],
      [0, 0, 0, 0, NONE],
      [0, 801, 0, 0, NONE],
      [0, 0xffffffff, 0, 0, NONE],
    ])("from %i, %i bits, mask %i, offset %i: %i", (start, count, mask, offset, answer) => {
      for (const base of [0, 7, 1023, 0xfffffff0]) {
        const bitmap = freeBitmap(core, 1000, base);
        bitmap.markTaken(100, 100);
        expect(bitmap.findFrom(start, count, mask, offset)).toBe(answer);
        expect(bitmap.takenCount()).toBe(100);
      }
    });
  });

  describe("bitmapIsFree() and bitmapIsTaken()", () => {
    test.each([
      [100, 1],
      [99, 2],
      [0, 101],
      [101, 0],
      [1, 0xffffffff],
      [0xffffffff, 1],
    ])("say no to [%i, + %i) of 100 bits", (first, count) => {
      const free = freeBitmap(core, 100, 1000);
      expect(free.isFree(first, count)).toBe(false);
      const taken = new CoreBitmap(core, 100, 1000);
      expect(taken.isTaken(first, count)).toBe(false);
    });
  });

  describe("bitmapCheck()", () => {
    test("names the invariant that a changed byte breaks", () => {
      // 4096 words make 64 words of anyWords, one of anyGroups and 256 nodes of level 0.
      const wordsOffset = 128;
      const anyWordsOffset = wordsOffset + (4096 + 1) * 8;
      const anyGroupsOffset = anyWordsOffset + 64 * 8;
      const leavesOffset = anyGroupsOffset + 8;
      const level1Offset = leavesOffset + 256 * 128;
      const rows: [name: string, offset: number, value: number, invariant: number][] = [
        ["bitCount", 0, 1, 1],
        ["a stride", 112, 3, 1],
        ["the guard", wordsOffset + 4096 * 8, 1, 2],
        ["anyWords", anyWordsOffset, 0, 3],
        ["anyGroups", anyGroupsOffset, 0, 3],
        ["a leaf", leavesOffset, 0, 4],
        ["both copies of an entry", level1Offset, 0, 5],
        ["one copy of an entry", level1Offset, 0, 6],
      ];
      for (const [name, offset, value, invariant] of rows) {
        const bitmap = freeBitmap(core, 262_144);
        const bytes = new Uint8Array(core.memory.buffer, bitmap.at, bitmap.bytes);
        bytes[offset] = value;
        if (invariant === 5) bytes[offset + 256] = value;
        expect(bitmap.check(), name).toBe(invariant);
      }
    });
  });

  test("agrees with the model over seeded random events", () => {
    const seed = Number(process.env.FUZZ_SEED ?? 20_261_121);
    const lives = fc.record({
      bitCount: fc.oneof(
        fc.constantFrom(1, 63, 64, 65, 1000, 1024, 4095, 4097, 16_384, 70_000),
        fc.integer({ min: 1, max: 20_000 }),
      ),
      base: fc.oneof(fc.constantFrom(0, 7, 1023, 65_543, 0xfffffff0), fc.nat(1 << 20)),
      seed: fc.integer({ min: 1, max: 0x7fffffff }),
      gapCount: fc.constantFrom(0, 1, 2, 70, 250),
    });
    fc.assert(
      fc.property(lives, (life) => playLife(core, life)),
      { seed, numRuns: 100 }, // with 1000 events each
    );
  });
});

interface Life {
  bitCount: number;
  base: number;
  seed: number;
  /** Free bits between the runs that are taken before the events; 0 = none are. */
  gapCount: number;
}

/** Sends 1000 events to a core bitmap and to its model, and compares every answer. */
function playLife(core: Core, { bitCount, base, seed, gapCount }: Life): void {
  const below = prng(seed);
  const bitmap = freeBitmap(core, bitCount, base);
  const model = new BitmapModel(bitCount, base);
  model.markFree(0, bitCount);
  const live: { first: number; count: number }[] = [];
  const take = (first: number, count: number): void => {
    bitmap.markTaken(first, count);
    model.markTaken(first, count);
    live.push({ first, count });
  };
  const free = (first: number, count: number): void => {
    bitmap.markFree(first, count);
    model.markFree(first, count);
  };
  if (gapCount !== 0) {
    for (let bit = gapCount; bit < bitCount; bit += gapCount + 1) take(bit, 1);
  }

  for (let event = 0; event < 1000; event++) {
    const kind = below(100);
    const label = `event ${event}`;
    if (kind < 45) {
      const count = randomCount(below);
      const alignOrder = below(2) === 0 ? 0 : below(13);
      const first = bitmap.alloc(count, alignOrder);
      expect(first, `${label}: alloc ${count}, order ${alignOrder}`).toBe(
        model.alloc(count, alignOrder),
      );
      if (first !== NONE) live.push({ first, count });
    } else if (kind < 85) {
      const run = live.splice(below(live.length), 1)[0];
      if (run === undefined) continue;
      const cut = below(4) === 0 ? below(run.count) : 0; // the part before stays taken
      if (cut !== 0) live.push({ first: run.first, count: cut });
      free(run.first + cut, run.count - cut);
    } else if (kind < 88) {
      const first = below(bitCount);
      take(first, 1 + below(Math.min(300, bitCount - first)));
    } else if (kind < 95) {
      const start = below(bitCount + 2);
      const count = randomCount(below);
      const alignMask = 2 ** below(below(4) === 0 ? 33 : 9) - 1;
      const alignOffset = below(2 ** 31) * 2 + below(2);
      expect(
        bitmap.findFrom(start, count, alignMask, alignOffset),
        `${label}: find ${count} from ${start}, mask ${alignMask}, offset ${alignOffset}`,
      ).toBe(model.findFrom(start, count, alignMask, alignOffset));
    } else {
      const first = below(bitCount + 1);
      const count = below(200);
      expect(bitmap.isFree(first, count), label).toBe(model.isFree(first, count));
      expect(bitmap.isTaken(first, count), label).toBe(model.isTaken(first, count));
    }
    if (event % 100 === 99) expect(bitmap.check(), `${label}: invariant`).toBe(0);
  }
  expect(bitmap.takenCount()).toBe(model.takenCount());
  expect(bitmap.largestFree()).toBe(model.largestFree());
  expect(bitmap.areNeighboursUntouched()).toBe(true);
}

function randomCount(below: (end: number) => number): number {
  const ranges = [
    [1, 1],
    [1, 8],
    [1, 64],
    [64, 65],
    [191, 193],
    [200, 2000],
    [0, 200],
  ] as const;
  const [lowest, highest] = ranges[below(ranges.length)] ?? [1, 1];
  return lowest + below(highest - lowest + 1);
}

/** xorshift32: small whole numbers in [0, end), the same ones for the same seed. */
function prng(seed: number): (end: number) => number {
  let state = seed;
  return (end) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return end === 0 ? 0 : (state >>> 0) % end;
  };
}
