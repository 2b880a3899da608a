import { describe, expect, test } from "vitest";
import { O_CLOEXEC, O_RDWR } from "../../../src/index.ts";
import * as uapi from "../../../src/uapi/index.ts";
import { eachCore } from "../../support/cores.ts";
import { expectError } from "../../support/errors.ts";
import { allocBuffer, openProgram, RW } from "../../support/program.ts";

describe.each(eachCore)("what processes share on the $name core", (build) => {
  const open = (options: uapi.ProcessOptions = {}) => openProgram(build, options);

  test("sendFd passes a buffer to another process, which keeps it alive", () => {
    const [system, process] = open();
    const other = new uapi.Process(system, { fdLimit: 1 });
    const fd = allocBuffer(process);
    process.mmap(4096, RW, uapi.MAP_SHARED, fd).set(0, 9);
    expect(process.sendFd(fd, other, { closeOnExec: true })).toBe(0);
    expectError("EMFILE", () => process.sendFd(fd, other));
    process.exit();
    expect(system.stats().bufferCount).toBe(1);
    expect(other.mmap(4096, uapi.PROT_READ, uapi.MAP_SHARED, 0).at(0)).toBe(9);
    other.exec("next");
    expect([system.stats().bufferCount, other.name]).toEqual([0, "next"]);
    system.close();
  });

  test("holders() finds the descriptors of processes until they end", () => {
    const [, process] = open({ name: "player" });
    const buf = process.dmaBuf(allocBuffer(process));
    process.dup(1);
    const child = process.fork();
    child.name = "child";
    process.mmap(4096, RW, uapi.MAP_SHARED, 0);
    const names = () => buf.holders().map(({ kind, name }) => `${kind} ${name}`);
    expect(names()).toEqual([
      "reference get()",
      "fd descriptor 0 of player",
      "fd descriptor 1 of player",
      "fd descriptor 0 of child",
      "fd descriptor 1 of child",
      "cpu-mapping 1 page from page 0 on",
    ]);
    child.exit();
    process.exit();
    expect(names()).toEqual(["reference get()"]);
    buf.put();
  });

  test("fork inherits descriptors and mappings, exec drops what is marked and all mappings", () => {
    const [system, process] = open();
    const [kept, marked] = [allocBuffer(process), allocBuffer(process, 4096, O_RDWR + O_CLOEXEC)];
    process.mmap(4096, RW, uapi.MAP_SHARED, kept);
    const own = process.mmap(4096, RW, uapi.MAP_PRIVATE, marked);
    own.set(0, 5);
    const child = process.fork();
    const count = (fd: number) => /count:\t(\d+)/.exec(process.fdinfo(fd))?.[1];
    expect([kept, marked].map(count)).toEqual(["4", "4"]);
    child.exec("a name that is longer than Linux keeps");
    expect([child.name, child.files.fds, kept, marked].flat()).toEqual([
      "a name that is ",
      kept,
      kept,
      marked,
    ]);
    expect([kept, marked].map(count)).toEqual(["3", "2"]);
    child.exit();
    process.exit();
    expect(system.stats().bufferCount).toBe(0);
    system.close();
  });

  test("dmaBuf() gives the typed buffer, with a reference", () => {
    const [, process] = open();
    const fd = allocBuffer(process);
    const buf = process.dmaBuf(fd);
    expect([buf.sizeBytes, buf.refCount]).toEqual([4096, 2]);
    process.close(fd);
    buf.put();
    expectError("EINVAL", () => process.dmaBuf(process.memfdCreate("m")));
  });
});
