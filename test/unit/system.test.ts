import { describe, expect, test } from "vitest";
import {
  defaultLimits,
  describeLimits,
  FRAME_BYTES,
  MiB,
  negotiate,
  type OpenOptions,
  open,
  openSync,
} from "../../src/index.ts";
import { pageMap } from "../../src/inspect/index.ts";
import { eachCore } from "../support/cores.ts";
import { expectError, expectRefusal, expectRejection } from "../support/errors.ts";

describe("open()", () => {
  test.each([
    ["memory below 1 MiB", { memoryBytes: 4096 }, "EINVAL"],
    ["memory that is no multiple of 64 KiB", { memoryBytes: MiB + 4096 }, "EINVAL"],
    ["memory above 4 GiB", { memoryBytes: 8192 * MiB }, "EINVAL"],
    [
      "a minimum above what is preferred",
      { memoryBytes: { min: 4 * MiB, preferred: 2 * MiB } },
      "EINVAL",
    ],
    ["no threads", { threads: 0 }, "EINVAL"],
    ["memory that is a text", { memoryBytes: "1" }, "EINVAL"],
    ["memory that is null", { memoryBytes: null }, "EINVAL"],
    ["regions that are null", { cma: null }, "EINVAL"],
    ["regions that are a number", { cma: 5 }, "EINVAL"],
    ["carve-outs that are a number", { carveout: 5 }, "EINVAL"],
    ["a region that is null", { cma: { a: null } }, "EINVAL"],
    ["a region that is a text", { cma: { a: "4" } }, "EINVAL"],
    ["a physical base off a pageblock", { physicalBase: 4096 }, "EINVAL"],
    ["a physical base beyond 44 bits", { physicalBase: 2 ** 44 }, "EINVAL"],
    ["a region without bytes", { cma: { default: 0 } }, "EINVAL"],
    ["a region with a heap's name", { cma: { auto: 4 * MiB } }, "EINVAL"],
    ["a region as large as memory", { memoryBytes: 8 * MiB, cma: { default: 8 * MiB } }, "ENOMEM"],
    [
      "regions that leave no room for the map",
      { memoryBytes: 8 * MiB, cma: { a: 4 * MiB, b: 4 * MiB } },
      "ENOMEM",
    ],
    ["something that is no core", { wasm: new TextEncoder().encode("<!doctype html>") }, "EINVAL"],
  ] as const)("refuses %s", async (_, options, code) => {
    const message = expectError(code, () => openSync(options as unknown as OpenOptions));
    expect(message).not.toContain("undefined");
    await expectRejection(code, open(options as unknown as OpenOptions));
  });

  test("opens what it can of preferred memory", async () => {
    const system = await open({ memoryBytes: { min: 4 * MiB, preferred: 16 * MiB } });
    expect(system.stats().frameCount).toBe((16 * MiB) / FRAME_BYTES);
    system.close();
  });
});

