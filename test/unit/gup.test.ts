import { describe, expect, test } from "vitest";
import {
  GUP_PIN_COUNTING_BIAS,
  getUserPages,
  LockedVm,
  MiB,
  pinUserPages,
  type System,
  UserRange,
} from "../../src/index.ts";
import { eachCore } from "../support/cores.ts";
import { expectError, expectRefusal } from "../support/errors.ts";

/** A range drawn as text: "#" is a page, "." a hole. */
function rangeOf(system: System, picture: string, options = {}): UserRange {
  return new UserRange(
    [...picture].map((mark) => (mark === "#" ? system.movable(1) : null)),
    options,
  );
}

describe.each(eachCore)("user pages on the $name core", (build) => {
  const open = () => build.system({ memoryBytes: 16 * MiB, cma: { default: 8 * MiB } });

  test.each([
    ["####", 0, 4, 4],
    ["###.####", 0, 8, 3],
    ["###.####", 4, 8, 4],
    ["####", 3, 4, 1],
    ["####", 2, undefined, 2],
    ["####", 0, 0, 0],
    ["....", 0, 0, 0],
    ["", 0, undefined, 0],
  ])("%o from page %s, %s asked: %s held", (picture, first, pageCount, held) => {
    const system = open();
    const range = rangeOf(system, picture);
    for (const take of [pinUserPages, getUserPages]) {
      const pages = take(range, { first, ...(pageCount === undefined ? {} : { pageCount }) });
      expect(pages.pageCount).toBe(held);
      expect(system.stats().pinnedFrames).toBe(held);
      pages.release();
      expect(system.stats().pinnedFrames).toBe(0);
    }
    expect(system.check(true)).toBeNull();
  });

  test.each([
    ["a hole", 1, 2, "EFAULT"],
    ["pages behind the range", 3, 1, "EFAULT"],
    ["a fraction", 0.5, 1, "EINVAL"],
    ["a negative count", 0, -1, "EINVAL"],
  ] as const)("refuses %s and takes nothing", (_, first, pageCount, code) => {
    const system = open();
    const range = rangeOf(system, "#.#");
    for (const take of [pinUserPages, getUserPages])
      expectRefusal(system, code, () => take(range, { first, pageCount }));
  });

  test("a read-only range refuses writers", () => {
    const system = open();
    const range = rangeOf(system, "##", { writable: false });
    expectRefusal(system, "EFAULT", () => pinUserPages(range, { write: true }));
    expect(pinUserPages(range).pageCount).toBe(2);
    expect(pinUserPages(range, { write: true, pageCount: 0 }).pageCount).toBe(0);
  });

  test("refs count the mapping, gets and pins; 1024 of them may be a pin", () => {
    const system = open();
    const range = rangeOf(system, "#");
    const page = range.page(0);
    expect([page?.refs, page?.maybeDmaPinned]).toEqual([1, false]);
    const pin = pinUserPages(range);
    const get = getUserPages(range);
    expect([page?.refs, page?.pinCount]).toEqual([2 + GUP_PIN_COUNTING_BIAS, 1]);
    pin.release();
    expect([page?.refs, page?.maybeDmaPinned]).toEqual([2, false]);
    const gets = Array.from({ length: 1022 }, () => getUserPages(range));
    expect([page?.refs, page?.pinCount, page?.maybeDmaPinned]).toEqual([1024, 0, true]);
    for (const one of [get, ...gets]) one.release();
    expect(page?.refs).toBe(1);
  });

  test("a release marks pages dirty when told, and works once", () => {
    const system = open();
    const range = rangeOf(system, "##");
    const pages = pinUserPages(range, { pageCount: 1, write: true });
    pages.views[0]?.fill(7);
    pages.release({ dirty: true });
    expect([range.page(0)?.isDirty, range.page(1)?.isDirty]).toEqual([true, false]);
    for (const call of [() => pages.release(), () => pages.pages, () => pages.views])
      expectError("ESTALE", call);
    expect(getUserPages(range).views[0]?.[9]).toBe(7);
  });

  test("a page that is unmapped while held goes back with its last reference", () => {
    const system = open();
    const before = system.stats().freeFrames;
    const range = rangeOf(system, "###");
    const get = getUserPages(range, { first: 1 });
    const pin = pinUserPages(range, { first: 1, pageCount: 1 });
    const [page] = pin.pages;
    range.unmap();
    expect(page?.refs).toBe(1025);
    expectError("EFAULT", () => getUserPages(range));
    get.release({ dirty: true });
    expect([page?.refs, page?.isDirty]).toEqual([1024, true]);
    pin.release();
    expect([page?.refs, page?.isDirty]).toEqual([0, false]);
    range.unmap();
    expect(system.stats().freeFrames).toBe(before);
    expect(system.check(true)).toBeNull();
  });

  test("a long-term pin leaves the regions, or takes no page at all", () => {
    const system = open();
    const range = rangeOf(system, "####");
    const short = pinUserPages(range, { first: 2, pageCount: 1 });
    expectError("EBUSY", () => pinUserPages(range, { longterm: true })); // page 2 cannot move
    expect([0, 1, 2, 3].map((i) => range.page(i)?.refs)).toEqual([1, 1, 1025, 1]);
    short.release();
    const long = pinUserPages(range, { longterm: true });
    system.region("default").alloc(2048).free();
    long.release();
    expect(system.check(true)).toBeNull();
  });

  test("memory of several frames is no page", () => {
    const system = open();
    const movable = system.movable(2);
    expectRefusal(system, "EINVAL", () => new UserRange([movable]));
  });
});

describe("LockedVm", () => {
  test("keeps to its limit unless told, and never goes below 0", () => {
    const locked = new LockedVm(16);
    locked.account(16);
    expect(expectError("ENOMEM", () => locked.account(1))).toContain("16 of 16");
    locked.account(1, { bypassLimit: true });
    expectError("ENOMEM", () => locked.account(0)); // already above
    expectError("EINVAL", () => locked.unaccount(18));
    locked.unaccount(17);
    expect(locked.lockedPages).toBe(0);
    for (const wrong of [-1, 0.5, Number.NaN]) expectError("EINVAL", () => locked.account(wrong));
  });
});
