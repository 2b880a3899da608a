import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  type Attachment,
  type ConflictError,
  type Device,
  type DeviceMapping,
  type DmaBuf,
  DmaBufError,
  FRAME_BYTES,
  GiB,
  KiB,
  MiB,
  modifiers,
  POLLIN,
  type System,
} from "../../../src/index.ts";
import { eachCore } from "../../support/cores.ts";
import { deviceLimits } from "../../support/device-limits.ts";
import { expectError, expectRefusal } from "../../support/errors.ts";

/** Fills a buffer with bytes that differ from frame to frame. */
function scribble(buf: DmaBuf, seed: number): Uint8Array {
  const bytes = Uint8Array.from({ length: buf.sizeBytes }, (_, i) => (i / 64 + i * 7 + seed) & 255);
  using cpu = buf.mmap();
  cpu.copyFrom(bytes);
  return bytes;
}

function bytesOf(buf: DmaBuf): Uint8Array {
  const bytes = new Uint8Array(buf.sizeBytes);
  using cpu = buf.mmap();
  cpu.copyTo(bytes);
  return bytes;
}

/** Expects that a mapping keeps every limit of its device. */
function expectWithinLimits({ limits }: Device, mapping: DeviceMapping, sizeBytes: number): void {
  const segments = [...mapping.segments()];
  const { iommu, segmentBoundaryBytes: boundary, minAlignMask } = limits;
  const most = limits.contiguousOnly ? 1 : limits.maxSegments;
  expect(segments.length).toBeLessThanOrEqual(most);
  expect(segments.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0)).toBe(sizeBytes);
  for (const { address, lengthBytes } of segments) {
    if (iommu || most > 1) expect(lengthBytes).toBeLessThanOrEqual(limits.maxSegmentBytes);
    expect((address % boundary) + lengthBytes).toBeLessThanOrEqual(boundary);
    expect(address + lengthBytes).toBeLessThanOrEqual(2 ** limits.dmaMaskBits);
    if (!iommu) expect(address % (minAlignMask + 1)).toBe(0);
  }
}

