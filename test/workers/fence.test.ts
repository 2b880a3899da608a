import { describe, expect, test } from "vitest";
import { joinSync, openSync, type System } from "../../src/system.ts";
import { eachCore } from "../support/cores.ts";
import { codeOf, expectError } from "../support/errors.ts";
import { hire, pause } from "./crew.ts";

const MiB = 1 << 20;
const builds = eachCore.filter(({ shared }) => shared);

describe.each(builds)("fences cross threads on the $name core", ({ wasm }) => {
  const open = (): System => openSync({ wasm, shared: true, memoryBytes: 8 * MiB });

  test.each([
    ["await wait()", false],
    ["waitSync()", true],
  ])("a Worker waits with %s for a fence of this thread", async (_, isSync) => {
    const system = open();
    const fence = system.fence("job");
    const hand = await hire(system, "awaitFence", { token: fence.token, isSync });
    await pause(20);
    const before = performance.timeOrigin + performance.now();
    fence.signal("EIO");
    const { status, late } = (await hand.done()) as { status: number; late: number };
    expect(status).toBe(-5);
    expect(late).toBeGreaterThanOrEqual(before - 5); // one clock for all threads
    expect(late).toBeLessThan(before + 1000);
    const { token } = fence;
    fence.release();
    expect(["EBADF", "ESTALE"]).toContain(await codeOf((async () => system.importFence(token))()));
    expect(system.check(true)).toBeNull();
    system.close();
  });

  test("no wake-up is lost: 300 fences of a Worker, signaled before, while and after", async () => {
    const system = open();
    const count = 300;
    const hand = await hire(system, "signalFences", { count });
    for (let i = 0; i < count; i++) {
      const fence = system.importFence((await hand.heard()) as number);
      let calls = 0;
      fence.addCallback(() => calls++);
      if (i % 3 === 0) hand.tell("signal it");
      await fence.wait({ timeoutMs: 10_000 });
      if (i % 3 !== 0) hand.tell("next");
      expect(calls).toBe(1);
      expect(fence.errorCode).toBe(i % 5 === 4 ? "EIO" : null);
      fence.release();
    }
    await hand.done();
    expect(system.check(true)).toBeNull();
    expect(system.core.tokens.size).toBe(0);
    system.close();
  });

  test("only its owner signals a fence, and waiting for one's own asleep is EDEADLK", () => {
    const system = open();
    const other = joinSync(system.share());
    const fence = system.fence("mine");
    const imported = other.importFence(fence.token);
    expect(other.importFence(fence.token)).toBe(imported);
    expect(system.importFence(fence.token)).toBe(fence);
    expectError("EPERM", () => imported.signal());
    expectError("EDEADLK", () => fence.waitSync());
    expectError("ETIME", () => imported.waitSync({ timeoutMs: 5 }));
    expect(imported.isSignaled).toBe(false);
    fence.signal();
    expect(imported.isSignaled).toBe(true);
    expect(imported.signal()).toBe(false);
    imported.waitSync();
    imported.release();
    fence.release();
    other.close();
    expect(system.check(true)).toBeNull();
  });

  test("a thread that may not sleep waits from a callback", async () => {
    const system = open();
    const page = joinSync(system.share(), { canBlock: false });
    const fence = system.fence("f");
    const imported = page.importFence(fence.token);
    expectError("EWOULDBLOCK", () => imported.waitSync());
    setTimeout(() => fence.signal(), 5);
    await imported.wait();
    expect(await codeOf(imported.wait({ timeoutMs: 0 }))).toBe("resolved");
    imported.release();
    page.close();
  });

  test("timeouts and aborts end a wait here, and the fence can be waited for again", async () => {
    const system = open();
    const other = joinSync(system.share());
    const fence = system.fence("slow");
    const imported = other.importFence(fence.token);
    expect(await codeOf(imported.wait({ timeoutMs: 5 }))).toBe("ETIME");
    expect(await codeOf(imported.wait({ signal: AbortSignal.timeout(5) }))).toBe("EINTR");
    const waits = [imported.wait(), imported.wait({ timeoutMs: 5000 })];
    fence.signal();
    await Promise.all(waits);
    other.close();
    system.close();
  });

  test("a composite and a signaled fence have tokens too", async () => {
    const system = open();
    const other = joinSync(system.share());
    const parts = [system.fence("a"), system.fence("b")];
    const array = system.fenceArray(parts);
    const late = system.fence("late");
    late.signal("ENODEV");
    const imported = [array, late].map((fence) => other.importFence(fence.token));
    expect(imported.map((fence) => fence.status)).toEqual([0, -19]);
    for (const part of parts) part.signal();
    await imported[0]?.wait({ timeoutMs: 5000 });
    expectError("EOPNOTSUPP", () => system.stub.token);
    for (const fence of [...imported, array, late]) fence.release();
    expect(system.core.tokens.size + other.core.tokens.size).toBe(0);
    expect(system.check(true)).toBeNull();
  });
});
