import { describe, expect, test } from "vitest";
import { FRAME_BYTES, MiB } from "../../src/index.ts";
import { eachCore } from "../support/cores.ts";
import { expectError, expectRefusal } from "../support/errors.ts";

describe.each(eachCore)("movable memory on the $name core", (build) => {
  const open = () => build.system({ memoryBytes: 16 * MiB, cma: { default: 8 * MiB } });

  test("reads and writes wherever its bytes lie, and counts what it copies", () => {
    const system = open();
    const movable = system.movable(5);
    const bytes = Uint8Array.from({ length: 3 * FRAME_BYTES }, (_, i) => (i * 3) & 255);
    movable.write(bytes, 1000);
    const back = new Uint8Array(bytes.length);
    movable.read(back, 1000);
    expect(back).toEqual(bytes);
    expect(system.stats()).toMatchObject({ bytesCopied: 2 * bytes.length, pinnedFrames: 0 });
    movable.read(back.subarray(0, 100));
    expect(back.subarray(0, 100).every((byte) => byte === 0)).toBe(true);
  });

  test("keeps its bytes when a contiguous buffer takes its place", () => {
    const system = open();
    const movable = system.movable(300);
    movable.write(new Uint8Array(300 * FRAME_BYTES).fill(7));
    const buf = system.heap("default").alloc(8 * MiB);
    expect(buf.storage?.origNents).toBe(1);
    const back = new Uint8Array(300 * FRAME_BYTES);
    movable.read(back);
    expect(back.every((byte) => byte === 7)).toBe(true);
    const cpu = buf.mmap();
    expect(cpu.bytes.every((byte) => byte === 0)).toBe(true); // not the bytes that lay there
    expect(system.check(true)).toBeNull();
  });

  test("a pin blocks the region, the error says where, and unpin lets it go on", () => {
    const system = open();
    const movable = system.movable(1);
    const pinned = movable.pin();
    const [pfn] = pinned.pfns;
    const message = expectRefusal(system, "EBUSY", () => system.region("default").alloc(2048));
    expect(message).toContain(`pinned frames are in the way: ${pfn}`);
    const { basePfn, frameCount } = system.region("default");
    const below = (pfn ?? 0) - basePfn;
    const largest = Math.max(below, frameCount - below - 1);
    expect(message).toContain(`the largest run without one is ${largest} frames`);
    pinned.unpin();
    system.region("default").alloc(2048).free();
    expect(system.check(true)).toBeNull();
  });

  test("a long-term pin leaves the region", () => {
    const system = open();
    const movable = system.movable(10);
    movable.write(Uint8Array.of(1, 2, 3), 4095);
    const pinned = movable.pin({ longterm: true });
    expect(pinned.pfns.every((pfn) => pfn < system.region("default").basePfn)).toBe(true);
    expect(pinned.views.reduce((sum, view) => sum + view.length, 0)).toBe(10 * FRAME_BYTES);
    system.region("default").alloc(2048).free();
    pinned.unpin();
    const back = new Uint8Array(3);
    movable.read(back, 4095);
    expect([...back]).toEqual([1, 2, 3]);
  });

  test("free() while pinned waits for the unpin; all later use is ESTALE", () => {
    const system = open();
    const before = system.stats().freeFrames;
    const movable = system.movable(3);
    const pinned = movable.pin();
    movable.free();
    expect(pinned.views.length).toBeGreaterThan(0);
    for (const call of [
      () => movable.free(),
      () => movable.pin(),
      () => movable.read(new Uint8Array(1)),
    ]) {
      expectError("ESTALE", call);
    }
    pinned.unpin();
    for (const call of [() => pinned.unpin(), () => pinned.views, () => pinned.pfns])
      expectError("ESTALE", call);
    expect(system.stats().freeFrames).toBe(before);
    expect(system.check(true)).toBeNull();
  });

  test.each([0, -1, 1.5, Number.NaN, 2 ** 20])("refuses %s frames", (count) => {
    const system = open();
    expectRefusal(system, "EINVAL", () => system.movable(count));
  });

  test("refuses to read or write outside", () => {
    const system = open();
    const movable = system.movable(1);
    for (const offset of [-1, 4090, 1.5]) {
      expectRefusal(system, "EINVAL", () => movable.read(new Uint8Array(10), offset));
      expectRefusal(system, "EINVAL", () => movable.write(new Uint8Array(10), offset));
    }
  });

  test("compact() says what it gained", () => {
    const system = build.system({ memoryBytes: 16 * MiB });
    const all = Array.from({ length: 500 }, () => system.movable(2));
    for (const [i, movable] of all.entries()) if (i % 2 === 0) movable.free();
    const { movedFrames, largestRunBefore, largestRunAfter } = system.compact();
    expect(movedFrames).toBeGreaterThan(0);
    expect(largestRunAfter).toBeGreaterThan(largestRunBefore);
    expect(system.stats().bytesCopied).toBe(movedFrames * FRAME_BYTES);
  });

  test("compact() that moves nothing gains nothing, whatever single frames were freed before", () => {
    const system = build.system({ memoryBytes: 16 * MiB });
    const held = Array.from({ length: 40 }, () => system.frames.alloc(1));
    for (const range of held.slice(10)) range.free(); // they wait in the thread's magazine
    const { movedFrames, largestRunBefore, largestRunAfter } = system.compact();
    expect([movedFrames, largestRunAfter]).toEqual([0, largestRunBefore]);
  });

  test("frames.allocAt() takes a run of any length, and moves what lies there", () => {
    const system = build.system({ memoryBytes: 32 * MiB });
    const movable = system.movable(3000);
    movable.write(new Uint8Array(3000 * FRAME_BYTES).fill(9));
    const range = system.frames.allocAt(4096, 2048);
    expect([range.pfn, range.frameCount]).toEqual([4096, 2048]);
    const back = new Uint8Array(3000 * FRAME_BYTES);
    movable.read(back);
    expect(back.every((byte) => byte === 9)).toBe(true);
    expectRefusal(system, "EBUSY", () => system.frames.allocAt(4096, 1));
    for (const [pfn, count] of [
      [-1, 1],
      [8192, 1],
      [8191, 2],
      [1.5, 1],
      [5000, 0],
    ] as const) {
      expectRefusal(system, "EINVAL", () => system.frames.allocAt(pfn, count));
    }
    range.free();
    system.frames.alloc(3, { type: "reclaimable" }).free();
    expectRefusal(system, "EINVAL", () => system.frames.alloc(1, { type: "slab" as "unmovable" }));
    expect(system.check(true)).toBeNull();
  });
});
