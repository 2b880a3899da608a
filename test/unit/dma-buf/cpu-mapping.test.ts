import { describe, expect, test } from "vitest";
import type { DmaBufOps, SgTable } from "../../../src/index.ts";
import { FRAME_BYTES, MiB } from "../../../src/index.ts";
import { eachCore } from "../../support/cores.ts";
import { expectError, expectRefusal, expectRejection } from "../../support/errors.ts";
import { watched } from "../../support/exporter.ts";

const noOp = undefined as unknown as () => never;

describe.each(eachCore)("CPU mappings on the $name core", (build) => {
  const open = () => build.system({ memoryBytes: 4 * MiB });

  test("mmap of scattered frames is a list of views, and EINVAL where one view is demanded", () => {
    const system = open();
    const cpu = watched(system, [], { frames: 3 }).mmap();
    expect(cpu.views.map(({ length }) => length)).toEqual([4096, 4096, 4096]);
    expect(expectRefusal(system, "EINVAL", () => cpu.bytes)).toContain("3 runs");
    cpu.unmap();
  });

  test("mmap of entries that follow each other in memory is one Uint8Array", () => {
    const system = open();
    const range = system.frames.alloc(3);
    const table = system.sgTableFromRange(range.pfn, 3, FRAME_BYTES);
    expect(table.origNents).toBe(3);
    const cpu = watched(system, [], { frames: 3, ops: { mmap: () => table } }).mmap();
    expect([cpu.views.length, cpu.bytes.length]).toEqual([1, 3 * FRAME_BYTES]);
  });

  test.each<[string, unknown]>([
    ["5", 5],
    ["undefined", undefined],
    ["null", null],
    ["Promise", Promise.resolve()],
    ["Uint8Array", new Uint8Array(FRAME_BYTES)],
  ])("mmap of an exporter that returns %s is EIO, and maps nothing", (said, answer) => {
    const system = open();
    const buf = watched(system, [], { ops: { mmap: () => answer as SgTable } });
    const message = expectRefusal(system, "EIO", () => buf.mmap());
    expect(message).toContain(`the exporter's mmap() returned ${said}`);
    expect(buf.refCount).toBe(1);
  });

  test("mmap of another system's table is EIO, and pins nothing there", () => {
    const [system, other] = [open(), open()];
    const table = other.sgTableFromRange(other.frames.alloc(1).pfn, 1);
    const buf = watched(system, [], { ops: { mmap: () => table } });
    expect(expectRefusal(system, "EIO", () => buf.mmap())).toContain("a table of another system");
    table.free(); // it would be busy
    expect(other.check(true)).toBeNull();
  });

  test("mmap at a page offset shows those pages only", () => {
    const system = open();
    const calls: string[] = [];
    const buf = watched(system, calls, { frames: 4 });
    const all = buf.mmap();
    for (const [i, view] of all.views.entries()) view.fill(i);
    const some = buf.mmap({ pageOffset: 1, pageCount: 2 });
    expect(some.views.map((view) => [view[0], view.length])).toEqual([
      [1, 4096],
      [2, 4096],
    ]);
    expect(buf.mmap({ pageOffset: 3 }).bytes[0]).toBe(3);
    expect(buf.mmap({ pageOffset: 4, pageCount: 0 }).views).toEqual([]);
    const asked = ["mmap 0+4 unlocked", "mmap 1+2 unlocked", "mmap 3+1 unlocked"];
    expect(calls).toEqual([...asked, "mmap 4+0 unlocked"]);
  });

  test.each([
    ["more pages than there are", "EINVAL", { pageCount: 3 }],
    ["pages behind the end", "EINVAL", { pageOffset: 1, pageCount: 2 }],
    ["no page behind the end", "EINVAL", { pageOffset: 2 }],
    ["an offset below 0", "EINVAL", { pageOffset: -1 }],
    ["half an offset", "EINVAL", { pageOffset: 0.5 }],
    ["an offset of 2^64", "EINVAL", { pageOffset: 2n ** 64n }],
    ["the last offset and no page", "EINVAL", { pageOffset: 2n ** 64n - 1n, pageCount: 0 }],
    ["pages that end behind 2^64", "EOVERFLOW", { pageOffset: 2n ** 64n - 1n, pageCount: 1 }],
  ] as const)("mmap of %s is %s", (_, code, options) => {
    const system = open();
    const calls: string[] = [];
    const buf = watched(system, calls, { frames: 2 });
    expectRefusal(system, code, () => buf.mmap(options));
    expect(calls).toEqual([]);
  });

  test.each([
    [0, 1],
    [100, 1],
    [4097, 2],
  ])("a buffer of %i bytes has no %i whole pages to mmap", (sizeBytes, pageCount) => {
    const system = open();
    const buf = watched(system, [], { info: { sizeBytes } });
    expectRefusal(system, "EINVAL", () => buf.mmap({ pageCount }));
    if (sizeBytes < FRAME_BYTES) expectRefusal(system, "EINVAL", () => buf.mmap());
    else expect(buf.mmap().views.length).toBe(1);
  });

  test("an unmap that cannot put the last reference keeps the mapping", () => {
    const system = open();
    const buf = watched(system, []);
    const cpu = buf.mmap();
    const attachment = buf.attach(system.addDevice({ name: "gpu", iommu: true }));
    buf.put();
    expectRefusal(system, "EBUSY", () => cpu.unmap());
    expect(cpu.bytes.length).toBe(FRAME_BYTES);
    attachment.detach();
    cpu.unmap();
    expect(system.stats()).toMatchObject({ bufferCount: 0, pinnedFrames: 0 });
  });

  test("put never takes the reference of a CPU mapping", () => {
    const system = open();
    const buf = watched(system, []);
    const maps = [buf.mmap(), buf.mmap()];
    buf.put();
    expectRefusal(system, "EBUSY", () => buf.put());
    for (const cpu of maps) cpu.unmap();
    expect(buf.refCount).toBe(0);
  });

  test("vmap nesting: made for the first user, ended by the last one's vunmap, frames pinned between", () => {
    const system = open();
    const calls: string[] = [];
    const buf = watched(system, calls, { frames: 2 });
    const pinned = system.stats().pinnedFrames;
    const map = buf.vmap();
    expect([buf.vmap() === map, buf.vmapCount, map.views.length]).toEqual([true, 2, 2]);
    expect(buf.refCount).toBe(1);
    expectRefusal(system, "EBUSY", () => buf.put());
    buf.vunmap(map);
    map.copyFrom(Uint8Array.of(1, 2, 3));
    buf.vunmap(map);
    expect([calls, system.stats().pinnedFrames]).toEqual([
      ["vmap unlocked", "vunmap unlocked"],
      pinned,
    ]);
    expectError("EINVAL", () => map.views);
    expectRefusal(system, "EINVAL", () => buf.vunmap(map));
    expect(buf.vmap()).not.toBe(map);
    expect(calls.length).toBe(3);
  });

  test("vunmap refuses another buffer's mapping and nothing at all", () => {
    const system = open();
    const [one, other] = [watched(system, []), watched(system, [])];
    const map = one.vmap();
    expectRefusal(system, "EINVAL", () => other.vunmap(map));
    expectRefusal(system, "EINVAL", () => one.vunmap(null as unknown as typeof map));
    one.vunmap(map);
  });

  test("vmap without the op, or with one that gives no table, makes nothing", () => {
    const system = open();
    const none = watched(system, [], { ops: { vmap: noOp } });
    expectRefusal(system, "EINVAL", () => none.vmap());
    const calls: string[] = [];
    const empty = watched(system, calls, { ops: { vmap: () => null as unknown as SgTable } });
    expectRefusal(system, "ENOMEM", () => empty.vmap());
    expect([none.vmapCount, empty.vmapCount]).toEqual([0, 0]);
    const optional = watched(system, [], { ops: { vunmap: noOp } });
    optional.vunmap(optional.vmap());
  });

  test("vmap of another system's table is EIO: the exporter gets it back, and nothing is pinned", async () => {
    const [system, other] = [open(), open()];
    const theirs = other.sgTableFromRange(other.frames.alloc(1).pfn, 1);
    const given: SgTable[] = [];
    const vunmap = (_: unknown, table: SgTable): void => void given.push(table);
    const now = watched(system, [], { ops: { vmap: () => theirs, vunmap } });
    const later = watched(system, [], { ops: { vmap: async () => theirs, vunmap } });
    const message = expectRefusal(system, "EIO", () => now.vmap());
    expect(message).toContain("the exporter's vmap() returned a table of another system");
    await expectRejection("EIO", later.vmapAsync());
    expect(given).toEqual([theirs, theirs]);
    expect([now.vmapCount, later.vmapCount, system.check(true)]).toEqual([0, 0, null]);
    theirs.free(); // it would be busy
    expect(other.check(true)).toBeNull();
  });

  test("vmapAsync serves exporters that answer later; vmap meanwhile is EAGAIN, the last put EBUSY", async () => {
    const system = open();
    let answer: (table: SgTable) => void = () => {};
    const asked = (): Promise<SgTable> =>
      new Promise((resolve) => {
        answer = resolve;
      });
    const calls: string[] = [];
    const vunmap = (): void => void calls.push("vunmap");
    const range = system.frames.alloc(1);
    const table = system.sgTableFromRange(range.pfn, 1);
    const buf = watched(system, [], { ops: { vmap: asked, vunmap } });
    expectRefusal(system, "EWOULDBLOCK", () => buf.vmap());
    answer(table);
    await Promise.resolve();
    expect([calls, buf.vmapCount]).toEqual([["vunmap"], 0]); // given back
    const users = [buf.vmapAsync(), buf.vmapAsync()];
    expectRefusal(system, "EAGAIN", () => buf.vmap());
    expectRefusal(system, "EBUSY", () => buf.put());
    answer(table);
    const maps = await Promise.all(users);
    expect([maps[0] === maps[1], buf.vmapCount, buf.vmap() === maps[0]]).toEqual([true, 2, true]);
  });

  test("a vmapAsync that fails leaves the next one to ask again", async () => {
    const system = open();
    const table = system.sgTableFromRange(system.frames.alloc(1).pfn, 1);
    const answers = [Promise.reject(new Error("lost")), Promise.resolve(table)];
    const buf = watched(system, [], { ops: { vmap: () => answers.shift() as Promise<SgTable> } });
    const [first, second] = await Promise.allSettled([buf.vmapAsync(), buf.vmapAsync()]);
    expect([first.status, second.status, buf.vmapCount]).toEqual(["rejected", "fulfilled", 1]);
  });

  test("a number above 0 of the exporter's begin and end is passed on, and no fence is looked at", async () => {
    const system = open();
    const seven: Partial<DmaBufOps> = { beginCpuAccess: () => 7, endCpuAccess: async () => 8 };
    const buf = watched(system, [], { ops: seven });
    expect(buf.beginCpuAccess("from-device")).toBe(7);
    buf.resv.addFence(system.fence("writer"), "write");
    expect(await buf.beginCpuAccessAsync("from-device")).toBe(7);
    expectError("EWOULDBLOCK", () => buf.endCpuAccess("from-device"));
    expect(await buf.endCpuAccessAsync("from-device")).toBe(8);
  });

  test("an exporter that begins a move inside beginCpuAccess ends the bracket again: EAGAIN", async () => {
    const system = open();
    const calls: string[] = [];
    const fence = system.fence("move");
    const buf = watched(system, calls, {
      ops: { beginCpuAccess: (self) => self.resv.addFence(fence, "kernel") },
    });
    expectError("EAGAIN", () => buf.beginCpuAccess("from-device"));
    expect(calls).toEqual(["end from-device unlocked"]);
    const aborted = AbortSignal.abort();
    await expectRejection("EINTR", buf.beginCpuAccessAsync("to-device", { signal: aborted }));
    fence.signal();
    expect(await buf.beginCpuAccessAsync("bidirectional")).toBe(0);
  });

  test.each(["none", "sideways", null])("CPU access %s is EINVAL", (direction) => {
    const system = open();
    const buf = watched(system, []);
    expectRefusal(system, "EINVAL", () => buf.beginCpuAccess(direction as "none"));
    expectRefusal(system, "EINVAL", () => buf.endCpuAccess(direction as "none"));
  });
});
