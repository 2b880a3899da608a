// What a refused access says: the error, the count, what is remembered.

import { describe, expect, test } from "vitest";
import {
  type Access,
  type Device,
  DmaBufError,
  DmaFaultError,
  FRAME_BYTES,
  IommuDomain,
  type IommuFault,
  iommuProt,
  MiB,
} from "../../../src/index.ts";
import { eachCore } from "../../support/cores.ts";
import { expectError } from "../../support/errors.ts";
import { ModelDriver } from "../../support/model-driver.ts";

const PS = FRAME_BYTES;

/** The fault that an access ends with. */
function faultOf(device: Device, address: number, lengthBytes: number, access: Access) {
  try {
    device.dma.spans(address, lengthBytes, access);
  } catch (error) {
    if (error instanceof DmaFaultError) return error;
    throw error;
  }
  throw new Error("it did not fault");
}

describe.each(eachCore)("a fault on the $name core", (build) => {
  test("is an error with the first byte, the access and why", () => {
    const system = build.system({ memoryBytes: 16 * MiB });
    const device = system.addDevice({ name: "npu", iommu: true });
    const { pfn } = system.frames.alloc(1);
    const mapping = device.dma.mapPage(pfn, 0, PS, "to-device");
    const { address } = mapping;
    const denied = faultOf(device, address + 9, 1, "write");
    expect(denied).toBeInstanceOf(DmaBufError);
    expect(denied).toMatchObject({ code: "EFAULT", access: "write", reason: "permission" });
    expect(denied.address).toBe(address + 9);
    expect(denied.message).toContain("is mapped for this device, but not to write");
    expect(device.dma.lastFault).toEqual({ address, access: "write", reason: "permission" });
    const beyond = faultOf(device, address + 9, PS, "read");
    expect(beyond).toMatchObject({ address: address + PS, access: "read", reason: "translation" });
    expect(beyond.message).toContain("no memory at");
    device.group?.claimDmaOwner("test");
    expect(faultOf(device, address, 1, "read")).toMatchObject({ address, reason: "blocked" });
    expect(device.dma.lastFault?.reason).toBe("blocked");
    device.group?.releaseDmaOwner();
    device.dma.unmapPage(mapping);
    expect([device.dma.faultCount, system.check()]).toEqual([3, null]);
  });

  test("says the same of a device without an IOMMU, to the byte", () => {
    const system = build.system({ memoryBytes: 16 * MiB, physicalBase: 64 * MiB });
    const device = system.addDevice({ name: "npu" });
    const { pfn } = system.frames.alloc(2);
    const first = device.dma.mapPage(pfn, 10, 20, "to-device");
    const second = device.dma.mapPage(pfn, 30, 50, "bidirectional");
    const { address } = first;
    const registers = device.dma.mapResource(2 * MiB, 100, "bidirectional");
    const table: [number, number, Access, number, string][] = [
      [address, 1, "write", address, "permission"],
      [address + 5, 200, "read", address + 70, "translation"],
      [address + 19, 2, "write", address + 19, "permission"],
      [address - 1, 5, "read", address - 1, "translation"],
      [2 * MiB + 8, 4, "read", 2 * MiB + 8, "not-memory"],
    ];
    for (const [at, length, access, where, reason] of table) {
      expect(faultOf(device, at, length, access)).toMatchObject({ address: where, reason });
      expect(device.dma.lastFault).toEqual({ address: where - (where % PS), access, reason });
    }
    expect(device.dma.spans(address, 70, "read").length).toBeGreaterThan(0);
    expect(device.dma.faultCount).toBe(table.length);
    device.dma.unmapPage(first);
    device.dma.unmapPage(second);
    device.dma.unmapResource(registers);
    expect(faultOf(device, address, 1, "read")).toMatchObject({ reason: "translation" });
  });
});

describe.each(eachCore)("an address of more than 44 bits on the $name core", (build) => {
  const wide = [2 ** 44, 2 ** 44 + 5, 2 ** 48 + PS - 1, Number.MAX_SAFE_INTEGER];

  test.each([true, false])("faults, behind an IOMMU: %s", (iommu) => {
    const system = build.system({ memoryBytes: 16 * MiB });
    const device = system.addDevice({ name: "nic", iommu });
    for (const at of wide) {
      const bytes = new Uint8Array(2 * PS);
      expectError("EFAULT", () => device.dma.read(at, bytes));
      expectError("EFAULT", () => device.dma.write(at, bytes));
      expectError("EFAULT", () => device.dma.copy(at, at, 1));
      const { address, reason } = faultOf(device, at, 1, "read-write");
      expect([address, reason]).toEqual([at, "address-size"]);
      const page = at - (at % PS);
      const remembered = { address: page, access: "read-write", reason: "address-size" };
      expect(device.dma.lastFault).toEqual(remembered);
      expect(device.dma.spans(at, 0)).toEqual([]);
    }
    expect(device.dma.faultCount).toBe(4 * wide.length);
    expect(system.stats().faultCount).toBe(4 * wide.length);
    for (const wrong of [-1, 0.5, 2 ** 53, Number.NaN, "1" as never])
      expectError("EINVAL", () => device.dma.read(wrong, new Uint8Array(1)));
    expect(device.dma.faultCount).toBe(4 * wide.length);
    device.remove();
    expect(device.dma.faultCount).toBe(4 * wide.length);
    for (const at of wide) expectError("ESTALE", () => device.dma.read(at, new Uint8Array(1)));
  });

  test("is told to the handler of either kind of domain, a blocked one included", () => {
    const system = build.system({ memoryBytes: 16 * MiB });
    for (const domain of [system.iommu.domain(), new IommuDomain(new ModelDriver())]) {
      const device = system.addDevice({ name: "nic", iommu: true });
      const told: IommuFault[] = [];
      domain.attachDevice(device);
      domain.setFaultHandler((fault) => {
        told.push(fault);
        return "retry";
      });
      expectError("EFAULT", () => device.dma.read(2 ** 48 + 7, new Uint8Array(1)));
      const fault = { device: "nic", iova: 2 ** 48, access: "read", reason: "address-size" };
      expect(told).toEqual([fault, fault]); // and once more, because it was asked for
      expect(device.dma.faultCount).toBe(2);
      domain.detachDevice(device);
      device.group?.claimDmaOwner("test");
      expect(faultOf(device, 2 ** 48, 1, "read").reason).toBe("blocked");
      device.group?.releaseDmaOwner();
    }
  });

  test("ends an access that begins below it, whatever lies at address 0", () => {
    const system = build.system({ memoryBytes: 16 * MiB });
    const device = system.addDevice({ name: "nic", iommu: true, dmaMaskBits: 64 });
    const domain = system.iommu.domain();
    const frames = system.frames.alloc(2).pfn * PS;
    const last = 2 ** 44 - PS;
    domain.attachDevice(device);
    domain.map(0, frames, PS, iommuProt.read + iommuProt.write);
    domain.map(last, frames + PS, PS, iommuProt.read + iommuProt.write);
    expect(device.dma.spans(last, PS)).toHaveLength(1);
    const fault = faultOf(device, last, PS + 1, "write");
    expect([fault.address, fault.reason]).toEqual([2 ** 44, "address-size"]);
    expectError("EFAULT", () => device.dma.write(last, new Uint8Array(PS + 1).fill(1)));
    expect(device.dma.spans(0, PS)[0]?.includes(1)).toBe(false);
  });
});
