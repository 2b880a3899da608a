// What a device reaches through its mappings: these bytes, in this direction, and nothing else.

import { describe, expect, test } from "vitest";
import { type CoreVariant, eachCore } from "../support/cores.ts";
import {
  addDevice,
  bytesOf,
  randomList,
  segmentsOf,
  spans,
  translated,
} from "../support/device-view.ts";
import { fuzzSeed, Prng } from "../support/prng.ts";
import { type Segment, tableOf } from "../support/segments.ts";
import { expectSound } from "../support/sound.ts";

const PS = 4096;
const NONE = 0xffffffff;
const [EFAULT, EINVAL] = [-14, -22];
const [BIDIRECTIONAL, TO_DEVICE, FROM_DEVICE] = [0, 1, 2];
const [READ, WRITE] = [1, 2];

describe.each(eachCore)("dma on the $name core", (build: CoreVariant) => {
  describe.each([
    ["an IOMMU", true],
    ["no IOMMU", false],
  ])("accesses of a device behind %s", (_, iommu) => {
    test("reach what is mapped, in the mapping's direction, and fault elsewhere", () => {
      const core = build.open(4096);
      const device = addDevice(core, { iommu });
      const list: Segment[] = [
        [9, 0, PS],
        [5, 0, PS],
      ];
      const mapping = core.exports.dmaMapTable(device, tableOf(core, list), TO_DEVICE);
      const [pfn] = segmentsOf(core, mapping)[0] as Segment;
      expect(spans(core, device, pfn, 10, 100, READ)).toEqual([[9 * PS + 10, 100]]);
      expect(spans(core, device, pfn, 10, 100, WRITE)).toBe(EFAULT);
      expect(spans(core, device, 2000, 0, 1, READ)).toBe(EFAULT);
      const across = spans(core, device, pfn, 4000, 200, READ);
      if (iommu)
        expect(across).toEqual([
          [9 * PS + 4000, 96],
          [5 * PS, 104],
        ]);
      else expect(across).toBe(EFAULT); // frame 10 is not mapped
      core.exports.dmaUnmap(mapping);
      expect(spans(core, device, pfn, 0, 1, READ)).toBe(EFAULT);
      expectSound(core);
    });

    test.each([
      ["an offset beyond the page", PS, 1, READ],
      ["no bytes", 0, 0, READ],
      ["no access", 0, 1, 0],
      ["an unknown access", 0, 1, 4],
    ])("refuse %s", (__, offset, length, access) => {
      const core = build.open(4096);
      expect(spans(core, addDevice(core, { iommu }), 9, offset, length, access)).toBe(EINVAL);
    });
  });

  test("a direct device finds its segments in any order, also behind a gap and a fault", () => {
    const core = build.open(4096);
    const device = addDevice(core, { iommu: false });
    const pfns = [900, 300, 700, 100, 500];
    const lists = [pfns, pfns.map((pfn) => pfn + 1)].map((frames) =>
      frames.map((pfn): Segment => [pfn, 0, PS / 2]),
    );
    const maps = lists.map((list) =>
      core.exports.dmaMapTable(device, tableOf(core, list), TO_DEVICE),
    );
    const seen = (pfn: number) => spans(core, device, pfn, 8, 8, READ);
    const base = ((segmentsOf(core, maps[0] ?? 0)[0] as Segment)[0] ?? 0) - 900;
    for (const frame of [700, 100, 101, 900, 901, 500, 300, 301, 300, 701, 501])
      expect(seen(base + frame)).toEqual([[frame * PS + 8, 8]]);
    for (const frame of [302, 299, 4000]) expect(seen(base + frame)).toBe(EFAULT);
    expect(spans(core, device, base + 300, PS / 2, 1, READ)).toBe(EFAULT);
    expect(seen(base + 900)).toEqual([[900 * PS + 8, 8]]);
    core.exports.dmaUnmap(maps[1] ?? 0);
    expect(seen(base + 901)).toBe(EFAULT);
    expect(seen(base + 500)).toEqual([[500 * PS + 8, 8]]);
    expectSound(core);
  });

  test("a device without a mapping reaches nothing, another device's mapping included", () => {
    const core = build.open(4096);
    const [one, two] = [addDevice(core), addDevice(core)];
    const mapping = core.exports.dmaMapTable(
      one,
      core.exports.sgTableFromRange(100, 1, NONE),
      FROM_DEVICE,
    );
    const [pfn] = segmentsOf(core, mapping)[0] as Segment;
    expect(spans(core, two, pfn, 0, 1, WRITE)).toBe(EFAULT);
    expect(spans(core, one, pfn, 0, 1, WRITE)).toEqual([[100 * PS, 1]]);
  });

  test("what devices see, translated byte by byte, is the table, over seeded random events", () => {
    const seed = fuzzSeed(99);
    const random = new Prng(seed);
    const core = build.open(4096);
    const devices = [
      addDevice(core),
      addDevice(core, { maxBytes: 2 * PS }),
      addDevice(core, { iommu: false, maxBytes: PS }),
      addDevice(core, { boundaryMask: PS - 1 }),
      addDevice(core, { maxBytes: 3 * PS, boundaryMask: 4 * PS - 1 }),
    ];
    const live: { device: number; mapping: number; table: number; list: Segment[] }[] = [];
    for (let event = 0; event < 300; event++) {
      const label = `seed ${seed}, event ${event}`;
      if (random.below(100) < 60) {
        const list = randomList(random);
        const table = tableOf(core, list);
        const device = random.pick(devices);
        const mapping = core.exports.dmaMapTable(device, table, BIDIRECTIONAL);
        expect(mapping, label).toBeGreaterThan(0);
        live.push({ device, mapping, table, list });
        expect(translated(core, device, segmentsOf(core, mapping)), label).toEqual(bytesOf(list));
      } else if (live.length > 0) {
        const [gone] = live.splice(random.below(live.length), 1);
        if (gone === undefined) continue;
        expect(core.exports.dmaUnmap(gone.mapping), label).toBe(0);
        expect(core.exports.sgTableFree(gone.table), label).toBe(0);
      }
      if (event % 30 === 0) expectSound(core, label);
    }
    expectSound(core, `seed ${seed}`);
  });
});
