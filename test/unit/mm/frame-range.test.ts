import { describe, expect, test } from "vitest";
import { FRAME_BYTES, type FrameRange, iommuProt, MiB, type System } from "../../../src/index.ts";
import { eachCore } from "../../support/cores.ts";
import { expectRefusal } from "../../support/errors.ts";

const RW = iommuProt.read + iommuProt.write;
const BYTES = 2 * FRAME_BYTES;

describe.each(eachCore)("frames and who had them before on the $name core", (build) => {
  const open = () => build.system({ memoryBytes: 16 * MiB, cma: { default: 4 * MiB } });

  /** Leaves bytes in every frame that a range can have. */
  function leaveBytes(system: System): void {
    const ranges: FrameRange[] = [];
    for (const place of [system.frames, system.region("default")])
      for (const count of [1024, 1]) {
        try {
          for (;;) ranges.push(place.alloc(count));
        } catch {}
      }
    for (const range of ranges) {
      const pinned = range.pin();
      pinned.bytes.fill(0xee);
      pinned.unpin();
      range.free();
    }
  }

  const places: [string, (system: System) => FrameRange][] = [
    ["frames.alloc()", (system) => system.frames.alloc(2)],
    ["frames.allocAt()", (system) => system.frames.allocAt(2048, 2)],
    ["region.alloc()", (system) => system.region("default").alloc(2)],
  ];

  /** A range whose frames had an owner, and a device that reaches it at MiB. */
  function mappedByNumber(alloc: (system: System) => FrameRange) {
    const system = open();
    leaveBytes(system);
    const range = alloc(system);
    const device = system.addDevice({ name: "nic", iommu: true });
    const domain = system.iommu.domain();
    domain.attachDevice(device);
    domain.map(MiB, range.pfn * FRAME_BYTES, BYTES, RW);
    return { range, device };
  }

  test.each(places)("%s: a domain shows a device no old bytes", (_, alloc) => {
    const { device } = mappedByNumber(alloc);
    const seen = new Uint8Array(BYTES).fill(1);
    device.dma.read(MiB, seen);
    expect(seen.every((byte) => byte === 0)).toBe(true);
  });

  test.each(places)("%s: a first pin keeps what a device wrote before it", (_, alloc) => {
    const { range, device } = mappedByNumber(alloc);
    device.dma.write(MiB, new Uint8Array(BYTES).fill(6));
    expect(range.pin().bytes.every((byte) => byte === 6)).toBe(true);
  });

  test("the number of a range that was freed clears nothing: others have the frames", () => {
    const system = open();
    leaveBytes(system);
    const range = system.region("default").alloc(1);
    range.free();
    const { handle, basePfn } = system.region("default");
    expect(system.core.exports.cmaAlloc(handle, 1, 0)).toBe(basePfn);
    const at = basePfn * FRAME_BYTES;
    system.core.u8[at] = 5;
    expect([range.pfn, system.core.u8[at]]).toEqual([basePfn, 5]);
  });

  test.each(["toString", "constructor", "__proto__", "slab"])("%s is no type of frames", (type) => {
    const system = open();
    const call = () => system.frames.alloc(1, { type: type as "unmovable" });
    expectRefusal(system, "EINVAL", call);
  });
});
