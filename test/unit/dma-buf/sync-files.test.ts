import { describe, expect, test } from "vitest";
import {
  type DmaBuf,
  type Fence,
  POLLERR,
  POLLIN,
  POLLOUT,
  POLLPRI,
  type ResvUsage,
  resvUsages,
  type SyncAccess,
  SyncFile,
  type System,
} from "../../../src/index.ts";
import { eachCore } from "../../support/cores.ts";
import { expectError, expectRejection } from "../../support/errors.ts";
import { fuzzSeed, Prng } from "../../support/prng.ts";

const SEED = fuzzSeed(20261123);
const BOTH = POLLIN + POLLOUT;

describe.each(eachCore)("a buffer on the $name core", (build) => {
  function open(): [System, DmaBuf] {
    const system = build.system({ memoryBytes: 1 << 20 });
    return [system, system.heap("system").alloc(4096)];
  }

  test("exports a sync file of its writers to read, of everybody to write", () => {
    const [system, buf] = open();
    const states = () =>
      (["read", "write", "read-write"] as const).map((access) => buf.exportSyncFile(access).status);
    expect(states()).toEqual([1, 1, 1]);
    const reader = system.fence("reader");
    buf.resv.addFence(reader, "read");
    expect(states()).toEqual([1, 0, 0]);
    const writer = system.fence("writer");
    buf.resv.addFence(writer, "write");
    expect(states()).toEqual([0, 0, 0]);
    const file = buf.exportSyncFile("read");
    expect(file.fence).toBe(writer);
    buf.resv.addFence(system.fence("later"), "write");
    writer.signal();
    expect([file.status, buf.exportSyncFile("read").status]).toEqual([1, 0]);
  });

  test("imports the leaves of a sync file as readers or as writers", () => {
    const [system, buf] = open();
    const [a, b] = [system.swSync("a"), system.swSync("b")];
    const file = new SyncFile(a.createFence(1)).merge(new SyncFile(b.createFence(1)));
    buf.importSyncFile(file, "read");
    expect(buf.resv.entries.map(({ usage }) => usage)).toEqual(["read", "read"]);
    buf.importSyncFile(file, "read-write");
    expect(buf.resv.entries.map(({ usage }) => usage)).toEqual(["write", "write"]);
    expect(buf.resv.isLocked).toBe(false);
    a.put();
    b.put();
  });

  test("refuses a sync file with another access, of another kind, or while it is locked", () => {
    const [system, buf] = open();
    const file = new SyncFile(system.fence("job"));
    for (const access of ["", "READ", undefined] as unknown as SyncAccess[]) {
      expectError("EINVAL", () => buf.exportSyncFile(access));
      expectError("EINVAL", () => buf.importSyncFile(file, access));
    }
    expectError("EINVAL", () => buf.importSyncFile(buf as unknown as SyncFile, "read"));
    buf.resv.lock();
    expectError("EAGAIN", () => buf.importSyncFile(file, "read"));
    buf.resv.unlock();
    expect(buf.resv.entries).toEqual([]);
  });

  test("polls ready to read without writers, ready to write without anybody", () => {
    const [system, buf] = open();
    const ready = (): number[] =>
      [POLLIN, POLLOUT, BOTH, POLLPRI + POLLERR, 0].map((events) => buf.poll(events));
    expect(ready()).toEqual([POLLIN, POLLOUT, BOTH, 0, 0]);
    buf.resv.addFence(system.fence("tables"), "bookkeep");
    expect(ready()).toEqual([POLLIN, POLLOUT, BOTH, 0, 0]);
    const reader = system.fence("reader");
    buf.resv.addFence(reader, "read");
    expect(ready()).toEqual([POLLIN, 0, POLLIN, 0, 0]);
    const writer = system.fence("writer");
    buf.resv.addFence(writer, "write");
    expect(ready()).toEqual([0, 0, 0, 0, 0]);
    writer.signal();
    expect(ready()).toEqual([POLLIN, 0, POLLIN, 0, 0]);
    reader.signal();
    expect(ready()).toEqual([POLLIN, POLLOUT, BOTH, 0, 0]);
  });

  test("is kept alive by a poll that armed a callback, once for each direction", () => {
    const [system, buf] = open();
    const writers = [system.fence("a"), system.fence("b")] as const;
    for (const writer of writers) buf.resv.addFence(writer, "write");
    for (const events of [POLLIN, BOTH, BOTH]) buf.poll(events);
    expect(buf.refCount).toBe(3);
    writers[0].signal();
    expect(buf.refCount).toBe(1);
    expect([buf.poll(BOTH), buf.refCount]).toEqual([0, 3]); // on the second fence
    buf.put();
    writers[1].signal();
    expect([buf.refCount, system.stats().bufferCount]).toEqual([0, 0]);
    expectError("ESTALE", () => buf.poll(POLLIN));
  });

  test("keeps the reference of a poll that is the last one while a device is attached", () => {
    const [system, buf] = open();
    const attachment = buf.attach(system.addDevice({ name: "gpu" }));
    const writer = system.fence("writer");
    buf.resv.addFence(writer, "write");
    buf.poll(POLLIN);
    buf.put();
    writer.signal();
    expect([buf.refCount, buf.poll(POLLIN)]).toEqual([1, POLLIN]);
    attachment.detach();
    buf.put();
    expect(system.stats().bufferCount).toBe(0);
  });

  test("polls without waiting when it can, and until it is ready, aborted or late", async () => {
    const [system, buf] = open();
    expect(await buf.pollAsync(BOTH)).toBe(BOTH);
    const writers = [system.fence("a"), system.fence("b")] as const;
    for (const writer of writers) buf.resv.addFence(writer, "write");
    const controller = new AbortController();
    const [woken, aborted] = [
      buf.pollAsync(POLLIN, { timeoutMs: 10_000 }),
      buf.pollAsync(POLLOUT, { signal: controller.signal }),
    ];
    controller.abort();
    await expectRejection("EINTR", aborted);
    await expectRejection("ETIME", buf.pollAsync(POLLIN, { timeoutMs: 0 }));
    await expectRejection("ETIME", buf.pollAsync(POLLOUT, { timeoutMs: 1 }));
    await expectRejection("EINVAL", buf.pollAsync(POLLIN, { timeoutMs: -1 }));
    for (const writer of writers) writer.signal();
    expect(await woken).toBe(POLLIN);
    buf.put();
    system.close();
  });

  test(`agrees with a model of polls and sync files over random events, seed ${SEED}`, () => {
    const [system, buf] = open();
    const random = new Prng(SEED);
    const uses = new Map<Fence, ResvUsage>();
    const armed = new Map<number, Fence>();
    const files = new Map<SyncFile, readonly Fence[]>();
    const pending = (usages: readonly ResvUsage[]): Fence[] =>
      [...uses].flatMap(([fence, usage]) => (usages.includes(usage) ? [fence] : []));
    const waitsFor = new Map<number, readonly ResvUsage[]>([
      [POLLIN, ["kernel", "write"]],
      [POLLOUT, ["kernel", "write", "read"]],
    ]);
    for (let event = 0; event < 2000; event++) {
      const label = `event ${event}`;
      const what = random.below(5);
      if (what === 0 && uses.size < 12) {
        const [fence, usage] = [system.fence(`f${event}`), random.pick(resvUsages)];
        buf.resv.addFence(fence, usage);
        uses.set(fence, usage);
      } else if (what === 1 && uses.size > 0) {
        const fence = random.pick([...uses.keys()]);
        uses.delete(fence);
        fence.signal();
        for (const [one, hooked] of armed) if (hooked === fence) armed.delete(one);
      } else if (what === 2) {
        const [one, usages] = random.pick([...waitsFor]);
        const [first] = buf.resv.entries // in stored order
          .filter(({ fence, usage }) => uses.has(fence) && usages.includes(usage))
          .map(({ fence }) => fence);
        expect(buf.poll(one), label).toBe(first === undefined ? one : 0);
        if (first !== undefined && !armed.has(one)) armed.set(one, first);
      } else if (what === 3 && files.size < 8) {
        const access = random.pick(["read", "write"] as const);
        const leaves = pending(waitsFor.get(access === "read" ? POLLIN : POLLOUT) ?? []);
        files.set(buf.exportSyncFile(access), leaves);
      }
      expect(buf.refCount, label).toBe(1 + armed.size);
      for (const [file, leaves] of files) {
        const isDone = leaves.every((fence) => !uses.has(fence));
        expect(file.status, label).toBe(Number(isDone));
        if (isDone) files.delete(file);
      }
    }
    for (const fence of uses.keys()) fence.signal();
    expect([buf.refCount, system.check()]).toEqual([1, null]);
  });

  test("takes a name of at most 31 bytes", () => {
    const [system, buf] = open();
    expect([buf.label, buf.name]).toEqual([null, `system:${buf.ino}`]);
    buf.setName("ü".repeat(15));
    expect(buf.name).toBe("ü".repeat(15));
    for (const name of ["ü".repeat(16), "x".repeat(32), 7 as unknown as string])
      expectError("EINVAL", () => buf.setName(name));
    buf.setName("");
    expect([buf.label, buf.name]).toEqual(["", ""]);
    expectError("EINVAL", () => system.heap("system").alloc(1, { name: "x".repeat(32) }));
    buf.put();
    expectError("ESTALE", () => buf.setName("late"));
  });
});
