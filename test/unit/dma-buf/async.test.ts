import { describe, expect, test } from "vitest";
import type { DeviceMapping, DmaBufOps, System } from "../../../src/index.ts";
import { MiB } from "../../../src/index.ts";
import { eachCore } from "../../support/cores.ts";
import { expectError, expectRefusal, expectRejection } from "../../support/errors.ts";
import { deaf, watched } from "../../support/exporter.ts";
import { settle, slow } from "../../support/slow-exporter.ts";

describe.each(eachCore)("asynchronous exporters on the $name core", (build) => {
  const open = () => build.system({ memoryBytes: 4 * MiB });
  const gpuOf = (system: System, name = "gpu") => system.addDevice({ name, iommu: true });

  test("sync attach, map and pin are EWOULDBLOCK before any state changes, and what comes late is given back", async () => {
    const system = open();
    const gpu = gpuOf(system);
    const attaches = slow(system, "attach");
    expectRefusal(system, "EWOULDBLOCK", () => attaches.buf.attach(gpu));
    expect(attaches.buf.attachments).toEqual([]);
    attaches.gate.open();
    await settle();
    expect(attaches.calls).toEqual(["attach gpu unlocked", "detach gpu unlocked"]);

    const maps = slow(system, "map");
    const attachment = maps.buf.attach(gpu);
    expectRefusal(system, "EWOULDBLOCK", () => attachment.map("to-device"));
    expect(attachment.mapCount).toBe(0);
    maps.gate.open();
    await settle();
    expect(maps.calls.slice(1)).toEqual(["map gpu unlocked", "unmap gpu unlocked"]);

    const pins = slow(system, "pin", { pins: true });
    const dynamic = pins.buf.dynamicAttach(gpu, deaf);
    pins.buf.resv.lock();
    expectError("EWOULDBLOCK", () => dynamic.pin());
    pins.buf.resv.unlock();
    expect(dynamic.pinCount).toBe(0);
    pins.gate.open();
    await settle();
    expect(pins.calls.slice(1)).toEqual(["pin gpu unlocked", "unpin gpu locked"]);
  });

  test("attachAsync, mapAsync and pinAsync serve exporters that answer at once, too", async () => {
    const system = open();
    const calls: string[] = [];
    const buf = watched(system, calls, { pins: true });
    const still = await buf.attachAsync(gpuOf(system, "still"));
    const moving = await buf.dynamicAttachAsync(gpuOf(system, "moving"), deaf);
    const mapping = await moving.mapAsync("to-device");
    await moving.pinAsync();
    expect(await still.mapAsync("from-device")).toBe(await still.mapAsync("to-device"));
    expect(calls).toEqual([
      "attach still unlocked",
      "pin still locked",
      "map still locked",
      "attach moving unlocked",
      "map moving locked",
      "pin moving locked",
    ]);
    moving.unmapUnlocked(mapping);
    expect(buf.resv.isLocked).toBe(false);
  });

  test("mapAsync of a static importer and exporter takes no lock, and waits for kernel fences", async () => {
    const system = open();
    const calls: string[] = [];
    const buf = watched(system, calls);
    const attachment = buf.attach(gpuOf(system));
    const fence = system.fence("move");
    buf.resv.addFence(fence, "kernel");
    buf.resv.lock();
    const mapped = attachment.mapAsync("to-device");
    await settle();
    expect([calls.at(-1), attachment.mapCount]).toEqual(["map gpu locked", 0]);
    expect(expectRefusal(system, "EBUSY", () => attachment.detach())).toContain("asynchronous");
    fence.signal();
    const mapping = await mapped;
    buf.resv.unlock();
    expect(attachment.mapCount).toBe(1);
    attachment.unmap(mapping);
  });

  test("an AbortSignal interrupts mapAsync with EINTR, a timeout ends it with ETIME: the mapping is undone", async () => {
    const system = open();
    const calls: string[] = [];
    const buf = watched(system, calls);
    const attachment = buf.attach(gpuOf(system));
    const fence = system.fence("move");
    buf.resv.addFence(fence, "kernel");
    const abort = new AbortController();
    const waiting = attachment.mapAsync("to-device", { signal: abort.signal });
    await settle();
    abort.abort();
    await expectRejection("EINTR", waiting);
    await expectRejection("ETIME", attachment.mapAsync("to-device", { timeoutMs: 1 }));
    expect(calls.filter((call) => call.startsWith("unmap"))).toHaveLength(2);
    expect([attachment.mapCount, system.check(true)]).toEqual([0, null]);
    attachment.detach();
    buf.put();
  });

  test("waiting for buf.resv is interrupted with EINTR, or ends with ETIME, and nothing was asked", async () => {
    const system = open();
    const calls: string[] = [];
    const buf = watched(system, calls, { pins: true });
    const attachment = buf.dynamicAttach(gpuOf(system), deaf);
    buf.resv.lock();
    const aborted = { signal: AbortSignal.abort() };
    await expectRejection("EINTR", attachment.mapAsync("to-device", aborted));
    await expectRejection("ETIME", attachment.pinAsync({ timeoutMs: 1 }));
    await expectRejection("ETIME", buf.attachAsync(gpuOf(system, "late"), { timeoutMs: 0 }));
    expect(calls).toEqual(["attach gpu unlocked", "attach late locked", "detach late locked"]);
    buf.resv.unlock();
  });

  test("a lock held by an unfinished call is EDEADLK for the same holder, EAGAIN for others", async () => {
    const system = open();
    const { buf, gate } = slow(system, "map", { pins: true });
    const [one, other] = ["one", "other"].map((name) =>
      buf.dynamicAttach(gpuOf(system, name), deaf),
    ) as [ReturnType<typeof buf.attach>, ReturnType<typeof buf.attach>];
    const mapped = one.mapAsync("to-device");
    for (let i = 0; i < 5; i++) {
      expectRefusal(system, "EDEADLK", () => one.mapUnlocked("to-device"));
      expectRefusal(system, "EDEADLK", () => one.map("to-device"));
      expectRefusal(system, "EDEADLK", () => one.pin());
      expectRefusal(system, "EAGAIN", () => other.mapUnlocked("to-device"));
      expectRefusal(system, "EAGAIN", () => other.map("to-device"));
      expectRefusal(system, "EAGAIN", () => other.detach());
      expectRefusal(system, "EAGAIN", () => buf.resv.lock());
      await Promise.resolve(); // also while the call is between its steps
    }
    expectRefusal(system, "EBUSY", () => one.detach());
    gate.open();
    one.unmapUnlocked(await mapped);
    other.detach();
    one.detach();
  });

  test("a call under the caller's own context uses the lock that the context holds", async () => {
    const system = open();
    const { buf, gate } = slow(system, "map", { pins: true });
    const attachment = buf.dynamicAttach(gpuOf(system), deaf);
    const context = system.acquireContext();
    buf.resv.lock(context);
    const mapped = attachment.mapAsync("to-device", { context });
    gate.open();
    const mapping = await mapped;
    expect(buf.resv.lockingContext).toBe(context); // still the caller's
    attachment.unmap(mapping);
    buf.resv.unlock();
    context.fini();
  });

  test("the last put is EBUSY while an attachAsync has not ended", async () => {
    const system = open();
    const { buf, gate } = slow(system, "attach");
    const attaching = buf.attachAsync(gpuOf(system));
    expectRefusal(system, "EBUSY", () => buf.put());
    gate.open();
    (await attaching).detach();
    buf.put();
  });

  test("two mapAsync of an exporter that caches keep one mapping", async () => {
    const system = open();
    const calls: string[] = [];
    const buf = watched(system, calls, { ops: { cacheSgtMapping: true } });
    const attachment = buf.attach(gpuOf(system));
    const [first, second] = await Promise.all([
      attachment.mapAsync("to-device"),
      attachment.mapAsync("to-device"),
    ]);
    expect([first === second, attachment.mapCount]).toEqual([true, 2]);
    attachment.detach();
    const count = (verb: string) => calls.filter((call) => call.startsWith(verb)).length;
    expect(count("map")).toBe(count("unmap"));
    buf.put();
    expect(system.check(true)).toBeNull();
  });

  test.each(["pin", "map"])(
    "when an asynchronous %s fails, attachAsync is undone",
    async (which) => {
      const system = open();
      const calls: string[] = [];
      const lost = { [which]: async () => Promise.reject(new Error("lost")) };
      const buf = watched(system, calls, { pins: true, ops: lost as Partial<DmaBufOps> });
      await expect(buf.attachAsync(gpuOf(system))).rejects.toThrow("lost");
      const undone = which === "pin" ? [] : ["pin gpu locked", "unpin gpu locked"];
      expect(calls).toEqual(["attach gpu unlocked", ...undone, "detach gpu unlocked"]);
      expect([buf.attachments.length, buf.resv.isLocked]).toEqual([0, false]);
    },
  );

  test("a mapping that is no mapping is ENOMEM, one that is alive already EEXIST, later and at once", async () => {
    const system = open();
    let answer: DeviceMapping | null = null;
    const buf = watched(system, [], { ops: { map: () => answer as DeviceMapping } });
    const [gpu, other] = [gpuOf(system), watched(system, [])];
    const attachment = buf.attach(gpu);
    expectRefusal(system, "ENOMEM", () => attachment.map("to-device"));
    await expectRejection("ENOMEM", attachment.mapAsync("to-device"));
    answer = other.attach(gpu).map("to-device");
    attachment.map("to-device");
    expectRefusal(system, "EEXIST", () => attachment.map("to-device"));
    await expectRejection("EEXIST", attachment.mapAsync("to-device"));
  });

  test("a mapping of another system is EIO, later and at once", async () => {
    const [system, elsewhere] = [open(), open()];
    const there = watched(elsewhere, []).attach(gpuOf(elsewhere)).map("to-device");
    const attachment = watched(system, [], { ops: { map: () => there } }).attach(gpuOf(system));
    expectRefusal(system, "EIO", () => attachment.map("to-device"));
    await expectRejection("EIO", attachment.mapAsync("to-device"));
    expect([attachment.mapCount, there.isEnded]).toEqual([0, false]);
  });

  test("a static importer's map is EAGAIN when the exporter begins a move in it, and is undone", () => {
    const system = open();
    const calls: string[] = [];
    const [gpu, fence] = [gpuOf(system), system.fence("move")];
    const buf = watched(system, calls);
    const ops = buf.priv as DmaBufOps;
    const moving = system.export({
      ops: {
        ...ops,
        map: (attachment, direction) => {
          moving.resv.addFence(fence, "kernel");
          return ops.map(attachment, direction);
        },
        release: () => {},
      },
      sizeBytes: 4096,
    });
    const attachment = moving.attach(gpu);
    expectError("EAGAIN", () => attachment.map("to-device"));
    expect([attachment.mapCount, calls.at(-1)]).toEqual([0, "unmap gpu unlocked"]);
    fence.signal();
    attachment.unmap(attachment.map("to-device"));
  });
});
