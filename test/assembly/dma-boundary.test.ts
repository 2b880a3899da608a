// Mappings of devices whose segments must not cross a boundary.

import { describe, expect, test } from "vitest";
import { type CoreVariant, eachCore } from "../support/cores.ts";
import { addDevice, bytesOf, segmentsOf, spans, translated } from "../support/device-view.ts";
import { type Segment, tableOf } from "../support/segments.ts";
import { expectSound } from "../support/sound.ts";

const PS = 4096;
const NONE = 0xffffffff;
const [EFAULT, EINVAL, ENOMEM] = [-14, -22, -12];
const [BIDIRECTIONAL, READ] = [0, 1];

describe.each(eachCore)("dma on the $name core", (build: CoreVariant) => {
  describe("dmaMapTable() with a segment boundary", () => {
    const window = 4 * PS;

    test.each([
      [
        "begins an entry that would cross at it",
        [3, 3],
        64,
        [
          [0, 3],
          [4, 3],
        ],
      ],
      [
        "does not join at it",
        [3, 1, 2],
        64,
        [
          [0, 4],
          [4, 2],
        ],
      ],
      [
        "leaves a hole before the last entry",
        [3, 2],
        64,
        [
          [0, 3],
          [4, 2],
        ],
      ],
      [
        "begins an entry that is longer at it",
        [1, 5, 1],
        64,
        [
          [0, 1],
          [4, 6],
        ],
      ],
      [
        "cuts an entry that is too long at it",
        [1, 6],
        3,
        [
          [0, 1],
          [4, 3],
          [7, 1],
          [8, 2],
        ],
      ],
      [
        "fills windows",
        [1, 1, 1, 1, 1, 2, 1],
        64,
        [
          [0, 4],
          [4, 4],
        ],
      ],
    ])("%s", (_, entryPages, maxPages, expected) => {
      const core = build.open(4096);
      const limits = { maxBytes: maxPages * PS, boundaryMask: window - 1 };
      const device = addDevice(core, limits);
      const list = entryPages.map((pages, i): Segment => [100 + 20 * i, 0, pages * PS]);
      const mapping = core.exports.dmaMapTable(device, tableOf(core, list), BIDIRECTIONAL);
      const segments = segmentsOf(core, mapping);
      const base = segments[0]?.[0] ?? 0;
      expect(segments.map(([pfn, , length]) => [pfn - base, length / PS])).toEqual(expected);
      expect(translated(core, device, segments)).toEqual(bytesOf(list));
      expect(core.exports.dmaUnmap(mapping)).toBe(0);
      expectSound(core);
    });

    test("nothing lies in a hole, and nothing is left after the unmap", () => {
      const core = build.open(4096);
      const { exports } = core;
      const domain = exports.iommuDomainAlloc();
      const device = exports.dmaDeviceAdd(domain, 0xfffff, 16 * PS, NONE, window - 1);
      const list: Segment[] = [
        [100, 0, 3 * PS],
        [200, 0, 2 * PS],
        [300, 8, 3 * PS],
      ];
      const mapping = exports.dmaMapTable(device, tableOf(core, list), BIDIRECTIONAL);
      const first = segmentsOf(core, mapping)[0]?.[0] ?? 0;
      const pages = () =>
        Array.from({ length: 13 }, (_, i) => exports.iommuIovaToPhys(domain, first + i));
      const hole = -1;
      expect(pages()).toEqual([
        100,
        101,
        102,
        hole,
        200,
        201,
        hole,
        hole,
        300,
        301,
        302,
        303,
        hole,
      ]);
      expect(spans(core, device, first + 2, 0, 2 * PS, READ)).toBe(EFAULT);
      expect(exports.dmaUnmap(mapping)).toBe(0);
      expect(pages()).toEqual(new Array(13).fill(hole));
      expectSound(core);
    });

    test("maps nothing when the n-th frame for a table is missing", () => {
      const core = build.open(4096);
      const { exports } = core;
      const domain = exports.iommuDomainAlloc();
      const bytes = 1024 * PS;
      const device = exports.dmaDeviceAdd(domain, 0xfffff, bytes, NONE, bytes - 1);
      const list = Array.from({ length: 4 }, (_, i): Segment => [100 + i, 0, 700 * PS]);
      const table = tableOf(core, list);
      const taken: number[] = [];
      exports.magazineDrain();
      for (let pfn = 0; pfn >= 0; taken.push(pfn)) pfn = exports.frameAlloc(1, 0, NONE);
      taken.pop(); // the errno
      let failures = 0;
      let mapping = ENOMEM;
      while (mapping === ENOMEM) {
        mapping = exports.dmaMapTable(device, table, BIDIRECTIONAL);
        if (mapping !== ENOMEM) break;
        failures += 1;
        for (let page = 0xff000; page <= 0xfffff; page++) {
          if (exports.iommuIovaToPhys(domain, page) !== -1) expect(page, "is mapped").toBe(-1);
        }
        expect(exports.frameFree(taken.pop(), 1)).toBe(0);
      }
      expect(failures).toBeGreaterThan(3);
      const lastPages = segmentsOf(core, mapping).map(([pfn]) => pfn + 699);
      expect(lastPages.map((pfn) => exports.iommuIovaToPhys(domain, pfn))).toEqual(
        list.map(([pfn]) => pfn + 699),
      );
      expect(exports.dmaUnmap(mapping)).toBe(0);
      expectSound(core);
    });

    test.each([0, PS - 2, PS, 3 * PS - 1, NONE - 1])("is not %i + 1 bytes", (boundaryMask) => {
      const core = build.open(1024);
      expect(addDevice(core, { iommu: false, boundaryMask })).toBe(EINVAL);
    });
  });
});
