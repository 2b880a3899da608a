import { describe, expect, test } from "vitest";
import {
  type Device,
  FRAME_BYTES,
  GiB,
  type IommuFault,
  type IommuGroupOptions,
  iommuProt,
  MiB,
  type ReservedRegion,
  type System,
} from "../../../src/index.ts";
import { eachCore } from "../../support/cores.ts";
import { expectError } from "../../support/errors.ts";
import { TestClock } from "../../support/test-clock.ts";

const RW = iommuProt.read + iommuProt.write;
const PS = FRAME_BYTES;

/** Whether the device gets at a byte. */
function reaches(device: Device, address: number): boolean {
  try {
    device.dma.read(address, new Uint8Array(1));
    return true;
  } catch {
    return false;
  }
}

describe.each(eachCore)("IommuGroup on the $name core", (build) => {
  const open = (options: IommuGroupOptions = {}) => {
    const system = build.system({ memoryBytes: 16 * MiB });
    const group = system.iommu.group(options);
    const device = system.addDevice({ name: "gpu", iommu: group });
    return { system, group, device };
  };

  /** Maps one frame as the DMA API does. */
  const mapOne = (system: System, device: Device) => {
    const range = system.frames.alloc(1);
    const mapping = device.dma.mapPage(range.pfn, 0, PS, "bidirectional");
    return { mapping, address: mapping.address };
  };

  describe("attach", () => {
    test("a device of its own group has a default domain, which its buffers are mapped in", () => {
      const { system } = open();
      const device = system.addDevice({ name: "nic", iommu: true });
      const group = device.group;
      expect(group?.devices).toEqual([device]);
      expect(group?.domain).toBe(group?.defaultDomain);
      expect(group?.defaultDomain.isDefault).toBe(true);
      const { address } = mapOne(system, device);
      expect(group?.defaultDomain.iovaToPhys(address)).not.toBeNull();
      expect(system.addDevice({ name: "uart" }).group).toBeNull();
    });

    test("domain.attachDevice() and detachDevice() move the accesses of a device", () => {
      const { system, device, group } = open();
      const domain = system.iommu.domain();
      const { address } = mapOne(system, device);
      domain.attachDevice(device);
      expect(group.domain).toBe(domain);
      expect(reaches(device, address)).toBe(false); // mapped in the default domain
      domain.map(address, 0, PS, RW);
      expect(reaches(device, address)).toBe(true);
      expectError("EBUSY", () => domain.free());
      domain.detachDevice(device);
      expect(reaches(device, address)).toBe(true);
      domain.free();
      expectError("ESTALE", () => domain.attachDevice(device));
    });

    test("a device without a group is ENODEV, one of a group of several EINVAL", () => {
      const { system, device, group } = open();
      const domain = system.iommu.domain();
      expectError("ENODEV", () => domain.attachDevice(system.addDevice({ name: "uart" })));
      const second = system.addDevice({ name: "codec", iommu: group });
      expectError("EINVAL", () => domain.attachDevice(device));
      expectError("EINVAL", () => domain.detachDevice(second));
      group.attach(domain);
      domain.map(MiB, 0, PS, RW);
      expect([device, second].map((one) => reaches(one, MiB))).toEqual([true, true]);
      group.detach();
      expect([device, second].map((one) => reaches(one, MiB))).toEqual([false, false]);
    });

    test("a group that is attached is EBUSY, a domain of another system EINVAL", () => {
      const { system, device, group } = open();
      const [first, second] = [system.iommu.domain(), system.iommu.domain()];
      first.attachDevice(device);
      expectError("EBUSY", () => second.attachDevice(device));
      expectError("EBUSY", () => first.attachDevice(device));
      expectError("EINVAL", () => second.detachDevice(device));
      first.detachDevice(device);
      const other = build.system({ memoryBytes: 16 * MiB });
      expectError("EINVAL", () => group.attach(other.iommu.domain()));
      expectError("EINVAL", () => group.attach({ type: "paging" } as never));
      expectError("EINVAL", () => group.attach(system.iommu.group().defaultDomain));
      expectError("EINVAL", () => group.detach());
      expectError("EINVAL", () => other.addDevice({ name: "x", iommu: group }));
      expect(system.check()).toBeNull();
    });

    test("an identity domain shows all memory, a blocked one none", () => {
      const { system, device, group } = open();
      const frame = system.frames.alloc(1).pfn * FRAME_BYTES;
      for (const type of ["identity", "blocked"] as const) {
        group.attach(system.iommu.domain({ type }));
        expect([reaches(device, frame), reaches(device, 2 ** 31)]).toEqual([
          type === "identity",
          false,
        ]);
        group.detach();
      }
    });

    test("claimDmaOwner() blocks the devices until the owner attaches them", () => {
      const { system, device, group } = open();
      const { address } = mapOne(system, device);
      const [domain, owner] = [system.iommu.domain(), {}];
      group.claimDmaOwner(owner);
      expectError("EPERM", () => group.claimDmaOwner(owner));
      expect(reaches(device, address)).toBe(false);
      group.attach(domain);
      domain.map(address, 0, PS, RW);
      expect(reaches(device, address)).toBe(true);
      expectError("EBUSY", () => group.releaseDmaOwner());
      group.detach(domain);
      expect([group.domain.type, reaches(device, address)]).toEqual(["blocked", false]);
      group.releaseDmaOwner();
      expect(reaches(device, address)).toBe(true);
      expectError("EINVAL", () => group.releaseDmaOwner());
      group.attach(domain);
      expectError("EBUSY", () => group.claimDmaOwner(owner));
      expectError("EINVAL", () => group.claimDmaOwner(null));
      expect(system.check()).toBeNull();
    });

    test("removing devices and groups leaves nothing behind", () => {
      const { system, device, group } = open();
      const free = system.stats().freeFrames;
      const own = system.addDevice({ name: "nic", iommu: true });
      own.group?.claimDmaOwner("vfio");
      own.group?.attach(system.iommu.domain());
      own.remove();
      expectError("EBUSY", () => group.free());
      device.remove();
      group.free();
      expect(system.stats().freeFrames).toBeGreaterThan(free - 6); // the domain that was attached
      expect(system.check(true)).toBeNull();
    });
  });

  describe("reserved regions", () => {
    const regions: ReservedRegion[] = [
      { start: 0xfee00000, lengthBytes: MiB, type: "msi" },
      { start: 8 * MiB, lengthBytes: 8 * PS, type: "direct", prot: RW },
      { start: 8 * MiB + 4 * PS, lengthBytes: 8 * PS, type: "direct", prot: RW },
      { start: 2 * PS, lengthBytes: PS, type: "direct-relaxable", prot: iommuProt.read },
      { start: 0xff000000, lengthBytes: 2 ** 24, type: "reserved" },
      { start: 3 * PS, lengthBytes: PS, type: "sw-msi" },
      { start: 2 * PS, lengthBytes: PS, type: "reserved" },
    ];

    test("are sorted, and those of one type that touch are joined", () => {
      const { group } = open({ reserved: regions });
      expect(
        group.reserved.map(({ start, lengthBytes, type }) => [start, lengthBytes, type]),
      ).toEqual([
        [2 * PS, PS, "direct-relaxable"],
        [2 * PS, PS, "reserved"],
        [3 * PS, PS, "sw-msi"],
        [8 * MiB, 12 * PS, "direct"],
        [0xfee00000, MiB, "msi"],
        [0xff000000, 2 ** 24, "reserved"],
      ]);
    });

    test("direct ones are identity mapped in the default domain, others not", () => {
      const { group, device } = open({ reserved: regions });
      const { defaultDomain } = group;
      const at = [8 * MiB, 8 * MiB + 12 * PS - 1, 8 * MiB + 12 * PS, 2 * PS, 3 * PS, 0xfee00000];
      expect(at.map((iova) => defaultDomain.iovaToPhys(iova))).toEqual([
        8 * MiB,
        8 * MiB + 12 * PS - 1,
        null,
        2 * PS,
        null,
        null,
      ]);
      expectError("EFAULT", () => device.dma.write(2 * PS, new Uint8Array(1)));
    });

    test("no buffer gets an address in one, but for software's window", () => {
      const { system, group } = open({ reserved: regions });
      const small = system.addDevice({ name: "isa", iommu: group, dmaMaskBits: 24 });
      const seen = new Set<number>();
      for (let i = 0; i < 2000; i++) {
        const { mapping, address } = mapOne(system, small);
        expect(seen.has(address)).toBe(false);
        seen.add(address);
        expect(mapping.lengthBytes).toBe(PS);
      }
      for (let page = 0; page < 12; page++) expect(seen.has(8 * MiB + page * PS)).toBe(false);
      expect(seen.has(2 * PS)).toBe(false);
    });

    test("that are none are EINVAL", () => {
      const rows = [
        { start: -1, lengthBytes: PS, type: "msi" },
        { start: 0, lengthBytes: 0, type: "msi" },
        { start: 0, lengthBytes: PS, type: "other" },
        { start: 2 ** 44 - PS, lengthBytes: 2 * PS, type: "msi" },
      ] as ReservedRegion[];
      const system = build.system({ memoryBytes: 16 * MiB });
      for (const region of rows) {
        expectError("EINVAL", () => system.iommu.group({ reserved: [region] }));
      }
      expect(system.check()).toBeNull();
    });
  });

  describe("fault reports", () => {
    test("tell the device, the address, the access and the reason", () => {
      const { system, device, group } = open();
      const faults: IommuFault[] = [];
      const domain = system.iommu.domain({ addressBits: 32 });
      domain.setFaultHandler((fault) => {
        faults.push(fault);
        return "handled";
      });
      domain.map(MiB, 0, PS, iommuProt.read + iommuProt.noexec);
      domain.map(MiB + PS, 0, PS, RW + iommuProt.priv);
      group.attach(domain);
      const device40 = system.addDevice({ name: "dsp", iommu: group, dmaMaskBits: 40 });
      const attempts: (() => unknown)[] = [
        () => device.dma.read(5 * MiB + 3, new Uint8Array(1)),
        () => device.dma.write(MiB + 1, new Uint8Array(1)),
        () => device.dma.spans(MiB, 1, "execute"),
        () => device.dma.spans(MiB + PS, 1, "read"),
        () => device40.dma.read(2 ** 33, new Uint8Array(1)),
      ];
      for (const attempt of attempts) expectError("EFAULT", attempt);
      device.dma.spans(MiB + PS, 1, "privileged-read");
      expect(faults).toEqual([
        { device: "gpu", iova: 5 * MiB, access: "read", reason: "translation" },
        { device: "gpu", iova: MiB, access: "write", reason: "permission" },
        { device: "gpu", iova: MiB, access: "execute", reason: "permission" },
        { device: "gpu", iova: MiB + PS, access: "read", reason: "permission" },
        { device: "dsp", iova: 2 ** 33, access: "read", reason: "address-size" },
      ]);
      expect(domain.unhandledFaultCount).toBe(0);
    });

    test("what is mapped and is no memory is told apart from what the device cannot address", () => {
      const { system, device, group } = open();
      const told: unknown[] = [];
      const tell = ({ iova, reason }: IommuFault) => void told.push([iova, reason]);
      group.defaultDomain.setFaultHandler(tell);
      const registers = device.dma.mapResource(3 * GiB, 2 * PS, "to-device").address;
      expectError("EFAULT", () => device.dma.read(registers + PS, new Uint8Array(1)));
      expectError("EFAULT", () => device.dma.write(registers, new Uint8Array(1)));
      const identity = system.iommu.domain({ type: "identity" });
      group.attach(identity);
      identity.setFaultHandler(tell);
      expectError("EFAULT", () => device.dma.read(3 * GiB, new Uint8Array(1)));
      expectError("EFAULT", () => device.dma.read(5 * GiB, new Uint8Array(1)));
      const { dmaMaskBits } = device.limits;
      expect([dmaMaskBits, told]).toEqual([
        32,
        [
          [registers + PS, "not-memory"],
          [registers, "permission"],
          [3 * GiB, "not-memory"],
          [5 * GiB, "address-size"],
        ],
      ]);
    });

    test("the handler's return counts: handled, ENOSYS, or tried again", () => {
      const { system, device, group } = open();
      const { defaultDomain } = group;
      const read = () => device.dma.read(MiB, new Uint8Array(3 * PS));
      expectError("EFAULT", read);
      expect(defaultDomain.unhandledFaultCount).toBe(1); // ENOSYS: nobody listens
      defaultDomain.setFaultHandler(() => undefined);
      expectError("EFAULT", read);
      expect(defaultDomain.unhandledFaultCount).toBe(2);
      defaultDomain.setFaultHandler(() => "handled");
      expectError("EFAULT", read);
      expect(defaultDomain.unhandledFaultCount).toBe(2);
      const frame = system.frames.alloc(1).pfn * FRAME_BYTES;
      defaultDomain.setFaultHandler(({ iova }) => {
        defaultDomain.map(iova, frame, PS, iommuProt.read);
        return "retry";
      });
      read(); // maps its three pages one by one
      expect(device.dma.faultCount).toBe(6);
      defaultDomain.setFaultHandler(() => "retry");
      expectError("EFAULT", () => device.dma.write(MiB, new Uint8Array(1))); // not for ever
    });
  });

  describe("lazy invalidation", () => {
    test("a use after unmap is reported as stale, and faults after 10 ms", () => {
      const clock = new TestClock();
      const { system, device, group } = open({
        invalidation: "lazy",
        iotlb: { entries: 16 },
        clock,
      });
      const faults: IommuFault[] = [];
      group.defaultDomain.setFaultHandler((fault) => {
        faults.push(fault);
        return undefined;
      });
      const { mapping, address } = mapOne(system, device);
      expect(reaches(device, address)).toBe(true);
      device.dma.unmapPage(mapping);
      expect(clock.delays).toEqual([10]);
      expect([reaches(device, address), group.queuedCount]).toEqual([true, 1]);
      expect(faults).toEqual([{ device: "gpu", iova: address, access: "read", reason: "stale" }]);
      expect([group.defaultDomain.staleCount, group.defaultDomain.unhandledFaultCount]).toEqual([
        1, 0,
      ]);
      clock.fire();
      expect([reaches(device, address), group.queuedCount]).toEqual([false, 0]);
      expect(faults.at(-1)?.reason).toBe("translation");
      expect(system.check()).toBeNull();
    });

    test("strict: a use after unmap faults at once, and no timer runs", () => {
      const clock = new TestClock();
      const { system, device, group } = open({ iotlb: { entries: 16 }, clock });
      const { mapping, address } = mapOne(system, device);
      expect(reaches(device, address)).toBe(true);
      device.dma.unmapPage(mapping);
      expect([reaches(device, address), group.queuedCount, clock.timerCount]).toEqual([
        false,
        0,
        0,
      ]);
      expect(group.defaultDomain.staleCount).toBe(0);
    });

    test("coherent memory is unmapped lazily too, and the timer of a freed group is gone", () => {
      const clock = new TestClock();
      const { device, group } = open({ invalidation: "lazy", clock });
      device.dma.allocCoherent(PS).free();
      expect([clock.timerCount, group.queuedCount]).toEqual([1, 1]);
      device.remove();
      expect([clock.timerCount, group.queuedCount]).toEqual([0, 0]);
      group.free();
      expect([clock.timerCount, group.queuedCount, group.flush()]).toEqual([0, 0, 0]);
    });

    test("an invalidation that is none is EINVAL", () => {
      const system = build.system({ memoryBytes: 16 * MiB });
      expectError("EINVAL", () => system.iommu.group({ invalidation: "later" as "lazy" }));
    });
  });
});
