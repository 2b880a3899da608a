/**
 * The bitmap of the core, straight on the exports of each build: tables at the boundaries of each
 * level.
 */

import { describe, expect, test } from "vitest";
import { NONE } from "../model/bitmap.model.ts";
import { CoreBitmap, freeBitmap, MEMORY_FRAMES } from "../support/core-bitmap.ts";
import { eachCore } from "../support/cores.ts";

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
});
