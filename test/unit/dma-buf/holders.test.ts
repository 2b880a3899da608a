import { describe, expect, test } from "vitest";
import type { Attachment, Revocation, System } from "../../../src/index.ts";
import { FdTable, joinSync, MiB } from "../../../src/index.ts";
import { formatBufinfo, formatHolders } from "../../../src/inspect/index.ts";
import { eachCore } from "../../support/cores.ts";
import { expectError, expectRefusal, expectRejection } from "../../support/errors.ts";
import { deaf, watched } from "../../support/exporter.ts";

describe.each(eachCore)("who holds a buffer on the $name core", (build) => {
  const open = (trackHolders = false) => build.system({ memoryBytes: 4 * MiB, trackHolders });
  const gpuOf = (system: System, name = "gpu") => system.addDevice({ name, iommu: true });

  /** A buffer that is held in every way. */
  function held(system: System) {
    const buf = watched(system, [], { pins: true, frames: 2 });
    const fd = system.files.install(buf.get());
    const attachment = buf.dynamicAttach(gpuOf(system), deaf);
    const mapping = attachment.mapUnlocked("to-device");
    buf.resv.lock();
    attachment.pin();
    buf.resv.unlock();
    const still = buf.attach(gpuOf(system, "still"));
    const [cpu, map] = [buf.mmap({ pageCount: 1 }), buf.vmap()];
    const fence = system.fence("blur");
    buf.resv.addFence(fence, "write");
    return { buf, fd, attachment, mapping, still, cpu, map, fence };
  }

  test("holders are fds, references, attachments, mappings, pins, vmaps, CPU mappings, pending fences", () => {
    const system = open();
    const { buf, fence } = held(system);
    const listed = buf.holders().map(({ kind, name, count }) => `${kind} ${name} ${count}`);
    expect(listed).toEqual([
      "reference get() 1",
      "fd descriptor 0 1",
      "attachment gpu 1",
      "mapping gpu to-device 1",
      "pin gpu 1",
      "attachment still 1", // its mapping is its own, and nobody uses it
      "vmap kernel 1",
      "cpu-mapping 1 page from page 0 on 1",
      "fence blur (write) 1",
    ]);
    fence.signal();
    expect(buf.holders().some(({ kind }) => kind === "fence")).toBe(false);
    expect(buf.holders().every(({ stack }) => stack === null)).toBe(true);
  });

  test("stats counts the same in O(1), and all of it goes to 0", () => {
    const system = open();
    const { buf, fd, attachment, mapping, still, cpu, map, fence } = held(system);
    expect(buf.stats()).toEqual({
      refCount: 3,
      attachmentCount: 2,
      mapCount: 1,
      pinCount: 1,
      vmapCount: 1,
      cpuMappingCount: 1,
    });
    fence.signal();
    still.map("from-device");
    expect(buf.stats().mapCount).toBe(2);
    still.detach(); // with the mapping it keeps
    buf.resv.lock();
    attachment.unmap(mapping);
    attachment.unpin();
    buf.resv.unlock();
    attachment.detach();
    cpu.unmap();
    buf.vunmap(map);
    system.files.close(fd);
    expect(buf.holders()).toEqual([{ kind: "reference", name: "get()", count: 1, stack: null }]);
    buf.put();
    expect(Object.values(buf.stats()).every((count) => count === 0)).toBe(true);
    expect([buf.holders(), system.check(true)]).toEqual([[], null]);
  });

  test("trackHolders keeps the creation stack of every holder", () => {
    const { buf } = held(open(true));
    const kinds = new Set(buf.holders().map(({ kind }) => kind));
    expect(kinds.size).toBe(8);
    for (const { kind, stack } of buf.holders()) expect(stack, kind).toContain("holders.test");
    for (const { kind, stack } of buf.holders()) expect(stack, kind).not.toContain("stacks.ts");
    expect(formatHolders(buf)).toMatch(/attachment gpu\n {4}at .*\n/);
  });

  test.runIf(build.shared)("each other thread that holds it is one holder, until it puts", () => {
    const system = open();
    const gpu = gpuOf(system);
    const joined = [joinSync(system.share()), joinSync(system.share())];
    const buf = system.heap("system").alloc(4096);
    const listed = () => buf.holders().map(({ kind, name, count }) => `${kind} ${name} ${count}`);
    const { token } = buf;
    expect(listed()).toEqual(["reference get() 1"]); // shared, and nobody came
    const [second, third] = joined.map((other) => other.import(token));
    second?.get().mmap();
    expect(listed()).toEqual(["reference get() 1", "thread thread 1 1", "thread thread 2 1"]);
    expect(third?.holders().map(({ name }) => name)).toEqual(["get()", "thread 0", "thread 1"]);
    third?.put();
    buf.attach(gpu);
    expect(listed()).toEqual(["reference get() 1", "attachment gpu 1", "thread thread 1 1"]);
    system.reap(1);
    expect(listed()).toEqual(["reference get() 1", "attachment gpu 1"]);
  });

  test.runIf(build.shared)("so is one that holds a buffer that is served", () => {
    const system = open();
    const other = joinSync(system.share());
    const buf = watched(system, []);
    const theirs = other.import(buf.token);
    expect(buf.holders().map(({ name }) => name)).toEqual(["get()", "thread 1"]);
    expect(theirs.holders().map(({ name }) => name)).toEqual(["get()", "thread 0"]);
    theirs.put();
    expect(buf.holders().map(({ name }) => name)).toEqual(["get()"]);
  });

  test("descriptors are found in every table that fileTables has", () => {
    const system = open();
    const buf = watched(system, []);
    const [mine, hidden] = [new FdTable(), new FdTable()];
    system.fileTables.add(mine);
    system.files.install(buf);
    mine.install(buf.get());
    hidden.install(buf.get());
    const counts = buf.holders().map(({ kind, count }) => `${kind} ${count}`);
    expect(counts).toEqual(["reference 1", "fd 1", "fd 1"]);
  });

  test("exporterStats and owners tell the totals of an exporter and an owner", () => {
    const system = open();
    const bufs = [watched(system, [], { frames: 2 }), watched(system, [])];
    const total = { exporterName: "watched", bufferCount: 2, sizeBytes: 3 * 4096 };
    expect(system.exporterStats("watched")).toEqual(total);
    const owner = system.owner("camera app");
    const charged = system.heap("system").alloc(8192, { owner });
    expect([owner.bufferCount, owner.usedBytes]).toEqual([1, 8192]);
    for (const buf of [...bufs, charged]) buf.put();
    expect([system.exporterStats("watched").bufferCount, owner.usedBytes]).toEqual([0, 0]);
  });

  test("bufinfo has the kernel's columns, the latest buffer and attachment first", () => {
    const system = open();
    const buf = watched(system, [], { info: { name: "frame 7" } });
    for (const name of ["camera", "gpu"]) buf.attach(gpuOf(system, name));
    buf.resv.addFence(system.fence("blur"), "write");
    buf.resv.addFence(system.fence("books"), "bookkeep");
    const done = system.fence("done");
    buf.resv.addFence(done, "read");
    done.signal();
    system.export({
      ops: { map: () => null as never, unmap: () => {}, release: () => {} },
      sizeBytes: 0,
      flags: 0,
    });
    expect(formatBufinfo(system)).toBe(
      [
        "",
        "Dma-buf Objects:",
        "size    \tflags   \tmode    \tcount   \texp_name\tino     \tname",
        "00000000\t00000000\t00080005\t00000001\tunnamed\t00000002\t<none>",
        "\tAttached Devices:",
        "Total 0 devices attached",
        "",
        "00004096\t00000002\t00080007\t00000001\twatched\t00000001\tframe 7",
        "\twrite fence:dmabuf blur seq 1 unsignalled",
        "\tread fence:dmabuf done seq 1 signalled",
        "\tAttached Devices:",
        "\tgpu",
        "\tcamera",
        "Total 2 devices attached",
        "",
        "",
        "Total 2 objects, 4096 bytes",
        "",
      ].join("\n"),
    );
  });

  describe("revoke", () => {
    const used = ({ attachments, fences }: Revocation): string[] => [
      ...attachments.map(({ device }) => device.name),
      ...fences.map(({ name }) => name),
    ];

    test("notifies, waits for the fences and for the unmaps, and then nobody is left", async () => {
      const system = open();
      const buf = watched(system, [], { pins: true });
      const fence = system.fence("blur");
      buf.resv.addFence(fence, "bookkeep");
      const complies = {
        moveNotify: (one: Attachment) =>
          void fence.addCallback(() => setTimeout(() => one.unmapUnlocked(mapping), 2)),
      };
      const attachment = buf.dynamicAttach(gpuOf(system), complies);
      const mapping = attachment.mapUnlocked("to-device");
      const revoked = buf.revoke({ timeoutMs: 2000 });
      await new Promise((resolve) => setTimeout(resolve, 1));
      expect([buf.isRevoked, buf.resv.isLocked, attachment.mapCount]).toEqual([true, true, 1]);
      fence.signal();
      expect(used(await revoked)).toEqual([]);
      expect(attachment.mapCount).toBe(0);
    });

    test("names who did not comply in time: static importers, deaf ones, and pending fences", async () => {
      const system = open();
      const buf = watched(system, [], { pins: true });
      buf.resv.addFence(system.fence("stuck"), "read");
      const unused = buf.dynamicAttach(gpuOf(system, "unused"), deaf);
      const deafOne = buf.dynamicAttach(gpuOf(system, "deaf"), deaf);
      const still = buf.attach(gpuOf(system, "still"));
      const [mapping, kept] = [deafOne.mapUnlocked("to-device"), still.map("to-device")];
      expect(used(await buf.revoke({ timeoutMs: 5 }))).toEqual(["deaf", "still", "stuck"]);
      deafOne.unmapUnlocked(mapping);
      still.unmap(kept);
      expect([unused.mapCount, buf.stats().mapCount]).toEqual([0, 0]);
      expect(used(await buf.revoke({ timeoutMs: 5 }))).toEqual(["stuck"]);
    });

    test("makes map and pin ENODEV for good; unmap, unpin and detach go on", async () => {
      const system = open();
      const buf = watched(system, [], { pins: true });
      const attachment = buf.dynamicAttach(gpuOf(system), deaf);
      const mapping = attachment.mapUnlocked("to-device");
      await attachment.pinAsync();
      await buf.revoke({ timeoutMs: 1 });
      expectRefusal(system, "ENODEV", () => attachment.mapUnlocked("to-device"));
      await expectRejection("ENODEV", attachment.mapAsync("to-device"));
      await expectRejection("ENODEV", attachment.pinAsync());
      attachment.unmapUnlocked(mapping);
      buf.resv.lock();
      expectError("ENODEV", () => attachment.pin());
      attachment.unpin();
      buf.resv.unlock();
      attachment.detach();
      buf.put();
      expect(system.check(true)).toBeNull();
    });

    test("is ETIME when the lock is not to be had, EINTR when aborted, and changes nothing then", async () => {
      const system = open();
      const buf = watched(system, []);
      buf.resv.lock();
      await expectRejection("ETIME", buf.revoke({ timeoutMs: 2 }));
      await expectRejection("EINTR", buf.revoke({ signal: AbortSignal.abort() }));
      expect([buf.isRevoked, buf.resv.isLocked]).toEqual([false, true]);
      buf.resv.unlock();
      buf.resv.addFence(system.fence("stuck"), "read");
      const abort = new AbortController();
      setTimeout(() => abort.abort(), 1);
      await expectRejection("EINTR", buf.revoke({ signal: abort.signal }));
      expect(buf.resv.isLocked).toBe(false);
      await expectRejection("EINVAL", buf.revoke({ timeoutMs: -1 }));
    });
  });
});
