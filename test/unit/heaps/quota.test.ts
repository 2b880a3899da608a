import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { DmaBuf, Owner } from "../../../src/index.ts";
import { type DmaBufError, FRAME_BYTES, KiB, MiB } from "../../../src/index.ts";
import { eachCore } from "../../support/cores.ts";
import { expectError, expectRefusal } from "../../support/errors.ts";

describe.each(eachCore)("quota on the $name core", (build) => {
  const open = () => build.system({ memoryBytes: 16 * MiB, cma: { reserved: 4 * MiB } });

  test("a quota refuses before anything is allocated: owner, limit, used and asked", () => {
    const system = open();
    const owner = system.owner("tab 3", { quotaBytes: MiB });
    system.heap("reserved").alloc(900 * KiB, { owner });
    for (const name of ["system", "auto", "reserved"]) {
      const { allocCount } = system.region("reserved").stats();
      const message = expectRefusal(system, "EDQUOT", () =>
        system.heap(name).alloc(200 * KiB, { owner }),
      );
      expect(message).toContain(
        "owner tab 3 may hold 1 MiB, holds 900 KiB, and 200 KiB are asked for",
      );
      expect(system.region("reserved").stats().allocCount).toBe(allocCount);
    }
    expect(owner.refusedCount).toBe(3);
    system.heap("auto").alloc(124 * KiB, { owner }); // exactly the rest
    expect([owner.usedBytes, owner.peakBytes, owner.bufferCount]).toEqual([MiB, MiB, 2]);
  });

  test("a quota is charged at alloc, for auto too, and given back at release", () => {
    const system = open();
    const owner = system.owner("tab");
    const buf = system.heap("auto").alloc(5000, { owner });
    expect([owner.usedBytes, buf.storage, system.ownerOf(buf)]).toEqual([8192, null, owner]);
    const cpu = buf.mmap();
    expect(owner.usedBytes).toBe(8192);
    buf.put();
    expect(owner.usedBytes).toBe(8192); // the CPU mapping holds it
    cpu.unmap();
    expect([owner.usedBytes, owner.bufferCount, owner.peakBytes]).toEqual([0, 0, 8192]);
    expect(system.ownerOf(buf)).toBeNull();
  });

  test("a quota is not charged for what a heap could not give", () => {
    const system = open();
    const owner = system.owner("tab");
    expectRefusal(system, "ENOMEM", () => system.heap("reserved").alloc(8 * MiB, { owner }));
    expect([owner.usedBytes, owner.bufferCount]).toEqual([0, 0]);
  });

  test("owners have names of their own, and are removed when nothing is charged", () => {
    const system = open();
    const owner = system.owner("tab", { quotaBytes: 4096 });
    expectRefusal(system, "EEXIST", () => system.owner("tab"));
    expectRefusal(system, "EINVAL", () => system.owner(""));
    expectRefusal(system, "EINVAL", () => system.owner("x", { quotaBytes: -1 }));
    expectRefusal(system, "EINVAL", () => system.owner("x", { quotaBytes: Number.NaN }));
    const buf = system.heap("system").alloc(1, { owner });
    expectRefusal(system, "EBUSY", () => owner.remove());
    owner.setQuota(0); // takes nothing away
    expectRefusal(system, "EDQUOT", () => system.heap("system").alloc(1, { owner }));
    expectRefusal(system, "EINVAL", () => owner.setQuota(-1));
    buf.put();
    owner.remove();
    expectError("ESTALE", () => owner.remove());
    expectRefusal(system, "ENOENT", () => system.heap("system").alloc(1, { owner }));
    expect(system.owners).toEqual([]);
    const other = open();
    expectRefusal(other, "EINVAL", () =>
      other.heap("system").alloc(1, { owner: system.owner("tab") }),
    );
  });

  test("statistics count live buffers for each exporter", () => {
    const system = open();
    const a = system.heap("system").alloc(4096);
    const b = system.heap("system").alloc(8192);
    system.heap("auto").alloc(4096);
    expect(system.exporterStats("system")).toEqual({
      exporterName: "system",
      bufferCount: 2,
      sizeBytes: 12288,
    });
    a.put();
    b.put();
    expect(system.exporterStats("system")).toMatchObject({ bufferCount: 0, sizeBytes: 0 });
    expect(system.exporters).toEqual([{ exporterName: "auto", bufferCount: 1, sizeBytes: 4096 }]);
  });

  test("quota and statistics follow a naive model through any order of alloc and put", () => {
    const heaps = ["system", "auto", "reserved"] as const;
    const event = fc.record({
      heap: fc.constantFrom(...heaps),
      owner: fc.nat(2),
      frames: fc.integer({ min: 1, max: 200 }),
      put: fc.option(fc.nat(50)),
    });
    fc.assert(
      fc.property(fc.array(event, { maxLength: 40 }), (events) => {
        const system = open();
        const quotas = [Infinity, 300 * FRAME_BYTES, 100 * FRAME_BYTES];
        const owners = quotas.map((quotaBytes, i) => system.owner(`owner ${i}`, { quotaBytes }));
        const live: { buf: DmaBuf; owner: Owner }[] = [];
        for (const { heap, owner: index, frames, put } of events) {
          const gone = put === null ? undefined : live.splice(put % (live.length || 1), 1)[0];
          gone?.buf.put();
          const owner = owners[index] as Owner;
          const used = usedBy(live, owner);
          const fits = used + frames * FRAME_BYTES <= (quotas[index] ?? 0);
          try {
            live.push({ buf: system.heap(heap).alloc(frames * FRAME_BYTES, { owner }), owner });
            expect(fits).toBe(true);
          } catch (error) {
            expect((error as DmaBufError).code).toBe(fits ? "ENOMEM" : "EDQUOT");
          }
          for (const one of owners) expect(one.usedBytes).toBe(usedBy(live, one));
          for (const name of heaps) {
            const own = live.filter(({ buf }) => buf.exporterName === name);
            expect(system.exporterStats(name).bufferCount).toBe(own.length);
          }
          expect(system.check()).toBeNull();
        }
        for (const { buf } of live) buf.put();
        expect(owners.map(({ usedBytes }) => usedBytes)).toEqual([0, 0, 0]);
        expect(system.exporters).toEqual([]);
        system.close();
      }),
      { numRuns: 15 },
    );
  });
});

function usedBy(live: readonly { buf: DmaBuf; owner: Owner }[], owner: Owner): number {
  return live.filter((one) => one.owner === owner).reduce((sum, { buf }) => sum + buf.sizeBytes, 0);
}
