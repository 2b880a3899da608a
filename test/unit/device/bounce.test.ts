import { describe, expect, test } from "vitest";
import { type Device, FRAME_BYTES, GiB, KiB, MiB, type System } from "../../../src/index.ts";
import { eachCore } from "../../support/cores.ts";
import { reapHolding } from "../../support/death.ts";
import { expectError, expectRefusal } from "../../support/errors.ts";
import { FOR_EVER, faultyCores, sweepFaults } from "../../support/faults.ts";
import { headerWords } from "../../support/header.ts";

const MEMORY_BYTES = 16 * MiB;
/** Half of memory lies above 4 GiB. */
const BASE = 4 * GiB - 8 * MiB;
const LINE_PFN = (8 * MiB) / FRAME_BYTES;
/** Where the records of the pool's slots lie behind its own, four words each. */
const SLOTS_OFFSET = 64;

/** `frameCount` frames above the line, filled with a pattern. */
function highFrames(system: System, frameCount: number, pfn = LINE_PFN + 16) {
  const range = system.frames.allocAt(pfn, frameCount);
  const pinned = range.pin();
  pinned.bytes.set(pinned.bytes.map((_, i) => (i * 7 + (i >> 8)) & 255));
  return { range, pinned, bytes: pinned.bytes };
}

function readAll(device: Device, address: number, length: number): Uint8Array {
  const into = new Uint8Array(length);
  device.dma.read(address, into);
  return into;
}

