import { describe, expect, test } from "vitest";
import { FRAME_BYTES, MiB } from "../../src/index.ts";
import { eachCore } from "../support/cores.ts";
import { expectError, expectRefusal } from "../support/errors.ts";

/** Bugs that a review found; each was reproduced before it was mended. */
describe.each(eachCore)("regression on the $name core", (build) => {
  const open = () => build.system({ memoryBytes: 16 * MiB, cma: { default: 4 * MiB } });

  test("objects of another system or device are refused", () => {
    const [one, two] = [open(), open()];
    const [a, b] = [one, two].map((system) => system.addDevice({ name: "gpu", iommu: true }));
    const other = one.addDevice({ name: "npu", iommu: true });
    if (a === undefined || b === undefined) return;
    const attachment = one.heap("system").alloc(1).attach(a);
    const mapping = attachment.map("to-device");
    expectRefusal(one, "EINVAL", () => b.dma.unmapSgtable(mapping));
    expectRefusal(one, "EINVAL", () => other.dma.unmapSgtable(mapping));
    expectRefusal(one, "EINVAL", () => one.heap("system").name && attachment.buf.attach(b));
    const table = attachment.buf.storage;
    if (table === null) return;
    expectRefusal(two, "EINVAL", () => b.dma.mapSgtable(table, "to-device"));
    const pinned = two.frames.alloc(1).pin();
    expectRefusal(two, "EINVAL", () => table.pcopyToBuffer(pinned));
    attachment.unmap(mapping);
  });

  test("a table of a range keeps the range, shows no old bytes, and erases none later", () => {
    const system = open();
    const dirty = system.frames.alloc(4);
    const pin = dirty.pin();
    pin.bytes.fill(5);
    pin.unpin();
    dirty.free();
    const range = system.frames.alloc(4);
    const table = system.sgTableFromRange(range.pfn, 4);
    expectRefusal(system, "EBUSY", () => range.free());
    const device = system.addDevice({ name: "dma" });
    const { address } = device.dma.mapSgtable(table, "bidirectional").dma(0);
    const bytes = new Uint8Array(4 * FRAME_BYTES);
    device.dma.read(address, bytes);
    expect(bytes.every((byte) => byte === 0)).toBe(true);
    device.dma.write(address, bytes.fill(42));
    expect(range.pin().bytes.every((byte) => byte === 42)).toBe(true);
    for (const [pfn, count] of [
      [0, 1],
      [range.pfn + 4, 1],
    ] as const) {
      expectRefusal(system, "ENOENT", () => system.sgTableFromRange(pfn, count));
    }
  });

  test("a release that throws leaves the buffer alive", () => {
    const system = open();
    const device = system.addDevice({ name: "gpu", iommu: true });
    const buf = system.heap("system").alloc(1);
    const table = buf.storage;
    if (table === null) return;
    const mapping = device.dma.mapSgtable(table, "to-device");
    expectRefusal(system, "EBUSY", () => buf.put());
    expect(buf.refCount).toBe(1);
    device.dma.unmapSgtable(mapping);
    buf.put();
    system.close();
  });

  test("a descriptor whose last reference cannot go stays open", () => {
    const system = open();
    const buf = system.heap("system").alloc(1);
    const attachment = buf.attach(system.addDevice({ name: "gpu", iommu: true }));
    const fd = system.files.install(buf);
    expectRefusal(system, "EBUSY", () => system.files.close(fd));
    expect(system.files.peek(fd)).toBe(buf);
    attachment.detach();
    system.files.close(fd);
  });

  test("a CPU mapping that cannot give its reference back stays mapped and pinned", () => {
    const system = open();
    const buf = system.heap("system").alloc(1);
    const attachment = buf.attach(system.addDevice({ name: "gpu", iommu: true }));
    const cpu = buf.mmap();
    buf.put();
    expectRefusal(system, "EBUSY", () => cpu.unmap());
    expect(cpu.views).toHaveLength(1);
    attachment.detach();
    cpu.unmap();
    expect(system.stats()).toMatchObject({ bufferCount: 0, pinnedFrames: 0 });
  });

  test("a first map that fails decides nothing", () => {
    const system = build.system({ memoryBytes: 32 * MiB, cma: { default: 8 * MiB } });
    const gpu = system.addDevice({ name: "gpu", iommu: true, dmaMaskBits: 26 });
    const addresses = gpu.dma.iovaTryAlloc(32 * MiB); // all that are aligned and below 2^26
    const buf = system.heap("auto").alloc(20 * MiB);
    const attachment = buf.attach(gpu);
    expectRefusal(system, "ENOMEM", () => attachment.map("to-device"));
    expect(buf.storage).toBeNull();
    addresses?.free();
    attachment.unmap(attachment.map("to-device"));
    expect(buf.storage).not.toBeNull();
  });

  test("a CPU access that must wait has not begun", () => {
    const system = open();
    const calls: string[] = [];
    const range = system.frames.alloc(1);
    const table = system.sgTableFromRange(range.pfn, 1);
    const buf = system.export({
      exporterName: "mine",
      sizeBytes: FRAME_BYTES,
      ops: {
        map: ({ device }, direction) => device.dma.mapSgtable(table, direction),
        unmap: ({ device }, mapping) => device.dma.unmapSgtable(mapping),
        beginCpuAccess: () => void calls.push("begin"),
        release: () => {},
      },
    });
    buf.resv.addFence(system.fence("writer"), "write");
    expectError("EAGAIN", () => buf.beginCpuAccess("from-device"));
    expect(calls).toEqual([]);
  });

  test("numbers beyond 32 bits and fractions are refused where tables are read", () => {
    const system = open();
    const range = system.frames.alloc(1);
    const table = system.sgTableFromRange(range.pfn, 1);
    const mapping = system.addDevice({ name: "d" }).dma.mapSgtable(table, "to-device");
    for (const offset of [2 ** 32, 1.5, Number.NaN, -1, FRAME_BYTES]) {
      expectError("EINVAL", () => mapping.at(offset));
    }
    expectError("EINVAL", () => table.nentsForLen(2 ** 32 + 1));
  });

  test("what a removed device did stays in the statistics", () => {
    const system = open();
    const device = system.addDevice({ name: "d" });
    const range = system.frames.alloc(1);
    const table = system.sgTableFromRange(range.pfn, 1);
    const mapping = device.dma.mapSgtable(table, "bidirectional");
    device.dma.write(mapping.dma(0).address, new Uint8Array(100));
    expectError("EFAULT", () => device.dma.read(0, new Uint8Array(1)));
    device.dma.unmapSgtable(mapping);
    device.remove();
    expect(system.stats()).toMatchObject({ dmaBytes: 100, faultCount: 1 });
  });

  test("bytes that migration moves are counted", () => {
    const system = build.system({ memoryBytes: 16 * MiB, cma: { default: 8 * MiB } });
    system.movable(20);
    const range = system.region("default").alloc(2048);
    expect(system.stats().bytesCopied).toBe(20 * FRAME_BYTES);
    range.free();
  });

  test("a movable frame is pinned through its handle only", () => {
    const system = open();
    const pinned = system.movable(1).pin();
    const [pfn = 0] = pinned.pfns;
    expect(system.core.exports.pinRange(pfn, 1)).toBe(-22);
    expect(system.check(true)).toBeNull();
  });

  test("an ended mapping or table stays ended when its number is used again", () => {
    const system = open();
    const device = system.addDevice({ name: "d" });
    const range = system.frames.alloc(1);
    const table = system.sgTableFromRange(range.pfn, 1);
    const mapping = device.dma.mapSgtable(table, "to-device");
    device.dma.unmapSgtable(mapping);
    table.free();
    for (let i = 0; i < 8200; i++) {
      const other = system.sgTableFromRange(range.pfn, 1);
      device.dma.unmapSgtable(device.dma.mapSgtable(other, "to-device"));
      expectError("ESTALE", () => device.dma.unmapSgtable(mapping));
      other.free();
    }
    expectError("ESTALE", () => table.free());
    expectError("ESTALE", () => mapping.dma(0));
  });

  test("a scattered buffer may be larger than 1 GiB", () => {
    const system = build.system({ memoryBytes: 2048 * MiB });
    const buf = system.heap("system").alloc(1280 * MiB);
    expect(buf.storage?.lengthBytes).toBe(1280 * MiB);
    expect(buf.storage?.origNents).toBe(1280);
    buf.put();
    expect(system.check()).toBeNull();
  });

  test("words that are no name of a list are refused, those of every object included", () => {
    const system = open();
    const device = system.addDevice({ name: "gpu", iommu: true });
    const attachment = system.heap("system").alloc(1).attach(device);
    const fence = system.fence("f");
    for (const word of ["toString", "constructor", "EFOO"]) {
      expectRefusal(system, "EINVAL", () => attachment.map(word as "to-device"));
      expectRefusal(system, "EINVAL", () => device.dma.spans(4096, 1, word as "read"));
      expectRefusal(system, "EINVAL", () => fence.signal(word as "EIO"));
      expectRefusal(system, "EINVAL", () => attachment.buf.resv.addFence(fence, word as "read"));
      expectRefusal(system, "EINVAL", () => attachment.buf.resv.fences(word as "read"));
    }
    expect(fence.isSignaled).toBe(false);
  });

  test("adding a fence again with a weaker usage keeps the stronger", () => {
    const system = open();
    const { resv } = system.heap("system").alloc(1);
    const fence = system.fence("f");
    resv.addFence(fence, "write");
    resv.addFence(fence, "read");
    expect(resv.testSignaled("write")).toBe(false);
    fence.signal();
    expect(resv.testSignaled("bookkeep")).toBe(true);
  });
});
