import { describe, expect, test } from "vitest";
import { type CmaOptions, FRAME_BYTES, GiB, KiB, MiB, openSync } from "../../src/index.ts";
import { expectError } from "../support/errors.ts";

const BASE = 4 * GiB - 32 * MiB; // half of memory lies below 4 GiB
const MEMORY = 64 * MiB;

function opened(cma: Record<string, number | CmaOptions>) {
  const system = openSync({ memoryBytes: MEMORY, physicalBase: BASE, cma });
  const at = (name: string): number => BASE + system.region(name).basePfn * FRAME_BYTES;
  return { system, at };
}

describe("declaring a CMA region", () => {
  test("places it as high as it can, one below the other", () => {
    const { system, at } = opened({ a: 4 * MiB, b: { sizeBytes: 8 * MiB } });
    expect(at("a")).toBe(BASE + MEMORY - 4 * MiB);
    expect(at("b")).toBe(BASE + MEMORY - 12 * MiB);
    expect(system.check()).toBeNull();
  });

  test("keeps a limit, such as the end of what 32 bits address", () => {
    const { system, at } = opened({ low: { sizeBytes: 4 * MiB, limit: 4 * GiB } });
    expect(at("low")).toBe(4 * GiB - 4 * MiB);
    const camera = system.addDevice({ name: "camera", dmaMaskBits: 32, maxSegments: 1 });
    const attachment = system.heap("low").alloc(MiB).attach(camera);
    expect(attachment.map("from-device").dma(0).address).toBeLessThan(4 * GiB);
  });

  test("rounds sizes up and limits down to the alignment", () => {
    const unaligned = { sizeBytes: 5 * MiB, limit: 4 * GiB + MiB, alignmentBytes: 8 * MiB };
    const { system, at } = opened({ unaligned });
    expect(system.region("unaligned").frameCount).toBe((8 * MiB) / FRAME_BYTES);
    expect(at("unaligned")).toBe(4 * GiB - 8 * MiB);
    expect(opened({ small: 4 * KiB }).system.region("small").frameCount).toBe(1024);
  });

  test("puts a fixed region at its base or nowhere", () => {
    const fixed = { sizeBytes: 4 * MiB, base: BASE + 16 * MiB, isFixed: true };
    expect(opened({ fixed }).at("fixed")).toBe(BASE + 16 * MiB);
    expect(expectError("EBUSY", () => opened({ first: fixed, second: fixed }))).toContain(
      "are not free",
    );
    const misaligned = { ...fixed, base: fixed.base + FRAME_BYTES };
    expect(expectError("EINVAL", () => opened({ misaligned }))).toContain("multiple of 4 MiB");
    expectError("EBUSY", () => opened({ outside: { ...fixed, base: 4 * MiB } }));
  });

  test("searches from a base that is not fixed", () => {
    const above = { sizeBytes: 4 * MiB, base: BASE + 60 * MiB };
    expect(opened({ above }).at("above")).toBe(BASE + 60 * MiB);
    expectError("ENOMEM", () => opened({ above, second: above }));
  });

  test("hands out units of 2^orderPerBit frames", () => {
    const { system } = opened({ coarse: { sizeBytes: 8 * MiB, orderPerBit: 11 } });
    const region = system.region("coarse");
    const range = region.alloc(1);
    expect(region.stats().usedFrames).toBe(2048);
    expectError("ENOMEM", () => region.alloc(1));
    range.free();
    expect(system.check()).toBeNull();
  });

  test.each([
    ["a size of 0", { sizeBytes: 0 }],
    ["half a byte", { sizeBytes: 0.5 }],
    ["an alignment that is no power of two", { sizeBytes: 4 * MiB, alignmentBytes: 12 * KiB }],
    ["a negative alignment", { sizeBytes: 4 * MiB, alignmentBytes: -1 }],
    ["units that do not divide it", { sizeBytes: 4 * MiB, orderPerBit: 11 }],
    ["an orderPerBit of 32", { sizeBytes: 4 * MiB, orderPerBit: 32 }],
    ["more than memory", { sizeBytes: 8 * GiB }],
    ["a limit below its size", { sizeBytes: 8 * MiB, limit: 4 * MiB }],
    ["a base beyond memory", { sizeBytes: 4 * MiB, base: BASE + MEMORY }],
  ])("refuses %s with EINVAL", (_, options) => {
    expectError("EINVAL", () => opened({ wrong: options }));
  });

  test("refuses what does not fit beside the map with ENOMEM", () => {
    expectError("ENOMEM", () => opened({ all: MEMORY }));
  });
});
