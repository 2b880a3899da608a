import { describe, expect, test } from "vitest";
import { FRAME_BYTES, MiB, type Misuse, type OpenOptions, type System } from "../../src/index.ts";
import { pageMap } from "../../src/inspect/index.ts";
import { eachCore } from "../support/cores.ts";
import { lockAt, reapHolding } from "../support/death.ts";

const POISON = 0xaa;

/** Writes where no handle of the system leads any more. */
function scribble(system: System, pfn: number, offset = 77): void {
  system.core.u8[pfn * FRAME_BYTES + offset] = 1;
}

function bytesOf(system: System, pfn: number, frameCount = 1): Uint8Array {
  return system.core.u8.subarray(pfn * FRAME_BYTES, (pfn + frameCount) * FRAME_BYTES);
}

describe.each(eachCore)("on the $name core", (build) => {
  function open(options: OpenOptions = {}): { system: System; found: Misuse[] } {
    const found: Misuse[] = [];
    const system = build.system({
      memoryBytes: 16 * MiB,
      cma: { default: 4 * MiB },
      onMisuse: (misuse) => found.push(misuse),
      ...options,
    });
    return { system, found };
  }

  const owners = [
    ["a frame", (system: System) => system.frames.alloc(1)],
    ["a run", (system: System) => system.frames.alloc(21)],
    ["a run of a region", (system: System) => system.region("default").alloc(5)],
  ] as const;

  describe.each([{ poison: true }, { strict: true }])("with %o", (options) => {
    test.each(owners)(
      "%s is poisoned when it is freed, and its next owner sees zeros",
      (_, take) => {
        const { system, found } = open(options);
        const range = take(system);
        range.pin().unpin();
        expect(bytesOf(system, range.pfn, range.frameCount).every((byte) => byte === 0)).toBe(true);
        range.free();
        expect(bytesOf(system, range.pfn, range.frameCount).every((b) => b === POISON)).toBe(true);
        for (let i = 0; i < 300; i++) {
          const next = take(system);
          const pinned = next.pin();
          expect(pinned.bytes.every((byte) => byte === 0)).toBe(true);
          pinned.bytes.fill(9);
          pinned.unpin();
          next.free();
        }
        expect(found).toEqual([]);
        expect(system.check(true)).toBeNull();
      },
    );

    test("parts of a region's run are freed between parts that are held", () => {
      const { system, found } = open(options);
      const { exports } = system.core;
      const { handle } = system.region("default");
      const pfn = exports.cmaAlloc(handle, 16, 0);
      for (const [at, count] of [
        [1, 1],
        [3, 2],
        [6, 3],
        [10, 5],
      ] as const) {
        bytesOf(system, pfn, 16).fill(7);
        expect(exports.cmaRelease(handle, pfn + at, count)).toBe(0);
        expect(exports.cmaRelease(handle, pfn + at, count)).toBe(-2);
        expect(bytesOf(system, pfn + at, count).every((byte) => byte === POISON)).toBe(true);
        expect(exports.cmaRelease(handle, pfn + at - 1, count + 1)).toBe(-2);
      }
      for (const at of [0, 2, 5, 9, 15]) expect(exports.cmaRelease(handle, pfn + at, 1)).toBe(0);
      expect(found).toEqual([]);
      expect(system.check(true)).toBeNull();
    });

    test("memory of heaps and movable memory is poisoned too", () => {
      const { system } = open(options);
      for (const name of ["system", "default"]) {
        const buf = system.heap(name).alloc(300 * FRAME_BYTES);
        const entries = [...(buf.storage?.entries() ?? [])];
        buf.put();
        for (const { pfn, lengthBytes } of entries)
          expect(bytesOf(system, pfn, lengthBytes / FRAME_BYTES).every((b) => b === POISON)).toBe(
            true,
          );
      }
      const movable = system.movable(3);
      const pinned = movable.pin();
      const { pfns } = pinned;
      pinned.unpin();
      movable.free();
      for (const pfn of pfns) expect(bytesOf(system, pfn).every((b) => b === POISON)).toBe(true);
      expect(system.check(true)).toBeNull();
    });

    test.each(owners)("a write into %s that was freed is found once", (_, take) => {
      const { system, found } = open(options);
      const range = take(system);
      range.free();
      scribble(system, range.pfn);
      expect(system.checkPoison()).toEqual([range.pfn]);
      expect(system.checkPoison()).toEqual([]);
      expect(found.map(({ rule, pfn }) => [rule, pfn])).toEqual([["Q2", range.pfn]]);
      expect(found[0]?.error.message).toMatch(/^Cannot trust free frame \d+: .*rule Q2/);
      expect(system.stats().misuseCount).toBe(1);
      scribble(system, range.pfn, 4095);
      expect(system.check(true)).toBeNull(); // the memory's own rules hold
      expect(found).toHaveLength(2);
    });

    test("a write into memory that nobody ever had is found, and zeros come back", () => {
      const { system } = open(options);
      scribble(system, 2000);
      expect(system.checkPoison()).toEqual([2000]);
      expect(system.check(true)).toBeNull();
    });
  });

  describe("with strict", () => {
    test("freed frames wait, and are verified when they leave", () => {
      const { system, found } = open({ strict: true });
      const first = system.frames.alloc(1);
      first.free();
      expect(pageMap(system)[first.pfn]?.use).toBe("quarantine");
      scribble(system, first.pfn);
      const seen = new Set<number>();
      let freed = 0;
      for (; found.length === 0 && freed < 1000; freed++) {
        const range = system.frames.alloc(1);
        seen.add(range.pfn);
        range.free();
      }
      expect(freed).toBeGreaterThanOrEqual(64);
      expect(seen.has(first.pfn)).toBe(false); // nobody got it before
      expect(found.map(({ pfn }) => pfn)).toEqual([first.pfn]);
      expect(system.check(true)).toBeNull();
    });

    test("a region's frames are verified when they are handed out", () => {
      const { system, found } = open({ strict: true });
      const range = system.region("default").alloc(5);
      range.free();
      scribble(system, range.pfn + 4);
      expect(system.region("default").alloc(5).pfn).toBe(range.pfn);
      expect(found.map(({ pfn }) => pfn)).toEqual([range.pfn + 4]);
    });

    test("the quarantine makes no request fail, and counts as free", () => {
      const { system } = open({ strict: true });
      const before = system.stats().freeFrames;
      for (const count of [1, 100]) {
        const { exports } = system.core;
        const held: number[] = [];
        for (let pfn = 1; pfn > 0; ) {
          pfn = exports.frameAlloc(count, 0, 0xffffffff);
          if (pfn > 0) held.push(pfn);
        }
        for (const pfn of held) exports.frameFree(pfn, count);
        expect(exports.frameCountIn(9)).toBeGreaterThan(0);
        let again = 0;
        while (exports.frameAlloc(count, 0, 0xffffffff) > 0) again += 1;
        expect(again).toBe(held.length);
        for (const pfn of held) exports.frameFree(pfn, count);
        expect(system.stats().freeFrames).toBe(before);
        expect(system.check(true)).toBeNull();
      }
    });

    test("frames in quarantine can neither be pinned nor freed; a reap lists them", () => {
      const { system } = open({ strict: true });
      const { exports } = system.core;
      const before = system.stats().freeFrames;
      const range = system.frames.alloc(3);
      range.free();
      expect(exports.pinRange(range.pfn, 1)).toBe(-2);
      expect(exports.frameFree(range.pfn, 3)).toBe(-2);
      expect(exports.frameCountIn(9)).toBeGreaterThan(0);
      reapHolding(system.core, [lockAt(system.core, "frames")]);
      expect(exports.frameCountIn(9)).toBe(0);
      expect(system.check(true)).toBeNull();
      expect(system.stats().freeFrames).toBe(before);
    });

    test("a range is made contiguous through the quarantine", () => {
      const { system, found } = open({ strict: true, cma: {} });
      const { exports } = system.core;
      const movable = system.movable(50);
      movable.write(new Uint8Array(50 * FRAME_BYTES).fill(5));
      const pinned = movable.pin();
      const [first = 0] = pinned.pfns;
      pinned.unpin();
      expect(exports.contigAlloc(first, 50)).toBe(0);
      expect(exports.frameFree(first, 50)).toBe(0);
      const back = new Uint8Array(50 * FRAME_BYTES);
      movable.read(back);
      expect(back.every((byte) => byte === 5)).toBe(true);
      expect(found).toEqual([]);
      expect(system.check(true)).toBeNull();
    });

    test("movable memory moves, compacts and waits like all other", () => {
      const { system, found } = open({ strict: true });
      const all = Array.from({ length: 400 }, () => system.movable(3));
      for (const [i, movable] of all.entries()) movable.write(Uint8Array.of(i & 255, 2, 3), 5000);
      for (const [i, movable] of all.entries()) if (i % 2 === 0) movable.free();
      system.compact();
      system.region("default").alloc(1024).free();
      for (const [i, movable] of all.entries()) {
        if (i % 2 === 0) continue;
        const back = new Uint8Array(3);
        movable.read(back, 5000);
        expect([...back]).toEqual([i & 255, 2, 3]);
      }
      expect(found).toEqual([]);
      expect(system.check(true)).toBeNull();
    });
  });

  test("prefault touches all memory and changes nothing else", () => {
    const { system } = open({ prefault: true });
    const { system: plain } = open();
    expect(system.stats()).toEqual(plain.stats());
    expect(system.check(true)).toBeNull();
  });

  test("without poison nothing is looked for", () => {
    const { system, found } = open();
    const range = system.frames.alloc(1);
    range.free();
    scribble(system, range.pfn);
    expect(system.checkPoison()).toEqual([]);
    expect([found.length, system.stats().misuseCount]).toEqual([0, 0]);
  });
});
