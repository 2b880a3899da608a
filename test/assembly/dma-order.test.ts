// Direct mappings of many segments: each address finds its segment, however the segments lie, and
// in a number of steps that hardly grows with the table.

import { describe, expect, test } from "vitest";
import { type CoreVariant, eachCore, type TestCore } from "../support/cores.ts";
import { addDevice, segmentsOf, spans } from "../support/device-view.ts";
import { fuzzSeed, Prng } from "../support/prng.ts";
import type { Segment } from "../support/segments.ts";
import { expectSound } from "../support/sound.ts";

const PS = 4096;
const NONE = 0xffffffff;
const EFAULT = -14;
const [BIDIRECTIONAL, TO_DEVICE, FROM_DEVICE] = [0, 1, 2];
const [READ, WRITE] = [1, 2];
const [NONCOHERENT, SIMULATED] = [1, 2];
const FRAMES = 4096;

/** A table of a list that may be longer than the scratch words. */
function longTable(core: TestCore, list: readonly Segment[]): number {
  const frames = Math.ceil((16 * list.length) / PS);
  const pfn = core.exports.frameAlloc(frames, 0, NONE);
  expect(pfn).toBeGreaterThan(0);
  const words = new Uint32Array(core.memory.buffer, pfn * PS, 4 * list.length);
  for (const [i, segment] of list.entries()) words.set([...segment, 0], 4 * i);
  const table = core.exports.sgTableFromList(pfn * PS, list.length);
  expect(core.exports.frameFree(pfn, frames)).toBe(0);
  expect(table).toBeGreaterThan(0);
  return table;
}

/** Device page of frame 0. */
function baseOf(core: TestCore, mapping: number, list: readonly Segment[]): number {
  const [[pfn]] = segmentsOf(core, mapping) as [Segment];
  return pfn - (list[0] as Segment)[0];
}

/** Whether a byte is in the segment. */
const hasByte = ([pfn, offset, length]: Segment, at: number): boolean =>
  at >= pfn * PS + offset && at < pfn * PS + offset + length;

/** `count` short segments, which do not touch each other, in any order. */
function apart(random: Prng, count: number): Segment[] {
  const list = Array.from({ length: count }, (_, i): Segment => {
    const at = 1000 * PS + i * 64;
    return [Math.floor(at / PS), at % PS, 8 + random.below(40)];
  });
  return shuffled(random, list);
}

function shuffled<T>(random: Prng, list: readonly T[]): T[] {
  const out = [...list];
  for (let i = out.length - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [out[i], out[j]] = [out[j] as T, out[i] as T];
  }
  return out;
}

/** `count` segments in few frames: many of them share bytes, lie in others or are the same. */
function overlapping(random: Prng, count: number): Segment[] {
  return Array.from({ length: count }, () => {
    const long = random.below(4) === 0;
    return [1000 + random.below(60), random.below(PS), 1 + random.below(long ? 3 * PS : 200)];
  });
}

const shapes: Record<string, (random: Prng, count: number) => Segment[]> = {
  "apart from each other": apart,
  "over each other": overlapping,
  "in ascending order": (random, count) =>
    apart(random, count).sort(([a, b], [c, d]) => a - c || b - d),
  "in descending order": (random, count) =>
    apart(random, count).sort(([a, b], [c, d]) => c - a || d - b),
};

