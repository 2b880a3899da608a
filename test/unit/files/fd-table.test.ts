import { describe, expect, test } from "vitest";
import { fail } from "../../../src/errors.ts";
import { FdTable } from "../../../src/files/fd-table.ts";
import { O_RDWR, ReferencedFile } from "../../../src/files/open-file.ts";
import { expectError } from "../../support/errors.ts";
import { fuzzSeed, Prng } from "../../support/prng.ts";
import { nextUncaught } from "../../support/uncaught.ts";

/** A file that knows when it ends. */
class Counted extends ReferencedFile {
  readonly description = "a counted file";
  constructor() {
    super(O_RDWR);
  }
  protected release(): void {}
}

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

  test("exec() closes all that is marked, though one refuses", () => {
    const table = new FdTable();
    const busy = { ...file(), put: () => fail("EBUSY", "put a file", "it is used") };
    const [a, kept, b] = [file(), file(), file()];
    const closeOnExec = true;
    table.install(a, { closeOnExec });
    const fd = table.install(busy, { closeOnExec });
    const stays = table.install(kept);
    table.install(b, { closeOnExec });
    expectError("EBUSY", () => table.exec());
    expect(table.fds).toEqual([fd, stays]);
    expect([a.refs, kept.refs, b.refs]).toEqual([0, 1, 0]);
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

  test.each(["0", [0], 0n, { valueOf: () => 0 }])("descriptor %o is no number", (value) => {
    const table = new FdTable();
    const [a, fd] = [file(), value as number];
    table.install(a);
    for (const call of [
      () => table.get(fd),
      () => table.close(fd),
      () => table.dup(fd),
      () => table.dupTo(fd, 3),
      () => table.dupTo(0, fd),
      () => table.pass(fd, table),
      () => table.peek(fd),
      () => table.isCloseOnExec(fd),
      () => table.setCloseOnExec(fd, true),
    ]) {
      expectError("EINVAL", call);
    }
    expect([a.refs, table.fds, table.find(fd)]).toEqual([1, [0], null]);
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

  test("finds the lowest free number as a search through all numbers does", () => {
    const random = new Prng(fuzzSeed(20261121));
    const table = new FdTable(200);
    const open = new Set<number>();
    for (let event = 0; event < 20_000; event++) {
      if (open.size < 200 && random.below(2) === 0) {
        const min = random.below(3) === 0 ? random.below(200) : 0;
        let lowest = min;
        while (open.has(lowest)) lowest += 1;
        if (lowest >= 200) expectError("EMFILE", () => table.install(file(), { min }));
        else expect(table.install(file(), { min })).toBe(lowest);
        if (lowest < 200) open.add(lowest);
      } else if (open.size > 0) {
        const fd = [...open][random.below(open.size)] as number;
        table.close(fd);
        open.delete(fd);
      }
      expect(table.openCount).toBe(open.size);
    }
    expect(table.fds).toEqual([...open].sort((a, b) => a - b));
  });

  test("dupTo() replaces what the number referred to", () => {
    const table = new FdTable(64);
    const [a, b] = [file(), file()];
    table.install(a);
    table.install(b);
    expect(table.dupTo(0, 1, { closeOnExec: true })).toBe(1);
    expect([a.refs, b.refs, table.isCloseOnExec(1)]).toEqual([2, 0, true]);
    expect(table.dupTo(0, 40)).toBe(40);
    expect(table.install(file())).toBe(2);
    expect(table.openCount).toBe(4);
    expectError("EINVAL", () => table.dupTo(0, 0));
    expectError("EBADF", () => table.dupTo(0, 64));
    expectError("EBADF", () => table.dupTo(9, 1));
    expect(table.peek(1)).toBe(a);
  });
});

describe("a file that was released while it is in a table", () => {
  /** A table of a live file and a released one, and the tables that count their descriptors. */
  const withReleased = () => {
    const [live, gone] = [new Counted(), new Counted()];
    const table = new FdTable();
    table.install(live);
    table.install(gone);
    gone.put(); // the table's, which is nobody's to put
    return { live, gone, table };
  };

  test("cannot be inherited: fork() is ESTALE, and takes no reference", () => {
    const { live, table } = withReleased();
    expectError("ESTALE", () => table.fork());
    expect([live.refCount, table.fds]).toEqual([1, [0, 1]]);
    expect(table.install(live.get())).toBe(2); // no descriptor of the child counts as a holder
    table.closeAll();
    expect([live.refCount, table.openCount]).toEqual([0, 0]);
  });

  test("cannot be duplicated: dupTo() is ESTALE, and its target stays open", () => {
    const { live, table } = withReleased();
    expectError("ESTALE", () => table.dupTo(1, 0));
    expect([live.refCount, table.fds, table.peek(0)]).toEqual([1, [0, 1], live]);
  });

  test("a child whose files refuse is undone, and the call says what refused first", async () => {
    const table = new FdTable();
    const [a, b] = [file(), { ...file(), get: () => fail("EBUSY", "get a file", "it is used") }];
    const stuck = { ...file(), put: () => fail("EIO", "put a file", "it is stuck") };
    for (const one of [a, stuck, b]) table.install(one);
    const reported = nextUncaught();
    expectError("EBUSY", () => table.fork());
    expect(String(await reported)).toContain("it is stuck");
    expect(a.refs).toBe(1);
  });

  test("dupTo() gives its reference back when the target refuses to close", () => {
    const table = new FdTable();
    const [a, stuck] = [file(), { ...file(), put: () => fail("EIO", "put a file", "it is stuck") }];
    table.install(a);
    table.install(stuck);
    expectError("EIO", () => table.dupTo(0, 1));
    expect([a.refs, table.peek(1)]).toEqual([1, stuck]);
  });
});

describe("passing descriptors on", () => {
  test("pass() gives another table the file under its own lowest number", () => {
    const [sender, receiver] = [new FdTable(), new FdTable(2)];
    const a = file();
    sender.install(file());
    const fd = sender.install(a);
    expect(sender.pass(fd, receiver, { closeOnExec: true })).toBe(0);
    expect([a.refs, receiver.isCloseOnExec(0), sender.isCloseOnExec(fd)]).toEqual([2, true, false]);
    sender.close(fd);
    expect([a.refs, receiver.peek(0)]).toEqual([1, a]);
    receiver.close(0);
    expect(a.refs).toBe(0);
  });

  test("a full receiver is EMFILE, and the sender keeps its own", () => {
    const [sender, receiver] = [new FdTable(), new FdTable(1)];
    const a = file();
    sender.install(a);
    receiver.install(file());
    expectError("EMFILE", () => sender.pass(0, receiver));
    expect(a.refs).toBe(1);
  });

  test("close-on-exec decides what another program inherits", () => {
    const parent = new FdTable();
    const [a, b] = [file(), file()];
    parent.install(a, { closeOnExec: true });
    parent.install(b);
    const child = parent.fork();
    expect([child.fds, a.refs, b.refs]).toEqual([[0, 1], 2, 2]);
    child.exec();
    expect([child.fds, a.refs, b.refs]).toEqual([[1], 1, 2]);
    parent.setCloseOnExec(0, false);
    parent.setCloseOnExec(1, true);
    parent.exec();
    expect([parent.fds, a.refs, b.refs]).toEqual([[0], 1, 1]);
  });

  test("a duplicate does not inherit the mark", () => {
    const table = new FdTable();
    table.install(file(), { closeOnExec: true });
    expect([table.isCloseOnExec(table.dup(0)), table.isCloseOnExec(0)]).toEqual([false, true]);
    expect(table.isCloseOnExec(table.dup(0, { closeOnExec: true, min: 10 }))).toBe(true);
    expect(table.fds).toEqual([0, 1, 10]);
  });
});