describe.each(eachCore)("the bounce pool on the $name core", (build) => {
  const openSystem = (bounceBytes: number): System =>
    build.system({ memoryBytes: MEMORY_BYTES, physicalBase: BASE, bounceBytes });

  test("lies in the lowest frames, in segments of 128 slots of 2 KiB", () => {
    const system = openSystem(300 * KiB);
    expect(system.core.exports.bounceSlotCount()).toBe(256);
    expect(system.stats().bounceBytes).toBe(512 * KiB);
    const small = build.system({ memoryBytes: MiB });
    expect(small.stats().bounceBytes).toBe(0);
    expectError("ENOMEM", () => build.system({ memoryBytes: MiB, bounceBytes: MiB }));
    expectError("EINVAL", () => build.system({ memoryBytes: MiB, bounceBytes: -1 }));
  });

  test("without a pool, what a device cannot address is refused: EIO, for a page ENOMEM", () => {
    const system = openSystem(0);
    const device = system.addDevice({ name: "camera" });
    const { range, bytes } = highFrames(system, 2);
    const table = system.sgTableFromRange(range.pfn, 2);
    expectRefusal(system, "EIO", () => device.dma.mapSgtable(table, "bidirectional"));
    expectRefusal(system, "ENOMEM", () => device.dma.mapPage(range.pfn, 0, 100, "to-device"));
    expectRefusal(system, "ENOMEM", () => device.dma.mapSingle(bytes, "to-device"));
    const list = [{ pfn: range.pfn, offset: 0, lengthBytes: 5 }];
    expectRefusal(system, "EIO", () => device.dma.mapSg(list, "to-device"));
  });

  test.each([
    ["bidirectional", true, true],
    ["to-device", true, false],
    ["from-device", false, true],
  ] as const)(
    "copies %s: in at map, back at unmap, and bytesCopied counts",
    (direction, reads, writes) => {
      const system = openSystem(MiB);
      const device = system.addDevice({ name: "camera" });
      const { bytes } = highFrames(system, 2);
      const view = bytes.subarray(100, 5100);
      const before = view.slice();
      const start = system.stats().bytesCopied;
      const mapping = device.dma.mapSingle(view, direction);
      expect(device.dma.needSync(mapping)).toBe(true);
      expect(mapping.address).toBeGreaterThanOrEqual(BASE);
      expect(mapping.address + view.length).toBeLessThanOrEqual(4 * GiB);
      expect(system.stats().bytesCopied - start).toBe(view.length); // whatever the direction
      if (reads) expect(readAll(device, mapping.address, view.length)).toEqual(before);
      else expectError("EFAULT", () => readAll(device, mapping.address, 1));
      if (writes) device.dma.write(mapping.address + 10, new Uint8Array(20).fill(255));
      expect(view.slice()).toEqual(before); // the copy is not the memory
      expect(system.check(true)).toBeNull();
      device.dma.unmapSingle(mapping);
      const after = before.slice();
      if (writes) after.fill(255, 10, 30);
      expect(view.slice()).toEqual(after);
      expect(system.stats().bytesCopied - start).toBe(view.length * (writes ? 2 : 1));
      expect(system.stats().bounceUsedBytes).toBe(0);
      expect(system.check(true)).toBeNull();
    },
  );

  test("sync for cpu and for device copy a range only, in the directions that both sides allow", () => {
    const system = openSystem(MiB);
    const device = system.addDevice({ name: "camera" });
    const { bytes } = highFrames(system, 1);
    const mapping = device.dma.mapSingle(bytes, "bidirectional");
    device.dma.write(mapping.address, new Uint8Array(FRAME_BYTES).fill(9));
    device.dma.syncForCpu(mapping, { offset: 64, lengthBytes: 10 });
    expect([...bytes.subarray(64, 74)].every((byte) => byte === 9)).toBe(true);
    expect(bytes[63]).not.toBe(9);
    expect(bytes[74]).not.toBe(9);
    bytes.fill(5);
    device.dma.syncForDevice(mapping, { offset: 4000, lengthBytes: 96 });
    expect(readAll(device, mapping.address + 3999, 2)).toEqual(Uint8Array.of(9, 5));
    device.dma.syncForCpu(mapping, { direction: "to-device" });
    expect(bytes[0]).toBe(5); // nothing comes back from a device that only reads
    expectError("EINVAL", () => device.dma.syncForCpu(mapping, { offset: 4000, lengthBytes: 97 }));
    device.dma.unmapSingle(mapping);
    expect(bytes[0]).toBe(9);
    const reading = device.dma.mapSingle(bytes, "to-device");
    expectError("EINVAL", () => device.dma.syncForCpu(reading, { direction: "from-device" }));
    bytes.fill(1);
    device.dma.syncForCpu(reading);
    expect(bytes[0]).toBe(1);
    device.dma.unmapSingle(reading);
  });

  test("sync of a list goes entry by entry, and skipCpuSync leaves the bytes at unmap", () => {
    const system = openSystem(MiB);
    const device = system.addDevice({ name: "camera" });
    const high = highFrames(system, 4);
    const low = system.frames.alloc(1, { maskBits: 32 });
    const list = [
      { pfn: high.range.pfn, offset: 4090, lengthBytes: 6 },
      { pfn: low.pfn, offset: 0, lengthBytes: 10 }, // reached where it lies
      { pfn: high.range.pfn + 2, offset: 0, lengthBytes: 10 },
    ];
    const mapping = device.dma.mapSg(list, "from-device");
    expect(mapping.nents).toBe(3);
    expect(mapping.dma(1).address).toBe(BASE + low.pfn * FRAME_BYTES);
    for (const { address, lengthBytes } of mapping.segments())
      device.dma.write(address, new Uint8Array(lengthBytes).fill(77));
    device.dma.syncForCpu(mapping, { offset: 0, lengthBytes: 20 });
    expect([high.bytes[4090], high.bytes[4095], high.bytes[4096 * 2 + 3]]).toEqual([77, 77, 77]);
    expect(high.bytes[4096 * 2 + 4]).not.toBe(77);
    device.dma.unmapSg(mapping, { skipCpuSync: true });
    expect(high.bytes[4096 * 2 + 4]).not.toBe(77);
    low.free();
  });

  test("256 KiB is the most, min align mask keeps low bits, and max mapping size says so", () => {
    const system = openSystem(2 * MiB);
    const device = system.addDevice({ name: "nvme", minAlignMask: 4095 });
    expect(device.mappingLimits.maxBytes).toBe(252 * KiB);
    expect(system.addDevice({ name: "plain" }).mappingLimits.maxBytes).toBe(256 * KiB);
    expect(system.addDevice({ name: "wide", dmaMaskBits: 40 }).mappingLimits.maxBytes).toBe(
      Number.POSITIVE_INFINITY,
    );
    const { bytes } = highFrames(system, 65);
    for (const offset of [1, 100, 2047, 2048, 3000, 4095]) {
      const mapping = device.dma.mapSingle(bytes.subarray(offset, offset + 5000), "to-device");
      expect(mapping.address % 4096).toBe(offset);
      expect(readAll(device, mapping.address, 5000)).toEqual(bytes.slice(offset, offset + 5000));
      device.dma.unmapSingle(mapping);
    }
    const plain = system.addDevice({ name: "plain" });
    const longest = plain.dma.mapSingle(bytes.subarray(5, 5 + 256 * KiB), "to-device");
    expect(longest.address % 4096).toBe(0); // a page and more begins on a page
    plain.dma.unmapSingle(longest);
    const tooLong = bytes.subarray(0, 256 * KiB + 1);
    expectRefusal(system, "ENOMEM", () => plain.dma.mapSingle(tooLong, "to-device"));
  });

  test("a run crosses no segment boundary of its device", () => {
    const system = openSystem(MiB);
    const boundary = 16 * KiB;
    const device = system.addDevice({ name: "dsp", segmentBoundaryBytes: boundary });
    const { bytes } = highFrames(system, 3);
    const mappings = Array.from({ length: 20 }, () =>
      device.dma.mapSingle(bytes.subarray(0, 10_000), "to-device"),
    );
    for (const { address } of mappings)
      expect(Math.floor(address / boundary)).toBe(Math.floor((address + 9999) / boundary));
    for (const mapping of mappings) device.dma.unmapSingle(mapping);
  });

  test("a full pool refuses, changes nothing, and has room again after an unmap", () => {
    const system = openSystem(256 * KiB);
    const device = system.addDevice({ name: "camera" });
    const { bytes } = highFrames(system, 4);
    const mappings = Array.from({ length: 16 }, () => device.dma.mapSingle(bytes, "to-device"));
    expect(system.stats().bounceUsedBytes).toBe(256 * KiB);
    expectRefusal(system, "ENOMEM", () => device.dma.mapSingle(bytes.subarray(0, 1), "to-device"));
    const [last] = mappings.splice(-1);
    if (last !== undefined) device.dma.unmapSingle(last);
    mappings.push(device.dma.mapSingle(bytes.subarray(3, 9), "to-device"));
    expectRefusal(system, "ENOMEM", () => device.dma.mapSingle(bytes, "to-device"));
    for (const mapping of mappings) device.dma.unmapSingle(mapping);
    expect(system.stats().bounceUsedBytes).toBe(0);
  });

  test("a pool that the device does not reach either refuses", () => {
    const system = build.system({
      memoryBytes: MEMORY_BYTES,
      physicalBase: 4 * GiB,
      bounceBytes: MiB,
    });
    const device = system.addDevice({ name: "camera" });
    const range = system.frames.alloc(1);
    expectRefusal(system, "ENOMEM", () => device.dma.mapPage(range.pfn, 0, 10, "to-device"));
  });

  test("an untrusted device behind an IOMMU sees copies of partial pages, padded with zeros", () => {
    const system = openSystem(MiB);
    const device = system.addDevice({ name: "usb", iommu: true, untrusted: true });
    const { range, bytes } = highFrames(system, 8);
    const list = [
      { pfn: range.pfn, offset: 100, lengthBytes: 50 },
      { pfn: range.pfn + 2, offset: 0, lengthBytes: 4096 },
      { pfn: range.pfn + 3, offset: 0, lengthBytes: 4096 },
      { pfn: range.pfn + 5, offset: 0, lengthBytes: 4097 },
    ];
    const mapping = device.dma.mapSg(list, "bidirectional");
    expect(mapping.nents).toBe(4); // none are joined
    const partial = mapping.dma(0).address;
    expect(partial % 4096).toBe(0);
    const page = readAll(device, partial, 4096);
    expect(page.subarray(0, 50)).toEqual(bytes.slice(100, 150));
    expect(page.subarray(50).every((byte) => byte === 0)).toBe(true);
    device.dma.write(partial, new Uint8Array(4096).fill(200));
    device.dma.write(mapping.dma(1).address, Uint8Array.of(201)); // a whole page: no copy
    expect(bytes[2 * 4096]).toBe(201);
    device.dma.write(mapping.dma(3).address + 4096, Uint8Array.of(202));
    expect(system.check(true)).toBeNull();
    device.dma.unmapSg(mapping);
    expect([bytes[99], bytes[100], bytes[149], bytes[150]]).toEqual([
      (99 * 7) & 255,
      200,
      200,
      (150 * 7) & 255,
    ]);
    expect(bytes[6 * 4096]).toBe(202);
    expect(system.stats().bounceUsedBytes).toBe(0);
  });

  test("an untrusted device joins no group with lazy invalidation", () => {
    const system = openSystem(0);
    const group = system.iommu.group({ name: "lazy", invalidation: "lazy" });
    const add = (untrusted: boolean) => system.addDevice({ name: "usb", iommu: group, untrusted });
    expectRefusal(system, "EINVAL", () => add(true));
    add(false).remove();
  });

  test("without a pool, an untrusted device takes whole pages only", () => {
    const system = openSystem(0);
    const device = system.addDevice({ name: "usb", iommu: true, untrusted: true });
    const { bytes } = highFrames(system, 2);
    expectRefusal(system, "ENOMEM", () => device.dma.mapSingle(bytes.subarray(1), "to-device"));
    device.dma.unmapSingle(device.dma.mapSingle(bytes, "to-device"));
  });

  test("a reap finds the slots of live mappings, and frees all others", () => {
    const system = openSystem(MiB);
    const device = system.addDevice({ name: "camera" });
    const { bytes } = highFrames(system, 2);
    const mapping = device.dma.mapSingle(bytes, "bidirectional");
    const pool = system.core.word(system.core.exports.HEADER_AT.value, headerWords.bounceAt);
    reapHolding(system.core, [pool], () => {
      system.core.u32.fill(1234, pool / 4 + 2, pool / 4 + 3); // usedSlots
      const slots = (pool + SLOTS_OFFSET) / 4;
      system.core.u32.fill(99, slots + 400, slots + 440); // ten slots of a mapping that is gone
      expect(system.check()).toBe("W5");
    });
    expect(system.check(true)).toBeNull();
    expect(system.stats().bounceUsedBytes).toBe(8 * KiB);
    device.dma.write(mapping.address, Uint8Array.of(42));
    device.dma.unmapSingle(mapping);
    expect(bytes[0]).toBe(42);
  });
});

describe.each(faultyCores)("the bounce pool on the $name core", (build) => {
  test.each([1, FOR_EVER])("leaks nothing when %d allocations fail (fault injection)", (times) => {
    const system = build.system({
      memoryBytes: MEMORY_BYTES,
      physicalBase: BASE,
      bounceBytes: MiB,
    });
    const { range } = highFrames(system, 40);
    const list = Array.from({ length: 6 }, (_, i) => ({
      pfn: range.pfn + 6 * i,
      offset: 5,
      lengthBytes: 4096 + 1000 * i,
    }));
    const limits = [
      {},
      { iommu: true, untrusted: true },
      { coherent: false, simulatedCache: true },
    ];
    for (const limit of limits) {
      const device = system.addDevice({ name: "camera", ...limit });
      const failed = sweepFaults(system.core, times, () => {
        try {
          device.dma.unmapSg(device.dma.mapSg(list, "bidirectional"));
          return true;
        } catch {
          expect(system.stats().bounceUsedBytes).toBe(0);
          return false;
        }
      });
      expect(failed).toBeGreaterThan(8); // table, its list, mapping, its list, six runs
      device.remove();
    }
  });
});
