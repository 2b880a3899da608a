import { describe, expect, test } from "vitest";
import { DmaBufError } from "../../src/errors.ts";
import { eachCore } from "../support/cores.ts";
import { expectError } from "../support/errors.ts";
import { FOR_EVER, faultyCores, sweepFaults } from "../support/faults.ts";

const MiB = 1024 * 1024;
const PS = 4096;
const NONE = 0xffffffff;
const ENOMEM = -12;

describe.each(faultyCores)("faults on the $name core", (build) => {
  test("faultArm() fails `times` allocations from the n-th on, faultDisarm() says what is left", () => {
    const { exports } = build.open(1024);
    exports.faultArm(2, 2);
    const results = [1, 2, 3, 4].map(() => exports.frameAlloc(1, 0, NONE));
    expect(results.map((result) => result === ENOMEM)).toEqual([false, true, true, false]);
    expect(exports.faultDisarm()).toBe(0);
    exports.faultArm(5, 7);
    expect(exports.frameAlloc(1, 0, NONE)).toBeGreaterThan(0);
    expect(exports.faultDisarm()).toBe(7);
    expect(exports.frameAlloc(1, 0, NONE)).toBeGreaterThan(0);
  });

  describe.each([1, FOR_EVER])("W1 nothing leaks when %d allocations fail", (times) => {
    test.each([
      ["direct", false],
      ["IOMMU", true],
    ])("heap alloc, attach and map of a %s device", (_, iommu) => {
      const system = build.system({ memoryBytes: 16 * MiB, cma: { video: 4 * MiB } });
      const device = system.addDevice({ name: "device", iommu });
      const attempt = (heap: string): boolean => {
        try {
          using buf = system.heap(heap).alloc(300 * PS);
          using attachment = buf.attach(device);
          attachment.unmap(attachment.map("bidirectional"));
          return true;
        } catch (error) {
          if (error instanceof DmaBufError && error.code === "ENOMEM") return false;
          throw error;
        }
      };
      for (const heap of ["system", "auto", "video"])
        expect(sweepFaults(system.core, times, () => attempt(heap))).toBeGreaterThan(1);
      device.remove();
      system.close();
    });

    test("adding a device behind an IOMMU", () => {
      const system = build.system({ memoryBytes: 8 * MiB });
      const failed = sweepFaults(system.core, times, () => {
        try {
          system.addDevice({ name: "device", iommu: true }).remove();
          return true;
        } catch (error) {
          expectError("ENOMEM", () => {
            throw error;
          });
          return false;
        }
      });
      expect(failed).toBeGreaterThan(3); // device, domain, its body, its tables
      system.close();
    });
  });
});

describe.each(eachCore)("faults on the $name core", (build) => {
  test("the release core ignores them", () => {
    const { exports } = build.open(1024);
    exports.faultArm(1, 1);
    const isRelease = build.name.startsWith("release");
    expect(exports.frameAlloc(1, 0, NONE) > 0).toBe(isRelease);
    expect(exports.faultDisarm()).toBe(isRelease ? 1 : 0);
  });
});
