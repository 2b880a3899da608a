// The n-th allocation of a call fails, for every n: what the IOMMU's calls leave behind then.

import { describe, expect, test } from "vitest";
import {
  type BuiltInDomain,
  type DmaBufError,
  FRAME_BYTES,
  GiB,
  type IommuGroupOptions,
  iommuProt,
  KiB,
  MiB,
  type System,
} from "../../../src/index.ts";
import { FOR_EVER, faultyCores, sweepFaults } from "../../support/faults.ts";

const RW = iommuProt.read + iommuProt.write;
const PS = FRAME_BYTES;

/** Whether a call succeeds; it may fail for want of memory only. */
function succeeds(call: () => unknown): boolean {
  try {
    call();
    return true;
  } catch (error) {
    expect((error as DmaBufError).code).toBe("ENOMEM");
    return false;
  }
}

/** What is mapped at some addresses. */
const seen = (domain: BuiltInDomain, at: readonly number[]): (number | null)[] =>
  at.map((iova) => domain.iovaToPhys(iova));

describe.each(faultyCores)("injected faults on the $name core", (build) => {
  const sweep = (attempt: (system: System) => boolean, least: number): void => {
    for (const times of [1, FOR_EVER]) {
      const system = build.system({ memoryBytes: 16 * MiB });
      const failed = sweepFaults(system.core, times, () => attempt(system));
      expect(failed).toBeGreaterThanOrEqual(least);
    }
  };

  /** Calls `use` with a fresh domain; false if there was no memory for one. */
  const withDomain = (
    system: System,
    use: (domain: BuiltInDomain) => boolean,
    granuleBytes = 4 * KiB,
  ): boolean => {
    let domain: BuiltInDomain | null = null;
    const isMade = succeeds(() => {
      domain = system.iommu.domain({ granuleBytes, iotlb: { entries: 8 } });
    });
    if (!isMade || domain === null) return false;
    const isDone = use(domain);
    (domain as BuiltInDomain).free();
    return isDone;
  };

  test.each([4 * KiB, 16 * KiB, 64 * KiB])(
    "domain.map(), granule %i: all or nothing",
    (granule) => {
      const at = [1 * GiB - 2 * granule, 1 * GiB - granule, 1 * GiB, 1 * GiB + granule];
      sweep(
        (system) =>
          withDomain(
            system,
            (domain) => {
              const isMapped = succeeds(() => domain.map(at[0] ?? 0, granule, 4 * granule, RW));
              const all = [1, 2, 3, 4].map((i) => i * granule);
              expect(seen(domain, at)).toEqual(isMapped ? all : [null, null, null, null]);
              return isMapped;
            },
            granule,
          ),
        4,
      );
    },
  );

  test("domain.map() beside what is mapped leaves that as it was", () => {
    sweep(
      (system) =>
        withDomain(system, (domain) => {
          if (!succeeds(() => domain.map(0, 8 * MiB, PS, RW))) return false;
          const isMapped = succeeds(() => domain.map(PS, 2 * PS, 6 * MiB, RW));
          expect(seen(domain, [0, PS, 6 * MiB])).toEqual(
            isMapped ? [8 * MiB, 2 * PS, 6 * MiB + PS] : [8 * MiB, null, null],
          );
          return isMapped;
        }),
      6,
    );
  });

  test("domain.mapSg() maps all ranges or none", () => {
    const ranges = [0, 1, 2, 3].map((i) => ({ address: i * 9 * PS, lengthBytes: (i + 1) * PS }));
    sweep(
      (system) =>
        withDomain(system, (domain) => {
          const isMapped = succeeds(() => domain.mapSg(2 * MiB - 3 * PS, ranges, RW));
          const [first] = seen(domain, [2 * MiB - 3 * PS]);
          expect(first).toBe(isMapped ? 0 : null);
          expect(domain.unmap(2 * MiB - 3 * PS, 10 * PS)).toBe(isMapped ? 10 * PS : 0);
          return isMapped;
        }),
      5,
    );
  });

  test("domain.unmap() that splits blocks unmaps a page, or stops with all of it mapped", () => {
    sweep(
      (system) =>
        withDomain(system, (domain) => {
          if (!succeeds(() => domain.map(0, 0, 1 * GiB, RW))) return false;
          const unmapped = domain.unmap(5 * MiB, PS);
          expect([0, PS]).toContain(unmapped);
          expect(seen(domain, [5 * MiB, 5 * MiB + PS, 5 * MiB - 1, 1 * GiB - 1])).toEqual([
            unmapped === 0 ? 5 * MiB : null,
            5 * MiB + PS,
            5 * MiB - 1,
            1 * GiB - 1,
          ]);
          return unmapped === PS;
        }),
      5,
    );
  });

  test("a group with reserved regions, an owner and a device is there whole or not at all", () => {
    const options: IommuGroupOptions = {
      invalidation: "lazy",
      iotlb: { entries: 4 },
      reserved: [
        { start: 8 * MiB, lengthBytes: 3 * PS, type: "direct" },
        { start: 0xfee00000, lengthBytes: MiB, type: "msi" },
      ],
    };
    sweep(
      (system) =>
        succeeds(() => {
          const group = system.iommu.group(options);
          try {
            const device = system.addDevice({ name: "npu", iommu: group });
            try {
              group.claimDmaOwner("somebody");
              group.releaseDmaOwner();
            } finally {
              device.remove();
            }
          } finally {
            group.free();
          }
        }),
      6,
    );
  });
});
