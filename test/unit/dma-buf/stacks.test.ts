import { describe, expect, test } from "vitest";
import type { DmaBuf, HolderKind, System } from "../../../src/index.ts";
import { FdTable, joinSync, MiB, POLLIN } from "../../../src/index.ts";
import { eachCore } from "../../support/cores.ts";
import { expectError, expectRejection } from "../../support/errors.ts";
import { deaf, watched } from "../../support/exporter.ts";

describe.each(eachCore)("where holders were made on the $name core", (build) => {
  const open = () => build.system({ memoryBytes: 4 * MiB, trackHolders: true });
  const gpuOf = (system: System) => system.addDevice({ name: "gpu", iommu: true });

  /** The functions named `by…` in the stacks of a kind, and how often each holds. */
  function makers(buf: DmaBuf, kind: HolderKind): string[] {
    const own = buf.holders().filter((holder) => holder.kind === kind);
    return own.map(({ stack, count }) => `${/\bby\w+/.exec(stack ?? "")?.[0] ?? "?"} ${count}`);
  }

  function byExporter(system: System): DmaBuf {
    return watched(system, [], { frames: 2 });
  }

  test("references are told apart by their stacks; a put ends the latest", () => {
    const buf = byExporter(open());
    const byCamera = () => buf.get();
    function byGpu() {
      buf.get();
    }
    for (let i = 0; i < 2; i++) byCamera();
    byGpu();
    expect(makers(buf, "reference")).toEqual(["byExporter 1", "byCamera 2", "byGpu 1"]);
    buf.put();
    expect(makers(buf, "reference")).toEqual(["byExporter 1", "byCamera 2"]);
    for (let i = 0; i < 3; i++) buf.put();
    expect(buf.holders()).toEqual([]);
  });

  /** The functions named `by…` in the first line of each stack of a kind. */
  function callers(buf: DmaBuf, kind: HolderKind): string[] {
    const own = buf.holders().filter((holder) => holder.kind === kind);
    return own.map(
      ({ stack }) => /\bby\w+/.exec(stack?.split("\n")[0] ?? "")?.[0] ?? String(stack),
    );
  }

  test("the first line is the caller's, however deep in the library the hold is made", async () => {
    const system = open();
    const gpu = gpuOf(system);
    const heap = system.heap("system");
    const byAlloc = () => heap.alloc(4096);
    const buf = byAlloc();
    const byAttach = () => buf.attach(gpu);
    const attachment = byAttach();
    const byMapAsync = () => attachment.mapAsync("to-device");
    await byMapAsync();
    const byMmap = () => buf.mmap();
    byMmap();
    expect(callers(buf, "reference")).toEqual(["byAlloc"]);
    const byForEach = () => [0].forEach(buf.get, buf); // the host calls the library
    byForEach();
    expect(callers(buf, "reference")).toEqual(["byAlloc", "byForEach"]);
    expect(callers(buf, "attachment")).toEqual(["byAttach"]);
    expect(callers(buf, "mapping")).toEqual(["byMapAsync"]);
    expect(callers(buf, "cpu-mapping")).toEqual(["byMmap"]);
  });

  test("a reference has the name of the call that made it", () => {
    const system = open();
    const bufs = [byExporter(system), system.heap("system").alloc(4096)];
    const names = bufs.map((buf) =>
      buf
        .get()
        .holders()
        .map(({ kind, name }) => `${kind} ${name}`),
    );
    expect(names).toEqual([
      ["reference export()", "reference get()"],
      ["reference alloc()", "reference get()"],
    ]);
  });

  test.runIf(build.shared)("an imported buffer's first reference is import()'s", () => {
    const system = open();
    const buf = system.heap("system").alloc(4096);
    const other = joinSync(system.share(), { trackHolders: true });
    const twice = [other.import(buf.token), other.import(buf.token)];
    expect(twice[0]?.holders().map(({ name }) => name)).toEqual(["import()", "get()", "thread 0"]);
  });

  test("a stack has as many frames of the caller's as the host shows, and the limit stays", () => {
    const heap = open().heap("system");
    const limit = Error.stackTraceLimit;
    function byDepth(depth: number): DmaBuf {
      return depth === 0 ? heap.alloc(4096) : byDepth(depth - 1);
    }
    try {
      for (const frames of [1, 3, 20]) {
        Error.stackTraceLimit = frames;
        const lines = byDepth(30).holders()[0]?.stack?.split("\n") ?? [];
        expect([Error.stackTraceLimit, lines.length]).toEqual([frames, frames]);
        expect(lines.every((line) => line.includes("byDepth"))).toBe(true);
      }
    } finally {
      Error.stackTraceLimit = limit;
    }
  });

  test("a descriptor takes its reference along, and a close gives back just that", () => {
    const system = open();
    const { files } = system;
    const buf = byExporter(system);
    const byInstall = () => files.install(buf);
    const fd = byInstall();
    expect([makers(buf, "reference"), makers(buf, "fd")]).toEqual([[], ["byInstall 1"]]);
    const byGet = () => files.get(fd);
    byGet();
    files.close(fd);
    expect([makers(buf, "reference"), makers(buf, "fd")]).toEqual([["byGet 1"], []]);
  });

  test("dup, dupTo, pass and fork make descriptors with stacks of their own", () => {
    const system = open();
    const { files } = system;
    const other = new FdTable<DmaBuf>();
    const buf = byExporter(system);
    const fd = files.install(buf);
    const byDup = () => files.dup(fd);
    const byDupTo = () => files.dupTo(fd, 7);
    const byPass = () => files.pass(fd, other);
    const byFork = () => other.fork();
    byDup();
    byDupTo();
    byDupTo(); // closes the first
    byPass();
    const child = byFork();
    for (const table of [other, child]) system.fileTables.add(table);
    const stacks = ["byExporter 1", "byDup 1", "byDupTo 1", "byPass 1", "byFork 1"];
    expect(makers(buf, "fd").slice(1)).toEqual(stacks.slice(1));
    expect(makers(buf, "reference")).toEqual([]);
    for (const table of [files, other, child]) table.closeAll();
    expect(buf.refCount).toBe(0);
    expectError("EBADF", () => files.stackOf(fd));
  });

  test("a close that is refused leaves the descriptor its stack", () => {
    const system = open();
    const buf = byExporter(system);
    const byInstall = () => system.files.install(buf);
    const fd = byInstall();
    const attachment = buf.attach(gpuOf(system));
    expectError("EBUSY", () => system.files.close(fd));
    expect([makers(buf, "fd"), makers(buf, "reference")]).toEqual([["byInstall 1"], []]);
    attachment.detach();
  });

  test("pins, users of a kept mapping and users of a kernel mapping are told apart", async () => {
    const system = open();
    const buf = watched(system, [], { pins: true });
    const importer = buf.dynamicAttach(gpuOf(system), deaf);
    const byPinAsync = () => importer.pinAsync();
    const byPin = () => importer.pin();
    await byPinAsync();
    buf.resv.lock();
    byPin();
    expect(makers(buf, "pin")).toEqual(["byPinAsync 1", "byPin 1"]);
    importer.unpin();
    buf.resv.unlock();
    expect(makers(buf, "pin")).toEqual(["byPinAsync 1"]);

    const still = buf.attach(gpuOf(system));
    const byMap = () => still.map("to-device");
    const byMapAsync = () => still.mapAsync("from-device");
    const kept = byMap();
    await byMapAsync();
    expect(makers(buf, "mapping")).toEqual(["byMap 1", "byMapAsync 1"]);
    still.unmap(kept);
    expect(makers(buf, "mapping")).toEqual(["byMap 1"]);
    still.detach();
    expect(makers(buf, "mapping")).toEqual([]);

    const byVmap = () => buf.vmap();
    const byVmapAsync = () => buf.vmapAsync();
    const mapping = byVmap();
    await byVmapAsync();
    expect(makers(buf, "vmap")).toEqual(["byVmap 1", "byVmapAsync 1"]);
    buf.vunmap(mapping);
    expect(makers(buf, "vmap")).toEqual(["byVmap 1"]);
  });

  test("a CPU mapping has its reference's stack, a fence the stack that made it", () => {
    const system = open();
    const buf = byExporter(system);
    const byMmap = () => buf.mmap();
    const byTimeline = () => system.timeline("queue").fence();
    const mapping = byMmap();
    buf.resv.addFence(byTimeline(), "read");
    expect(makers(buf, "cpu-mapping")).toEqual(["byMmap 1"]);
    expect(makers(buf, "reference")).toEqual(["byExporter 1"]);
    expect(makers(buf, "fence")).toEqual(["byTimeline 1"]);
    mapping.unmap();
    expect(makers(buf, "reference")).toEqual(["byExporter 1"]);
  });

  test("references of waits and polls go again without taking another's stack", async () => {
    const system = open();
    const buf = byExporter(system);
    const fence = system.fence("blur");
    buf.resv.addFence(fence, "write");
    buf.poll(POLLIN);
    const waiting = buf.beginCpuAccessAsync("from-device", { timeoutMs: 1 });
    const byUser = () => buf.get();
    byUser();
    await expectRejection("ETIME", waiting);
    fence.signal();
    expect(makers(buf, "reference")).toEqual(["byExporter 1", "byUser 1"]);
  });

  test.runIf(build.shared)("each thread that joins says for itself whether it tracks", () => {
    const share = build.system({ memoryBytes: 4 * MiB }).share();
    const buf = byExporter(joinSync(share, { trackHolders: true }));
    expect(makers(buf, "reference")).toEqual(["byExporter 1"]);
  });

  test("a system that was not asked keeps nothing", () => {
    const system = build.system({ memoryBytes: 4 * MiB });
    const buf = byExporter(system);
    system.files.install(buf);
    expect([system.core.stacks, buf.stacks, system.files.stackOf(0)]).toEqual([null, null, null]);
  });
});
