import { describe, expect, test } from "vitest";
import type { Fence } from "../../src/fence/fence.ts";
import { joinSync, openSync, type System } from "../../src/system.ts";
import { eachCore } from "../support/cores.ts";
import { expectError, expectRejection } from "../support/errors.ts";
import { settle } from "../support/slow-exporter.ts";
import { TestClock } from "../support/test-clock.ts";
import { watch } from "../support/watch.ts";
import { closeScene, type Scene, sceneOf } from "./pool-scene.ts";

const MiB = 1 << 20;

/** A frame is free, and its reader has left `fence` on it. */
async function leaveFence({ pool, consumer }: Scene, fence: Fence): Promise<void> {
  pool.tryAcquire()?.publish();
  (await consumer.take()).release({ fence });
}

describe.each(eachCore)("waits of a frame pool on the $name core", (build) => {
  const setUp = (count?: number): Scene => sceneOf(build.system({ memoryBytes: 8 * MiB }), count);

  test("take() has one timeout, over the wait for a frame and the one for its fence", async () => {
    const scene = setUp();
    const clock = new TestClock();
    const fence = scene.system.fence("written");
    const taking = scene.consumer.take({ timeoutMs: 10, clock });
    const taken = watch(taking);
    await clock.advance(6);
    scene.pool.tryAcquire()?.publish({ fence });
    while (scene.pool.report().consumers[0]?.taken === 0) await settle();
    await clock.advance(3);
    expect(taken.code).toBe("pending");
    await clock.advance(1);
    expect(taken.code).toBe("ETIME");
    expect(await expectRejection("ETIME", taking)).toBe(
      "Cannot take a frame of video as encoder: it is pending after 10 ms",
    );
    fence.signal();
    fence.release();
    closeScene(scene);
  });

  test("acquire() has one timeout over all the fences of a frame's readers", async () => {
    const scene = setUp();
    const { system, pool, consumer } = scene;
    const clock = new TestClock();
    const fences = [system.fence("encoded"), system.fence("shown")];
    const screen = pool.consumer({ name: "screen" });
    pool.tryAcquire()?.publish();
    (await consumer.take()).release({ fence: fences[0] as Fence });
    (await screen.take()).release({ fence: fences[1] as Fence });
    const acquiring = pool.acquire({ timeoutMs: 10, clock });
    const acquired = watch(acquiring);
    await clock.advance(6);
    fences[0]?.signal();
    await settle();
    await clock.advance(4);
    expect(acquired.code).toBe("ETIME");
    expect(await expectRejection("ETIME", acquiring)).toBe(
      "Cannot acquire a frame of video: it is pending after 10 ms",
    );
    fences[1]?.signal();
    for (const fence of fences) fence.release();
    closeScene(scene);
  });

  test("an acquire() that gives up leaves the readers' fences with the frame", async () => {
    const scene = setUp();
    const { system, pool } = scene;
    const fence = system.fence("encoded");
    await leaveFence(scene, fence);
    await expectRejection("ETIME", pool.acquire({ timeoutMs: 5 }));
    expect(pool.tryAcquire()).toBeNull();
    await expectRejection("EINTR", pool.acquire({ signal: AbortSignal.timeout(5) }));
    expect(pool.tryAcquire()).toBeNull();
    expectError("EDEADLK", () => pool.acquireSync({ timeoutMs: 5 })); // its own fence
    expect(pool.tryAcquire()).toBeNull();
    expect(pool.report().frames[0]).toMatchObject({ state: "free" });
    const acquired = watch(pool.acquire());
    await settle();
    expect(acquired.code).toBe("pending");
    fence.signal();
    await settle();
    expect(acquired.code).toBe("ok");
    pool.abandon(0);
    expect(pool.tryAcquire()?.index).toBe(0);
    fence.release();
    closeScene(scene);
  });

  test("tryAcquire() finds the frame whose readers are done behind one whose are not", async () => {
    const scene = setUp(2);
    const { system, pool, consumer } = scene;
    const fence = system.fence("encoded");
    await leaveFence(scene, fence);
    pool.tryAcquire()?.publish();
    consumer.tryTake()?.release();
    const frame = pool.tryAcquire();
    expect(frame?.index).toBe(1);
    expect(pool.tryAcquire()).toBeNull();
    frame?.abandon();
    fence.signal();
    fence.release();
    expect(pool.tryAcquire()?.index).toBe(0);
    closeScene(scene);
  });

  test("a pool that is released while acquire() waits gives no frame", async () => {
    const scene = setUp();
    const fence = scene.system.fence("encoded");
    await leaveFence(scene, fence);
    const acquired = scene.pool.acquire();
    await settle();
    scene.pool.release();
    fence.signal();
    await expectRejection("ESTALE", acquired);
    fence.release();
    closeScene(scene);
  });

  test("a take that gives up leaves its frame to the next, in order", async () => {
    const scene = setUp(3);
    const { system, pool, consumer } = scene;
    const fences = [system.fence("first"), system.fence("second")];
    for (const fence of fences) pool.tryAcquire()?.publish({ fence });
    pool.tryAcquire()?.publish();
    await expectRejection("ETIME", consumer.take({ timeoutMs: 5 }));
    await expectRejection("EINTR", consumer.take({ signal: AbortSignal.timeout(5) }));
    expectError("EDEADLK", () => consumer.takeSync()); // its own fence
    expect(pool.report().frames.map(({ holders }) => holders.length)).toEqual([1, 0, 0]);
    const both = [consumer.take(), consumer.take({ timeoutMs: 5 })]; // one frame each
    await expectRejection("ETIME", both[1] as Promise<unknown>);
    for (const fence of fences) fence.signal();
    expect((await both[0])?.seqno).toBe(1);
    expect(consumer.takeSync().seqno).toBe(2);
    expect(consumer.tryTake()?.seqno).toBe(3);
    expect(pool.report().consumers[0]).toMatchObject({ taken: 3, dropped: 0 });
    for (const fence of fences) fence.release();
    closeScene(scene);
  });

  test("tryTake() gets what a take has left, its fence pending", async () => {
    const scene = setUp();
    const { system, pool, consumer } = scene;
    const fence = system.fence("written");
    pool.tryAcquire()?.publish({ fence });
    await expectRejection("ETIME", consumer.take({ timeoutMs: 5 }));
    pool.close();
    const frame = consumer.tryTake(); // it was published before the pool was closed
    expect(frame?.acquireFence).toBe(fence);
    expect(fence.isSignaled).toBe(false);
    expectError("EPIPE", () => consumer.tryTake());
    frame?.release();
    fence.signal();
    fence.release();
    closeScene(scene);
  });

  test("latest: a later frame replaces one that a take has left, which takes its fence along", async () => {
    const scene = setUp(3);
    const { system, pool } = scene;
    const latest = pool.consumer({ name: "screen", policy: "latest" });
    const fence = system.fence("slow");
    pool.tryAcquire()?.publish({ to: "screen", fence });
    await expectRejection("ETIME", latest.take({ timeoutMs: 5 }));
    pool.tryAcquire()?.publish({ to: "screen" });
    const frame = await latest.take({ timeoutMs: 1000 });
    expect(frame.seqno).toBe(2);
    const free = [pool.tryAcquire(), pool.tryAcquire()];
    expect(free.map((one) => one?.index)).toEqual([2, undefined]); // 0 is still written to
    fence.signal();
    expect(pool.tryAcquire()?.index).toBe(0);
    fence.release();
    closeScene(scene);
  });

  test("a consumer that is closed while it waits gives its frame back, and gets none", async () => {
    const scene = setUp();
    const { system, pool, consumer } = scene;
    const fence = system.fence("written");
    pool.tryAcquire()?.publish({ fence });
    const taking = consumer.take();
    await settle();
    consumer.close();
    expect(pool.report().frames[0]).toMatchObject({ state: "free", holders: [] });
    expect(pool.tryAcquire()).toBeNull(); // until it is written
    fence.signal();
    await expectRejection("ESTALE", taking);
    expect(pool.tryAcquire()?.index).toBe(0);
    fence.release();
    closeScene(scene);
  });

  test("what is no timeout is EINVAL, asleep as well", async () => {
    const scene = setUp();
    const { system, pool, consumer } = scene;
    const fence = system.fence("own");
    for (const timeoutMs of [-5, Number.NaN, "5" as unknown as number]) {
      expectError("EINVAL", () => consumer.takeSync({ timeoutMs }));
      expectError("EINVAL", () => pool.acquireSync({ timeoutMs }));
      expectError("EINVAL", () => fence.waitSync({ timeoutMs }));
      await expectRejection("EINVAL", consumer.take({ timeoutMs }));
      await expectRejection("EINVAL", pool.acquire({ timeoutMs }));
    }
    fence.release();
    closeScene(scene);
  });
});

