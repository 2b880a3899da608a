/**
 * The bitmap of the core and its naive twin: lives of a thousand seeded random events.
 */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { BitmapModel, NONE } from "../model/bitmap.model.ts";
import { freeBitmap, MEMORY_FRAMES } from "../support/core-bitmap.ts";
import { eachCore, type TestCore } from "../support/cores.ts";
import { fuzzSeed, Prng } from "../support/prng.ts";

describe.each(eachCore)("bitmap on the $name core", (build) => {
  const core = build.open(MEMORY_FRAMES);

  test("agrees with the model over seeded random events", () => {
    const seed = fuzzSeed(20_261_121);
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
function playLife(core: TestCore, { bitCount, base, seed, gapCount }: Life): void {
  const random = new Prng(seed);
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
    const kind = random.below(100);
    const label = `event ${event}`;
    if (kind < 45) {
      const count = randomCount(random);
      const alignOrder = random.below(2) === 0 ? 0 : random.below(13);
      const first = bitmap.alloc(count, alignOrder);
      expect(first, `${label}: alloc ${count}, order ${alignOrder}`).toBe(
        model.alloc(count, alignOrder),
      );
      if (first !== NONE) live.push({ first, count });
    } else if (kind < 85) {
      const run = live.splice(random.below(live.length), 1)[0];
      if (run === undefined) continue;
      const cut = random.below(4) === 0 ? random.below(run.count) : 0; // what lies before it stays
      if (cut !== 0) live.push({ first: run.first, count: cut });
      free(run.first + cut, run.count - cut);
    } else if (kind < 88) {
      const first = random.below(bitCount);
      take(first, 1 + random.below(Math.min(300, bitCount - first)));
    } else if (kind < 95) {
      const start = random.below(bitCount + 2);
      const count = randomCount(random);
      const alignMask = 2 ** random.below(random.below(4) === 0 ? 33 : 9) - 1;
      const alignOffset = random.below(2 ** 31) * 2 + random.below(2);
      expect(
        bitmap.findFrom(start, count, alignMask, alignOffset),
        `${label}: find ${count} from ${start}, mask ${alignMask}, offset ${alignOffset}`,
      ).toBe(model.findFrom(start, count, alignMask, alignOffset));
    } else {
      const first = random.below(bitCount + 1);
      const count = random.below(200);
      expect(bitmap.isFree(first, count), label).toBe(model.isFree(first, count));
      expect(bitmap.isTaken(first, count), label).toBe(model.isTaken(first, count));
    }
    if (event % 100 === 99) expect(bitmap.check(), `${label}: invariant`).toBe(0);
  }
  expect(bitmap.takenCount()).toBe(model.takenCount());
  expect(bitmap.largestFree()).toBe(model.largestFree());
  expect(bitmap.areNeighboursUntouched()).toBe(true);
}

function randomCount(random: Prng): number {
  const ranges = [
    [1, 1],
    [1, 8],
    [1, 64],
    [64, 65],
    [191, 193],
    [200, 2000],
    [0, 200],
  ] as const;
  const [lowest, highest] = ranges[random.below(ranges.length)] ?? [1, 1];
  return lowest + random.below(highest - lowest + 1);
}
