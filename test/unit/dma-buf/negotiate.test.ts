import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  type DeviceLimits,
  defaultLimits,
  FRAME_BYTES,
  GiB,
  KiB,
  MiB,
  modifiers,
  negotiate,
  type Participant,
  type PixelFormat,
} from "../../../src/index.ts";
import { deviceLimits } from "../../support/device-limits.ts";
import { expectError } from "../../support/errors.ts";

const device = (name: string, limits: Partial<DeviceLimits> = {}): Participant => ({
  name,
  limits: { ...defaultLimits, ...limits },
});
const { LINEAR, INVALID, I915_X_TILED, I915_Y_TILED } = modifiers;
const viewer = (name: string, formats: Partial<Record<PixelFormat, readonly bigint[]>>) =>
  device(name, { iommu: true, pixels: { formats } });

describe("negotiation", () => {
  test.each([
    ["nobody", [], "scattered"],
    ["a device behind an IOMMU", [device("gpu", { iommu: true })], "scattered"],
    [
      "a direct device with room for every frame",
      [device("nic", { maxSegments: 16 })],
      "scattered",
    ],
    ["one with room for less", [device("nic", { maxSegments: 15 })], "contiguous"],
    ["one segment", [device("camera", { maxSegments: 1 })], "contiguous"],
    ["contiguousOnly", [device("camera", { contiguousOnly: true })], "contiguous"],
  ] as const)("chooses storage for %s", (_, devices, kind) => {
    expect(negotiate(devices, { sizeBytes: 64 * KiB }).layout?.kind).toBe(kind);
  });

  test("the mask, alignment, boundary and coherency of a layout are the strictest of all", () => {
    const { layout } = negotiate(
      [
        device("a", { dmaMaskBits: 30, minAlignMask: 0xffff, coherent: false }),
        device("b", { dmaMaskBits: 28, segmentBoundaryBytes: 2 * MiB }),
        device("c", { iommu: true, dmaMaskBits: 24, minAlignMask: 0x3fffff }),
      ],
      { sizeBytes: 5000 },
    );
    expect(layout).toEqual({
      kind: "scattered",
      sizeBytes: 8192,
      addressEnd: 2 ** 28,
      alignBytes: 64 * KiB,
      boundaryBytes: 2 * MiB,
      coherent: false,
      pixels: null,
    });
  });

  test.each([
    ["segment count", { iommu: true, maxSegments: 3 }, "maxSegments", 3, 5],
    ["segment count, direct", { maxSegments: 3 }, "maxSegments", 3, 5],
    ["segment size", { iommu: true, contiguousOnly: true }, "maxSegmentBytes", 64 * KiB, 300 * KiB],
    [
      "boundary",
      { maxSegments: 1, segmentBoundaryBytes: 64 * KiB },
      "segmentBoundaryBytes",
      64 * KiB,
      300 * KiB,
    ],
    ["alignment", { minAlignMask: 0x1ffff }, "maxSegmentBytes", 64 * KiB, 128 * KiB],
  ] as const)(
    "a conflict about %s names device, field, allowed and needed",
    (_, limits, field, allowed, needed) => {
      const others = [device("gpu", { iommu: true }), device("camera", { maxSegments: 1 })];
      const { conflicts } = negotiate([...others, device("display", limits)], {
        sizeBytes: 300 * KiB,
      });
      expect(conflicts).toEqual([{ field, devices: ["display"], allowed, needed }]);
    },
  );

  test.each([
    ["without an IOMMU", {}, 16 * MiB, 16 * MiB + FRAME_BYTES, 25],
    ["with one, whose addresses are aligned and not 0", { iommu: true }, 8 * MiB, 9 * MiB, 25],
    ["with one, a power of two", { iommu: true }, 8 * MiB, 16 * MiB, 25],
    ["with one, longer", { iommu: true }, 8 * MiB, 20 * MiB, 26],
  ])(
    "a mask that is too small for the bytes is a conflict: %s",
    (_, limits, most, more, needed) => {
      const devices = [device("isa", { ...limits, dmaMaskBits: 24 }), device("gpu")];
      expect(negotiate(devices, { sizeBytes: most }).conflicts).toBeNull();
      const conflict = { field: "dmaMaskBits", devices: ["isa"], allowed: 24, needed };
      expect(negotiate(devices, { sizeBytes: more }).conflicts).toEqual([conflict]);
    },
  );

  test("a conflict about coherency arises only when nobody tells the devices", () => {
    const devices = [device("a", { coherent: false }), device("b")];
    expect(negotiate(devices, { sizeBytes: 1 }).layout?.coherent).toBe(false);
    expect(negotiate(devices, { sizeBytes: 1, coherent: true }).conflicts).toEqual([
      { field: "coherent", devices: ["a"], allowed: false, needed: true },
    ]);
  });

  test.each([[{}], [{ sizeBytes: 0 }], [{ sizeBytes: 1.5 }], [{ sizeBytes: 4 * GiB }]])(
    "the request %j is EINVAL",
    (request) => {
      expectError("EINVAL", () => negotiate([], request));
    },
  );

  describe("of pixel formats and modifiers", () => {
    const size = { width: 640, height: 480 };

    test("takes what all devices have, and LINEAR among equals", () => {
      const gpu = viewer("gpu", { XRGB8888: [I915_X_TILED, LINEAR], NV12: [LINEAR] });
      const display = viewer("display", { NV12: [INVALID], XRGB8888: [LINEAR, I915_X_TILED] });
      const bytes = device("disk", { iommu: true });
      const { layout } = negotiate([gpu, display, bytes], { pixels: size });
      expect(layout?.pixels).toEqual({
        ...size,
        format: "XRGB8888",
        modifier: LINEAR,
        planes: [{ offset: 0, stride: 2560, sizeBytes: 2560 * 480 }],
        sizeBytes: 2560 * 480,
      });
      expect(layout?.sizeBytes).toBe(2560 * 480);
    });

    test("ties go to the caller's order of formats, then the smaller, then the lower modifier", () => {
      const lists = { XRGB8888: [I915_Y_TILED, I915_X_TILED], NV12: [LINEAR] };
      const devices = [viewer("gpu", lists)];
      const best = (formats: PixelFormat[] | undefined, pixels = size) => {
        const chosen = negotiate(devices, { pixels: { ...pixels, ...(formats && { formats }) } });
        return [chosen.layout?.pixels?.format, chosen.layout?.pixels?.modifier];
      };
      expect(best(["NV12", "XRGB8888"])).toEqual(["NV12", LINEAR]);
      expect(best(undefined)).toEqual(["XRGB8888", I915_X_TILED]); // the table's order
      expect(best(["XRGB8888"], { width: 16, height: 9 })).toEqual(["XRGB8888", I915_Y_TILED]);
      expect(best(["XRGB8888"], { width: 128, height: 32 })).toEqual(["XRGB8888", I915_X_TILED]);
    });

    test("a picture that does not fit into sizeBytes gives way to one that does", () => {
      const devices = [viewer("gpu", { XRGB8888: [LINEAR], NV12: [LINEAR] })];
      const pixels = { ...size, formats: ["XRGB8888", "NV12"] } as const;
      const fits = negotiate(devices, { sizeBytes: 640 * 480 * 2, pixels });
      expect(fits.layout?.pixels?.format).toBe("NV12");
      expect(negotiate(devices, { sizeBytes: 4096, pixels }).conflicts).toEqual([
        { field: "sizeBytes", devices: ["gpu"], allowed: 4096, needed: 640 * 480 * 1.5 },
      ]);
    });

    test.each([
      ["formats", { NV12: [LINEAR] }, "display: NV12; gpu: XRGB8888"],
      ["modifiers", { XRGB8888: [I915_X_TILED] }, "XRGB8888 display: I915_X_TILED; gpu: LINEAR"],
      ["modifiers", { XRGB8888: [INVALID] }, "XRGB8888 display: INVALID; gpu: LINEAR"],
    ] as const)("a conflict about %s names the participants", (field, formats, allowed) => {
      const devices = [viewer("gpu", { XRGB8888: [LINEAR] }), viewer("display", formats)];
      const { conflicts } = negotiate(devices, { pixels: size });
      expect(conflicts).toMatchObject([{ field, devices: ["display", "gpu"], allowed }]);
    });

    test("INVALID in common is no layout", () => {
      const devices = ["a", "b"].map((name) => viewer(name, { XRGB8888: [INVALID] }));
      expect(negotiate(devices, { pixels: size }).conflicts?.[0]?.field).toBe("modifiers");
    });

    test("stride and height are common multiples", () => {
      const pixels = { formats: { R8: [LINEAR] } };
      const devices = [
        device("a", { iommu: true, pixels: { ...pixels, strideAlignBytes: 48 } }),
        device("b", { iommu: true, pixels: { ...pixels, strideAlignBytes: 64, heightAlign: 16 } }),
      ];
      const { layout } = negotiate(devices, { pixels: { width: 100, height: 100 } });
      expect(layout?.pixels?.planes[0]).toEqual({ offset: 0, stride: 192, sizeBytes: 192 * 112 });
    });

    test("without a viewer the request names the format, and it is LINEAR", () => {
      expectError("EINVAL", () => negotiate([], { pixels: size }));
      const { layout } = negotiate([], { pixels: { ...size, formats: ["R8"] } });
      expect(layout?.pixels?.modifier).toBe(LINEAR);
      for (const bad of [{ width: 0 }, { height: 70000 }, { formats: ["XR24" as PixelFormat] }])
        expectError("EINVAL", () => negotiate([], { pixels: { ...size, ...bad } }));
    });
  });

  test("the negotiation's answer does not depend on the order of the devices", () => {
    const devices = fc.array(deviceLimits, { minLength: 1, maxLength: 6 });
    const request = fc.record(
      {
        sizeBytes: fc.integer({ min: 1, max: 8 * MiB }),
        coherent: fc.boolean(),
        pixels: fc.record({
          width: fc.integer({ min: 1, max: 300 }),
          height: fc.integer({ min: 1, max: 300 }),
        }),
      },
      { requiredKeys: ["sizeBytes"] },
    );
    fc.assert(
      fc.property(devices, request, fc.infiniteStream(fc.nat()), (limits, asked, random) => {
        const pixels = asked.pixels && { ...asked.pixels, formats: ["XRGB8888", "NV12"] as const };
        const all = { ...asked, ...(pixels && { pixels }) };
        const participants = limits.map((one, i) => device(`device ${i % 4}`, one));
        const keyed = participants.map((one) => ({ one, key: random.next().value }));
        const shuffled = keyed.sort((a, b) => a.key - b.key).map(({ one }) => one);
        const answer = negotiate(participants, all);
        expect(negotiate(shuffled, all)).toEqual(answer);
        expect((answer.layout === null) !== (answer.conflicts === null)).toBe(true);
        expect(answer.layout?.sizeBytes ?? FRAME_BYTES).toBeGreaterThan(0);
      }),
      { numRuns: 500 },
    );
  });
});