const shared = eachCore.filter((build) => build.shared);

describe.each(shared)("waits for another thread's frames on the $name core", ({ wasm }) => {
  const open = (): System => openSync({ wasm, shared: true, memoryBytes: 8 * MiB });

  test("a thread that gives up waiting, or leaves, takes no fence away with it", () => {
    const scene = sceneOf(open());
    const { system, pool, consumer } = scene;
    const other = joinSync(system.share());
    const fence = system.fence("encoded");
    pool.tryAcquire()?.publish();
    consumer.tryTake()?.release({ fence });
    const theirs = other.importPool(pool.token);
    expect(theirs.tryAcquire()).toBeNull();
    expectError("ETIME", () => theirs.acquireSync({ timeoutMs: 5 }));
    expect(other.core.tokens.size).toBe(2); // the pool and its buffer: no fence is held
    theirs.release();
    expect(pool.tryAcquire()).toBeNull();
    fence.signal();
    fence.release();
    expect(pool.tryAcquire()?.index).toBe(0);
    other.close();
    closeScene(scene);
  });

  test("one fence on two frames is pending for the one until it signals", () => {
    const scene = sceneOf(open(), 2);
    const { system, pool, consumer } = scene;
    const other = joinSync(system.share());
    const fence = other.fence("written");
    const theirs = other.importPool(pool.token);
    for (let i = 0; i < 2; i++) theirs.tryAcquire()?.publish({ fence });
    const [first, second] = [consumer.tryTake(), consumer.tryTake()];
    first?.release();
    expect(second?.acquireFence?.isSignaled).toBe(false);
    const imported = system.importFence(fence.token);
    expect(second?.acquireFence).toBe(imported);
    fence.signal();
    expect(second?.acquireFence?.status).toBe(1);
    second?.release();
    imported.release();
    theirs.release();
    fence.release();
    other.close();
    closeScene(scene);
  });

  test("a fence that this thread imported by itself is not let go of with a frame", () => {
    const scene = sceneOf(open());
    const { system, pool, consumer } = scene;
    const other = joinSync(system.share());
    const fence = other.fence("written");
    const imported = system.importFence(fence.token);
    const theirs = other.importPool(pool.token);
    theirs.tryAcquire()?.publish({ fence });
    consumer.tryTake()?.release();
    expect(imported.isSignaled).toBe(false);
    expect(system.importFence(fence.token)).toBe(imported);
    fence.signal("EIO");
    expect(imported.isSignaled).toBe(true);
    expect(imported.errorCode).toBe("EIO");
    imported.release();
    theirs.release();
    fence.release();
    other.close();
    closeScene(scene);
  });

  test("a take that gives up lets go of the other thread's fence in the end", async () => {
    const scene = sceneOf(open());
    const { system, pool, consumer } = scene;
    const other = joinSync(system.share());
    const theirs = other.importPool(pool.token);
    const fence = other.fence("written");
    theirs.tryAcquire()?.publish({ fence });
    const { size } = system.core.tokens;
    expectError("ETIME", () => consumer.takeSync({ timeoutMs: 5 }));
    await expectRejection("ETIME", consumer.take({ timeoutMs: 5 }));
    expect(system.core.tokens.size).toBe(size + 1);
    const taking = consumer.take();
    await settle();
    consumer.close();
    await expectRejection("ESTALE", taking);
    expect(system.core.tokens.size).toBe(size);
    expect(pool.tryAcquire()).toBeNull();
    fence.signal();
    expect(pool.tryAcquire()?.index).toBe(0);
    theirs.release();
    fence.release();
    other.close();
    closeScene(scene);
  });

  test("who waits for a frame hears that this thread gave up the consumer, or the pool", async () => {
    const scene = sceneOf(open());
    const { system, pool } = scene;
    const other = joinSync(system.share());
    const theirs = other.importPool(pool.token);
    const frame = pool.tryAcquire();
    const consumer = theirs.consumer({ name: "theirs" });
    const [taking, acquiring] = [watch(consumer.take()), watch(theirs.acquire())];
    await settle();
    consumer.close();
    await settle();
    expect([taking.code, acquiring.code]).toEqual(["ESTALE", "pending"]);
    theirs.release();
    await settle();
    expect(acquiring.code).toBe("ESTALE");
    frame?.abandon();
    other.close();
    closeScene(scene);
  });

  test("asleep: a timeout is checked, and the error names the call", () => {
    const scene = sceneOf(open());
    const { system, pool } = scene;
    const other = joinSync(system.share());
    const theirs = other.importPool(pool.token);
    const fence = other.fence("encoded");
    const consumer = theirs.consumer({ name: "theirs" });
    pool.tryAcquire()?.publish({ to: "theirs" });
    consumer.tryTake()?.release({ fence });
    const imported = system.importFence(fence.token);
    for (const timeoutMs of [-5, Number.NaN])
      expectError("EINVAL", () => imported.waitSync({ timeoutMs }));
    expect(expectError("ETIME", () => pool.acquireSync({ timeoutMs: 5 }))).toBe(
      "Cannot acquire a frame of video: it is pending after 5 ms",
    );
    fence.signal();
    imported.release();
    fence.release();
    theirs.release();
    other.close();
    closeScene(scene);
  });
});
