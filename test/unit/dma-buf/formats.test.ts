import { describe, expect, test } from "vitest";
import { layOut, lcm } from "../../../src/dma-buf/formats.ts";
import {
  fourccOf,
  hasLayout,
  modifierName,
  modifiers,
  type PixelFormat,
  pixelFormats,
} from "../../../src/index.ts";

const noAlignment = { strideAlignBytes: 1, offsetAlignBytes: 1, heightAlign: 1 };

describe("pixel formats and modifiers", () => {
  test.each([
    ["XRGB8888", 0x34325258],
    ["NV12", 0x3231564e],
    ["C8", 0x20203843],
    ["YUV420", 0x32315559],
    ["ABGR16161616F", 0x48344241],
  ] as const)("the pixel format %s has drm_fourcc.h's code", (format, code) => {
    expect(fourccOf(format)).toBe(code);
  });

  test("every pixel format has a code of its own, and one to three planes", () => {
    const formats = Object.keys(pixelFormats) as PixelFormat[];
    expect(new Set(formats.map(fourccOf)).size).toBe(formats.length);
    for (const format of formats) {
      expect(pixelFormats[format].fourcc).toHaveLength(4);
      expect([1, 2, 3]).toContain(pixelFormats[format].planeBytes.length);
    }
  });

  test("LINEAR is 0, INVALID has no layout, and the others are their vendors' numbers", () => {
    expect(modifiers.LINEAR).toBe(0n);
    expect(modifiers.INVALID).toBe(0x00ffffffffffffffn);
    expect(modifiers.I915_Y_TILED).toBe(0x0100000000000002n);
    expect(modifiers.SAMSUNG_64_32_TILE).toBe(0x0400000000000001n);
    expect([hasLayout(0n), hasLayout(modifiers.INVALID), hasLayout(77n)]).toEqual([
      true,
      false,
      false,
    ]);
    expect([0n, modifiers.INVALID, modifiers.VIVANTE_TILED, 77n].map(modifierName)).toEqual([
      "LINEAR",
      "INVALID",
      "VIVANTE_TILED",
      "0x4d",
    ]);
  });

  test.each([
    ["XRGB8888", "LINEAR", 100, 10, [[0, 400, 4000]]],
    ["RGB888", "LINEAR", 3, 2, [[0, 9, 18]]],
    ["YUYV", "LINEAR", 5, 2, [[0, 12, 24]]],
    [
      "NV12",
      "LINEAR",
      5,
      3,
      [
        [0, 5, 15],
        [15, 6, 12],
      ],
    ],
    [
      "YUV420",
      "LINEAR",
      6,
      4,
      [
        [0, 6, 24],
        [24, 3, 6],
        [30, 3, 6],
      ],
    ],
    [
      "YUV410",
      "LINEAR",
      5,
      5,
      [
        [0, 5, 25],
        [25, 2, 4],
        [29, 2, 4],
      ],
    ],
    [
      "P010",
      "LINEAR",
      4,
      2,
      [
        [0, 8, 16],
        [16, 8, 8],
      ],
    ],
    ["XRGB8888", "I915_X_TILED", 100, 10, [[0, 512, 8192]]],
    ["XRGB8888", "I915_Y_TILED", 100, 10, [[0, 512, 16384]]],
    [
      "NV12",
      "SAMSUNG_64_32_TILE",
      65,
      33,
      [
        [0, 128, 8192],
        [8192, 128, 4096],
      ],
    ],
    ["RGB565", "VIVANTE_TILED", 5, 5, [[0, 16, 128]]],
  ] as const)("%s %s of %i x %i pixels is laid out in planes", (format, modifier, w, h, planes) => {
    const layout = layOut(format, modifiers[modifier], w, h, noAlignment);
    const seen = layout.planes.map(({ offset, stride, sizeBytes }) => [offset, stride, sizeBytes]);
    expect(seen).toEqual(planes);
    const [offset, , size] = planes[planes.length - 1] as unknown as [number, number, number];
    expect(layout.sizeBytes).toBe(offset + size);
  });

  test("strides, offsets and heights are multiples of what is asked", () => {
    const alignment = { strideAlignBytes: 48, offsetAlignBytes: 4096, heightAlign: 16 };
    const { planes } = layOut("NV12", modifiers.SAMSUNG_64_32_TILE, 100, 20, alignment);
    expect(planes).toEqual([
      { offset: 0, stride: 192, sizeBytes: 192 * 32 },
      { offset: 8192, stride: 192, sizeBytes: 192 * 32 },
    ]);
    expect([lcm(64, 48), lcm(1, 7), lcm(5, 5)]).toEqual([192, 7, 5]);
  });
});
