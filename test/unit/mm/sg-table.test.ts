import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  type FileSink,
  type FrameRange,
  MiB,
  type SgTable,
  type System,
  splitSegments,
} from "../../../src/index.ts";
import { eachCore } from "../../support/cores.ts";
import { expectError, expectRejection } from "../../support/errors.ts";

const PS = 4096;

/** Segments as the entries of a table, in short. */
const rows = (table: SgTable): number[][] =>
  [...table.entries()].map(({ pfn, offset, lengthBytes }) => [pfn, offset, lengthBytes]);

/** A table of `frameCount` single frames, and bytes that all differ nearby. */
function filled(system: System, frameCount: number): { table: SgTable; bytes: Uint8Array } {
  const range = system.region("default").alloc(frameCount);
  const bytes = Uint8Array.from({ length: frameCount * PS }, (_, i) => (i * 7 + (i >> 9)) & 255);
  const pinned = range.pin();
  pinned.bytes.set(bytes);
  pinned.unpin();
  return { table: system.sgTableFromRange(range.pfn, frameCount, PS), bytes };
}

describe.each(eachCore)("SgTable on the $name core", (build) => {
  const openSystem = (): System =>
    build.system({ memoryBytes: 32 * MiB, cma: { default: 16 * MiB } });

  test("zero() fills from `skip` on, to the end unless told otherwise", () => {
    const system = openSystem();
    const { table, bytes } = filled(system, 3);
    expect(table.zero(100, 5000)).toBe(5000);
    expect(table.zero(3 * PS - 1)).toBe(1);
    expect(table.zero(3 * PS)).toBe(0);
    bytes.fill(0, 100, 5100).fill(0, 3 * PS - 1);
    using pinned = table.pin();
    expect(Buffer.concat(pinned.views)).toEqual(Buffer.from(bytes));
    expectError("EINVAL", () => table.zero(-1));
    expectError("EINVAL", () => table.zero(0, 0.5));
  });

  test("split() gives tables of exactly the bytes asked for, however many", () => {
    const system = openSystem();
    const { table } = filled(system, 3);
    const pfn = table.cpu(0).pfn;
    const [first, second] = table.split([5000, 1], PS - 10) as [SgTable, SgTable];
    expect(rows(first)).toEqual([
      [pfn, PS - 10, 10],
      [pfn + 1, 0, PS],
      [pfn + 2, 0, 894],
    ]);
    expect(rows(second)).toEqual([[pfn + 2, 894, 1]]);
    const ones = table.split(
      Array.from({ length: 2000 }, () => 1),
      100,
    );
    expect(ones).toHaveLength(2000);
    expect(rows(ones.at(-1) as SgTable)).toEqual([[pfn, 2099, 1]]);
    for (const part of [first, second, ...ones]) part.free();
    expectError("EINVAL", () => table.split([]));
    expectError("EINVAL", () => table.split([0]));
    expectError("EINVAL", () => table.split([3 * PS], 1));
    expect(system.check(true)).toBeNull();
  });

  test("tables are made of frames and of segments, and grow", () => {
    const system = openSystem();
    const pfn = system.frames.alloc(8).pfn;
    const table = system.sgTableFromFrames([pfn, pfn + 1, pfn + 3], { offset: 10 });
    expect(rows(table)).toEqual([
      [pfn, 10, 2 * PS - 10],
      [pfn + 3, 0, PS],
    ]);
    table.append([pfn + 4, pfn + 5, pfn + 7], { maxSegmentBytes: 2 * PS, lengthBytes: 2 * PS + 1 });
    expect(rows(table).slice(1)).toEqual([
      [pfn + 3, 0, 2 * PS],
      [pfn + 5, 0, PS],
      [pfn + 7, 0, 1],
    ]);
    const segments = system.sgTableFromList([
      { pfn, offset: PS + 1, lengthBytes: 5 },
      { pfn: pfn + 2, offset: 0, lengthBytes: 2 * PS },
    ]);
    expect(rows(segments)).toEqual([
      [pfn + 1, 1, 5],
      [pfn + 2, 0, 2 * PS],
    ]);
    expectError("EINVAL", () => system.sgTableFromFrames([]));
    expectError("EINVAL", () => system.sgTableFromFrames([0.5]));
    expectError("EINVAL", () => system.sgTableFromFrames([Number.NaN]));
    expectError("EINVAL", () => system.sgTableFromFrames([-1]));
    expectError("EINVAL", () => system.sgTableFromFrames([pfn], { lengthBytes: PS + 1 }));
    expectError("EINVAL", () => system.sgTableFromFrames([pfn], { offset: PS }));
    expectError("EINVAL", () => system.sgTableFromList([]));
    expectError("EINVAL", () => system.sgTableFromList([{ pfn: 8192, offset: 0, lengthBytes: 1 }]));
    expectError("EINVAL", () => table.append([pfn], { offset: 1 }));
    expectError("EINVAL", () => table.append([8192]));
    expect(table.origNents).toBe(4);
    expect(system.check(true)).toBeNull();
  });

  test("lists longer than the scratch words take frames for as long as the call lasts", () => {
    const system = openSystem();
    const pfn = system.region("default").alloc(2000).pfn;
    const frames = Array.from({ length: 2000 }, (_, i) => pfn + ((i * 3) % 2000));
    const table = system.sgTableFromFrames(Uint32Array.from(frames));
    expect([...table.pages()]).toEqual(frames);
    table.append(frames);
    expect([...table.pages()]).toEqual([...frames, ...frames]);
    const copy = system.sgTableFromList([...table.entries()]);
    expect(rows(copy)).toEqual(rows(table));
    table.free();
    copy.free();
    expect(system.check(true)).toBeNull();
  });

  test("a mapping's split() cuts what the device sees", () => {
    const system = openSystem();
    const { table } = filled(system, 4);
    const device = system.addDevice({ name: "codec", maxSegmentBytes: 2 * PS });
    const mapping = device.dma.mapSgtable(table, "to-device");
    const whole = [...mapping.segments()];
    const parts = mapping.split([PS, 2 * PS + 1], PS - 1);
    expect(parts).toEqual(splitSegments(whole, [PS, 2 * PS + 1], PS - 1));
    expect(parts.map((part) => part.reduce((sum, one) => sum + one.lengthBytes, 0))).toEqual([
      PS,
      2 * PS + 1,
    ]);
    expectError("EINVAL", () => mapping.split([4 * PS], 1));
    expectError("EINVAL", () => mapping.split([1], 4 * PS));
    expectError("EINVAL", () => splitSegments(whole, [0]));
    expectError("EINVAL", () => splitSegments(whole, []));
    device.dma.unmapSgtable(mapping);
  });

  test("pages() and spans() walk frame by frame", () => {
    const system = openSystem();
    const pfn = system.frames.alloc(4).pfn;
    const table = system
      .sgTableFromRange(pfn, 4, 2 * PS)
      .split([2 * PS + 11], PS - 5)[0] as SgTable;
    expect([...table.pages()]).toEqual([pfn, pfn + 1, pfn + 2, pfn + 3]);
    expect([...table.pages(3)]).toEqual([pfn + 3]);
    expect([...table.pages(5)]).toEqual([]);
    const spans = (skip: number) =>
      Array.from(table.spans(skip), (span) => [span.pfn - pfn, span.offset, span.lengthBytes]);
    expect(spans(0)).toEqual([
      [0, PS - 5, 5],
      [1, 0, PS],
      [2, 0, PS],
      [3, 0, 6],
    ]);
    expect(spans(PS + 4)).toEqual([
      [1, PS - 1, 1],
      [2, 0, PS],
      [3, 0, 6],
    ]);
    expect(spans(2 * PS + 11)).toEqual([]);
    const walk = table.spans();
    walk.next();
    table.free();
    expectError("ESTALE", () => [...walk]);
  });

  test("views() wants a pin, and a pin keeps the frames", () => {
    const system = openSystem();
    const range = system.frames.alloc(2);
    const table = system.sgTableFromRange(range.pfn, 2, PS);
    expectError("EINVAL", () => table.views());
    const pinned = table.pin();
    expect(table.views().map((view) => view.byteOffset)).toEqual([
      range.pfn * PS,
      range.pfn * PS + PS,
    ]);
    expectError("EBUSY", () => range.free());
    table.free(); // the table is not the frames
    pinned.unpin();
    expectError("ESTALE", () => pinned.views);
    expectError("ESTALE", () => pinned.unpin());
    range.free();
    expectError("ENOENT", () => system.sgTableFromFrames([range.pfn]));
    expect(system.check(true)).toBeNull();
  });

  test("an empty last entry, which Linux makes of an odd size, is pinned and shown as none", () => {
    const system = openSystem();
    const { pfn } = system.frames.alloc(4);
    const options = { offset: 100, lengthBytes: 2 * PS - 100, maxSegmentBytes: 2 * PS };
    const table = system.sgTableFromFrames(
      [0, 1, 2, 3].map((i) => pfn + i),
      options,
    );
    expect([...table.entries()].map(({ lengthBytes }) => lengthBytes)).toEqual([2 * PS - 100, 0]);
    const pinned = table.pin();
    expect(pinned.views.map(({ length }) => length)).toEqual([2 * PS - 100, 0]);
    pinned.unpin();
    table.free();
    expect(system.check(true)).toBeNull();
  });

  test("frames are not freed before the last table that names them", () => {
    const system = openSystem();
    const [first, second] = [system.frames.alloc(2), system.frames.alloc(1)];
    const table = system.sgTableFromFrames([first.pfn, first.pfn + 1]);
    table.append([second.pfn]);
    expectError("ENOENT", () => table.append([second.pfn + 1000]));
    expectError("EBUSY", () => second.free());
    const [part] = table.split([PS], PS) as [SgTable];
    table.free();
    second.free();
    expectError("EBUSY", () => first.free());
    part.free();
    first.free();
    expect(system.stats().pinnedFrames).toBe(0);
    expect(system.check(true)).toBeNull();
  });

  test("frames without bytes are in no table", () => {
    const system = build.system({ memoryBytes: 4 * MiB, unbackedFrames: 1024 });
    expectError("EINVAL", () => system.sgTableFromRange(1023, 2));
    expectError("EINVAL", () => system.sgTableFromFrames([1024]));
    expect(system.stats().pinnedFrames).toBe(0);
  });

  test("a table shows no bytes that an earlier owner left", () => {
    const system = openSystem();
    const first = system.frames.alloc(64);
    using old = first.pin();
    old.bytes.fill(1);
    old.unpin();
    first.free();
    const range = system.frames.alloc(64);
    using pinned = system.sgTableFromRange(range.pfn, 64).pin();
    expect((pinned.views[0] as Uint8Array).every((byte) => byte === 0)).toBe(true);
    (pinned.views[0] as Uint8Array)[5] = 9;
    using again = range.pin(); // clears what is old, not what is new
    expect(again.bytes[5]).toBe(9);
  });

  test("one entry over the last frame below a region and the region's first is cleared", () => {
    const system = openSystem();
    const region = system.region("default");
    const below = Array.from({ length: region.basePfn }, () => {
      try {
        return system.frames.alloc(1);
      } catch {
        return null; // memory is out
      }
    }).find((range) => range?.pfn === region.basePfn - 1);
    const refill = (range: FrameRange | null | undefined): void => {
      const pinned = range?.pin();
      pinned?.bytes.fill(1);
      pinned?.unpin();
      range?.free();
    };
    refill(below);
    refill(region.alloc(1));
    expect(system.frames.alloc(1).pfn).toBe(region.basePfn - 1);
    expect(region.alloc(1).pfn).toBe(region.basePfn);
    const table = system.sgTableFromRange(region.basePfn - 1, 2);
    expect(table.origNents).toBe(1);
    const pinned = table.pin();
    expect(pinned.views[0]?.every((byte) => byte === 0)).toBe(true);
    pinned.unpin();
  });

  describe("files", () => {
    let folder: string;
    beforeAll(() => {
      folder = mkdtempSync(join(tmpdir(), "dmabuf-sg-"));
    });
    afterAll(() => rmSync(folder, { recursive: true }));

    test("readFrom() and writeTo() move every byte of 2500 segments", async () => {
      const system = openSystem();
      const { table, bytes } = filled(system, 2500);
      const file = await open(join(folder, "long"), "w+");
      expect(await table.writeTo(file)).toBe(bytes.length);
      expect(readFileSync(join(folder, "long")).equals(bytes)).toBe(true);
      table.zero();
      expect(await table.readFrom(file, { position: 0 })).toBe(bytes.length);
      const pinned = table.pin();
      expect(Buffer.concat(pinned.views).equals(bytes)).toBe(true);
      pinned.unpin();
      await file.close();
      table.free();
      expect(system.stats().pinnedFrames).toBe(0);
      expect(system.check(true)).toBeNull();
    });

    test("readFrom() says how many bytes there were before the file ended", async () => {
      const system = openSystem();
      const { table } = filled(system, 3);
      writeFileSync(join(folder, "short"), new Uint8Array(5000).fill(3));
      const file = await open(join(folder, "short"));
      expect(await table.readFrom(file, { skip: 10, position: 100 })).toBe(4900);
      expect(await table.readFrom(file, { lengthBytes: 3000 })).toBe(3000); // its own position
      expect(await table.readFrom(file)).toBe(2000);
      expect(await table.readFrom(file)).toBe(0);
      expect(await table.readFrom(file, { skip: 3 * PS, position: 0 })).toBe(0);
      await file.close();
      expect([...table.spans(4910)].length).toBe(2);
    });

    test("writeTo() writes a part at a place", async () => {
      const system = openSystem();
      const { table, bytes } = filled(system, 3);
      const file = await open(join(folder, "part"), "w");
      expect(await table.writeTo(file, { skip: 4000, lengthBytes: 200, position: 50 })).toBe(200);
      await file.close();
      const written = readFileSync(join(folder, "part"));
      expect(written.subarray(50).equals(bytes.subarray(4000, 4200))).toBe(true);
      expect(written).toHaveLength(250);
    });

    test("calls that move less than they are given are continued where they stopped", async () => {
      const system = openSystem();
      const { table, bytes } = filled(system, 5);
      const written: number[] = [];
      const slow: FileSink = {
        writev(views) {
          expect(table.views()).toHaveLength(5); // pinned meanwhile
          const part = Buffer.concat(views).subarray(0, 1 + ((written.length * 13) % 6000));
          written.push(...part);
          return Promise.resolve({ bytesWritten: part.length });
        },
      };
      expect(await table.writeTo(slow)).toBe(bytes.length);
      expect(Uint8Array.from(written)).toEqual(bytes);
    });

    test("a failure leaves nothing pinned", async () => {
      const system = openSystem();
      const { table } = filled(system, 2);
      const full: FileSink = { writev: () => Promise.resolve({ bytesWritten: 0 }) };
      await expectRejection("EIO", table.writeTo(full));
      await expectRejection("EINVAL", table.writeTo(full, { skip: -1 }));
      const broken = { readv: () => Promise.reject(new Error("the disk is gone")) };
      await expect(table.readFrom(broken)).rejects.toThrow("the disk is gone");
      expectError("EINVAL", () => table.views());
      table.free();
      expect(system.stats().pinnedFrames).toBe(0);
    });
  });
});
