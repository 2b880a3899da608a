import { describe, expect, test } from "vitest";
import { type DmaBuf, FRAME_BYTES, type HeapInfo, KiB, MiB } from "../../../src/index.ts";
import { eachCore } from "../../support/cores.ts";
import { expectError, expectRefusal } from "../../support/errors.ts";

describe.each(eachCore)("heaps on the $name core", (build) => {
  const open = () =>
    build.system({
      memoryBytes: 32 * MiB,
      cma: { reserved: 8 * MiB },
      carveout: { vram: 4 * MiB },
    });
  const noAlloc = (): DmaBuf => {
    throw new Error("not called");
  };
  const sizes = (buf: DmaBuf): number[] =>
    [...(buf.storage?.entries() ?? [])].map(({ lengthBytes }) => lengthBytes / KiB);

  test("the registry lists system, auto and one heap for each CMA region and carveout", () => {
    const system = open();
    expect(system.heaps.map(({ name }) => name)).toEqual(["system", "auto", "reserved", "vram"]);
    expect(expectError("ENOENT", () => system.heap("uncached"))).toContain("reserved, vram");
  });

  test.each([
    ["an empty name", { name: "", alloc: noAlloc }],
    ["no name", { alloc: noAlloc } as unknown as HeapInfo],
    ["no alloc op", { name: "mine" } as unknown as HeapInfo],
    ["a name that is taken", { name: "system", alloc: noAlloc }],
    ["an area's name", { name: "vram", alloc: noAlloc }],
  ])("the registry refuses %s with EINVAL", (_, info) => {
    const system = open();
    expectRefusal(system, "EINVAL", () => system.addHeap(info));
    expect(system.heaps).toHaveLength(4);
  });

  test("the registry holds 128 heaps", () => {
    const system = open();
    for (let i = 4; i < 128; i++) system.addHeap({ name: `heap ${i}`, alloc: noAlloc });
    expectRefusal(system, "EBUSY", () => system.addHeap({ name: "one more", alloc: noAlloc }));
  });

  test("a custom heap gets checked arguments, and its buffers are like any other", () => {
    const system = open();
    const asked: number[] = [];
    const heap = system.addHeap({
      name: "mine",
      alloc: ({ heapName, sizeBytes, name = "unnamed" }) => {
        asked.push(sizeBytes);
        const range = system.frames.alloc(sizeBytes / FRAME_BYTES);
        const table = system.sgTableFromRange(range.pfn, range.frameCount);
        return system.export({
          sizeBytes,
          exporterName: heapName,
          name,
          ops: {
            map: ({ device }, direction) => device.dma.mapSgtable(table, direction),
            unmap: ({ device }, mapping) => device.dma.unmapSgtable(mapping),
            release: () => {
              table.free();
              range.free();
            },
          },
        });
      },
    });
    expect(system.heap("mine")).toBe(heap);
    const buf = heap.alloc(5000, { name: "frame 7" });
    expect([asked, buf.sizeBytes, buf.name, buf.exporterName]).toEqual([
      [8192],
      8192,
      "frame 7",
      "mine",
    ]);
    buf.put();
    expect(system.stats().bufferCount).toBe(0);
    expect(system.check(true)).toBeNull();
  });

  test("a custom heap that gives no buffer, or one that is charged already, is refused", () => {
    const system = open();
    const none = system.addHeap({ name: "none", alloc: () => null as unknown as DmaBuf });
    expectRefusal(system, "ENOMEM", () => none.alloc(1));
    const owner = system.owner("tab");
    const buf = system.heap("system").alloc(1, { owner });
    const same = system.addHeap({ name: "same", alloc: () => buf });
    expectRefusal(system, "EINVAL", () => same.alloc(1, { owner }));
    expect([owner.usedBytes, owner.bufferCount]).toEqual([FRAME_BYTES, 1]);
  });

  describe("the arguments of alloc", () => {
    test.each([0, -1, 1.5, Number.NaN, 0n, -5000n, 2n ** 64n - 1n, 2n ** 64n - 4095n])(
      "a size of %s is EINVAL",
      (size) => {
        const system = open();
        for (const { name } of system.heaps)
          expectRefusal(system, "EINVAL", () => system.heap(name).alloc(size));
      },
    );

    test.each(["4096", [4096], true, null, undefined, { valueOf: () => 4096 }])(
      "a size of %o is no number: EINVAL",
      (size) => {
        const system = open();
        for (const name of ["system", "auto", "reserved", "vram"])
          expectRefusal(system, "EINVAL", () => system.heap(name).alloc(size as number));
      },
    );

    test.each([100 * MiB, 2 ** 32, 2 ** 40, 2n ** 63n, 2n ** 64n - 4096n])(
      "a size of %s is ENOMEM",
      (size) => {
        const system = open();
        for (const name of ["system", "reserved", "vram"])
          expectRefusal(system, "ENOMEM", () => system.heap(name).alloc(size));
      },
    );

    test.each([1, 4095, 4096, 4097n])("a size of %s is rounded up to whole frames", (size) => {
      const system = open();
      const buf = system.heap("system").alloc(size);
      expect(buf.sizeBytes).toBe(size > 4096 ? 8192 : 4096);
    });

    test("fdFlags are an access mode and O_CLOEXEC, heapFlags are 0", () => {
      const system = open();
      for (const fdFlags of [0, 1, 2, 3, 0o2000000, 0o2000002])
        system.heap("system").alloc(1, { fdFlags }).put();
      for (const fdFlags of [4, 16, 66, 2050, 65538, 0o2000000 * 2, 2 ** 31, -1, 1.5])
        expectRefusal(system, "EINVAL", () => system.heap("system").alloc(1, { fdFlags }));
      for (const heapFlags of [1, 2 ** 31, 2 ** 32])
        expectRefusal(system, "EINVAL", () => system.heap("system").alloc(1, { heapFlags }));
    });
  });

  describe("the system heap", () => {
    test("takes blocks of orders 8, 4 and 0, the largest that fits first", () => {
      const system = open();
      const buf = system.heap("system").alloc(MiB + 68 * KiB);
      expect(sizes(buf)).toEqual([1024, 64, 4]);
      const less = system.heap("system").alloc(MiB - 4 * KiB);
      expect(sizes(less)).toEqual([...Array(15).fill(64), ...Array(15).fill(4)]);
    });

    test("never goes up again once an order failed", () => {
      const system = build.system({ memoryBytes: 8 * MiB });
      const runs = [];
      try {
        for (;;) runs.push(system.frames.alloc(16, { alignOrder: 4 })); // all blocks of order 4
      } catch {
        // memory is out
      }
      for (let i = 0; i < runs.length; i += 2) runs[i]?.free(); // no block of order 8 forms
      const buf = system.heap("system").alloc(MiB + 128 * KiB);
      const orders = sizes(buf);
      expect(Math.max(...orders)).toBe(64);
      expect(orders).toEqual([...orders].sort((a, b) => b - a));
      expect(system.check(true)).toBeNull();
    });
  });

  describe("a carveout", () => {
    test("gives one run, first fit, to its heap alone", () => {
      const system = open();
      const vram = system.heap("vram");
      const [a, b, c] = [vram.alloc(12 * KiB), vram.alloc(4 * KiB), vram.alloc(8 * KiB)];
      const base = system.region("vram").basePfn;
      const firstOf = (buf: DmaBuf) => (buf.storage?.cpu(0).pfn ?? 0) - base;
      expect([a, b, c].map(firstOf)).toEqual([0, 3, 4]);
      a.put();
      expect(firstOf(vram.alloc(8 * KiB))).toBe(0);
      expect(expectRefusal(system, "ENOMEM", () => vram.alloc(4 * MiB))).toContain("largest");
      const camera = system.addDevice({ name: "camera", maxSegments: 1 });
      const big = system
        .heap("auto")
        .alloc(9 * MiB)
        .attach(camera);
      expectError("ENOMEM", () => big.map("to-device")); // auto does not touch carve-outs
    });

    test("is never lent to movable memory, as a CMA region is", () => {
      const system = build.system({ memoryBytes: 16 * MiB, carveout: { vram: 8 * MiB } });
      const held = [];
      try {
        for (;;) held.push(system.movable(64));
      } catch {
        // memory outside the area is out
      }
      const { lentFrames, usedFrames } = system.region("vram").stats();
      expect([lentFrames, usedFrames, system.region("vram").isReusable]).toEqual([0, 0, false]);
      expect(system.heap("vram").alloc(8 * MiB).storage?.origNents).toBe(1);
      for (const movable of held) movable.free();
      expect(system.check(true)).toBeNull();
    });

    test.each([
      ["no bytes", { carveout: { vram: 0 } }, "EINVAL"],
      ["a heap's name", { carveout: { system: 4 * MiB } }, "EINVAL"],
      ["a region's name", { cma: { vram: 4 * MiB }, carveout: { vram: 4 * MiB } }, "EINVAL"],
      ["more than memory", { carveout: { vram: 64 * MiB } }, "EINVAL"],
      ["all of memory", { carveout: { vram: 32 * MiB } }, "ENOMEM"],
    ] as const)("refuses %s", (_, options, code) => {
      expectError(code, () => build.system({ memoryBytes: 32 * MiB, ...options }));
    });
  });
});
