import { describe, expect, test, vi } from "vitest";
import type { DmaBufOps, System } from "../../../src/index.ts";
import { FRAME_BYTES, KiB, MiB } from "../../../src/index.ts";
import { eachCore } from "../../support/cores.ts";
import { expectError, expectRefusal, expectRejection } from "../../support/errors.ts";

/** An exporter over a table of frames, whose calls can be watched. */
function exporter(system: System, calls: string[] = []): DmaBufOps {
  const range = system.frames.alloc(4);
  const table = system.sgTableFromRange(range.pfn, 4);
  return {
    attach: (_, { device }) => void calls.push(`attach ${device.name}`),
    detach: (_, { device }) => void calls.push(`detach ${device.name}`),
    map: ({ device }, direction) => {
      calls.push(`map ${device.name}`);
      return device.dma.mapSgtable(table, direction);
    },
    unmap: ({ device }, mapping) => {
      calls.push(`unmap ${device.name}`);
      device.dma.unmapSgtable(mapping);
    },
    beginCpuAccess: (_, direction) => void calls.push(`begin ${direction}`),
    endCpuAccess: (_, direction) => void calls.push(`end ${direction}`),
    mmap: () => table,
    release: () => {
      calls.push("release");
      table.free();
      range.free();
    },
  };
}

