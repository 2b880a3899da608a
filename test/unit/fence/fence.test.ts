import { describe, expect, test, vi } from "vitest";
import { usageFor } from "../../../src/dma-buf/resv.ts";
import { eachCore } from "../../support/cores.ts";
import { expectError, expectRejection } from "../../support/errors.ts";
import { nextUncaught } from "../../support/uncaught.ts";

describe.each(eachCore)("fences on the $name core", (build) => {
  const open = () => build.system({ memoryBytes: 1 << 20 });

  test("fence.signal() sets the state before callbacks run, in order, once", () => {
    const fence = open().fence("copy");
    const calls: string[] = [];
    expect(fence.addCallback((f) => calls.push(`a ${f.isSignaled} ${f.status}`))).toBe(true);
    fence.addCallback(() => calls.push("b"));
    expect(fence.signal()).toBe(true);
    expect(fence.signal("EIO")).toBe(false);
    expect(calls).toEqual(["a true 1", "b"]);
    expect(fence.addCallback(() => calls.push("late"))).toBe(false);
    expect([fence.status, fence.error, calls.length]).toEqual([1, null, 2]);
    expect(fence.timestampMs).toBeGreaterThan(0);
  });

  test("fence.removeCallback() says whether it was still there", () => {
    const fence = open().fence("copy");
    const callback = vi.fn();
    fence.addCallback(callback);
    expect(fence.removeCallback(callback)).toBe(true);
    expect(fence.removeCallback(callback)).toBe(false);
    fence.signal();
    expect(callback).not.toHaveBeenCalled();
  });

  test("an error is hidden until the fence signals with it", () => {
    const fence = open().fence("copy");
    expect(fence.error).toBeNull();
    fence.signal("EIO");
    expect(fence.error?.code).toBe("EIO");
    expect(fence.status).toBe(-5);
  });

  test("a callback that throws is reported, and the rest still run", async () => {
    const reported = nextUncaught();
    const fence = open().fence("copy");
    const after = vi.fn();
    fence.addCallback(() => {
      throw new Error("mine");
    });
    fence.addCallback(after);
    fence.signal();
    expect(after).toHaveBeenCalledOnce();
    expect(String(await reported)).toContain("mine");
  });

  test("fence.wait() resolves on signal, also with an error; ETIME and EINTR end it", async () => {
    const system = open();
    const [good, bad, slow] = ["good", "bad", "slow"].map((name) => system.fence(name));
    const waits = [good?.wait(), bad?.wait()];
    good?.signal();
    bad?.signal("EIO");
    await Promise.all(waits);
    await good?.wait();
    await expectRejection("ETIME", slow?.wait({ timeoutMs: 5 }) as Promise<void>);
    const controller = new AbortController();
    const waiting = slow?.wait({ signal: controller.signal }) as Promise<void>;
    controller.abort();
    await expectRejection("EINTR", waiting);
    await expectRejection("EINTR", slow?.wait({ signal: AbortSignal.abort() }) as Promise<void>);
  });

  test("a fence's record is freed when it signals", () => {
    const system = open();
    const before = system.stats().freeFrames;
    for (let i = 0; i < 1000; i++) system.fence(`f${i}`).signal();
    expect(system.stats().freeFrames).toBe(before);
    expect(system.check(true)).toBeNull();
  });

  test("a fence of a timeline that is signaled out of turn is not refused, as in Linux", () => {
    const timeline = open().timeline("t");
    const [first, second] = [timeline.fence(), timeline.fence()];
    expect(second.signal()).toBe(true);
    expect([first.isSignaled, timeline.value]).toEqual([false, 0]);
    timeline.advance(2);
    expect([first.isSignaled, second.signal()]).toEqual([true, false]);
    first.release();
    second.release();
  });

  test("timeline.advance() signals what it passes, in order", () => {
    const timeline = open().timeline("gpu");
    const order: number[] = [];
    const fences = Array.from({ length: 4 }, () => timeline.fence());
    for (const fence of fences) fence.addCallback(({ seqno }) => order.push(seqno));
    timeline.advance();
    expect(order).toEqual([1]);
    timeline.advance(2);
    expect(order).toEqual([1, 2, 3]);
    expect(timeline.value).toBe(3);
    timeline.advance(5);
    expect(timeline.fence().seqno).toBe(9); // behind the counter
  });

  test("timeline.close() ends what is pending with ENOENT", () => {
    const timeline = open().timeline("gpu");
    const fence = timeline.fence();
    timeline.close();
    expect(fence.error?.code).toBe("ENOENT");
    expectError("ENODEV", () => timeline.fence());
  });

  test.each([0, -1, 1.5])("timeline.advance(%s) is EINVAL", (count) => {
    expectError("EINVAL", () => open().timeline("t").advance(count));
  });

  describe("resv", () => {
    test("a usage asks for all fences of it and of those before it", () => {
      const system = open();
      const { resv } = system.heap("system").alloc(1);
      const [kernel, write, read, book] = ["kernel", "write", "read", "bookkeep"].map((usage) => {
        const fence = system.fence(usage);
        resv.addFence(fence, usage as "kernel");
        return fence;
      });
      expect(resv.fences("kernel")).toEqual([kernel]);
      expect(resv.fences("write")).toEqual([kernel, write]);
      expect(resv.fences("read")).toEqual([kernel, write, read]);
      expect(resv.fences("bookkeep")).toEqual([kernel, write, read, book]);
      write?.signal();
      expect(resv.fences("write")).toEqual([kernel]);
      expect(resv.testSignaled("kernel")).toBe(false);
    });

    test("a writer waits for readers and writers, a reader for writers", () => {
      expect([usageFor(true), usageFor(false)]).toEqual(["read", "write"]);
    });

    test("a later fence of the same context replaces an equal or weaker usage only", () => {
      const system = open();
      const { resv } = system.heap("system").alloc(1);
      const timeline = system.timeline("t");
      const [one, two, three] = [timeline.fence(), timeline.fence(), timeline.fence()];
      resv.addFence(one, "read");
      resv.addFence(two, "write");
      expect(resv.fences("bookkeep")).toEqual([two]);
      resv.addFence(three, "read");
      expect(resv.fences("bookkeep")).toEqual([two, three]);
      resv.addFence(one, "read"); // older: appended
      expect(resv.fences("bookkeep")).toEqual([two, three, one]);
    });

    test("resv.wait() waits for what is pending now", async () => {
      const system = open();
      const { resv } = system.heap("system").alloc(1);
      const fence = system.fence("f");
      resv.addFence(fence, "write");
      const waiting = resv.wait("read");
      fence.signal();
      await waiting;
      await resv.wait("read");
      expectError("EINVAL", () => resv.addFence(fence, "none" as "read"));
    });
  });
});
