import { describe, expect, test } from "vitest";
import type { DmaBufOps, ExportInfo } from "../../../src/index.ts";
import {
  FdTable,
  getDmaBuf,
  isReadable,
  isWritable,
  MiB,
  ReferencedFile,
  Resv,
} from "../../../src/index.ts";
import { eachCore } from "../../support/cores.ts";
import { expectError, expectRefusal } from "../../support/errors.ts";
import { watched } from "../../support/exporter.ts";

const op = (): void => {};
const ops = { map: op, unmap: op, release: op } as unknown as DmaBufOps;

describe.each(eachCore)("export on the $name core", (build) => {
  const open = () => build.system({ memoryBytes: 4 * MiB });

  test.each<[string, unknown]>([
    ["nothing", null],
    ["priv null", { priv: null }],
    ["ops null", { ops: null }],
    ["ops without map", { ops: { ...ops, map: null } }],
    ["ops without unmap", { ops: { ...ops, unmap: null } }],
    ["ops without release", { ops: { ...ops, release: null } }],
    ["an op that is no function", { ops: { ...ops, mmap: 1 } }],
    ["pin without unpin", { ops: { ...ops, pin: op } }],
    ["unpin without pin", { ops: { ...ops, unpin: op } }],
    [
      "cacheSgtMapping with pin and unpin",
      { ops: { ...ops, pin: op, unpin: op, cacheSgtMapping: true } },
    ],
    ["cacheSgtMapping with pin only", { ops: { ...ops, pin: op, cacheSgtMapping: true } }],
    ["canAttach that is no function", { ops: { ...ops, canAttach: true } }],
    ["flags that are no number", { flags: "rw" }],
    ["a reservation that is none", { resv: {} }],
    ["a reservation of null", { resv: null }],
    ["an owner that cannot be held", { owner: {} }],
    ["a size that is no number", { sizeBytes: "1" }],
    ["an exporter's name that is no text", { exporterName: 7 }],
    ["a name of 32 bytes", { name: "x".repeat(32) }],
  ])("of %s is EINVAL", (_, change) => {
    const system = open();
    const info = change === null ? null : { ops, sizeBytes: 1, ...(change as object) };
    expectRefusal(system, "EINVAL", () => system.export(info as unknown as ExportInfo));
  });

  test.each([0, 1, 4097])("of %i bytes keeps the size as it is", (sizeBytes) => {
    const system = open();
    const buf = system.export({ ops, sizeBytes });
    expect([buf.sizeBytes, buf.seek(0, "end"), buf.exporterName]).toEqual([
      sizeBytes,
      sizeBytes,
      "unnamed",
    ]);
    buf.put();
  });

  test("keeps the export flags of access mode and O_NONBLOCK, and no others", () => {
    const system = open();
    const flagsOf = (flags?: number) => {
      const buf = system.export({ ops, sizeBytes: 1, ...(flags === undefined ? {} : { flags }) });
      return [buf.fileFlags, isReadable(buf), isWritable(buf)];
    };
    expect(flagsOf()).toEqual([2, true, true]);
    expect(flagsOf(0)).toEqual([0, true, false]);
    expect(flagsOf(1)).toEqual([1, false, true]);
    expect(flagsOf(3)).toEqual([3, false, false]);
    expect(flagsOf(0o2006002)).toEqual([0o4002, true, true]); // O_CLOEXEC and O_APPEND go
  });

  test("keeps priv and a reservation of the exporter's; without them the ops and one of its own", () => {
    const system = open();
    const [priv, resv] = [{ bo: 7 }, new Resv()];
    const shared = [1, 2].map(() => system.export({ ops, sizeBytes: 1, priv, resv }));
    expect(shared.map((buf) => buf.resv === resv && buf.priv === priv)).toEqual([true, true]);
    const own = system.export({ ops, sizeBytes: 1 });
    expect([own.resv === resv, own.priv === ops]).toEqual([false, true]);
  });

  test("release order: off the list, the exporter's release, then the owner's put", () => {
    const system = open();
    const heard: string[] = [];
    const owner = {
      name: "gpu.ko",
      tryGet: () => heard.push("get") < 4,
      put: () => void heard.push("put"),
    };
    const release = (): void => void heard.push(`listed ${system.buffers.length}`, "release");
    const buf = system.export({ ops: { ...ops, release }, sizeBytes: 1, owner });
    buf.put();
    expect(heard).toEqual(["get", "listed 0", "release", "put"]);
    const message = expectRefusal(system, "ENOENT", () =>
      system.export({ ops, sizeBytes: 1, owner }),
    );
    expect(message).toContain("gpu.ko");
  });

  test("setName takes up to 31 bytes, attached or not, and changes what messages say", () => {
    const system = open();
    const buf = watched(system, []);
    expect([buf.label, buf.name]).toEqual([null, "watched:1"]);
    buf.attach(system.addDevice({ name: "gpu", iommu: true }));
    for (const name of ["frame 7", "", "x".repeat(31), "é".repeat(15)]) {
      buf.setName(name);
      expect([buf.label, buf.name]).toEqual([name, name]);
    }
    for (const name of ["x".repeat(32), "é".repeat(16), 7 as unknown as string])
      expectRefusal(system, "EINVAL", () => buf.setName(name));
    expect(buf.name).toBe("é".repeat(15));
  });

  test("getDmaBuf takes a reference, and refuses what is no dma-buf: EINVAL, or not open: EBADF", () => {
    const system = open();
    class Other extends ReferencedFile {
      readonly description = "another file";
      protected release(): void {}
    }
    const files = new FdTable();
    const [buf, other] = [watched(system, []), new Other(0)];
    const fd = files.install(buf);
    expect(getDmaBuf(files, fd)).toBe(buf);
    expect(buf.refCount).toBe(2);
    expectError("EINVAL", () => getDmaBuf(files, files.install(other)));
    expect(other.refCount).toBe(1);
    for (const bad of [-1, 9999]) expectError("EBADF", () => getDmaBuf(files, bad));
    expectError("EINVAL", () => files.install(null as unknown as Other));
  });

  test("the last put runs release unlocked, and frees nothing if that throws", () => {
    const system = open();
    const calls: string[] = [];
    const buf = watched(system, calls);
    buf.get();
    buf.put();
    expect(calls).toEqual([]);
    buf.put();
    expect(calls).toEqual(["release unlocked"]);
    let isStuck = true;
    const stuck = system.export({
      ops: {
        ...ops,
        release: () => {
          if (isStuck) throw new Error("stuck");
        },
      },
      sizeBytes: 1,
    });
    expect(() => stuck.put()).toThrow("stuck");
    expect([stuck.refCount, system.buffers.includes(stuck)]).toEqual([1, true]);
    isStuck = false;
    stuck.put();
    expect(system.buffers).toEqual([]);
  });
});
