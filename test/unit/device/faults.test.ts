// The n-th allocation of a mapping call fails, for every n: nothing is left of it.

import { describe, expect, test } from "vitest";
import {
  type Device,
  DmaBufError,
  FRAME_BYTES,
  GiB,
  MiB,
  type System,
} from "../../../src/index.ts";
import { cutUp } from "../../support/cut-up.ts";
import { expectError } from "../../support/errors.ts";
import { FOR_EVER, faultyCores, sweepFaults } from "../../support/faults.ts";

const PS = FRAME_BYTES;

describe.each(faultyCores)("mapping faults on the $name core", (build) => {
  test.each([1, FOR_EVER])("nothing leaks when %d allocations of a map call fail", (times) => {
    const system = build.system({ memoryBytes: 16 * MiB });
    const range = system.frames.alloc(700);
    const list = Array.from({ length: 300 }, (_, i) => ({
      pfn: range.pfn + 2 * i,
      offset: 0,
      lengthBytes: PS,
    }));
    const table = system.sgTableFromFrames(list.map(({ pfn }) => pfn));
    for (const iommu of [false, true]) {
      const device = system.addDevice({ name: "npu", iommu });
      const { dma } = device;
      const calls: Record<string, () => void> = {
        page: () => dma.unmapPage(dma.mapPage(range.pfn, 3, 9, "to-device")),
        sg: () => dma.unmapSg(dma.mapSg(list, "to-device")),
        sgtable: () => dma.unmapSgtable(dma.mapSgtable(table, "to-device")),
        resource: () => dma.unmapResource(dma.mapResource(3 * GiB, 9, "to-device")),
        coherent: () => dma.allocCoherent(9000).free(),
        noncontiguous: () => dma.allocNoncontiguous(90_000, "to-device").free(),
        run: () => dma.allocCoherent(9000, { forceContiguous: true }).free(),
      };
      if (iommu) calls.iova = () => linkAndDestroy(device, range.pfn);
      for (const [name, call] of Object.entries(calls))
        expect(failuresOf(system, times, call), name).toBeGreaterThan(0);
      device.remove();
    }
  });

  test.each([1, FOR_EVER])("nor when %d fail where no two frames are adjacent", (times) => {
    const system = build.system({ memoryBytes: 16 * MiB });
    const device = system.addDevice({ name: "npu", iommu: true });
    cutUp(system);
    const { dma } = device;
    const coherent = () => dma.allocCoherent(20 * PS).free();
    const noncontiguous = () => dma.allocNoncontiguous(20 * PS, "to-device").free();
    for (const call of [coherent, noncontiguous])
      expect(failuresOf(system, times, call)).toBeGreaterThan(20); // each frame of it, and more
  });
});

/** How often a call fails for want of memory when each of its allocations does. */
function failuresOf(system: System, times: number, call: () => void): number {
  return sweepFaults(system.core, times, () => {
    try {
      call();
      return true;
    } catch (error) {
      expectError("ENOMEM", () => {
        throw error;
      });
      return false;
    }
  });
}

/** Reserves addresses, links one frame, ends both; ENOMEM when there are none. */
function linkAndDestroy(device: Device, pfn: number): void {
  const iova = device.dma.iovaTryAlloc(2 * PS);
  if (iova === null) throw new DmaBufError("ENOMEM", "reserve addresses", "there are none");
  try {
    iova.link(0, pfn, 0, 2 * PS, "to-device");
  } catch (error) {
    iova.free();
    throw error;
  }
  iova.destroy(2 * PS);
}
