import { describe, expect, test } from "vitest";
import {
  type Device,
  type DeviceMapping,
  DMA_MAPPING_ERROR,
  describeLimits,
  FRAME_BYTES,
  GiB,
  isDmaMappingError,
  MiB,
} from "../../../src/index.ts";
import { eachCore } from "../../support/cores.ts";
import { cutUp } from "../../support/cut-up.ts";
import { expectError, expectRefusal } from "../../support/errors.ts";

const PS = FRAME_BYTES;

function read(device: Device, address: number, length: number): number[] {
  const into = new Uint8Array(length);
  device.dma.read(address, into);
  return [...into];
}

/** The bytes that a device sees through a mapping. */
function readMapping(device: Device, mapping: DeviceMapping): number[] {
  return [...mapping.segments()].flatMap(({ address, lengthBytes }) =>
    read(device, address, lengthBytes),
  );
}

describe.each(eachCore)("device.dma on the $name core", (build) => {
  const open = (iommu: boolean) => {
    const system = build.system({ memoryBytes: 16 * MiB, cma: { video: 4 * MiB } });
    const range = system.frames.alloc(8);
    const pinned = range.pin();
    const { bytes } = pinned;
    bytes.set(bytes.map((_, i) => (i * 5 + (i >> 9)) & 255));
    const device = system.addDevice({ name: "npu", iommu });
    return { system, range, pinned, bytes, device };
  };

  describe.each([false, true])("with an IOMMU: %s", (iommu) => {
    test("mapPage() maps bytes that may go on behind the page, unmapPage() ends it", () => {
      const { system, range, bytes, device } = open(iommu);
      for (const [offset, length] of [
        [0, PS],
        [100, 50],
        [5000, 10],
        [4095, 2],
        [0, 8 * PS],
      ] as const) {
        const mapping = device.dma.mapPage(range.pfn, offset, length, "to-device");
        expect(mapping.address % PS).toBe(offset % PS);
        expect(readMapping(device, mapping)).toEqual([...bytes.subarray(offset, offset + length)]);
        const { address } = mapping;
        device.dma.unmapPage(mapping);
        expectError("EFAULT", () => read(device, address, 1));
        expectError("ESTALE", () => device.dma.unmapPage(mapping));
      }
      expect(system.check(true)).toBeNull();
    });

    test("mapSingle() takes a view of the memory, and no other", () => {
      const { system, bytes, device } = open(iommu);
      const mapping = device.dma.mapSingle(bytes.subarray(3, 8), "bidirectional");
      device.dma.write(mapping.address + 1, Uint8Array.of(9, 9));
      expect([...bytes.subarray(4, 6)]).toEqual([9, 9]);
      expectRefusal(system, "EINVAL", () =>
        device.dma.mapSingle(new Uint8Array(5), "bidirectional"),
      );
      expectRefusal(system, "EINVAL", () =>
        device.dma.mapSingle(bytes.subarray(0, 0), "bidirectional"),
      );
      device.dma.unmapSingle(mapping);
    });

    test("mapSg() maps a list in order; of no entry it is EIO", () => {
      const { system, range, bytes, device } = open(iommu);
      const list = [
        { pfn: range.pfn + 6, offset: 9, lengthBytes: 30 },
        { pfn: range.pfn, offset: 0, lengthBytes: PS },
        { pfn: range.pfn + 3, offset: 0, lengthBytes: 7 },
      ];
      const mapping = device.dma.mapSg(list, "to-device");
      expect(readMapping(device, mapping)).toEqual(
        list.flatMap(({ pfn, offset, lengthBytes }) => {
          const at = (pfn - range.pfn) * PS + offset;
          return [...bytes.subarray(at, at + lengthBytes)];
        }),
      );
      device.dma.unmapSg(mapping);
      expectRefusal(system, "EIO", () => device.dma.mapSg([], "to-device"));
    });

    test("mapResource() gives addresses to what is no memory, and refuses memory", () => {
      const { system, range, device } = open(iommu);
      const mapping = device.dma.mapResource(3 * GiB + 20, 100, "bidirectional");
      expect(mapping.address % PS).toBe(20);
      if (!iommu) expect(mapping.address).toBe(3 * GiB + 20);
      expectError("EFAULT", () => read(device, mapping.address, 1)); // no bytes lie there
      device.dma.unmapResource(mapping);
      for (const at of [range.pfn * PS, 16 * MiB - 1, 0])
        expectRefusal(system, "EINVAL", () => device.dma.mapResource(at, 100, "to-device"));
      expectRefusal(system, "EINVAL", () => device.dma.mapResource(3 * GiB, 0, "to-device"));
    });

    test("a mapping pins its frames (D8), and is ended by its own kind of unmap only", () => {
      const { system, range, pinned, device } = open(iommu);
      pinned.unpin();
      const mapping = device.dma.mapPage(range.pfn, 0, PS, "to-device");
      expectRefusal(system, "EBUSY", () => range.free());
      for (const unmap of ["unmapSingle", "unmapSg", "unmapSgtable", "unmapResource"] as const)
        expectRefusal(system, "EINVAL", () => device.dma[unmap](mapping));
      const other = system.addDevice({ name: "other" });
      expectRefusal(system, "EINVAL", () => other.dma.unmapPage(mapping));
      for (const none of [null, undefined, {}])
        expectRefusal(system, "EINVAL", () => device.dma.unmapPage(none as typeof mapping));
      expectRefusal(system, "EINVAL", () => other.dma.syncForCpu(mapping));
      expectRefusal(system, "EBUSY", () => device.remove());
      device.dma.unmapPage(mapping);
      range.free();
      expectRefusal(system, "ENOENT", () => device.dma.mapPage(range.pfn, 0, PS, "to-device"));
    });

    test("allocCoherent() with forceContiguous is one run of frames, or ENOMEM", () => {
      const { system, device } = open(iommu);
      const held = Array.from({ length: 600 }, () => system.frames.alloc(1));
      for (const [i, range] of held.entries()) if (i % 2 === 0) range.free();
      const buffer = device.dma.allocCoherent(16 * PS, { forceContiguous: true });
      const domain = device.group?.defaultDomain;
      const frames = Array.from({ length: 16 }, (_, i) =>
        domain ? domain.iovaToPhys(buffer.address + i * PS) : buffer.address + i * PS,
      );
      expect(frames).toEqual(frames.map((_, i) => (frames[0] ?? 0) + i * PS));
      expect(buffer.bytes.length).toBe(16 * PS);
      buffer.free();
      cutUp(system);
      const run = () => device.dma.allocCoherent(2000 * PS, { forceContiguous: true });
      expectRefusal(system, "ENOMEM", run);
      device.dma.allocCoherent(16 * PS, { forceContiguous: true }).free(); // of the region
    });

    test("allocCoherent() gives zeros that both sides see, below the coherent mask", () => {
      const { system, device } = open(iommu);
      const buffer = device.dma.allocCoherent(5000, { noWarn: true, forceContiguous: true });
      expect(buffer.lengthBytes).toBe(2 * PS);
      expect(buffer.bytes.every((byte) => byte === 0)).toBe(true);
      buffer.bytes[5] = 1;
      expect(read(device, buffer.address + 5, 1)).toEqual([1]);
      device.dma.write(buffer.address + 6, Uint8Array.of(2));
      expect(buffer.bytes[6]).toBe(2);
      expect(device.dma.needSync(buffer.mapping)).toBe(false);
      const { address } = buffer;
      buffer.free();
      expectError("ESTALE", () => buffer.free());
      expectError("ESTALE", () => buffer.bytes);
      expectError("EFAULT", () => read(device, address, 1));
      expectRefusal(system, "ENOMEM", () => device.dma.allocCoherent(iommu ? 17 * MiB : 5 * MiB));
      expectRefusal(system, "EINVAL", () => device.dma.allocCoherent(0));
      using large = device.dma.allocCoherent(4 * MiB); // out of the region, if the pool is cut up
      expect(large.mapping.nents).toBe(1);
    });

    test("allocNoncontiguous() is one segment for the device, vmap() and mmap() show the frames", () => {
      const { system, device } = open(iommu);
      const length = 100 * PS;
      const buffer = device.dma.allocNoncontiguous(length, "bidirectional");
      expect(buffer.mapping.nents).toBe(1); // though longer than 64 KiB
      expect(buffer.mapping.lengthBytes).toBe(length);
      const seen = buffer.vmap();
      const mapped = buffer.mmap();
      const pattern = Uint8Array.from({ length }, (_, i) => i % 251);
      device.dma.write(buffer.address, pattern);
      device.dma.syncForCpu(buffer.mapping);
      expect(seen.views.flatMap((view) => [...view])).toEqual([...pattern]);
      expectRefusal(system, "EBUSY", () => buffer.free());
      seen.unpin();
      mapped.unpin();
      buffer.free();
      expectError("ESTALE", () => buffer.vmap());
      expectRefusal(system, "ENOMEM", () =>
        device.dma.allocNoncontiguous(17 * MiB, "bidirectional"),
      );
    });

    test("copy() of overlapping ranges is as if all were read first (memmove)", () => {
      const { range, bytes, device } = open(iommu);
      // One device sees the same frames in another order, so that runs overlap out of order.
      const list = [3, 1, 2, 0].map((i) => ({ pfn: range.pfn + i, offset: 0, lengthBytes: PS }));
      const mapping = device.dma.mapSg(list, "bidirectional");
      const twin = device.dma.mapSg([...list].reverse(), "bidirectional");
      const run = [{ pfn: range.pfn, offset: 0, lengthBytes: 4 * PS }];
      const whole = iommu ? mapping : device.dma.mapSg(run, "bidirectional"); // without a gap
      for (const [to, from, length] of [
        [0, 100, 900],
        [100, 0, 900],
        [5, 0, 3 * PS],
        [0, 5, 3 * PS],
      ] as const) {
        const before = readMapping(device, whole);
        device.dma.copy(whole.address + to, whole.address + from, length);
        const expected = [...before];
        expected.splice(to, length, ...before.slice(from, from + length));
        expect(readMapping(device, whole)).toEqual(expected);
      }
      const source = read(device, twin.dma(0).address, PS);
      device.dma.copy(mapping.dma(0).address, twin.dma(0).address, PS);
      expect(read(device, mapping.dma(0).address, PS)).toEqual(source);
      const before = [...bytes.subarray(0, PS)];
      device.dma.copy(mapping.at(3 * PS).address, mapping.at(3 * PS).address, PS); // itself
      expect([...bytes.subarray(0, PS)]).toEqual(before);
    });
  });

  test.each([{}, { untrusted: true }, { maxSegments: 1, segmentBoundaryBytes: 8192 }])(
    "behind an IOMMU allocCoherent() takes scattered frames for one segment: %j",
    (limits) => {
      const { system } = open(true);
      const device = system.addDevice({ name: "npu 2", iommu: true, ...limits });
      cutUp(system);
      device.dma.allocCoherent(20 * PS).free(); // page tables stay
      const freeBefore = system.stats().freeFrames;
      const buffer = device.dma.allocCoherent(20 * PS);
      expect([buffer.mapping.nents, buffer.views.length]).toEqual([1, 20]);
      expect(buffer.views.every((view) => view.every((byte) => byte === 0))).toBe(true);
      expectRefusal(system, "EINVAL", () => buffer.bytes);
      const pattern = Uint8Array.from({ length: 20 * PS }, (_, i) => i % 251);
      device.dma.write(buffer.address, pattern);
      expect(buffer.views.flatMap((view) => [...view])).toEqual([...pattern]);
      buffer.views[7]?.fill(9);
      expect(new Set(read(device, buffer.address + 7 * PS, PS))).toEqual(new Set([9]));
      expect(system.stats().bytesCopied).toBe(0);
      const noncontiguous = device.dma.allocNoncontiguous(20 * PS, "bidirectional");
      expect(noncontiguous.mapping.nents).toBe(1);
      noncontiguous.free();
      const { address } = buffer;
      buffer.free();
      expectError("ESTALE", () => buffer.views);
      expectError("EFAULT", () => read(device, address, 1));
      expect(system.stats().freeFrames).toBe(freeBefore);
      expect(system.check(true)).toBeNull();
    },
  );

  test("behind an IOMMU only the device addresses are below the coherent mask", () => {
    const system = build.system({ memoryBytes: 16 * MiB, physicalBase: GiB });
    const limits = { coherentDmaMaskBits: 28, dmaMaskBits: 28 };
    const device = system.addDevice({ name: "npu", iommu: true, ...limits });
    for (const forceContiguous of [false, true]) {
      using buffer = device.dma.allocCoherent(2 * PS, { forceContiguous });
      expect(buffer.address).toBeLessThan(2 ** 28);
      device.dma.write(buffer.address, Uint8Array.of(7));
      expect(buffer.bytes[0]).toBe(7);
    }
    const direct = system.addDevice({ name: "lcd", coherentDmaMaskBits: 28 });
    expectRefusal(system, "ENOMEM", () => direct.dma.allocCoherent(PS));
  });

  test.each([false, true])(
    "a removed device allocates and reserves nothing (IOMMU: %s)",
    (iommu) => {
      const { system } = open(iommu);
      const group = system.iommu.group();
      for (const one of [iommu, iommu && group]) {
        const device = system.addDevice({ name: "gone", iommu: one });
        device.remove();
        expectRefusal(system, "ESTALE", () => device.dma.allocCoherent(PS));
        expectRefusal(system, "ESTALE", () => device.dma.allocNoncontiguous(PS, "to-device"));
        expectRefusal(system, "ESTALE", () => device.dma.iovaTryAlloc(PS));
      }
      group.free();
    },
  );

  test("contiguousOnly takes one segment, and setCoherentDmaMask() has the mask's rule", () => {
    const { system, range } = open(false);
    const device = system.addDevice({ name: "lcd", contiguousOnly: true, dmaMaskBits: 40 });
    expect(device.limits.coherentDmaMaskBits).toBe(40);
    expect(device.needsContiguous).toBe(true);
    const list = [0, 2].map((i) => ({ pfn: range.pfn + i, offset: 0, lengthBytes: PS }));
    expectRefusal(system, "EINVAL", () => device.dma.mapSg(list, "to-device"));
    const behind = system.addDevice({ name: "behind", iommu: true, contiguousOnly: true });
    behind.dma.unmapSg(behind.dma.mapSg(list, "to-device"));
    expectRefusal(system, "EIO", () => device.setCoherentDmaMask(20));
    device.setCoherentDmaMask(30);
    expect(device.limits.coherentDmaMaskBits).toBe(30);
    behind.setCoherentDmaMask(20);
    using buffer = behind.dma.allocCoherent(PS);
    expect(buffer.address).toBeLessThan(2 ** 20);
    expectRefusal(system, "EBUSY", () => behind.setCoherentDmaMask(32));
  });

  test("limits are described, and refused when they make no sense", () => {
    const { system } = open(false);
    const { limits } = system.addDevice({ name: "usb", coherent: false, untrusted: true });
    expect(describeLimits(limits)).toBe(
      "no IOMMU, 32 bits, any number of segments of 64 KiB, not coherent, untrusted",
    );
    for (const bad of [{ minAlignMask: 100 }, { coherentDmaMaskBits: 65 }, { minAlignMask: -1 }])
      expectRefusal(system, "EINVAL", () => system.addDevice({ name: "bad", ...bad }));
  });

  test("attributes are known by name, and privileged mappings work", () => {
    const { system, range, device } = open(true);
    const map = (attrs: object) => device.dma.mapPage(range.pfn, 0, PS, "to-device", attrs);
    expectRefusal(system, "EINVAL", () => map({ fast: true }));
    const all = { skipCpuSync: true, noWarn: true, privileged: true, weakOrdering: true };
    device.dma.unmapPage(map(all), { skipCpuSync: true });
  });

  test("DMA_MAPPING_ERROR is all ones, and nothing else", () => {
    expect(isDmaMappingError(DMA_MAPPING_ERROR)).toBe(true);
    expect(isDmaMappingError(-1n)).toBe(true); // the same 64 bits
    expect([0n, 1n, DMA_MAPPING_ERROR - 1n].some(isDmaMappingError)).toBe(false);
  });

  test("a device without a mapping reaches nothing, whatever was mapped before", () => {
    const { range, device } = open(false);
    const mapping = device.dma.mapPage(range.pfn, 0, PS, "bidirectional");
    const { address } = mapping;
    device.dma.unmapPage(mapping);
    for (const at of [address, 0, 2 ** 31])
      for (const access of ["read", "write"] as const)
        expectError("EFAULT", () => device.dma.spans(at, 1, access));
  });
});
