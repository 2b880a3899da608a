import { describe, expect, test } from "vitest";
import {
  type DomainOps,
  FRAME_BYTES,
  IommuDomain,
  type IommuFault,
  iommuProt,
  MiB,
} from "../../../src/index.ts";
import { eachCore } from "../../support/cores.ts";
import { openDriven, pinnedFrames, read } from "../../support/driver-world.ts";
import { expectError } from "../../support/errors.ts";
import { ModelDriver } from "../../support/model-driver.ts";

const RW = iommuProt.read + iommuProt.write;
const PS = FRAME_BYTES;
const NOWHERE: DomainOps = { pgsizeBitmap: 0x1000n };

describe.each(eachCore)("a domain over a driver on the $name core", (build) => {
  describe("that a device is attached to", () => {
    test("is what its accesses go through, until it is detached", () => {
      const system = build.system({ memoryBytes: 16 * MiB, physicalBase: 64 * MiB });
      const device = system.addDevice({ name: "gpu", iommu: true });
      const { pfn, bytes } = pinnedFrames(system, 2);
      const domain = new IommuDomain(new ModelDriver());
      domain.attachDevice(device);
      expect(device.group?.domain).toBe(domain);
      domain.map(1 * MiB, 64 * MiB + pfn * PS, 2 * PS, RW);
      device.dma.write(1 * MiB + PS - 2, Uint8Array.of(1, 2, 3, 4));
      expect([...bytes.subarray(PS - 2, PS + 2)]).toEqual([1, 2, 3, 4]);
      expect(read(device, 1 * MiB + PS - 2)).toEqual([1, 2, 3, 4]);
      device.dma.copy(1 * MiB, 1 * MiB + PS - 2, 4);
      expect([...bytes.subarray(0, 4)]).toEqual([1, 2, 3, 4]);
      domain.unmap(1 * MiB, PS);
      expectError("EFAULT", () => device.dma.read(1 * MiB, new Uint8Array(1)));
      const fault = { address: 1 * MiB, access: "read", reason: "translation" };
      expect(device.dma.lastFault).toEqual(fault);
      expect(device.dma.faultCount).toBe(1);
      expect(read(device, 1 * MiB + PS, 2)).toEqual([3, 4]);
      domain.detachDevice(device);
      expectError("EFAULT", () => device.dma.read(1 * MiB + PS, new Uint8Array(1)));
      device.remove();
      expect(system.check()).toBeNull();
    });

    test("a write over a hole is refused before a byte moves", () => {
      const { system, device } = openDriven(build);
      const { pfn, bytes } = pinnedFrames(system, 1);
      const domain = new IommuDomain(new ModelDriver());
      domain.attachDevice(device);
      domain.map(0, pfn * PS, PS, RW);
      expectError("EFAULT", () => device.dma.write(PS - 8, new Uint8Array(16).fill(7)));
      expect(bytes.every((byte) => byte === 0)).toBe(true);
    });

    test("buffers stay mapped in the group's default domain", () => {
      const { system, device, driver } = openDriven(build);
      const { pfn } = pinnedFrames(system, 1);
      const domain = new IommuDomain(new ModelDriver());
      domain.attachDevice(device);
      const mapping = device.dma.mapPage(pfn, 0, PS, "bidirectional");
      expect(driver.iovaToPhys(mapping.address)).toBe(pfn * PS);
      expectError("EFAULT", () => device.dma.read(mapping.address, new Uint8Array(1)));
      domain.detachDevice(device);
      expect(read(device, mapping.address, 1)).toEqual([0]);
    });

    test("tells its handler why, and a retry goes on", () => {
      const { system, device } = openDriven(build, {}, { dmaMaskBits: 24 });
      const { pfn } = pinnedFrames(system, 1);
      const domain = new IommuDomain(new ModelDriver());
      domain.attachDevice(device);
      const told: IommuFault[] = [];
      domain.setFaultHandler((fault) => {
        told.push(fault);
        if (fault.iova !== 2 * MiB) return undefined;
        domain.map(fault.iova, pfn * PS, PS, RW);
        return "retry";
      });
      domain.map(0, pfn * PS, PS, iommuProt.read);
      domain.map(32 * MiB, pfn * PS, PS, RW);
      expectError("EFAULT", () => device.dma.write(0, new Uint8Array(1)));
      expectError("EFAULT", () => device.dma.read(2 * PS + 5, new Uint8Array(1)));
      expectError("EFAULT", () => device.dma.read(32 * MiB, new Uint8Array(1)));
      expect(read(device, 2 * MiB, 1)).toEqual([0]);
      expect(told.map(({ iova, access, reason }) => [iova, access, reason])).toEqual([
        [0, "write", "permission"],
        [2 * PS, "read", "translation"],
        [32 * MiB, "read", "address-size"], // beyond the device's mask
        [2 * MiB, "read", "translation"],
      ]);
      expect([domain.unhandledFaultCount, device.dma.faultCount]).toEqual([3, 4]);
      domain.setFaultHandler(() => "handled");
      expectError("EFAULT", () => device.dma.read(2 * PS, new Uint8Array(1)));
      expect(domain.unhandledFaultCount).toBe(3);
    });

    test("without translate() iovaToPhys() says what is reached", () => {
      const { system, device } = openDriven(build);
      const { pfn, bytes } = pinnedFrames(system, 1);
      bytes.set([5, 6]);
      const told: unknown[] = [];
      const domain = new IommuDomain({
        ...NOWHERE,
        iovaToPhys: (iova) => (iova < 8 * PS ? pfn * PS + (iova % PS) : null),
      });
      domain.attachDevice(device);
      domain.setFaultHandler(({ reason }) => void told.push(reason));
      expect(read(device, 3 * PS, 2)).toEqual([5, 6]);
      expectError("EFAULT", () => device.dma.read(8 * PS - 1, new Uint8Array(2)));
      expect(told).toEqual(["translation"]);
    });

    test("may be an identity or a blocked one", () => {
      const { system, device } = openDriven(build);
      const { pfn, bytes } = pinnedFrames(system, 1);
      bytes[9] = 3;
      const identity = new IommuDomain(NOWHERE, "identity");
      identity.attachDevice(device);
      expect(read(device, pfn * PS + 9, 1)).toEqual([3]);
      identity.detachDevice(device);
      const blocked = new IommuDomain(NOWHERE, "blocked");
      const told: unknown[] = [];
      blocked.setFaultHandler(({ reason }) => void told.push(reason));
      blocked.attachDevice(device);
      expectError("EFAULT", () => device.dma.read(pfn * PS, new Uint8Array(1)));
      expect(told).toEqual(["blocked"]);
    });

    test.each([
      ["a fraction of a page", 100],
      ["no whole number", 0.5 * PS],
      ["a negative address", -PS],
      ["a word that is no reason", "why not"],
      ["nothing", undefined],
    ])("an answer that is %s is EIO, and moves nothing", (_, answer) => {
      const { device } = openDriven(build);
      const domain = new IommuDomain({ ...NOWHERE, translate: () => answer as never });
      domain.attachDevice(device);
      expectError("EIO", () => device.dma.read(0, new Uint8Array(1)));
      expect([device.dma.faultCount, device.dma.bytes]).toEqual([0, 0]);
    });

    test("without translate(), an iovaToPhys() that makes no sense is EIO, and no fault", () => {
      const { device } = openDriven(build);
      const domain = new IommuDomain({ ...NOWHERE, iovaToPhys: () => undefined as never });
      domain.attachDevice(device);
      expectError("EIO", () => device.dma.read(0, new Uint8Array(1)));
      expect([device.dma.faultCount, device.dma.bytes]).toEqual([0, 0]);
    });

    test("an answer outside memory is a fault", () => {
      const { device } = openDriven(build);
      const told: unknown[] = [];
      for (const phys of [16 * MiB, 2 ** 44 - PS, 2 ** 44, 2 ** 52]) {
        const domain = new IommuDomain({ ...NOWHERE, translate: () => phys });
        domain.attachDevice(device);
        domain.setFaultHandler(({ reason }) => void told.push(reason));
        expectError("EFAULT", () => device.dma.read(0, new Uint8Array(1)));
        domain.detachDevice(device);
      }
      expect(told).toEqual(Array(4).fill("not-memory"));
    });

    test("what cannot be attached is refused", () => {
      const { group, device, domain } = openDriven(build);
      expectError("ENODEV", () => new IommuDomain(NOWHERE).attachDevice(device));
      const small = new IommuDomain({ pgsizeBitmap: 0x400n, iovaToPhys: () => null });
      expectError("EINVAL", () => group.attach(small));
      expectError("EINVAL", () => group.attach(domain)); // its own default one
      const first = new IommuDomain(new ModelDriver());
      group.attach(first);
      expectError("EBUSY", () => group.attach(new IommuDomain(new ModelDriver())));
      expectError("EINVAL", () => group.detach(new IommuDomain(new ModelDriver())));
      group.detach(first);
      expect(group.domain).toBe(domain);
    });

    test("an owner's claim blocks, and ends at its release", () => {
      const { system, group, device } = openDriven(build);
      const mapping = device.dma.mapPage(pinnedFrames(system, 1).pfn, 0, PS, "bidirectional");
      group.claimDmaOwner("me");
      expectError("EFAULT", () => device.dma.read(mapping.address, new Uint8Array(1)));
      group.attach(new IommuDomain(NOWHERE, "identity"));
      group.detach();
      expectError("EFAULT", () => device.dma.read(mapping.address, new Uint8Array(1)));
      group.releaseDmaOwner();
      expect(read(device, mapping.address, 1)).toEqual([0]);
    });
  });
});
