import { describe, expect, test } from "vitest";
import { FdTable } from "../../../src/files/fd-table.ts";
import { expectError } from "../../support/errors.ts";

function file(): { description: string; refs: number; get(): void; put(): void } {
  return {
    description: "a file",
    refs: 1,
    get() {
      this.refs += 1;
    },
    put() {
      this.refs -= 1;
    },
  };
}

describe("FdTable", () => {
  test("install() takes the lowest free number and the caller's reference", () => {
    const table = new FdTable();
    const [a, b, c] = [file(), file(), file()];
    expect([table.install(a), table.install(b), table.install(c)]).toEqual([0, 1, 2]);
    table.close(1);
    table.close(0);
    expect([a.refs, b.refs, c.refs]).toEqual([0, 0, 1]);
    expect(table.install(file())).toBe(0);
    expect(table.install(file())).toBe(1);
    expect(table.openCount).toBe(3);
  });

  test("get() adds a reference, dup() one more under a new number", () => {
    const table = new FdTable();
    const a = file();
    const fd = table.install(a);
    expect(table.get(fd)).toBe(a);
    expect(a.refs).toBe(2);
    expect(table.dup(fd)).toBe(1);
    expect(a.refs).toBe(3);
    table.closeAll();
    expect(a.refs).toBe(1);
  });

  test.each([-1, 0, 7, 1.5, Number.NaN])("descriptor %s that is not open is EBADF", (fd) => {
    const table = new FdTable();
    for (const call of [
      () => table.get(fd),
      () => table.close(fd),
      () => table.dup(fd),
      () => table.peek(fd),
    ]) {
      expectError("EBADF", call);
    }
  });

  test("a full table is EMFILE, and nobody loses a reference", () => {
    const table = new FdTable(2);
    const a = file();
    const fd = table.install(a);
    table.dup(fd);
    expectError("EMFILE", () => table.install(file()));
    expectError("EMFILE", () => table.dup(fd));
    expect(a.refs).toBe(2);
  });

  test.each([0, 1.5, -3])("a limit of %s is EINVAL", (limit) => {
    expectError("EINVAL", () => new FdTable(limit));
  });
});
