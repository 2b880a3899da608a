import { describe, expect, test } from "vitest";
import { FdTable, FRAME_BYTES, joinSync, MiB, ReferencedFile } from "../../../src/index.ts";
import { Process } from "../../../src/uapi/index.ts";
import { eachCore } from "../../support/cores.ts";
import { expectError, expectRefusal } from "../../support/errors.ts";

class Plain extends ReferencedFile {
  readonly description = "a plain file";
  isReleased = false;
  protected release(): void {
    this.isReleased = true;
  }
}

describe.each(eachCore)("whose reference it is, on the $name core", (build) => {
  const open = () => {
    const system = build.system({ memoryBytes: 8 * MiB });
    const alloc = () => system.heap("system").alloc(FRAME_BYTES, { name: "frame" });
    return { system, files: system.files, alloc };
  };

  test.each([{}, { description: "x" }, { get() {} }, 7, "file"])("%j is no file", (value) => {
    const { system, files } = open();
    expectRefusal(system, "EINVAL", () => files.install(value as never));
    expectError("EINVAL", () => new FdTable().install(value as never));
    expectError("EINVAL", () => new Process(system).install(value as never));
    expect(files.openCount).toBe(0);
    system.close();
  });

  test("a system's table takes its own buffers only, by whatever way", () => {
    const { system, files, alloc } = open();
    const other = open();
    const theirs = other.alloc();
    const message = expectRefusal(system, "EINVAL", () => files.install(theirs));
    expect(message).toContain("another system");
    const fd = other.files.install(theirs);
    expectError("EINVAL", () => other.files.pass(fd, files));
    expectError("EINVAL", () => files.install(new Plain(0) as never));
    expect([theirs.refCount, files.openCount]).toEqual([1, 0]);
    files.install(alloc());
    system.close();
    other.system.close();
  });

  test("what was released is ESTALE", () => {
    const { system, files, alloc } = open();
    const buf = alloc();
    buf.put();
    expectRefusal(system, "ESTALE", () => files.install(buf));
    const file = new Plain(0);
    file.put();
    expectError("ESTALE", () => new FdTable().install(file));
    expectError("ESTALE", () => new Process(system).install(file));
  });

  test("a reference that was moved is not moved again, into whatever table", () => {
    const { system, files, alloc } = open();
    const buf = alloc();
    const fd = files.install(buf);
    const process = new Process(system);
    for (const table of [files, new FdTable(), process]) {
      const message = expectRefusal(system, "EINVAL", () => table.install(buf as never));
      expect(message).toContain("get() one");
      expect([buf.refCount, files.fds]).toEqual([1, [fd]]);
    }
    const second = files.install(buf.get());
    files.close(fd);
    expectError("EINVAL", () => files.install(buf));
    expect(files.get(second)).toBe(buf); // a reference of ours again
    expect(files.install(buf)).toBe(fd);
    files.closeAll();
    expect(buf.refCount).toBe(0);
  });

  test("descriptors of fork(), dup(), dupTo() and pass() have their own", () => {
    const { files, alloc } = open();
    const buf = alloc();
    const fd = files.install(buf);
    const child = files.fork();
    files.dup(fd);
    files.dupTo(fd, 9);
    files.pass(fd, child);
    expect(buf.refCount).toBe(5);
    expectError("EINVAL", () => child.install(buf));
    child.closeAll();
    files.closeAll();
    expect(buf.refCount).toBe(0);
  });

  test("a CPU mapping's reference is not its caller's", () => {
    const { system, files, alloc } = open();
    const buf = alloc();
    const mapping = buf.mmap();
    const fd = files.install(buf);
    expectRefusal(system, "EINVAL", () => files.install(buf));
    buf[Symbol.dispose]();
    expect(buf.refCount).toBe(2);
    files.close(fd);
    expectRefusal(system, "EINVAL", () => files.install(buf));
    buf[Symbol.dispose]();
    mapping.unmap();
    expect(buf.refCount).toBe(0);
  });

  test("a dispose puts what is the caller's, and leaves what he put or moved", () => {
    const { system, files, alloc } = open();
    const live = () => system.stats().bufferCount;
    {
      using buf = alloc();
      expect(buf.refCount).toBe(1);
    }
    expect(live()).toBe(0);
    {
      using buf = alloc();
      buf.put();
    }
    const moved = (): number => {
      using buf = alloc();
      return files.install(buf);
    };
    const kept = (): number => {
      using buf = alloc();
      return files.install(buf.get());
    };
    for (const fd of [moved(), kept()]) {
      expect(files.peek(fd).refCount).toBe(1);
      files.close(fd);
    }
    expect(live()).toBe(0);
  });

  test("a dispose of other files does so too", () => {
    const file = new Plain(0);
    const table = new FdTable();
    const fd = table.install(file);
    file[Symbol.dispose]();
    expect([file.refCount, file.isReleased]).toEqual([1, false]);
    table.close(fd);
    file[Symbol.dispose]();
    expect([file.refCount, file.isReleased]).toEqual([0, true]);
  });

  test("a dispose that must not put the last reference is EBUSY", () => {
    const { system, alloc } = open();
    const buf = alloc();
    const attachment = buf.attach(system.addDevice({ name: "gpu", iommu: true }));
    expectError("EBUSY", () => buf[Symbol.dispose]());
    attachment.detach();
    buf[Symbol.dispose]();
    expect(buf.refCount).toBe(0);
  });

  test.runIf(build.shared)("a buffer that others have outlived is left alone", () => {
    const { system, files } = open();
    const ops = { map: () => expect.unreachable(), unmap() {}, release() {} };
    const buf = system.export({ ops, sizeBytes: FRAME_BYTES, name: "served" });
    const other = joinSync(system.share());
    const theirs = other.import(buf.token);
    buf.put(); // theirs now
    buf[Symbol.dispose]();
    expectError("EINVAL", () => files.install(buf));
    buf.get();
    const fd = files.install(buf);
    expect(fd).toBe(0);
    files.close(fd);
    buf[Symbol.dispose]();
    theirs.put();
    other.close();
  });
});