describe.each(eachCore)("late storage on the $name core", (build) => {
  const open = () => build.system({ memoryBytes: 32 * MiB, cma: { default: 8 * MiB } });
  const gpuOf = (system: System) => system.addDevice({ name: "gpu", iommu: true });
  const cameraOf = (system: System) => system.addDevice({ name: "camera", contiguousOnly: true });

  test("storage moves for a later attach while nobody uses it, bytes intact, and counted", () => {
    const system = open();
    const buf = system.heap("auto").alloc(300 * KiB);
    const toGpu = buf.attach(gpuOf(system));
    toGpu.unmap(toGpu.map("to-device"));
    const bytes = scribble(buf, 1);
    const before = system.stats();
    expect(buf.storage?.origNents).toBeGreaterThan(1);
    const camera = cameraOf(system);
    expect(buf.canAttach(camera)).toBeNull();
    const toCamera = buf.attach(camera);
    expect(system.stats()).toEqual(before); // the next use moves it
    const mapping = toCamera.map("from-device");
    expect([buf.storage?.origNents, mapping.nents]).toEqual([1, 1]);
    expect(system.stats().bytesCopied - before.bytesCopied).toBe(300 * KiB);
    expect(system.stats().freeFrames).toBeGreaterThanOrEqual(before.freeFrames - 1);
    const seen = toGpu.map("to-device");
    expect(Buffer.compare(bytesOf(buf), bytes)).toBe(0);
    toGpu.unmap(seen);
    toCamera.unmap(mapping);
    expect(system.check(true)).toBeNull();
  });

  test.each([
    ["it is mapped", (attachment: Attachment) => void attachment.map("to-device")],
    ["it is pinned", ({ buf }: Attachment) => void buf.mmap()],
    [
      "fences are pending",
      ({ buf }: Attachment, system: System) => buf.resv.addFence(system.fence("job"), "bookkeep"),
    ],
  ])("a later attach gets EBUSY with the conflict while %s, and canAttach says so", (why, use) => {
    const system = open();
    const buf = system.heap("auto").alloc(300 * KiB);
    const attachment = buf.attach(gpuOf(system));
    attachment.unmap(attachment.map("to-device"));
    use(attachment, system);
    const camera = cameraOf(system);
    const answer = buf.canAttach(camera);
    const message = expectRefusal(system, "EBUSY", () => buf.attach(camera));
    expect(answer?.message).toBe(message);
    expect(message).toContain(why);
    expect((answer as ConflictError).conflicts).toMatchObject([
      { field: "maxSegments", devices: ["camera"], allowed: 1 },
    ]);
  });

  test.each<[string, (buf: DmaBuf) => unknown]>([
    ["map", (buf) => buf.attachments[0]?.map("to-device")],
    ["mmap", (buf) => buf.mmap()],
    ["vmap", (buf) => buf.vmap()],
    ["beginCpuAccess", (buf) => buf.beginCpuAccess("from-device")],
  ])("%s chooses the storage; attach, name, seek and poll do not", (_, use) => {
    const system = open();
    const buf = system.heap("auto").alloc(64 * KiB);
    buf.attach(cameraOf(system));
    buf.setName("frame");
    expect([buf.seek(0, "end"), buf.poll(POLLIN), buf.storage]).toEqual([64 * KiB, POLLIN, null]);
    use(buf);
    expect(buf.storage?.origNents).toBe(1); // for the camera
  });

  test("a heap whose storage is chosen at alloc never moves it", () => {
    const system = open();
    const buf = system.heap("system").alloc(300 * KiB);
    const message = expectRefusal(system, "EBUSY", () => buf.attach(cameraOf(system)));
    expect(message).toContain("its heap moves none");
  });

  test("storage stays when there is no room to move to, and who can use it does", () => {
    const system = open();
    const buf = system.heap("auto").alloc(300 * KiB);
    const toGpu = buf.attach(gpuOf(system));
    toGpu.unmap(toGpu.map("to-device"));
    const bytes = scribble(buf, 2);
    const full = system.heap("default").alloc(8 * MiB);
    const toCamera = buf.attach(cameraOf(system));
    expect(expectRefusal(system, "ENOMEM", () => toCamera.map("to-device"))).toContain("one run");
    const mapping = toGpu.map("to-device"); // as before
    expect(expectRefusal(system, "EBUSY", () => toCamera.map("to-device"))).toContain("is mapped");
    toGpu.unmap(mapping);
    expect(Buffer.compare(bytesOf(buf), bytes)).toBe(0);
    full.put();
    toCamera.unmap(toCamera.map("to-device"));
    expect(Buffer.compare(bytesOf(buf), bytes)).toBe(0);
  });

  test("storage does not move for a device that has gone again", () => {
    const system = open();
    const buf = system.heap("auto").alloc(300 * KiB);
    const toGpu = buf.attach(gpuOf(system));
    toGpu.unmap(toGpu.map("to-device"));
    const nents = buf.storage?.origNents;
    buf.attach(cameraOf(system)).detach();
    toGpu.unmap(toGpu.map("to-device"));
    expect([buf.storage?.origNents, system.stats().bytesCopied]).toEqual([nents, 0]);
  });

  test("canAttach asks for a removed device, another system's, and one that no storage suits", () => {
    const system = open();
    const buf = system.heap("auto").alloc(300 * KiB);
    const dsp = system.addDevice({ name: "dsp", iommu: true, maxSegments: 2 });
    for (const device of [dsp, gpuOf(open()), removed(gpuOf(system))]) {
      const answer = buf.canAttach(device);
      expect(answer).toBeInstanceOf(DmaBufError);
      expectRefusal(system, answer?.code ?? "EPERM", () => buf.attach(device));
    }
    expect(buf.canAttach(gpuOf(system))).toBeNull();
  });

  test("entries are cut for a direct device that takes shorter segments", () => {
    const system = open();
    const buf = system.heap("default").alloc(300 * KiB);
    const nic = system.addDevice({ name: "nic", maxSegmentBytes: 64 * KiB, maxSegments: 5 });
    const attachment = buf.attach(nic);
    const mapping = attachment.map("bidirectional");
    expect(mapping.nents).toBe(5);
    nic.dma.write(mapping.dma(4).address, new Uint8Array(44 * KiB).fill(9));
    attachment.unmap(mapping);
    attachment.unmap(attachment.map("to-device")); // the same table again
    attachment.detach();
    expect(
      bytesOf(buf)
        .subarray(256 * KiB)
        .every((byte) => byte === 9),
    ).toBe(true);
    const small = system.addDevice({ name: "small", maxSegments: 4 });
    expect(expectRefusal(system, "EBUSY", () => buf.attach(small))).toContain("5 would be needed");
    buf.put();
    expect(system.check(true)).toBeNull();
  });

  test("alignment and boundary hold for scattered frames and for a run", () => {
    const system = build.system({ memoryBytes: 32 * MiB, cma: { default: 16 * MiB } });
    system.heap("default").alloc(FRAME_BYTES); // the next run is not aligned by itself
    const aligned = { minAlignMask: 0x1fffff, maxSegmentBytes: 4 * GiB - 1 };
    const nic = system.addDevice({ name: "nic", ...aligned, segmentBoundaryBytes: 8 * MiB });
    const codec = system.addDevice({ name: "codec", ...aligned, maxSegments: 1 });
    for (const devices of [[nic], [codec], [nic, codec]]) {
      const buf = system.heap("auto").alloc(3 * MiB);
      const attachments = devices.map((device) => buf.attach(device));
      for (const attachment of attachments)
        expectWithinLimits(attachment.device, attachment.map("to-device"), buf.sizeBytes);
    }
    expect(system.check(true)).toBeNull();
  });

  test("a picture is laid out at the first use, and stays as it is when the storage moves", () => {
    const system = open();
    const formats = { XRGB8888: [modifiers.LINEAR], NV12: [modifiers.LINEAR] };
    const gpu = system.addDevice({
      name: "gpu",
      iommu: true,
      pixels: { formats, strideAlignBytes: 64 },
    });
    const pixels = { width: 100, height: 50 };
    const buf = system.heap("auto").alloc(64 * KiB, { pixels });
    expect(buf.layout).toBeNull();
    const toGpu = buf.attach(gpu);
    toGpu.unmap(toGpu.map("to-device"));
    expect(buf.layout).toMatchObject({ format: "XRGB8888", planes: [{ offset: 0, stride: 448 }] });
    const camera = (name: string, own: object) =>
      system.addDevice({ name, contiguousOnly: true, pixels: { formats, ...own } });
    for (const [name, own] of [
      ["wide", { strideAlignBytes: 256 }],
      ["other", { formats: { NV12: [modifiers.LINEAR] } }],
      ["tiled", { formats: { XRGB8888: [modifiers.I915_X_TILED] } }],
      ["tall", { heightAlign: 64 }],
    ] as const) {
      const message = expectRefusal(system, "EBUSY", () => buf.attach(camera(name, own)));
      expect(message).toContain("so does its picture");
    }
    const { layout } = buf;
    const toCamera = buf.attach(camera("camera", { strideAlignBytes: 32 }));
    toCamera.unmap(toCamera.map("from-device"));
    expect([buf.storage?.origNents, buf.layout]).toEqual([1, layout]);
    const small = system.heap("auto").alloc(FRAME_BYTES, { pixels });
    expect(expectRefusal(system, "EINVAL", () => small.attach(gpu))).toContain("sizeBytes 4096");
    expectRefusal(system, "EINVAL", () => system.heap("system").alloc(64 * KiB, { pixels }));
  });

  test("a picture without a format waits for a device that has one", () => {
    const system = open();
    const buf = system.heap("auto").alloc(64 * KiB, { pixels: { width: 64, height: 64 } });
    const disk = buf.attach(system.addDevice({ name: "disk", iommu: true }));
    expect(expectRefusal(system, "EINVAL", () => disk.map("to-device"))).toContain(
      "names a format",
    );
    const formats = { R8: [modifiers.LINEAR] };
    buf.attach(system.addDevice({ name: "display", iommu: true, pixels: { formats } }));
    disk.unmap(disk.map("to-device"));
    expect(buf.layout?.format).toBe("R8");
  });

  test("negotiated storage satisfies every participant", () => {
    const sizes = fc.constantFrom(1, 5000, 64 * KiB, 100 * KiB, 300 * KiB, 2 * MiB);
    const devices = fc.array(deviceLimits, { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(devices, sizes, fc.nat(3), (limits, size, early) => {
        const system = build.system({
          memoryBytes: 32 * MiB,
          physicalBase: 4 * GiB - 16 * MiB,
          cma: { low: 4 * MiB, high: 8 * MiB },
        });
        const buf = system.heap("auto").alloc(size);
        const attachments: Attachment[] = [];
        for (const [i, one] of limits.entries()) {
          const device = system.addDevice({ ...one, name: `device ${i}` });
          const answer = buf.canAttach(device);
          if (answer === null) attachments.push(buf.attach(device));
          else expect(expectError(answer.code, () => buf.attach(device))).toBe(answer.message);
          if (i === early) mapAll(attachments, size, true); // the rest come late
        }
        mapAll(attachments, size, false);
        expect(system.check(true)).toBeNull();
      }),
      { numRuns: 40 },
    );
  });
});

function removed(device: Device): Device {
  device.remove();
  return device;
}

/** Maps for every attached device; if memory is out where they reach, for none. */
function mapAll(attachments: readonly Attachment[], sizeBytes: number, ends: boolean): void {
  const whole = Math.ceil(sizeBytes / FRAME_BYTES) * FRAME_BYTES;
  for (const attachment of attachments) {
    try {
      const mapping = attachment.map("bidirectional");
      expectWithinLimits(attachment.device, mapping, whole);
      if (ends) attachment.unmap(mapping);
    } catch (error) {
      if (!(error instanceof DmaBufError)) throw error;
      expect(["ENOMEM", "EBUSY"]).toContain(error.code);
    }
  }
}
