import { describe, expect, test } from "vitest";
import { FRAME_BYTES, joinSync, MiB, type System } from "../../src/index.ts";
import { eachCore } from "../support/cores.ts";
import { expectError, expectRefusal } from "../support/errors.ts";

/** What close() must leave as it is. */
const openOf = (system: System) => [system.files.fds, system.devices.map(({ name }) => name)];

/** Expects close() to be refused and to change nothing; the message. */
function expectOpen(system: System): string {
  const before = openOf(system);
  const message = expectRefusal(system, "EBUSY", () => system.close());
  expect(openOf(system)).toEqual(before);
  return message;
}

describe.each(eachCore)("close() looks before it closes, on the $name core", (build) => {
  const open = (): System => build.system({ memoryBytes: 8 * MiB });

  test("a buffer that is held keeps every descriptor open", () => {
    const system = open();
    const held = system.heap("system").alloc(FRAME_BYTES, { name: "held" });
    system.files.install(system.heap("system").alloc(FRAME_BYTES, { name: "installed" }));
    system.files.install(held.get());
    const message = expectOpen(system);
    expect(message).toContain("held (2 references)");
    expect(message).not.toContain("installed");
    held.put();
    system.close();
    expect(system.files.openCount).toBe(0);
  });

  test("a buffer that only descriptors hold stays while a device is attached", () => {
    const system = open();
    const buf = system.heap("system").alloc(FRAME_BYTES, { name: "frame" });
    system.files.install(system.heap("system").alloc(FRAME_BYTES));
    const attachment = buf.attach(system.addDevice({ name: "d" }));
    system.files.install(buf);
    expect(expectOpen(system)).toContain("frame (1 reference, and in use");
    attachment.detach();
    system.close();
  });

  test("a device that something is mapped for keeps the others", () => {
    const system = open();
    const [one, two] = ["one", "two"].map((name) => system.addDevice({ name, iommu: true }));
    const range = system.frames.alloc(1);
    const mapping = two?.dma.mapPage(range.pfn, 0, 100, "to-device");
    expect(expectOpen(system)).toContain("device two: something is mapped for it");
    expect(one?.isRemoved).toBe(false);
    if (mapping !== undefined) two?.dma.unmapPage(mapping);
    const iova = two?.dma.iovaTryAlloc(FRAME_BYTES);
    expect(expectOpen(system)).toContain("device two: device addresses are reserved");
    iova?.free();
    system.close();
    expect([one, two].every((device) => device?.isRemoved)).toBe(true);
  });

  test("a reference that was put behind the table's back does not keep the number for ever", () => {
    const system = open();
    const buf = system.heap("system").alloc(FRAME_BYTES);
    const fd = system.files.install(buf);
    const second = system.files.install(system.heap("system").alloc(FRAME_BYTES));
    buf.put(); // the table's reference
    expectError("ESTALE", () => buf.put());
    system.files.close(fd);
    expectError("EBADF", () => system.files.close(fd));
    expect(system.files.fds).toEqual([second]);
    const again = system.heap("system").alloc(FRAME_BYTES);
    expect(system.files.install(again)).toBe(fd);
    again.put();
    system.close();
    expect(system.files.openCount).toBe(0);
  });
});

describe.each(eachCore.filter(({ shared }) => shared))("on the $name core", (build) => {
  test("a live pool is named with what ends it", () => {
    const system = build.system({ memoryBytes: 8 * MiB });
    const pool = system.pool({ name: "camera", count: 2, bytes: FRAME_BYTES });
    expect(expectOpen(system)).toContain("pool.release() lets go of the frames of camera");
    pool.release();
    system.close();
  });

  test("a buffer that another thread uses through this one keeps its descriptor", () => {
    const system = build.system({ memoryBytes: 8 * MiB });
    const ops = { map: () => expect.unreachable(), unmap() {}, release() {} };
    const buf = system.export({ ops, sizeBytes: FRAME_BYTES, name: "served" });
    system.files.install(buf);
    const other = joinSync(system.share());
    const theirs = other.import(buf.token);
    expect(expectOpen(system)).toContain("served (1 reference)");
    theirs.put();
    other.close();
    system.close();
  });
});
