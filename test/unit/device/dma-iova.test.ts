// Device addresses that are reserved first, and linked to frames piece by piece.

import { describe, expect, test } from "vitest";
import { type Device, FRAME_BYTES, GiB, MiB } from "../../../src/index.ts";
import { eachCore } from "../../support/cores.ts";
import { expectError, expectRefusal } from "../../support/errors.ts";

const PS = FRAME_BYTES;

function read(device: Device, address: number, length: number): number[] {
  const into = new Uint8Array(length);
  device.dma.read(address, into);
  return [...into];
}

describe.each(eachCore)("dma iova on the $name core", (build) => {
  const open = () => {
    const system = build.system({ memoryBytes: 16 * MiB, physicalBase: GiB });
    const range = system.frames.alloc(8);
    const { bytes } = range.pin();
    bytes.set(bytes.map((_, i) => (i * 3 + (i >> 8)) & 255));
    const device = system.addDevice({ name: "nic", iommu: true });
    return { system, range, bytes, device };
  };

  test("iovaTryAlloc() is null without an IOMMU, for an untrusted device, and with a cache", () => {
    const { system, device } = open();
    const limits = [
      {},
      { iommu: true, untrusted: true },
      { iommu: true, coherent: false, simulatedCache: true },
    ];
    for (const limit of limits)
      expect(system.addDevice({ name: "x", ...limit }).dma.iovaTryAlloc(100)).toBeNull();
    const tiny = system.addDevice({ name: "tiny", iommu: true, dmaMaskBits: 24 });
    expect(tiny.dma.iovaTryAlloc(17 * MiB)).toBeNull(); // too long for the mask
    using iova = device.dma.iovaTryAlloc(100, 5);
    expect((iova?.address ?? 0) % PS).toBe(5);
  });

  test("link, sync, unlink, free: the device sees the pieces, in order, and nothing else", () => {
    const { system, range, bytes, device } = open();
    const iova = device.dma.iovaTryAlloc(3 * PS - 100, 100);
    if (iova === null) throw new Error("no addresses");
    const { address } = iova;
    iova.link(0, range.pfn + 5, 100, PS - 100, "bidirectional");
    expectError("EFAULT", () => read(device, address + PS, 1));
    expectError("EINVAL", () => iova.sync());
    iova.link(PS - 100, range.pfn, 0, 2 * PS, "to-device");
    iova.sync();
    expect(read(device, address, iova.lengthBytes)).toEqual([
      ...bytes.subarray(5 * PS + 100, 6 * PS),
      ...bytes.subarray(0, 2 * PS),
    ]);
    expectRefusal(system, "EBUSY", () => iova.free());
    expectRefusal(system, "EBUSY", () => device.remove());
    expect(system.stats().pinnedFrames).toBeGreaterThan(0);
    iova.unlink(PS - 100, 2 * PS);
    expectError("EFAULT", () => read(device, address + PS, 1));
    iova.destroy(PS - 100);
    expectError("EFAULT", () => read(device, address, 1));
    expectError("ESTALE", () => iova.free());
    expect(system.check(true)).toBeNull();
    device.remove();
  });

  test("link refuses what breaks IO2, overlaps, or nobody holds", () => {
    const { system, range, device } = open();
    using iova = device.dma.iovaTryAlloc(4 * PS);
    if (iova === null) throw new Error("no addresses");
    const link = (at: number, pfn: number, offset: number, length: number) =>
      expectRefusal(system, offset === -1 ? "ENOENT" : "EINVAL", () =>
        iova.link(at, pfn, Math.max(0, offset), length, "to-device"),
      );
    link(0, range.pfn, 5, 100); // the range begins on a page
    link(PS, range.pfn, 5, 100);
    link(0, range.pfn, 0, 100); // ends inside a page, and is not the last
    link(0, range.pfn, 0, 5 * PS);
    link(0, 3000, -1, PS); // nobody's
    iova.link(PS, range.pfn, 0, PS, "to-device");
    expectRefusal(system, "EEXIST", () => iova.link(0, range.pfn, 0, 2 * PS, "to-device"));
    expectRefusal(system, "EINVAL", () => iova.unlink(0, PS));
    expectRefusal(system, "EINVAL", () => iova.unlink(PS, 10));
  });
});
