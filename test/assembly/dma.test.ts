import { describe, expect, test } from "vitest";
import { type CoreVariant, eachCore } from "../support/cores.ts";
import { addDevice, segmentsOf } from "../support/device-view.ts";
import { type Segment, tableOf } from "../support/segments.ts";
import { expectSound } from "../support/sound.ts";

const PS = 4096;
const NONE = 0xffffffff;
const [EBUSY, EINVAL, EIO, ENOMEM, ESTALE] = [-16, -22, -5, -12, -116];
const [BIDIRECTIONAL, TO_DEVICE] = [0, 1];

describe.each(eachCore)("dma on the $name core", (build: CoreVariant) => {
  describe("dmaMapTable() behind an IOMMU", () => {
    test.each([
      [
        "joins whole pages",
        [
          [9, 0, PS],
          [5, 0, PS],
          [3, 0, PS],
        ],
        65_536,
        [[0, 0, 3 * PS]],
      ],
      [
        "keeps to the largest segment",
        [
          [9, 0, PS],
          [5, 0, PS],
          [3, 0, PS],
          [1, 0, PS],
        ],
        2 * PS,
        [
          [0, 0, 2 * PS],
          [2, 0, 2 * PS],
        ],
      ],
      [
        "starts inside a page and ends inside one",
        [
          [9, 0x200, 0xe00],
          [5, 0, PS],
          [3, 0, 0x64],
        ],
        65_536,
        [[0, 0x200, 0x1e64]],
      ],
      [
        "does not join behind a partial page",
        [
          [9, 0, 0x64],
          [5, 0, PS],
        ],
        65_536,
        [
          [0, 0, 0x64],
          [1, 0, PS],
        ],
      ],
      [
        "does not join an entry that begins inside a page",
        [
          [9, 0, PS],
          [5, 0x200, 0x64],
          [3, 0, PS],
        ],
        65_536,
        [
          [0, 0, PS],
          [1, 0x200, 0x64],
          [2, 0, PS],
        ],
      ],
      [
        "does not cut an entry to fill a segment",
        [
          [20, 0, 3 * PS],
          [30, 0, 2 * PS],
        ],
        4 * PS,
        [
          [0, 0, 3 * PS],
          [3, 0, 2 * PS],
        ],
      ],
      [
        "cuts an entry that is too long",
        [[20, 0, 5 * PS]],
        2 * PS,
        [
          [0, 0, 2 * PS],
          [2, 0, 2 * PS],
          [4, 0, PS],
        ],
      ],
      [
        "cuts at pages behind an offset",
        [[20, 0x800, 3 * PS]],
        2 * PS,
        [
          [0, 0x800, 2 * PS - 0x800],
          [2, 0, PS + 0x800],
        ],
      ],
    ] as const)("%s", (_, list, maxBytes, expected) => {
      const core = build.open(4096);
      const device = addDevice(core, { maxBytes });
      const table = tableOf(core, list as unknown as Segment[]);
      const mapping = core.exports.dmaMapTable(device, table, BIDIRECTIONAL);
      const segments = segmentsOf(core, mapping);
      const base = segments[0]?.[0] ?? 0;
      expect(segments.map(([pfn, offset, length]) => [pfn - base, offset, length])).toEqual(
        expected,
      );
      expectSound(core);
      expect(core.exports.dmaUnmap(mapping)).toBe(0);
      expectSound(core);
    });

    test("gives addresses below 4 GiB first, and keeps to the device's limit", () => {
      const core = build.open(4096);
      const table = core.exports.sgTableFromRange(100, 4, NONE);
      const wide = segmentsOf(
        core,
        core.exports.dmaMapTable(addDevice(core, { limitPfn: NONE }), table, TO_DEVICE),
      );
      expect(wide[0]?.[0]).toBeLessThan(2 ** 20);
      const tiny = addDevice(core, { limitPfn: 7 });
      const first = core.exports.dmaMapTable(tiny, table, TO_DEVICE);
      expect(segmentsOf(core, first)[0]?.[0]).toBe(4);
      expect(core.exports.dmaMapTable(tiny, table, TO_DEVICE)).toBe(ENOMEM);
      expectSound(core);
    });

    test("refuses more segments than the device takes, and changes nothing", () => {
      const core = build.open(4096);
      const device = addDevice(core, { maxSegments: 2, maxBytes: PS });
      const table = core.exports.sgTableFromRange(100, 3, NONE);
      const objects = core.exports.frameCountIn(8);
      expect(core.exports.dmaMapTable(device, table, BIDIRECTIONAL)).toBe(EINVAL);
      expect(core.exports.frameCountIn(8)).toBe(objects);
      expectSound(core);
    });
  });

  test("dmaDeviceSetLimit() reaches all frames of a direct device, and waits for mappings", () => {
    const core = build.open(4096);
    const { exports } = core;
    const [direct, translated] = [addDevice(core, { iommu: false }), addDevice(core)];
    expect(exports.dmaDeviceSetLimit(direct, 4094)).toBe(EIO);
    expect(exports.dmaDeviceSetLimit(direct, 4095)).toBe(0);
    const table = exports.sgTableFromRange(100, 3, NONE);
    for (const device of [direct, translated]) {
      const mapping = exports.dmaMapTable(device, table, TO_DEVICE);
      expect(exports.dmaDeviceSetLimit(device, NONE)).toBe(EBUSY);
      expect(exports.dmaUnmap(mapping)).toBe(0);
      expect(exports.dmaDeviceSetLimit(device, NONE)).toBe(0);
    }
    expect(exports.dmaDeviceSetLimit(translated, 0)).toBe(0);
    expect(exports.dmaMapTable(translated, table, TO_DEVICE)).toBe(ENOMEM);
    expect(exports.dmaDeviceSetLimit(0, NONE)).toBe(ESTALE);
    expectSound(core);
  });

  describe("dmaMapTable() without an IOMMU", () => {
    test("shows frames at their physical addresses", () => {
      const core = build.open(4096);
      const device = addDevice(core, { iommu: false });
      const mapping = core.exports.dmaMapTable(
        device,
        tableOf(core, [
          [9, 0, PS],
          [5, 100, 50],
        ]),
        BIDIRECTIONAL,
      );
      expect(segmentsOf(core, mapping)).toEqual([
        [9, 0, PS],
        [5, 100, 50],
      ]);
      expectSound(core);
    });

    test("refuses frames beyond the mask with EIO, and too many entries with EINVAL", () => {
      const core = build.open(4096);
      const device = addDevice(core, { iommu: false, limitPfn: 1000, maxSegments: 1 });
      const map = (list: Segment[]): number =>
        core.exports.dmaMapTable(device, tableOf(core, list), BIDIRECTIONAL);
      expect(map([[1000, 0, PS]])).toBeGreaterThan(0);
      expect(map([[1000, 0, PS + 1]])).toBe(EIO);
      expect(
        map([
          [10, 0, PS],
          [20, 0, PS],
        ]),
      ).toBe(EINVAL);
      expectSound(core);
    });
  });

  test.each([
    ["a device that is gone", 0, 1, 0, ESTALE],
    ["a table that is gone", 1, 0, 0, ESTALE],
    ["a direction that is none", 1, 1, 3, EINVAL],
  ])("dmaMapTable() refuses %s", (_, useDevice, useTable, direction, code) => {
    const core = build.open(4096);
    const device = addDevice(core);
    const table = core.exports.sgTableFromRange(100, 1, NONE);
    expect(core.exports.dmaMapTable(useDevice * device, useTable * table, direction)).toBe(code);
    expectSound(core);
  });

  test("mapped tables are not freed, devices with mappings not removed, handles go stale", () => {
    const core = build.open(4096);
    const { exports } = core;
    const device = addDevice(core);
    const table = exports.sgTableFromRange(100, 2, NONE);
    const mapping = exports.dmaMapTable(device, table, BIDIRECTIONAL);
    expect(exports.sgTableFree(table)).toBe(EBUSY);
    expect(exports.dmaDeviceRemove(device)).toBe(EBUSY);
    expect(exports.dmaUnmap(mapping)).toBe(0);
    expect(exports.dmaUnmap(mapping)).toBe(ESTALE);
    expect(exports.sgTableFree(table)).toBe(0);
    expect(exports.dmaDeviceRemove(device)).toBe(0);
    expect(exports.dmaDeviceRemove(device)).toBe(ESTALE);
    expectSound(core);
  });
});
