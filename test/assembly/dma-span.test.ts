// dmaSpanAt(): a device's access to one page that a driver outside the core has translated.

import { describe, expect, test } from "vitest";
import { eachCore } from "../support/cores.ts";
import { expectSound } from "../support/sound.ts";

const PS = 4096;
const NONE = 0xffffffff;
const [EFAULT, EINVAL, ESTALE] = [-14, -22, -116];
const [READ, WRITE] = [1, 2];
const BIDIRECTIONAL = 0;
const [NONCOHERENT, SIMULATED] = [1, 2];
const [FAULT_COUNT, SEGMENTS_AT] = [7, 4]; // words of a device and of a mapping

describe.each(eachCore)("dmaSpanAt() on the $name core", (build) => {
  const setUp = (limitPfn = 0xfffff, flags = 0) => {
    const core = build.open(4096);
    const { exports } = core;
    const addDevice = (domain: number): number =>
      exports.dmaDeviceAdd(domain, limitPfn, 65_536, NONE, NONE, flags, 0, 0);
    /** The device page of a table's first byte. */
    const map = (to: number, table: number): number => {
      const words = new Uint32Array(core.memory.buffer);
      const mapping = exports.dmaMapTable(to, table, BIDIRECTIONAL, 0);
      const segmentsAt = words[exports.dmaMappingAt(mapping) / 4 + SEGMENTS_AT] ?? 0;
      return words[segmentsAt / 4] ?? 0;
    };
    const device = addDevice(exports.iommuDomainAlloc());
    const direct = addDevice(0);
    const base = map(direct, exports.sgTableFromRange(100, 2, NONE)) - 100;
    const spanAt = (pfn: number, offset: number, length: number, access: number, phys: number) => {
      const result = exports.dmaSpanAt(device, pfn, offset, length, access, phys);
      if (result !== 1) return result;
      return [...new Uint32Array(core.memory.buffer, exports.scratchAt(), 2)];
    };
    const faults = (): number[] => {
      const at = exports.dmaDeviceAt(device) / 4;
      return [
        ...new Uint32Array(core.memory.buffer).subarray(at + FAULT_COUNT, at + FAULT_COUNT + 3),
      ];
    };
    return { core, device, direct, map, base, spanAt, faults };
  };

  test("gives one span, to the end of the page at most, whatever the table of the core says", () => {
    const { core, base, spanAt, faults } = setUp();
    expect(spanAt(7, 0, PS, READ, base + 100)).toEqual([100 * PS, PS]);
    expect(spanAt(7, 10, 20, WRITE, base + 100)).toEqual([100 * PS + 10, 20]);
    expect(spanAt(7, 4000, 9000, READ | WRITE, base + 101)).toEqual([101 * PS + 4000, 96]);
    expect(spanAt(7, PS - 1, NONE, READ, base + 4095)).toEqual([4096 * PS - 1, 1]);
    expect(faults()).toEqual([0, 0, 0]);
    expectSound(core);
  });

  test("faults where the driver refuses, no memory lies, or the device cannot address", () => {
    const { core, base, spanAt, faults } = setUp(0xfff);
    const refused: [pfn: number, access: number, phys: number][] = [
      [7, READ, NONE],
      [8, WRITE, base + 4096],
      [9, READ | WRITE, base === 0 ? 0xfffffffe : base - 1],
      [0x1000, READ, base + 100],
    ];
    for (const [i, [pfn, access, phys]] of refused.entries()) {
      expect(spanAt(pfn, 0, 1, access, phys)).toBe(EFAULT);
      expect(faults()).toEqual([i + 1, pfn, access]);
    }
    expect(spanAt(0xfff, 0, 1, READ, base + 100)).toEqual([100 * PS, 1]);
    expectSound(core);
  });

  test("refuses what is no access, a device without an IOMMU, and one that is gone", () => {
    const { core, device, direct, base, spanAt, faults } = setUp();
    expect(spanAt(7, PS, 1, READ, base + 100)).toBe(EINVAL);
    expect(spanAt(7, 0, 0, READ, base + 100)).toBe(EINVAL);
    expect(spanAt(7, 0, 1, 0, base + 100)).toBe(EINVAL);
    expect(spanAt(7, 0, 1, 4, base + 100)).toBe(EINVAL);
    expect(faults()).toEqual([0, 0, 0]);
    expect(core.exports.dmaSpanAt(direct, 7, 0, 1, READ, base + 100)).toBe(EINVAL);
    expect(core.exports.dmaDeviceRemove(device)).toBe(0);
    expect(core.exports.dmaSpanAt(device, 7, 0, 1, READ, base + 100)).toBe(ESTALE);
    expect(core.exports.dmaSpanAt(0, 7, 0, 1, READ, base + 100)).toBe(ESTALE);
  });

  test("shows a device that sees no cache the memory behind it", () => {
    const { core, device, map, base } = setUp(0xfffff, NONCOHERENT | SIMULATED);
    const { exports } = core;
    const pfn = map(device, exports.sgTableFromRange(200, 1, NONE));
    const words = (): Uint32Array =>
      new Uint32Array(core.memory.buffer, exports.scratchAt(), 2).slice();
    expect(exports.dmaSpanAt(device, pfn, 8, 100, READ, base + 200)).toBe(1);
    const [byDriver, byCore] = [words(), exports.dmaSpans(device, pfn, 8, 100, READ)];
    expect(byCore).toBe(1);
    expect(byDriver).toEqual(words());
    expect(Math.floor((byDriver[0] ?? 0) / PS)).not.toBe(200); // the shadow, not the frame
    expect(exports.dmaSpanAt(device, pfn - 1, 8, 100, READ, base + 201)).toBe(1);
    expect(words()[0]).toBe(201 * PS + 8); // nothing is mapped there, so nothing shadows it
  });
});
