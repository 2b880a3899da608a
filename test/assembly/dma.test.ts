import { describe, expect, test } from "vitest";
import { type CoreVariant, eachCore, type TestCore } from "../support/cores.ts";
import { fuzzSeed, Prng } from "../support/prng.ts";
import { expectSound } from "../support/sound.ts";

const PS = 4096;
const NONE = 0xffffffff;
const EBUSY = -16;
const EFAULT = -14;
const EINVAL = -22;
const EIO = -5;
const ENOMEM = -12;
const ESTALE = -116;
const [BIDIRECTIONAL, TO_DEVICE, FROM_DEVICE] = [0, 1, 2] as const;
const [READ, WRITE] = [1, 2] as const;

type Segment = [pfn: number, offset: number, length: number];

interface Limits {
  readonly iommu?: boolean;
  readonly limitPfn?: number;
  readonly maxBytes?: number;
  readonly maxSegments?: number;
  readonly boundaryMask?: number;
}

function addDevice(core: TestCore, limits: Limits = {}): number {
  const { iommu = true, limitPfn = 0xfffff, maxBytes = 65_536, maxSegments = NONE } = limits;
  const { boundaryMask = NONE } = limits;
  const domain = iommu ? core.exports.iommuDomainAlloc() : 0;
  return core.exports.dmaDeviceAdd(domain, limitPfn, maxBytes, maxSegments, boundaryMask);
}

/** A table of { pfn, offset, length } segments. */
function tableOf(core: TestCore, list: readonly Segment[]): number {
  const words = new Uint32Array(core.memory.buffer, core.scratchAt, 4 * list.length);
  for (const [i, segment] of list.entries()) words.set(segment, 4 * i);
  return core.exports.sgTableFromList(core.scratchAt, list.length);
}

function segmentsOf(core: TestCore, mapping: number): Segment[] {
  const words = new Uint32Array(core.memory.buffer);
  const at = core.exports.dmaMappingAt(mapping) / 4;
  const [nents, segmentsAt] = [words[at + 3] as number, (words[at + 4] as number) / 4];
  return Array.from(
    { length: nents },
    (_, i) => [...words.subarray(segmentsAt + 4 * i, segmentsAt + 4 * i + 3)] as Segment,
  );
}

/** [byte address, length] pairs, or the errno. */
function spans(
  core: TestCore,
  device: number,
  pfn: number,
  offset: number,
  length: number,
  access: number,
): number[][] | number {
  const count = core.exports.dmaSpans(device, pfn, offset, length, access);
  if (count < 0) return count;
  const words = new Uint32Array(core.memory.buffer, core.exports.scratchAt(), 2 * count);
  return Array.from({ length: count }, (_, i) => [
    words[2 * i] as number,
    words[2 * i + 1] as number,
  ]);
}

/** Pages that the CPU side touches, in order: what the device must see. */
function bytesOf(list: readonly Segment[]): number[] {
  return list.flatMap(([pfn, offset, length]) =>
    Array.from({ length }, (_, i) => pfn * PS + offset + i),
  );
}

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

/** Up to five short segments, some of them inside a page. */
function randomList(random: Prng): Segment[] {
  return Array.from({ length: 1 + random.below(5) }, () => {
    const isWhole = random.below(2) === 0;
    const offset = isWhole ? 0 : random.below(PS);
    return [
      random.below(4000),
      offset,
      isWhole ? PS * (1 + random.below(3)) : 1 + random.below(3000),
    ];
  });
}

/** Every byte address that the device reaches through the segments, in order. */
function translated(core: TestCore, device: number, segments: Segment[]): number[] {
  return segments.flatMap(([pfn, offset, length]) => {
    const found = spans(core, device, pfn, offset, length, READ | WRITE);
    if (typeof found === "number") return [found];
    return found.flatMap(([at = 0, bytes = 0]) => Array.from({ length: bytes }, (_, i) => at + i));
  });
}