describe.each(eachCore)("system on the $name core", (build) => {
  test("heaps and regions are found by name, and ENOENT lists them", () => {
    const system = build.system({
      memoryBytes: 16 * MiB,
      cma: { camera: 4 * MiB, codec: 4 * MiB },
    });
    expect(system.regions.map(({ name, frameCount }) => [name, frameCount])).toEqual([
      ["camera", 1024],
      ["codec", 1024],
    ]);
    expect(system.heap("camera").alloc(1).storage?.cpu(0).pfn).toBe(
      system.region("camera").basePfn,
    );
    expect(expectError("ENOENT", () => system.heap("vram"))).toContain(
      "system, auto, camera, codec",
    );
    expect(expectError("ENOENT", () => system.region("vram"))).toContain("camera, codec");
  });

  test("a heap without room says ENOMEM and holds nothing", () => {
    const system = build.system({ memoryBytes: 16 * MiB, cma: { default: 4 * MiB } });
    expectRefusal(system, "ENOMEM", () => system.heap("system").alloc(15 * MiB));
    expectRefusal(system, "ENOMEM", () => system.heap("default").alloc(5 * MiB));
    const held = system.heap("default").alloc(3 * MiB);
    expect(expectRefusal(system, "ENOMEM", () => system.heap("default").alloc(2 * MiB))).toContain(
      "largest free run is 256 frames",
    );
    held.put();
  });

  test.each([
    ["an empty name", { name: "" }],
    ["too few address bits", { name: "d", dmaMaskBits: 23 }],
    ["a segment below a frame", { name: "d", maxSegmentBytes: 4095 }],
    ["no segments", { name: "d", maxSegments: 0 }],
    ["a fraction", { name: "d", maxSegments: 1.5 }],
    ["a boundary inside a page", { name: "d", segmentBoundaryBytes: 2048 }],
    ["a boundary that is no power of two", { name: "d", segmentBoundaryBytes: 12_288 }],
    ["a boundary above 4 GiB", { name: "d", segmentBoundaryBytes: 2 ** 33 }],
  ])("a device with %s is EINVAL", (_, options) => {
    const system = build.system({ memoryBytes: 8 * MiB });
    expectRefusal(system, "EINVAL", () => system.addDevice(options));
  });

  test("devices read, write and copy at their own addresses, and faults move nothing", () => {
    const system = build.system({ memoryBytes: 16 * MiB });
    const gpu = system.addDevice({ name: "gpu", iommu: true, maxSegmentBytes: MiB });
    const buf = system.heap("system").alloc(5 * FRAME_BYTES);
    const { address } = buf.attach(gpu).map("bidirectional").dma(0);
    const bytes = Uint8Array.from({ length: 9000 }, (_, i) => (i * 7) & 255);
    gpu.dma.write(address + 100, bytes);
    gpu.dma.copy(address + 10_000, address + 100, 9000);
    const back = new Uint8Array(9000);
    gpu.dma.read(address + 10_000, back);
    expect(back).toEqual(bytes);
    expect(gpu.dma.bytes).toBe(27_000);
    expect(system.stats().bytesCopied).toBe(0);
    expectError("EFAULT", () =>
      gpu.dma.write(address + 5 * FRAME_BYTES - 10, new Uint8Array(20).fill(9)),
    );
    expect(gpu.dma.spans(address + 5 * FRAME_BYTES - 10, 10)[0]?.includes(9)).toBe(false);
    const fault = { address: address + 5 * FRAME_BYTES, access: "write", reason: "translation" };
    expect(gpu.dma.lastFault).toEqual(fault);
    expect(system.stats().faultCount).toBe(1);
    for (const wrong of [-1, 1.5, 2 ** 53]) expectError("EINVAL", () => gpu.dma.read(wrong, back));
    expectError("EINVAL", () => gpu.dma.spans(address, 1, "look" as "read"));
  });

  test("a device's segment boundary is in no segment, and counts when storage is chosen", () => {
    const system = build.system({ memoryBytes: 16 * MiB });
    const boundary = 4 * FRAME_BYTES;
    const options = { iommu: true, maxSegmentBytes: MiB, segmentBoundaryBytes: boundary };
    const dsp = system.addDevice({ name: "dsp", ...options, maxSegments: 7 });
    const buf = system.heap("system").alloc(25 * FRAME_BYTES);
    const mapping = buf.attach(dsp).map("bidirectional");
    expect(mapping.nents).toBe(7);
    for (const { address, lengthBytes } of mapping.segments()) {
      expect((address % boundary) + lengthBytes).toBeLessThanOrEqual(boundary);
      dsp.dma.write(address, new Uint8Array(lengthBytes).fill(3));
    }
    expect(dsp.dma.bytes).toBe(25 * FRAME_BYTES);
    const conflict = { devices: ["dsp"], field: "maxSegments", allowed: 7, needed: 8 };
    expect(negotiate([dsp], { sizeBytes: 29 * FRAME_BYTES }).conflicts).toEqual([conflict]);
    expect(describeLimits(dsp.limits)).toContain("a boundary of 16 KiB");
    expect(describeLimits(defaultLimits)).not.toContain("boundary");
  });

  test("a device says what its mappings are like, and its address bits change while it has none", () => {
    const system = build.system({ memoryBytes: 16 * MiB });
    const gpu = system.addDevice({ name: "gpu", iommu: true });
    const direct = system.addDevice({ name: "direct" });
    expect(gpu.mappingLimits).toEqual({
      maxBytes: Infinity,
      optimalBytes: 32 * FRAME_BYTES,
      mergeBytes: FRAME_BYTES,
    });
    expect(direct.mappingLimits).toMatchObject({ optimalBytes: Infinity, mergeBytes: 0 });
    gpu.setDmaMask(15);
    expect(gpu.limits.dmaMaskBits).toBe(15);
    const buf = system.heap("system").alloc(3 * FRAME_BYTES);
    const attachment = buf.attach(gpu);
    const mapping = attachment.map("to-device");
    expect(mapping.dma(0).address).toBeLessThan(2 ** 15);
    expectRefusal(system, "EBUSY", () => gpu.setDmaMask(64));
    attachment.unmap(mapping);
    gpu.setDmaMask(0);
    expectError("ENOMEM", () => attachment.map("to-device"));
    direct.setDmaMask(24);
    expectRefusal(system, "EIO", () => direct.setDmaMask(23));
    for (const bad of [-1, 65, 1.5]) expectRefusal(system, "EINVAL", () => gpu.setDmaMask(bad));
    direct.remove();
    expectError("ESTALE", () => direct.setDmaMask(32));
  });

  test.each([undefined, null, 5, {}])("a fence named %s is EINVAL", (name) => {
    const system = build.system({ memoryBytes: 2 * MiB });
    expectRefusal(system, "EINVAL", () => system.fence(name as never));
    expectRefusal(system, "EINVAL", () => system.fence(name as never, { seqno: 3 }));
  });

  test("ranges are pinned by tokens, seen as zeros, and freed when unpinned", () => {
    const system = build.system({ memoryBytes: 8 * MiB, cma: { default: 4 * MiB } });
    for (const range of [
      system.frames.alloc(3),
      system.region("default").alloc(3, { alignOrder: 2 }),
    ]) {
      const pinned = range.pin();
      const second = range.pin();
      expect(pinned.bytes.every((byte) => byte === 0)).toBe(true);
      pinned.bytes.fill(5);
      expectError("EBUSY", () => range.free());
      pinned.unpin();
      expectError("ESTALE", () => pinned.unpin());
      expectError("ESTALE", () => pinned.bytes);
      expect(second.bytes[0]).toBe(5); // the second pin still holds
      second.unpin();
      range.free();
      expectError("ESTALE", () => range.free());
      expectError("ESTALE", () => range.pin());
    }
    expect(system.check(true)).toBeNull();
  });

  test.each([0, -1, 1.5, 2000])("frames.alloc(%s) is EINVAL", (count) => {
    const system = build.system({ memoryBytes: 8 * MiB, cma: { default: 4 * MiB } });
    expectRefusal(system, "EINVAL", () => system.frames.alloc(count));
    expectRefusal(system, "EINVAL", () => system.region("default").alloc(count));
  });

  test("an sg table reads entry by entry, copies, and frees once", () => {
    const system = build.system({ memoryBytes: 8 * MiB });
    const range = system.frames.alloc(4);
    const table = system.sgTableFromRange(range.pfn, 4, 2 * FRAME_BYTES);
    expect([table.origNents, table.lengthBytes, table.nentsForLen(8193)]).toEqual([2, 16_384, 2]);
    expect(table.cpu(1)).toEqual({ pfn: range.pfn + 2, offset: 0, lengthBytes: 8192 });
    for (const i of [-1, 2, 0.5]) expectError("EINVAL", () => table.cpu(i));
    expectError("EINVAL", () => table.nentsForLen(16_385));
    const buffer = system.frames.alloc(1).pin();
    buffer.bytes.fill(3);
    expect(table.pcopyFromBuffer(buffer, 8000)).toBe(4096);
    buffer.bytes.fill(0);
    expect(table.pcopyToBuffer(buffer, 16_384 - 4192)).toBe(4096);
    expect(buffer.bytes.filter((byte) => byte === 3)).toHaveLength(0);
    expect(table.pcopyToBuffer(buffer, 8100)).toBe(4096);
    expect(buffer.bytes.filter((byte) => byte === 3)).toHaveLength(3996);
    expect(system.stats().bytesCopied).toBe(3 * 4096);
    table.free();
    expectError("ESTALE", () => table.free());
    expectError("ESTALE", () => table.origNents);
  });

  test("the page map says which frame is whose", () => {
    const system = build.system({ memoryBytes: 8 * MiB, cma: { default: 4 * MiB } });
    const buf = system.heap("default").alloc(3 * FRAME_BYTES, { name: "frame 0" });
    const map = pageMap(system);
    expect(map).toHaveLength(2048);
    expect(map.filter((frame) => frame.buf === buf).map(({ use }) => use)).toEqual([
      "cma",
      "cma",
      "cma",
    ]);
    expect(map[0]?.use).toBe("reserved");
  });

  test("close() is refused while buffers are held, then refuses everything", () => {
    const system = build.system({ memoryBytes: 8 * MiB });
    const buf = system.heap("system").alloc(1, { name: "frame 7" });
    expect(expectRefusal(system, "EBUSY", () => system.close())).toContain("frame 7 (1 reference)");
    system.files.install(buf);
    system.close();
    system.close();
    for (const call of [
      () => system.heap("system"),
      () => system.addDevice({ name: "d" }),
      () => system.timeline("t"),
      () => system.fence("f"),
      () => system.stats(),
      () => system.check(),
    ]) {
      expectError("ENODEV", call);
    }
  });
});
