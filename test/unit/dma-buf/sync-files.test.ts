import { describe, expect, test } from "vitest";
import {
  type DmaBuf,
  POLLERR,
  POLLIN,
  POLLOUT,
  POLLPRI,
  type SyncAccess,
  SyncFile,
  type System,
} from "../../../src/index.ts";
import { eachCore } from "../../support/cores.ts";
import { expectError, expectRejection } from "../../support/errors.ts";

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