describe.each(eachCore)("dma-buf on the $name core", (build) => {
  const open = () => build.system({ memoryBytes: 32 * MiB, cma: { default: 8 * MiB } });
  const direct = (system: System) => system.addDevice({ name: "camera", maxSegments: 1 });
  const mapped = (system: System) => system.addDevice({ name: "gpu", iommu: true });

  test("the exporter's ops run in the order of a buffer's life", () => {
    const system = open();
    const calls: string[] = [];
    const gpu = mapped(system);
    const buf = system.export({
      ops: exporter(system, calls),
      sizeBytes: 4 * FRAME_BYTES,
      exporterName: "mine",
    });
    const attachment = buf.attach(gpu);
    attachment.unmap(attachment.map("to-device"));
    buf.beginCpuAccess("from-device");
    buf.endCpuAccess("from-device");
    attachment.detach();
    buf.put();
    expect(calls).toEqual([
      "attach gpu",
      "map gpu",
      "unmap gpu",
      "begin from-device",
      "end from-device",
      "detach gpu",
      "release",
    ]);
    expect(system.check(true)).toBeNull();
  });

  test.each([
    ["no map", { map: undefined }],
    ["no unmap", { unmap: undefined }],
    ["no release", { release: undefined }],
  ])("export with %s is EINVAL", (_, lack) => {
    const system = open();
    const ops = { ...exporter(system), ...lack } as unknown as DmaBufOps;
    expectRefusal(system, "EINVAL", () =>
      system.export({ ops, sizeBytes: 1, exporterName: "mine" }),
    );
  });

  test.each([-1, 1.5, Number.NaN, 2 ** 60])("export of %s bytes is EINVAL", (sizeBytes) => {
    const system = open();
    const ops = exporter(system);
    expectRefusal(system, "EINVAL", () => system.export({ ops, sizeBytes, exporterName: "mine" }));
  });

  test("get, put and descriptors count references; the last put releases", () => {
    const system = open();
    const buf = system.heap("system").alloc(5000, { name: "frame 7" });
    expect(buf.refCount).toBe(1);
    const fd = system.files.install(buf); // moves the reference
    expect(buf.refCount).toBe(1);
    const again = system.files.get(fd);
    expect(again).toBe(buf);
    expect(buf.refCount).toBe(2);
    const second = system.files.dup(fd);
    expect(buf.refCount).toBe(3);
    buf.put();
    system.files.close(fd);
    expect(system.stats().bufferCount).toBe(1);
    system.files.close(second);
    expect([buf.refCount, system.stats().bufferCount]).toEqual([0, 0]);
    for (const call of [
      () => buf.get(),
      () => buf.put(),
      () => buf.attach(mapped(system)),
      () => buf.mmap(),
    ]) {
      expectError("ESTALE", call);
    }
  });

  test("attach takes no reference, and the last put is refused while a device is attached", () => {
    const system = open();
    const buf = system.heap("system").alloc(1);
    const attachment = buf.attach(mapped(system));
    expect(buf.refCount).toBe(1);
    expect(expectRefusal(system, "EBUSY", () => buf.put())).toContain("gpu is attached");
    const other = buf.attach(system.addDevice({ name: "camera", iommu: true }));
    const message = expectRefusal(system, "EBUSY", () => buf.put());
    expect(message).toContain("gpu, camera are attached");
    for (const count of ["1 mapping", "2 mappings"]) {
      other.map("to-device");
      expect(expectRefusal(system, "EBUSY", () => other.detach())).toContain(`has ${count} left`);
    }
    for (const { mapping } of [...other.mappings]) other.unmap(mapping);
    other.detach();
    attachment.detach();
    buf.put();
    expect(buf.refCount).toBe(0);
  });

  test("detach is refused while mapped, a mapping is unmapped once, and a detached attachment does nothing", () => {
    const system = open();
    const attachment = system.heap("system").alloc(1).attach(mapped(system));
    const mapping = attachment.map("bidirectional");
    expectRefusal(system, "EBUSY", () => attachment.detach());
    attachment.unmap(mapping);
    expectRefusal(system, "EINVAL", () => attachment.unmap(mapping));
    attachment.detach();
    expectRefusal(system, "EINVAL", () => attachment.detach());
    expectRefusal(system, "EINVAL", () => attachment.map("bidirectional"));
    expect(mapping.nents).toBe(1);
    expectError("ESTALE", () => mapping.dma(0));
  });

  test("map refuses an unknown direction, a pending kernel fence, and an exporter that maps asynchronously", () => {
    const system = open();
    const gpu = mapped(system);
    const buf = system.heap("system").alloc(1);
    const attachment = buf.attach(gpu);
    expectRefusal(system, "EINVAL", () => attachment.map("sideways" as "to-device"));
    const fence = system.fence("move");
    buf.resv.addFence(fence, "kernel");
    expectRefusal(system, "EAGAIN", () => attachment.map("to-device"));
    fence.signal();
    attachment.unmap(attachment.map("to-device"));
    const ops = { ...exporter(system), map: async () => {} } as unknown as DmaBufOps;
    const slow = system.export({ ops, sizeBytes: 1, exporterName: "slow" }).attach(gpu);
    expectError("EWOULDBLOCK", () => slow.map("to-device"));
    expect(slow.mapCount).toBe(0);
  });

  test("an exporter that throws in attach or map leaves no attachment and no mapping", () => {
    const system = open();
    const gpu = mapped(system);
    const boom = () => {
      throw new Error("boom");
    };
    const refuses = system.export({
      ops: { ...exporter(system), attach: boom },
      sizeBytes: 1,
      exporterName: "mine",
    });
    expect(() => refuses.attach(gpu)).toThrow("boom");
    expect(refuses.attachments).toHaveLength(0);
    const fails = system.export({
      ops: { ...exporter(system), map: boom },
      sizeBytes: 1,
      exporterName: "mine",
    });
    const attachment = fails.attach(gpu);
    expect(() => attachment.map("to-device")).toThrow("boom");
    expect(attachment.mapCount).toBe(0);
  });

  test("beginCpuAccess waits for what the access must wait for", async () => {
    const system = open();
    const buf = system.heap("system").alloc(1);
    const reader = system.fence("reader");
    buf.resv.addFence(reader, "read");
    buf.beginCpuAccess("from-device"); // a CPU reader does not wait for readers
    buf.endCpuAccess("from-device");
    expectError("EAGAIN", () => buf.beginCpuAccess("to-device"));
    await expectRejection("ETIME", buf.beginCpuAccessAsync("to-device", { timeoutMs: 3 }));
    const waiting = buf.beginCpuAccessAsync("to-device");
    reader.signal();
    await waiting;
    buf.endCpuAccess("to-device");
  });

  test("mmap shows the bytes, pins their frames and holds the buffer", () => {
    const system = open();
    const buf = system.heap("system").alloc(3 * FRAME_BYTES);
    const cpu = buf.mmap();
    expect(buf.refCount).toBe(2);
    expect(system.stats().pinnedFrames).toBe(3);
    expect(cpu.views.reduce((bytes, view) => bytes + view.length, 0)).toBe(buf.sizeBytes);
    expect(cpu.views.every((view) => view.every((byte) => byte === 0))).toBe(true);
    buf.put();
    cpu.unmap();
    expect(system.stats()).toMatchObject({ pinnedFrames: 0, bufferCount: 0 });
    expectError("EINVAL", () => cpu.views);
    expectError("EINVAL", () => cpu.unmap());
    expectError("EINVAL", () => {
      const { mmap: _, ...ops } = exporter(system);
      system.export({ ops, sizeBytes: 1, exporterName: "mine" }).mmap();
    });
  });

  test("copyTo and copyFrom go across runs, and are the copies that bytesCopied counts", () => {
    const system = open();
    const buf = system.heap("system").alloc(3 * FRAME_BYTES);
    const cpu = buf.mmap();
    const bytes = Uint8Array.from({ length: 2 * FRAME_BYTES + 5 }, (_, i) => i & 255);
    expect(cpu.copyFrom(bytes)).toBe(bytes.length);
    const back = new Uint8Array(bytes.length);
    expect(cpu.copyTo(back)).toBe(bytes.length);
    expect(back).toEqual(bytes);
    expect(system.stats().bytesCopied).toBe(2 * bytes.length);
    expect(cpu.copyFrom(new Uint8Array(10 * FRAME_BYTES))).toBe(3 * FRAME_BYTES);
  });

  test("seek tells the size at the end and rewinds at the start", () => {
    const buf = open().heap("system").alloc(5000);
    expect([buf.seek(0, "end"), buf.seek(0, "set")]).toEqual([8192, 0]);
    expectError("EINVAL", () => buf.seek(1, "set"));
    expectError("EINVAL", () => buf.seek(0, "current" as "set"));
  });

  test("a new owner never sees old bytes", () => {
    const system = open();
    for (const heap of ["system", "default", "auto"]) {
      for (let round = 0; round < 3; round++) {
        const buf = system.heap(heap).alloc(200 * KiB);
        const cpu = buf.mmap();
        expect(
          cpu.views.every((view) => view.every((byte) => byte === 0)),
          heap,
        ).toBe(true);
        for (const view of cpu.views) view.fill(0xee);
        cpu.unmap();
        buf.put();
      }
    }
    expect(system.check(true)).toBeNull();
  });

  describe("the auto heap", () => {
    test("chooses one run when a device needs it, and scattered frames when none does", () => {
      const system = open();
      const [camera, gpu] = [direct(system), mapped(system)];
      const shared = system.heap("auto").alloc(300 * KiB);
      const attachments = [shared.attach(gpu), shared.attach(camera)];
      expect(shared.storage).toBeNull();
      const seen = attachments.map((attachment) => attachment.map("bidirectional"));
      expect(shared.storage?.origNents).toBe(1);
      expect(seen[1]?.nents).toBe(1);
      const own = system.heap("auto").alloc(300 * KiB);
      own.attach(gpu).map("to-device");
      expect(own.storage?.origNents).toBeGreaterThan(1);
    });

    test("refuses a later device that cannot use the storage, and says why", () => {
      const system = open();
      const buf = system.heap("auto").alloc(300 * KiB);
      buf.attach(mapped(system)).map("to-device");
      const message = expectRefusal(system, "EBUSY", () => buf.attach(direct(system)));
      expect(message).toMatch(/camera allows maxSegments 1 and \d+ would be needed/);
    });

    test("refuses at attach a device that no storage suits", () => {
      const system = open();
      const display = system.addDevice({
        name: "display",
        iommu: true,
        maxSegments: 2,
        maxSegmentBytes: 64 * KiB,
      });
      const buf = system.heap("auto").alloc(300 * KiB);
      const message = expectRefusal(system, "EINVAL", () => buf.attach(display));
      expect(message).toContain("display allows maxSegments 2 and 5 would be needed");
    });

    test("says ENOMEM at the first map, with what is lacking", () => {
      const system = open();
      const attachment = system
        .heap("auto")
        .alloc(9 * MiB)
        .attach(direct(system));
      expect(expectRefusal(system, "ENOMEM", () => attachment.map("to-device"))).toContain(
        "in one run",
      );
      const none = build.system({ memoryBytes: 8 * MiB });
      const other = none
        .heap("auto")
        .alloc(1)
        .attach(none.addDevice({ name: "camera", maxSegments: 1 }));
      other.unmap(other.map("to-device")); // one frame is always one run
      const more = none
        .heap("auto")
        .alloc(8192)
        .attach(none.addDevice({ name: "camera", maxSegments: 1 }));
      expect(expectError("ENOMEM", () => more.map("to-device"))).toContain("no CMA region");
    });

    test("a mask that no device addresses of a buffer fit below is refused at attach (HB2)", () => {
      const system = build.system({ memoryBytes: 64 * MiB });
      const isa = system.addDevice({ name: "isa", iommu: true, dmaMaskBits: 24 });
      const heap = system.heap("auto");
      const fits = heap.alloc(8 * MiB).attach(isa);
      fits.unmap(fits.map("to-device"));
      for (const bytes of [8 * MiB + 1, 16 * MiB]) {
        const buf = heap.alloc(bytes);
        expect(expectError("EINVAL", () => buf.attach(isa))).toContain("isa allows dmaMaskBits 24");
        expect(buf.canAttach(isa)?.code).toBe("EINVAL");
        const placed = system.heap("system").alloc(bytes);
        expect(placed.canAttach(isa)?.code).toBe("EBUSY"); // its storage exists
        placed.put();
      }
    });

    test("keeps below the mask of a device without an IOMMU", () => {
      const system = build.system({ memoryBytes: 32 * MiB, physicalBase: 4096 * MiB - 16 * MiB });
      const dma32 = system.addDevice({ name: "old", dmaMaskBits: 32 });
      const buf = system.heap("auto").alloc(4 * MiB);
      const mapping = buf.attach(dma32).map("to-device");
      for (const { address, lengthBytes } of mapping.segments())
        expect(address + lengthBytes).toBeLessThanOrEqual(2 ** 32);
      const low = system.addDevice({ name: "isa", dmaMaskBits: 24 });
      expect(expectError("EBUSY", () => buf.attach(low))).toContain("isa allows dmaMaskBits 24");
    });
  });

  test("release callbacks of one buffer do not run twice, whatever the exporter does", () => {
    const system = open();
    const release = vi.fn();
    const buf = system.export({
      ops: { ...exporter(system), release },
      sizeBytes: 1,
      exporterName: "mine",
    });
    buf.put();
    expectError("ESTALE", () => buf.put());
    expect(release).toHaveBeenCalledOnce();
  });
});
