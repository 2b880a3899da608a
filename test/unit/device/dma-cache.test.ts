import { describe, expect, test } from "vitest";
import { type Device, type DeviceOptions, FRAME_BYTES, MiB } from "../../../src/index.ts";
import { eachCore } from "../../support/cores.ts";
import { expectError, expectRefusal } from "../../support/errors.ts";

const noncoherent: Partial<DeviceOptions> = { coherent: false, simulatedCache: true };

function readByte(device: Device, address: number): number | undefined {
  const into = new Uint8Array(1);
  device.dma.read(address, into);
  return into[0];
}

describe.each(eachCore)("the simulated cache on the $name core", (build) => {
  const open = (limits: Partial<DeviceOptions>, other: Partial<DeviceOptions> = limits) => {
    const system = build.system({ memoryBytes: 16 * MiB });
    const pinned = system.frames.alloc(4).pin();
    return {
      system,
      device: system.addDevice({ name: "dsp", ...noncoherent, ...limits }),
      other: system.addDevice({ name: "gpu", ...noncoherent, ...other }),
      bytes: pinned.bytes,
      table: system.sgTableFromFrames([pinned.pfn + 2, pinned.pfn, pinned.pfn + 1]),
    };
  };

  describe.each([{}, { iommu: true }])("of a device with %j", (limits) => {
    test("a missing sync shows as stale bytes, on both sides", () => {
      const { system, device, bytes } = open(limits);
      bytes.fill(1);
      const mapping = device.dma.mapSingle(bytes, "bidirectional");
      const { address } = mapping;
      expect(device.dma.needSync(mapping)).toBe(true);
      expect(readByte(device, address)).toBe(1); // map cleans
      bytes[5000] = 2;
      expect(readByte(device, address + 5000)).toBe(1); // stale
      device.dma.syncForDevice(mapping);
      expect(readByte(device, address + 5000)).toBe(2);
      device.dma.write(address + 9, Uint8Array.of(3));
      expect(bytes[9]).toBe(1); // stale
      device.dma.syncForCpu(mapping);
      expect(bytes[9]).toBe(3);
      device.dma.write(address + 10, Uint8Array.of(4));
      expect(bytes[10]).toBe(1);
      expect(system.check(true)).toBeNull();
      device.dma.unmapSingle(mapping);
      expect(bytes[10]).toBe(4); // unmap invalidates
      expect(system.check(true)).toBeNull();
    });

    test("what the CPU wrote and did not sync is lost at syncForCpu()", () => {
      const { device, bytes } = open(limits);
      const mapping = device.dma.mapSingle(bytes, "from-device");
      bytes[0] = 7;
      device.dma.syncForCpu(mapping, { offset: 0, lengthBytes: 1 });
      expect(bytes[0]).toBe(0);
      device.dma.unmapSingle(mapping);
    });

    test("a sync of a range leaves the rest stale", () => {
      const { device, bytes } = open(limits);
      const mapping = device.dma.mapSingle(bytes, "bidirectional");
      bytes.fill(8);
      device.dma.syncForDevice(mapping, { offset: 4090, lengthBytes: 13 });
      const seen = new Uint8Array(bytes.length);
      device.dma.read(mapping.address, seen);
      const expected = new Uint8Array(bytes.length).fill(8, 4090, 4103);
      expect(seen).toEqual(expected);
      device.dma.unmapSingle(mapping);
    });

    test("skipCpuSync leaves it to the caller, at map and at unmap", () => {
      const { device, bytes } = open(limits);
      bytes.fill(6);
      const mapping = device.dma.mapSingle(bytes, "bidirectional", { skipCpuSync: true });
      expect(readByte(device, mapping.address)).toBe(0);
      device.dma.syncForDevice(mapping);
      expect(readByte(device, mapping.address)).toBe(6);
      device.dma.write(mapping.address, Uint8Array.of(9));
      device.dma.unmapSingle(mapping, { skipCpuSync: true });
      expect(bytes[0]).toBe(6);
    });

    test("to-device: nothing comes back at unmap", () => {
      const { device, bytes } = open(limits);
      const mapping = device.dma.mapSingle(bytes, "to-device");
      bytes[0] = 5; // CPU may not, and its cache keeps it
      device.dma.unmapSingle(mapping);
      expect(bytes[0]).toBe(5);
    });

    test("devices that map one table share what is in memory", () => {
      const { system, device, other, table, bytes } = open(limits);
      const written = device.dma.mapSgtable(table, "from-device");
      device.dma.write(written.at(4096).address, Uint8Array.of(31));
      const read = other.dma.mapSgtable(table, "to-device"); // nothing to clean
      expect(readByte(other, read.at(4096).address)).toBe(31);
      expect(bytes[0]).toBe(0);
      device.dma.unmapSgtable(written);
      expect(bytes[0]).toBe(31);
      expect(system.check(true)).toBeNull();
      other.dma.unmapSgtable(read);
      table.free();
      expect(system.check(true)).toBeNull();
    });
  });

  test("a coherent device beside it sees the CPU's bytes, and needs no sync", () => {
    const { system, table, bytes, device } = open({});
    const coherent = system.addDevice({ name: "coherent" });
    const mapping = coherent.dma.mapSgtable(table, "bidirectional");
    const stale = device.dma.mapSgtable(table, "bidirectional");
    expect(coherent.dma.needSync(mapping)).toBe(false);
    bytes.fill(3, 2 * FRAME_BYTES);
    expect(readByte(coherent, mapping.address)).toBe(3);
    expect(readByte(device, stale.address)).toBe(0);
    const plain = system.addDevice({ name: "plain", coherent: false });
    const unsimulated = plain.dma.mapSgtable(table, "to-device");
    expect(plain.dma.needSync(unsimulated)).toBe(false); // nothing is kept apart
    expect(system.check(true)).toBeNull();
  });

  test.each([
    ["one run", 100],
    ["two runs", 5000],
  ])("beginCpuAccess() and endCpuAccess() sync every mapped attachment of %s", (_, size) => {
    const { system, device, other } = open({});
    const buf = system.heap("system").alloc(size);
    const [toDevice, toOther] = [buf.attach(device), buf.attach(other)];
    const mapping = toDevice.map("bidirectional");
    const reading = toOther.map("to-device");
    const cpu = buf.mmap();
    const [view = new Uint8Array(0)] = cpu.views;
    device.dma.write(mapping.address, Uint8Array.of(11));
    expect(view[0]).toBe(0);
    buf.beginCpuAccess("from-device");
    expect(view[0]).toBe(11);
    buf.endCpuAccess("from-device");
    buf.beginCpuAccess("to-device");
    view[0] = 12;
    expect(readByte(other, reading.address)).toBe(11);
    buf.endCpuAccess("to-device");
    expect(readByte(other, reading.address)).toBe(12);
    expect(readByte(device, mapping.address)).toBe(12);
    cpu.unmap();
    toDevice.unmap(mapping);
    toOther.unmap(reading);
    buf.beginCpuAccess("from-device"); // nobody is mapped: nothing to sync
    buf.endCpuAccess("from-device");
    toDevice.detach();
    toOther.detach();
    buf.put();
    expect(system.check(true)).toBeNull();
  });

  test("it is for devices that are not coherent, and twice the bytes must be free", () => {
    const system = build.system({ memoryBytes: MiB });
    expectRefusal(system, "EINVAL", () => system.addDevice({ name: "x", simulatedCache: true }));
    const device = system.addDevice({ name: "dsp", ...noncoherent });
    const free = Math.floor(system.stats().freeFrames / 2);
    const range = system.frames.alloc(free);
    range.pin();
    const map = () => device.dma.mapPage(range.pfn, 0, range.lengthBytes, "to-device");
    expectError("ENOMEM", map);
    expect(system.check(true)).toBeNull();
  });
});
