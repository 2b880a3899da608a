import { describe, expect, test, vi } from "vitest";
import { Resv, type ResvUsage, resvUsages } from "../../../src/dma-buf/resv.ts";
import type { Fence } from "../../../src/fence/fence.ts";
import type { FenceArray } from "../../../src/fence/fence-array.ts";
import { eachCore } from "../../support/cores.ts";
import { expectError, expectRejection } from "../../support/errors.ts";

describe.each(eachCore)("a reservation on the $name core", (build) => {
  const open = () => build.system({ memoryBytes: 1 << 20 });

  function listOf(system: ReturnType<typeof open>, count: number): [Resv, Fence[]] {
    const resv = new Resv();
    const fences = Array.from({ length: count }, (_, i) => system.fence(`f${i}`));
    for (const fence of fences) resv.addFence(fence, "read");
    return [resv, fences];
  }

  test.each([
    [1, 5],
    [5, 5],
    [6, 13],
    [14, 29],
    [30, 61],
    [62, 125],
  ])("of %i fences has room for %i", (count, capacity) => {
    expect(listOf(open(), count)[0].capacity).toBe(capacity);
  });

  test.each([
    [0, 5],
    [4, 5],
    [7, 9],
    [9, 21],
    [20, 61],
  ])("reserveFences(%i) on an empty list makes room for %i", (count, capacity) => {
    const resv = new Resv();
    resv.reserveFences(count);
    expect(resv.capacity).toBe(capacity);
  });

  test.each([-1, 1.5, Number.NaN])("reserveFences(%s) is EINVAL", (count) => {
    expectError("EINVAL", () => new Resv().reserveFences(count));
  });

  test("signaled fences keep their place until the list grows", () => {
    const system = open();
    const [resv, fences] = listOf(system, 5);
    fences[1]?.signal();
    expect(resv.entries).toHaveLength(5);
    resv.reserveFences(1);
    expect(resv.entries.map(({ fence }) => fence)).toEqual([0, 2, 3, 4].map((i) => fences[i]));
    expect(resv.capacity).toBe(13);
  });

  test("a new fence takes the first place of a signaled one", () => {
    const system = open();
    const [resv, fences] = listOf(system, 4);
    fences[2]?.signal();
    fences[1]?.signal();
    const fence = system.fence("new");
    resv.addFence(fence, "kernel");
    expect(resv.entries.map((entry) => entry.fence)).toEqual([
      fences[0],
      fence,
      fences[2],
      fences[3],
    ]);
    expect(resv.entries[1]?.usage).toBe("kernel");
  });

  test.each([
    ["a later fence with an equal usage", 2, "write", [[2, "write"]]],
    ["a later fence with a stronger usage", 2, "kernel", [[2, "kernel"]]],
    [
      "a later fence with a weaker usage",
      2,
      "read",
      [
        [1, "write"],
        [2, "read"],
      ],
    ],
    [
      "an earlier fence",
      0,
      "write",
      [
        [1, "write"],
        [0, "write"],
      ],
    ],
    [
      "another fence of the same seqno",
      1,
      "write",
      [
        [1, "write"],
        [1, "write"],
      ],
    ],
  ] as const)("that holds a writer of seqno 1, given %s", (_, seqno, usage, expected) => {
    const system = open();
    const resv = new Resv();
    const first = system.fence("first", { seqno: 1 });
    resv.addFence(first, "write");
    resv.addFence(system.fence("second", { context: first.context, seqno }), usage);
    expect(resv.entries.map((entry) => [entry.fence.seqno, entry.usage])).toEqual(expected);
  });

  test("the same fence with a stronger usage replaces itself, with a weaker one it comes last", () => {
    const system = open();
    const [resv, [fence]] = listOf(system, 1) as [Resv, [Fence]];
    resv.addFence(fence, "write");
    resv.addFence(fence, "bookkeep");
    expect(resv.entries.map(({ usage }) => usage)).toEqual(["write", "bookkeep"]);
  });

  test("replaceFences() puts a fence into every place of a context", () => {
    const system = open();
    const [resv, [a, b]] = listOf(system, 2) as [Resv, [Fence, Fence]];
    resv.addFence(a, "bookkeep");
    const done = system.fence("done");
    resv.replaceFences(a.context, done, "write");
    expect(resv.entries).toEqual([
      { fence: done, usage: "write" },
      { fence: b, usage: "read" },
      { fence: done, usage: "write" },
    ]);
  });

  test("copyFences() takes over what is pending, in order", () => {
    const system = open();
    const [resv, fences] = listOf(system, 6);
    fences[0]?.signal();
    const copy = listOf(system, 2)[0];
    copy.copyFences(resv);
    expect(copy.entries).toEqual(resv.entries.slice(1));
    expect(copy.capacity).toBe(9);
    copy.copyFences(new Resv());
    expect([copy.entries, copy.capacity]).toEqual([[], 0]);
  });

  test("getSingleton() is null, the fence, or an array of them", () => {
    const system = open();
    const [resv, [a, b]] = listOf(system, 2) as [Resv, [Fence, Fence]];
    expect(resv.getSingleton("write")).toBeNull();
    const both = resv.getSingleton("read") as FenceArray;
    expect(both.fences).toEqual([a, b]);
    expect(both.context).not.toBe(a.context);
    a.signal();
    expect(resv.getSingleton("read")).toBe(b);
    b.signal();
    expect(both.isSignaled).toBe(true);
  });

  test("refuses composites, unknown usages and what is no fence", () => {
    const system = open();
    const [resv, fences] = listOf(system, 2);
    const array = system.fenceArray(fences);
    const bad = "none" as ResvUsage;
    expectError("EINVAL", () => resv.addFence(array, "read"));
    expectError("EINVAL", () => resv.replaceFences(1, array, "read"));
    expectError("EINVAL", () => resv.addFence(null as unknown as Fence, "read"));
    expectError("EINVAL", () => resv.fences(bad));
    const { resv: ofBuffer } = system.heap("system").alloc(1);
    expectError("EINVAL", () => ofBuffer.addFence(open().fence("foreign"), "read"));
    expect(resv.entries).toHaveLength(2);
  });

  test.each(resvUsages)("of a %s fence is signaled when the fence is", (usage) => {
    const resv = new Resv();
    const fence = open().fence("f");
    resv.addFence(fence, usage);
    expect([resv.fences(usage), resv.testSignaled(usage)]).toEqual([[fence], false]);
    fence.signal();
    expect([resv.fences(usage), resv.testSignaled(usage)]).toEqual([[], true]);
  });

  test("wait() shares one timeout among its fences, and leaves nothing behind", async () => {
    const system = open();
    const [resv, [a, b]] = listOf(system, 2) as [Resv, [Fence, Fence]];
    const waiting = resv.wait("read", { timeoutMs: 20 });
    a.signal();
    await expectRejection("ETIME", waiting);
    await expectRejection("EINTR", resv.wait("read", { signal: AbortSignal.abort() }));
    await expectRejection("EINVAL", resv.wait("read", { timeoutMs: -1 }));
    const controller = new AbortController();
    const aborted = resv.wait("read", { signal: controller.signal });
    controller.abort();
    await expectRejection("EINTR", aborted);
    b.signal();
    await resv.wait("read", { timeoutMs: 0 });
  });

  test("setDeadline() reaches the pending fences of a usage", () => {
    const system = open();
    const setDeadline = vi.fn();
    const resv = new Resv();
    resv.addFence(system.fence("w", { ops: { setDeadline } }), "write");
    resv.addFence(system.fence("r", { ops: { setDeadline } }), "read");
    resv.setDeadline("write", 4);
    expect(setDeadline).toHaveBeenCalledOnce();
  });
});