describe.each(eachCore)("segments of direct mappings on the $name core", (build: CoreVariant) => {
  test.each(Object.entries(shapes))("%s are found, and nothing else", (_, listOf) => {
    const seed = fuzzSeed(71);
    const random = new Prng(seed);
    for (const count of [1, 2, 16, 17, 18, 100, 700]) {
      const core = build.open(FRAMES);
      const device = addDevice(core, { iommu: false });
      const lists = [TO_DEVICE, FROM_DEVICE].map((direction) => {
        const list = listOf(random, count);
        const mapping = core.exports.dmaMapTable(device, longTable(core, list), direction);
        return { list, mapping, before: segmentsOf(core, mapping) };
      });
      const [read, write] = lists as [(typeof lists)[0], (typeof lists)[0]];
      const base = baseOf(core, read.mapping, read.list);
      for (let event = 0; event < 600; event++) {
        const { list } = random.pick(lists);
        const [pfn, offset, length] = random.pick(list);
        const near = pfn * PS + offset + random.pick([-1, 0, random.below(length), length]);
        const at = random.below(9) === 0 ? random.below(FRAMES * PS) : near;
        const access = random.pick([READ, WRITE]);
        const held = (access === READ ? read : write).list.some((one) => hasByte(one, at));
        const seen = spans(core, device, base + Math.floor(at / PS), at % PS, 1, access);
        const label = `seed ${seed}, ${count} segments, event ${event}`;
        expect(seen, label).toEqual(held ? [[at, 1]] : EFAULT);
      }
      for (const { mapping, before } of lists) expect(segmentsOf(core, mapping)).toEqual(before);
      expectSound(core, `seed ${seed}`);
      for (const { mapping } of lists) expect(core.exports.dmaUnmap(mapping, 0)).toBe(0);
      expectSound(core, `seed ${seed}`);
    }
  });

  test("a whole segment is read at once, and the rest of it from any byte on", () => {
    const random = new Prng(5);
    const core = build.open(FRAMES);
    const device = addDevice(core, { iommu: false });
    const list = apart(random, 300);
    const mapping = core.exports.dmaMapTable(device, longTable(core, list), BIDIRECTIONAL);
    const base = baseOf(core, mapping, list);
    for (let event = 0; event < 400; event++) {
      const [pfn, offset, length] = random.pick(list);
      const into = random.below(length);
      const seen = spans(core, device, base + pfn, offset + into, length - into, READ);
      expect(seen).toEqual([[pfn * PS + offset + into, length - into]]);
      expect(core.exports.dmaHeldBytes(device, base + pfn, offset + into, WRITE)).toBe(
        length - into,
      );
    }
  });

  test.each([
    ["apart from each other", apart],
    ["over each other", overlapping],
  ])("with a simulated cache, %s, go on meaning the same bytes", (_, listOf) => {
    const random = new Prng(9);
    const core = build.open(FRAMES);
    const { exports } = core;
    const device = exports.dmaDeviceAdd(0, NONE, NONE, NONE, NONE, NONCOHERENT | SIMULATED, 0, 64);
    const list = listOf(random, 200);
    const table = longTable(core, list);
    const addresses = Array.from({ length: 150 }, () => {
      const [pfn, offset, length] = random.pick(list);
      return pfn * PS + offset + random.below(length);
    });
    /** Where the bytes lie in the shadow, `count` of them asked of one mapping. */
    const seen = (asked: readonly number[]): (number[][] | number)[] => {
      const mapping = exports.dmaMapTable(device, table, BIDIRECTIONAL, 0);
      const base = baseOf(core, mapping, list);
      const found = asked.map((at) =>
        spans(core, device, base + Math.floor(at / PS), at % PS, 1, READ),
      );
      expect(exports.dmaUnmap(mapping, 0)).toBe(0);
      return found;
    };
    const kept = exports.dmaMapTable(
      exports.dmaDeviceAdd(0, NONE, NONE, NONE, NONE, 3, 0, 64),
      table,
      BIDIRECTIONAL,
      0,
    );
    expect(kept).toBeGreaterThan(0); // the shadow stays where it is
    const one = addresses.flatMap((at) => seen([at])); // each in a mapping that was never walked
    expect(seen(addresses)).toEqual(one);
    expectSound(core);
  });

  test("random accesses and faults take hardly longer in a table of 64 times as many", () => {
    const random = new Prng(3);
    const fastest = (count: number): number => {
      const core = build.open(FRAMES);
      const device = addDevice(core, { iommu: false });
      const list = apart(random, count);
      const mapping = core.exports.dmaMapTable(device, longTable(core, list), BIDIRECTIONAL);
      const base = baseOf(core, mapping, list);
      const order = Array.from({ length: 1000 }, () => random.pick(list));
      let best = Number.POSITIVE_INFINITY;
      for (let round = 0; round < 6; round++) {
        const begin = performance.now();
        for (const [pfn, offset] of order) {
          if (core.exports.dmaSpans(device, base + pfn, offset, 8, READ) !== 1)
            throw new Error("a segment is not found");
          if (core.exports.dmaSpans(device, base + pfn, offset + 60, 1, READ) !== EFAULT)
            throw new Error("what is between two segments is found");
        }
        best = Math.min(best, performance.now() - begin);
      }
      return best;
    };
    const short = fastest(512);
    expect(fastest(64 * 512)).toBeLessThan(10 * short); // a walk: 64 times
  });
});
