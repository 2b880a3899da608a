import { describe, expect, test, vi } from "vitest";
import type { Clock } from "../../../src/clock.ts";
import type { Fence } from "../../../src/fence/fence.ts";
import { startWait, startWaitAny, waitAny } from "../../../src/fence/wait.ts";
import { eachCore } from "../../support/cores.ts";
import { expectError, expectRejection } from "../../support/errors.ts";
import { TestClock } from "../../support/test-clock.ts";

describe.each(eachCore)("waits on the $name core", (build) => {
  const fences = (count: number): Fence[] => {
    const system = build.system({ memoryBytes: 1 << 20 });
    return Array.from({ length: count }, (_, i) => system.fence(`f${i}`));
  };

  test("end with what is left of the timeout, and 1 of a timeout of 0", () => {
    const [fence] = fences(1) as [Fence];
    const clock = new TestClock();
    const done = vi.fn();
    startWait(fence, { timeoutMs: 0, clock }, done);
    startWait(fence, { timeoutMs: 5, clock }, done);
    clock.pass(2);
    fence.signal();
    startWait(fence, { timeoutMs: 0, clock }, done);
    startWait(fence, { timeoutMs: 7, clock }, done);
    startWait(fence, { clock }, done);
    expect(done.mock.calls.flat()).toEqual([0, 3, 1, 7, Number.POSITIVE_INFINITY]);
    expect(clock.timerCount).toBe(0);
  });

  test("end with 0 when the time runs out, and leave no callback", () => {
    const [fence] = fences(1) as [Fence];
    const clock = new TestClock();
    const done = vi.fn();
    startWait(fence, { timeoutMs: 5, clock }, done);
    clock.pass(5);
    fence.signal();
    expect(done.mock.calls).toEqual([[0]]);
  });

  test("end with EINTR when aborted, before or while", () => {
    const [fence] = fences(1) as [Fence];
    const done = vi.fn();
    const controller = new AbortController();
    startWait(fence, { signal: controller.signal }, done);
    controller.abort();
    startWait(fence, { signal: controller.signal, timeoutMs: 0 }, done);
    fence.signal();
    startWait(fence, { signal: controller.signal }, done); // signaled is looked at first
    expect(done.mock.calls.flat()).toEqual([-4, -4, Number.POSITIVE_INFINITY]);
  });

  test("end at once when the ops of a fence say that it is done", async () => {
    const system = build.system({ memoryBytes: 1 << 20 });
    await system.fence("polled", { ops: { signaled: () => true } }).wait({ timeoutMs: 0 });
    const part = system.fence("part");
    const array = system.fenceArray([part]);
    part.signal("EIO");
    await array.wait();
    expect(array.error?.code).toBe("EIO"); // hooked before it is asked
  });

  test("a negative timeout is EINVAL, also of a signaled fence", () => {
    const [fence] = fences(1) as [Fence];
    fence.signal();
    expectError("EINVAL", () => startWait(fence, { timeoutMs: -1 }, () => {}));
    expectError("EINVAL", () => startWaitAny([fence], { timeoutMs: -1 }, () => {}));
  });

  test("a signal or a clock that is none is EINVAL, and no callback stays", async () => {
    const [fence] = fences(1) as [Fence];
    const { now, after } = new TestClock();
    for (const signal of [5, "now", {}, true] as unknown as AbortSignal[]) {
      await expectRejection("EINVAL", fence.wait({ signal }));
      await expectRejection("EINVAL", waitAny([fence], { signal, timeoutMs: 5 }));
    }
    for (const clock of [null, {}, { now }, { after }, { now, after: 5 }] as unknown as Clock[]) {
      await expectRejection("EINVAL", fence.wait({ clock, timeoutMs: 5 }));
      expectError("EINVAL", () => startWait(fence, { clock }, () => {}));
    }
    expect(fence.hasCallbacks).toBe(false);
    fence.signal();
    await fence.wait({ signal: null as unknown as AbortSignal }); // as fetch() takes it
    await expectRejection("EINVAL", fence.wait({ signal: 5 as unknown as AbortSignal }));
  });

  test("for any end with the index of the fence that signals", async () => {
    const [a, b, c] = fences(3) as [Fence, Fence, Fence];
    const first = waitAny([a, b, c]);
    b.signal("EIO");
    expect(await first).toBe(1);
    expect(await waitAny([a, c, b], { timeoutMs: 5 })).toBe(2);
    expect(await waitAny([a, c, b], { timeoutMs: 0 })).toBe(2);
    await expectRejection("ETIME", waitAny([a, c], { timeoutMs: 1 }));
    await expectRejection("ETIME", waitAny([a, c], { timeoutMs: 0 }));
    await expectRejection("EINTR", waitAny([a, c], { signal: AbortSignal.abort() }));
    await expectRejection("EINVAL", waitAny([]));
  });
});
