import { describe, expect, test } from "vitest";
import {
  type DeviceOptions,
  FRAME_BYTES,
  GiB,
  MiB,
  type OpenOptions,
  type System,
} from "../../src/index.ts";
import { eachCore } from "../support/cores.ts";
import { expectError, expectRefusal } from "../support/errors.ts";

const LINE = 4 * GiB;

/** The end of a run as a device sees it. */
function endOf(system: System, run: { pfn: number; frameCount: number }): number {
  return system.physicalBase + (run.pfn + run.frameCount) * FRAME_BYTES;
}

describe.each(eachCore)("memory on both sides of 4 GiB on the $name core", (build) => {
  /** 24 MiB, of which `below` lie below the line. */
  const open = (below: number, options: OpenOptions = {}): System =>
    build.system({ memoryBytes: 24 * MiB, physicalBase: LINE - below, ...options });

  test.each([1, 3, 16, 256])("runs of %i frames keep below a mask of 32 bits", (count) => {
    const system = open(12 * MiB);
    const low: number[] = [];
    for (;;) {
      try {
        const run = system.frames.alloc(count, { maskBits: 32 });
        expect(endOf(system, run)).toBeLessThanOrEqual(LINE);
        low.push(run.pfn);
      } catch {
        break;
      }
    }
    expect(low.length).toBeGreaterThan((8 * MiB) / FRAME_BYTES / count / 2);
    expectRefusal(system, "ENOMEM", () => system.frames.alloc(count, { maskBits: 32 }));
    const high = system.frames.alloc(count, { maskBits: 33 });
    expect(system.physicalBase + high.pfn * FRAME_BYTES).toBeGreaterThanOrEqual(LINE);
    expect(system.check(true)).toBeNull();
  });

  test("a frame above the line that was just freed is not given out below it", () => {
    const system = open(12 * MiB);
    const held = Array.from({ length: 4500 }, () => system.frames.alloc(1));
    const high = held.filter((run) => endOf(system, run) > LINE);
    expect(high.length).toBeGreaterThan(100);
    for (const run of high) run.free(); // into this thread's magazine, some of them
    const low = held.filter((run) => endOf(system, run) <= LINE);
    for (const run of low.slice(0, 50)) run.free();
    for (let i = 0; i < 50; i++)
      expect(endOf(system, system.frames.alloc(1, { maskBits: 32 }))).toBeLessThanOrEqual(LINE);
    expect(system.check(true)).toBeNull();
  });

  test.each([
    ["all memory lies above the line", 0, "none"],
    ["all memory lies below the line", 24 * MiB, "all"],
    ["the line lies behind the first pageblock", 4 * MiB, "some"],
  ])("%s", (_, below, found) => {
    const system = open(below);
    const { freeFrames } = system.stats();
    let taken = 0;
    try {
      for (; ; taken++) system.frames.alloc(1, { maskBits: 32 });
    } catch {
      // ENOMEM, counted below
    }
    expect(taken === 0 ? "none" : taken === freeFrames ? "all" : "some").toBe(found);
    expect(system.check(true)).toBeNull();
  });

  test("alignment in a region counts device addresses, across the line too", () => {
    const system = open(4 * MiB, { cma: { default: 20 * MiB } });
    const region = system.region("default");
    expect(system.physicalBase + region.basePfn * FRAME_BYTES).toBe(LINE); // 2^20 frames
    expect(region.alloc(3, { alignOrder: 20 }).pfn).toBe(region.basePfn);
    expectError("ENOMEM", () => region.alloc(3, { alignOrder: 20 }));
    expect((region.alloc(3, { alignOrder: 11 }).pfn - region.basePfn) % 2048).toBe(0);
  });

  describe("the auto heap", () => {
    const scattered: DeviceOptions = { name: "nic", dmaMaskBits: 32 };
    const contiguous: DeviceOptions = { name: "scan-out", dmaMaskBits: 32, maxSegments: 1 };

    test("takes scattered frames below the mask", () => {
      const system = open(12 * MiB);
      const device = system.addDevice(scattered);
      for (let i = 0; i < 2; i++) {
        const attachment = system
          .heap("auto")
          .alloc(3 * MiB)
          .attach(device);
        const mapping = attachment.map("bidirectional");
        for (let k = 0; k < mapping.nents; k++) {
          const { address, lengthBytes } = mapping.dma(k);
          expect(address + lengthBytes).toBeLessThanOrEqual(LINE);
        }
      }
      const late = system
        .heap("auto")
        .alloc(8 * MiB)
        .attach(device);
      expectRefusal(system, "ENOMEM", () => late.map("to-device"));
    });

    test("passes over regions beyond the mask, and one that crosses the line", () => {
      for (const [cma, name] of [
        [{ high: 8 * MiB, low: 4 * MiB }, "low"],
        [{ crossing: 12 * MiB, low: 4 * MiB }, "low"],
      ] as const) {
        const system = open(16 * MiB, { cma });
        const buf = system.heap("auto").alloc(2 * MiB);
        const mapping = buf.attach(system.addDevice(contiguous)).map("to-device");
        expect(mapping.nents).toBe(1);
        const { address, lengthBytes } = mapping.dma(0);
        expect(address + lengthBytes).toBeLessThanOrEqual(LINE);
        const region = system.region(name);
        expect(address).toBeGreaterThanOrEqual(system.physicalBase + region.basePfn * FRAME_BYTES);
      }
    });

    test("says which region is out of reach when there is no other", () => {
      const system = open(12 * MiB, { cma: { high: 8 * MiB } });
      const attachment = system.heap("auto").alloc(MiB).attach(system.addDevice(contiguous));
      const message = expectRefusal(system, "ENOMEM", () => attachment.map("to-device"));
      expect(message).toContain("region high reaches beyond what a device can address");
    });

    test("an IOMMU or a wider mask reaches all memory", () => {
      const system = open(0, { cma: { high: 8 * MiB } });
      for (const options of [
        { ...scattered, iommu: true },
        { ...scattered, dmaMaskBits: 33 },
        { ...contiguous, dmaMaskBits: 33 },
      ]) {
        const device = system.addDevice(options);
        const mapping = system.heap("auto").alloc(MiB).attach(device).map("bidirectional");
        const { address } = mapping.dma(0);
        device.dma.write(address + 5, Uint8Array.of(7, 8));
        const back = new Uint8Array(2);
        device.dma.read(address + 5, back);
        expect([...back]).toEqual([7, 8]);
        expect(address < LINE).toBe(options.iommu === true);
      }
      expect(system.check(true)).toBeNull();
    });
  });

  test("a buffer above the line refuses a device of 32 bits", () => {
    const system = open(0);
    const buf = system.heap("system").alloc(MiB);
    const device = system.addDevice({ name: "nic" });
    const message = expectRefusal(system, "EBUSY", () => buf.attach(device));
    expect(message).toContain("dmaMaskBits 32");
  });
});
