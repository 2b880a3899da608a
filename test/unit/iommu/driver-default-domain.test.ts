// A driver's domain as a group's default one: what the DMA API maps is shown to the driver.

import { describe, expect, test } from "vitest";
import {
  DeviceMapping,
  type DeviceOptions,
  type DmaBufError,
  type DomainOps,
  FRAME_BYTES,
  IommuDomain,
  type IommuGroupOptions,
  iommuProt,
  KiB,
  MiB,
} from "../../../src/index.ts";
import { eachCore } from "../../support/cores.ts";
import { openDriven, pinnedFrames, read } from "../../support/driver-world.ts";
import { expectError, expectRefusal } from "../../support/errors.ts";
import { ModelDriver } from "../../support/model-driver.ts";
import { TestClock } from "../../support/test-clock.ts";
import { nextUncaught } from "../../support/uncaught.ts";

const RW = iommuProt.read + iommuProt.write;
const PS = FRAME_BYTES;
const NOWHERE: DomainOps = { pgsizeBitmap: 0x1000n };

/** Has a driver's device know what it reached until the driver is told to sync or flush. */
function rememberTranslations(driver: ModelDriver): ReadonlyMap<number, number> {
  const known = new Map<number, number>();
  const walk = driver.translate.bind(driver);
  driver.translate = (iova, access) => {
    const answer = known.get(iova) ?? walk(iova, access);
    if (typeof answer === "number") known.set(iova, answer);
    return answer;
  };
  driver.iotlbSync = () => known.clear();
  driver.flushIotlbAll = () => known.clear();
  return known;
}

