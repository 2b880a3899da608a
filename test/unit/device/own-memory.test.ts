import { describe, expect, test } from "vitest";
import { type Device, FRAME_BYTES, MiB } from "../../../src/index.ts";
import { eachCore } from "../../support/cores.ts";
import { expectError, expectRefusal } from "../../support/errors.ts";

const PS = FRAME_BYTES;

/** One byte as the device sees it. */
function byteAt(device: Device, address: number): number {
  const into = new Uint8Array(1);
  device.dma.read(address, into);
  return into[0] as number;
}

describe.each(eachCore)("memory of a device on the $name core", (build) => {
  describe.each([
    { where: "behind an IOMMU", iommu: true },
    { where: "without one", iommu: false },
  ])("$where", ({ iommu }) => {
    const open = () => {
      const system = build.system({ memoryBytes: 16 * MiB });
      const device = system.addDevice({ name: "d", iommu });
      const other = system.addDevice({ name: "other", iommu, maxSegments: 64 });
      return { system, device, other, before: system.stats().freeFrames };
    };

    test("coherent memory that somebody has mapped stays as it is until it is unmapped", () => {
      const { system, device, other } = open();
      const buffer = device.dma.allocCoherent(3 * PS);
      buffer.bytes[PS] = 7;
      const mapping = other.dma.mapSingle(buffer.bytes.subarray(PS, 2 * PS), "to-device");
      expectRefusal(system, "EBUSY", () => buffer.free());
      expect(byteAt(device, buffer.address + PS)).toBe(7); // it is mapped all the same
      expect(buffer.bytes[PS]).toBe(7);
      other.dma.unmapSingle(mapping);
      const { address } = buffer;
      buffer.free();
      expectError("ESTALE", () => buffer.free());
      expectError("EFAULT", () => byteAt(device, address));
      device.remove();
      other.remove();
      expect(system.check(true)).toBeNull();
    });

    test("noncontiguous memory that somebody has mapped or pinned can be freed later", () => {
      const { system, device, other } = open();
      const buffer = device.dma.allocNoncontiguous(2 * PS, "bidirectional");
      const seen = buffer.vmap();
      const single = other.dma.mapSingle(
        seen.views[0]?.subarray(0, 8) ?? new Uint8Array(),
        "to-device",
      );
      seen.unpin();
      expectRefusal(system, "EBUSY", () => buffer.free());
      other.dma.unmapSingle(single);
      const whole = other.dma.mapSgtable(buffer.table, "to-device");
      expectRefusal(system, "EBUSY", () => buffer.free());
      other.dma.unmapSgtable(whole);
      const pinned = buffer.table.pin();
      expectRefusal(system, "EBUSY", () => buffer.free());
      expect(buffer.mapping.isEnded).toBe(false);
      pinned.unpin();
      buffer.free();
      expectError("ESTALE", () => buffer.free());
      device.remove();
      other.remove();
      expect(system.check(true)).toBeNull();
    });

    test("a pin that comes while free() runs leaves something that can be freed again", () => {
      const { system, device, before } = open();
      const buffer = device.dma.allocCoherent(PS);
      const { exports } = system.core;
      const pfn = (buffer.bytes.byteOffset / PS) | 0;
      const { dmaUnmap } = exports;
      const late = { ...exports, dmaUnmap };
      late.dmaUnmap = (mapping: number, attrs: number) => {
        exports.pinRange(pfn, 1); // as another thread may, just here
        return dmaUnmap(mapping, attrs);
      };
      Object.assign(system.core, { exports: late });
      expectError("EBUSY", () => buffer.free());
      exports.unpinRange(pfn, 1);
      buffer.free();
      expectError("ESTALE", () => buffer.free());
      device.remove();
      if (!iommu) expect(system.stats().freeFrames).toBe(before);
      expect(system.check(true)).toBeNull();
    });
  });
});