describe.each(eachCore)("a domain over a driver on the $name core", (build) => {
  describe("that buffers are mapped in", () => {
    test.each<[string, Partial<DeviceOptions>]>([
      ["plain", {}],
      ["with a boundary", { segmentBoundaryBytes: 8 * KiB }],
      ["untrusted, whose partial pages are bounced", { untrusted: true }],
      ["behind a simulated cache", { coherent: false, simulatedCache: true }],
    ])("every kind of mapping is shown to the driver: a device that is %s", (_, limits) => {
      const { system, driver, device } = openDriven(build, {}, limits);
      const { pfn, bytes } = pinnedFrames(system, 8);
      const single = bytes.subarray(100, 5000);
      const { dma } = device;
      const table = system.sgTableFromFrames([pfn + 4, pfn + 6, pfn + 7]);
      const buffers = [dma.allocCoherent(3 * PS), dma.allocNoncontiguous(3 * PS, "bidirectional")];
      const ends = [
        [dma.mapPage(pfn, 8, 4000, "bidirectional"), "unmapPage"],
        [dma.mapSingle(single, "bidirectional"), "unmapSingle"],
        [dma.mapSg([{ pfn: pfn + 2, offset: 9, lengthBytes: PS }], "bidirectional"), "unmapSg"],
        [dma.mapSgtable(table, "bidirectional"), "unmapSgtable"],
      ] as const;
      const mappings = [...buffers.map(({ mapping }) => mapping), ...ends.map(([one]) => one)];
      for (const [i, mapping] of mappings.entries()) {
        const value = Uint8Array.of(i + 1, i + 2);
        dma.write(mapping.address + 1, value);
        expect(read(device, mapping.address + 1, 2)).toEqual([...value]);
        expect(driver.iovaToPhys(mapping.address)).not.toBeNull();
      }
      for (const [mapping, end] of ends) dma[end](mapping);
      for (const buffer of buffers) buffer.free();
      expect([...bytes.subarray(9, 11)]).toEqual([3, 4]);
      expect([...bytes.subarray(101, 103)]).toEqual([4, 5]);
      expect(driver.model.leaves.size).toBe(0);
      expect(driver.calls.sync).toBe(mappings.length);
      table.free();
      device.remove();
      expect(system.check()).toBeNull();
    });

    test("a resource gets its address, and pieces of reserved addresses are linked", () => {
      const { system, driver, device } = openDriven(build);
      const { pfn } = pinnedFrames(system, 2);
      const registers = device.dma.mapResource(1024 * MiB, 2 * PS, "bidirectional");
      expect(driver.iovaToPhys(registers.address + PS)).toBe(1024 * MiB + PS);
      expect(driver.model.leafAt(registers.address / PS)?.prot).toBe(RW + iommuProt.mmio);
      device.dma.unmapResource(registers);
      const iova = device.dma.iovaTryAlloc(2 * PS);
      iova?.link(0, pfn, 0, PS, "to-device");
      iova?.link(PS, pfn + 1, 0, PS, "bidirectional");
      iova?.sync();
      const address = iova?.address ?? 0;
      device.dma.write(address + PS, Uint8Array.of(9));
      expect(read(device, address + PS, 1)).toEqual([9]);
      expectError("EFAULT", () => device.dma.write(address, Uint8Array.of(9)));
      iova?.unlink(0, PS);
      expectError("EFAULT", () => device.dma.read(address, new Uint8Array(1)));
      expect(read(device, address + PS, 1)).toEqual([9]);
      iova?.unlink(PS, PS);
      iova?.free();
      expect(driver.model.leaves.size).toBe(0);
    });

    test("the direction and the attributes become protection bits", () => {
      const { system, driver, device } = openDriven(build);
      const { pfn } = pinnedFrames(system, 1);
      const { read: r, write: w, cache, priv } = iommuProt;
      const expected = [
        ["bidirectional", {}, r + w + cache],
        ["to-device", {}, r + cache],
        ["from-device", { privileged: true }, w + cache + priv],
      ] as const;
      for (const [direction, attrs, prot] of expected) {
        const mapping = device.dma.mapPage(pfn, 0, PS, direction, attrs);
        expect(driver.model.leafAt(mapping.address / PS)?.prot).toBe(prot);
        device.dma.unmapPage(mapping);
      }
    });

    test("a driver that fails at any call leaves nothing, and the call says what it said", () => {
      const { system, driver, device, group } = openDriven(
        build,
        {},
        { segmentBoundaryBytes: 8 * KiB },
      );
      const { pfn } = pinnedFrames(system, 8);
      const list = [0, 3, 5].map((i) => ({ pfn: pfn + i, offset: 0, lengthBytes: 2 * PS }));
      const end = (made: DeviceMapping | { free(): void }): void => {
        if (!(made instanceof DeviceMapping)) made.free();
        else if (made.kind === "page") device.dma.unmapPage(made);
        else device.dma.unmapSg(made);
      };
      const attempts = [
        ["EINVAL", "EIO", () => device.dma.mapSg(list, "bidirectional")],
        ["ENOMEM", "ENOMEM", () => device.dma.mapSg(list, "bidirectional")],
        ["ENOMEM", "EIO", () => device.dma.mapPage(pfn, 0, PS, "bidirectional")],
        ["ENOMEM", "EIO", () => device.dma.allocCoherent(5 * PS)],
        ["ENOMEM", "EIO", () => device.dma.allocNoncontiguous(5 * PS, "bidirectional")],
      ] as const;
      for (const [code, failWith, attempt] of attempts) {
        driver.failWith = failWith;
        driver.failAt = 0;
        end(attempt());
        const before = system.stats(); // with the tables that stay
        const failed: string[] = [];
        for (let isMade = false; !isMade; ) {
          driver.failAt = driver.calls.map + failed.length + 1;
          try {
            end(attempt());
            isMade = true;
          } catch (error) {
            expect((error as DmaBufError).message).toContain(failWith);
            failed.push((error as DmaBufError).code);
          }
          expect([driver.model.leaves.size, system.check()]).toEqual([0, null]);
          expect(system.stats()).toEqual(before);
        }
        expect([...new Set(failed)]).toEqual([code]);
      }
      driver.failWith = "EIO";
      driver.failAt = driver.calls.map + 1;
      const iova = device.dma.iovaTryAlloc(PS);
      expectError("EIO", () => iova?.link(0, pfn, 0, PS, "bidirectional"));
      iova?.free();
      device.remove();
      group.free();
      expect(system.check()).toBeNull();
    });

    test("a driver that does not unmap is reported to the host; the mapping ends", async () => {
      const { system, driver, device } = openDriven(build);
      const { pfn } = pinnedFrames(system, 1);
      const mapping = device.dma.mapPage(pfn, 0, PS, "bidirectional");
      driver.unmapPages = () => 0;
      const thrown = nextUncaught();
      device.dma.unmapPage(mapping);
      expect(String(await thrown)).toMatch(/the driver unmapped 0 of 4096 bytes/);
      expect(mapping.isEnded).toBe(true);
      expect(system.check()).toBeNull();
    });

    test("a driver whose unmap makes no sense is told to forget what it has unmapped", async () => {
      const { system, driver, device } = openDriven(build, {}, { segmentBoundaryBytes: 8 * KiB });
      const { pfn } = pinnedFrames(system, 8);
      const known = rememberTranslations(driver);
      const list = [0, 3].map((i) => ({ pfn: pfn + i, offset: 0, lengthBytes: 2 * PS }));
      const mapping = device.dma.mapSg(list, "bidirectional");
      read(device, mapping.address, 1);
      expect(known.size).toBe(1);
      const unmap = driver.unmapPages.bind(driver);
      let calls = 0;
      driver.unmapPages = (iova, pageBytes) =>
        ++calls === 1 ? unmap(iova, pageBytes, 1) : Number.NaN;
      const thrown = nextUncaught();
      device.dma.unmapSg(mapping);
      expect(String(await thrown)).toContain("the driver's unmapPages() returned NaN");
      expect(known.size).toBe(0);
    });

    test("lazy: the driver forgets all before an address is used again", () => {
      const clock = new TestClock();
      const { system, driver, group, device } = openDriven(build, { invalidation: "lazy", clock });
      const { pfn } = pinnedFrames(system, 1);
      const cycle = (): number => {
        const mapping = device.dma.mapPage(pfn, 0, PS, "bidirectional");
        const { address } = mapping;
        device.dma.unmapPage(mapping);
        return address;
      };
      const first = cycle();
      expect([driver.calls.sync, driver.calls.flushAll, group.queuedCount]).toEqual([0, 0, 1]);
      expectError("EFAULT", () => device.dma.read(first, new Uint8Array(1)));
      expect(cycle()).not.toBe(first);
      clock.fire();
      expect([driver.calls.flushAll, group.queuedCount]).toEqual([1, 0]);
      const seen = new Set<number>();
      for (let i = 0; i < 600; i++) {
        const flushes = driver.calls.flushAll;
        const address = cycle();
        if (seen.has(address)) expect(driver.calls.flushAll).toBeGreaterThan(1);
        if (driver.calls.flushAll > flushes) seen.clear();
        expect(seen.has(address)).toBe(false);
        seen.add(address);
      }
      expect(driver.calls.flushAll).toBeGreaterThanOrEqual(3);
      expect(driver.calls.sync).toBe(0);
      const withoutFlush = new IommuDomain({ ...new ModelDriver(), ...bare() });
      const lazy = { invalidation: "lazy", defaultDomain: withoutFlush } as const;
      expectError("ENODEV", () => system.iommu.group(lazy));
    });

    test.each(["strict", "lazy"] as const)(
      "%s: addresses that are reserved, used and freed show nobody's old pages",
      (invalidation) => {
        const { system, driver, group, device } = openDriven(build, { invalidation });
        const known = rememberTranslations(driver);
        const { pfn, bytes } = pinnedFrames(system, 2);
        bytes.fill(1, 0, PS).fill(2, PS);
        const seenAt = (frame: number): { address: number; byte: number | undefined } => {
          const iova = device.dma.iovaTryAlloc(PS);
          if (iova === null) throw new Error("no addresses");
          iova.link(0, pfn + frame, 0, PS, "to-device");
          iova.sync();
          const [byte] = read(device, iova.address, 1);
          iova.destroy(PS);
          return { address: iova.address, byte };
        };
        const [first, second] = [seenAt(0), seenAt(1)];
        expect(second.address).toBe(first.address); // no flush lies between them
        expect([first.byte, second.byte]).toEqual([1, 2]);
        expect(known.size).toBe(0);
        const mapping = device.dma.mapPage(pfn, 0, PS, "to-device");
        read(device, mapping.address);
        device.dma.unmapPage(mapping); // this one may wait for a flush
        expect(known.size).toBe(invalidation === "lazy" ? 1 : 0);
        group.flush();
        expect(known.size).toBe(0);
      },
    );

    test("lazy: what a driver refused to map is given back in time too", () => {
      const clock = new TestClock();
      const { system, driver, group, device } = openDriven(build, { invalidation: "lazy", clock });
      const { pfn } = pinnedFrames(system, 1);
      driver.failAt = driver.calls.map + 1;
      expectError("ENOMEM", () => device.dma.mapPage(pfn, 0, PS, "bidirectional"));
      expect([group.queuedCount, clock.delays]).toEqual([1, [10]]);
      clock.pass(10);
      expect([group.queuedCount, driver.calls.flushAll]).toEqual([0, 1]);
    });

    test("reserved regions are mapped in it, and gone with the group", () => {
      const reserved = [{ start: 8 * MiB, lengthBytes: 2 * PS, type: "direct" }] as const;
      const { system, driver, group, device, domain } = openDriven(build, { reserved });
      expect([8 * MiB, 8 * MiB + PS].map((at) => driver.iovaToPhys(at))).toEqual([
        8 * MiB,
        8 * MiB + PS,
      ]);
      expectError("EBUSY", () => system.iommu.group({ defaultDomain: domain }));
      device.remove();
      group.free();
      expect(driver.model.leaves.size).toBe(0);
      expect(domain.isDefault).toBe(false);
      system.iommu.group({ defaultDomain: domain }).free();
      driver.failAt = driver.calls.map + 1;
      expectError("ENOMEM", () => system.iommu.group({ defaultDomain: domain, reserved }));
      system.iommu.group({ defaultDomain: domain, reserved }).free();
      expect(system.check()).toBeNull();
    });

    test("a reserved region is not taken for mapped where the driver's answer is nonsense", () => {
      const system = build.system({ memoryBytes: 16 * MiB });
      const driver = new ModelDriver();
      const reserved = [{ start: 8 * MiB, lengthBytes: PS, type: "direct" }] as const;
      const walk = driver.iovaToPhys;
      driver.iovaToPhys = () => undefined as never;
      const defaultDomain = new IommuDomain(driver);
      expectRefusal(system, "EIO", () => system.iommu.group({ defaultDomain, reserved }));
      expect([driver.model.leaves.size, defaultDomain.isDefault]).toEqual([0, false]);
      driver.iovaToPhys = walk;
      system.iommu.group({ defaultDomain, reserved });
      expect(driver.iovaToPhys(8 * MiB)).toBe(8 * MiB);
    });

    test("addresses stay inside the driver's aperture", () => {
      const system = build.system({ memoryBytes: 16 * MiB });
      const driver: DomainOps = Object.assign(new ModelDriver(), {
        aperture: { start: 1 * MiB, end: 1 * MiB + 4 * PS - 1 },
      });
      const group = system.iommu.group({ defaultDomain: new IommuDomain(driver) });
      const device = system.addDevice({ name: "gpu", iommu: group });
      const { pfn } = pinnedFrames(system, 1);
      const at = [1, 2, 3, 4].map(
        () => device.dma.mapPage(pfn, 0, PS, "bidirectional").address - 1 * MiB,
      );
      expect(at.sort((a, b) => a - b)).toEqual([0, PS, 2 * PS, 3 * PS]);
      expectError("ENOMEM", () => device.dma.mapPage(pfn, 0, PS, "bidirectional"));
      for (const aperture of [
        { start: 0, end: 5 },
        { start: -1, end: MiB },
        { start: Number.NaN, end: MiB },
      ]) {
        const bad = new IommuDomain(Object.assign(new ModelDriver(), { aperture }));
        expectError("EINVAL", () => system.iommu.group({ defaultDomain: bad }));
        expect(bad.isDefault).toBe(false);
      }
    });

    test("what cannot be a default domain is refused, and may be used elsewhere", () => {
      const { system, device } = openDriven(build);
      const make = (defaultDomain: unknown, more: IommuGroupOptions = {}) =>
        system.iommu.group({ ...more, defaultDomain: defaultDomain as IommuDomain });
      const before = system.stats();
      const fine = new IommuDomain(new ModelDriver());
      expectError("EINVAL", () => make({}));
      expectError("EINVAL", () => make(system.iommu.domain()));
      expectError("EINVAL", () => make(new IommuDomain(NOWHERE, "identity")));
      expectError("EINVAL", () => make(fine, { iotlb: { entries: 4 } }));
      expectError("EINVAL", () => make(fine, { strictMap: true }));
      expectError("EINVAL", () => make(fine, { dirtyTracking: true }));
      expectError("ENODEV", () => make(new IommuDomain({ ...NOWHERE, iovaToPhys: () => null })));
      const large = new ModelDriver({
        stage: 1,
        granuleBytes: 16384,
        inputBits: 44,
        outputBits: 44,
      });
      expectError("EINVAL", () => make(new IommuDomain(large)));
      fine.attachDevice(device);
      expectError("EBUSY", () => make(fine));
      fine.detachDevice(device);
      expect(fine.isDefault).toBe(false);
      make(fine).free();
      expect(before.freeFrames - system.stats().freeFrames).toBeLessThan(4); // the domain above
      expect(system.check()).toBeNull();
    });
  });
});

/** A driver without flushIotlbAll(). */
function bare(): DomainOps {
  const { pgsizeBitmap } = new ModelDriver();
  return {
    pgsizeBitmap,
    mapPages: () => PS,
    unmapPages: () => PS,
    iovaToPhys: () => null,
  };
}
