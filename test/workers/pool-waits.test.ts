import { describe, expect, test } from "vitest";
import type { Fence } from "../../src/fence/fence.ts";
import { joinSync, openSync, type System } from "../../src/system.ts";
import type { FrameConsumer } from "../../src/workers/consumer.ts";
import type { Pool } from "../../src/workers/pool.ts";
import { eachCore } from "../support/cores.ts";
import { expectError, expectRejection } from "../support/errors.ts";
import { settle } from "../support/slow-exporter.ts";
import { TestClock } from "../support/test-clock.ts";
import { closeClean } from "./crew.ts";

const MiB = 1 << 20;

/** A pool of one thread. */
interface Scene {
  readonly system: System;
  readonly pool: Pool;
  readonly consumer: FrameConsumer;
}

function sceneOf(system: System, count = 1): Scene {
  const pool = system.pool({ name: "video", count, bytes: 4096 });
  return { system, pool, consumer: pool.consumer({ name: "encoder" }) };
}

function closeScene({ system, pool }: Scene): void {
  pool.release();
  expect(system.core.tokens.size).toBe(0);
  closeClean(system);
}

/** How a promise has ended so far. */
function watch(promise: Promise<unknown>): { code: string } {
  const seen = { code: "pending" };
  promise.then(
    () => {
      seen.code = "ok";
    },
    (error) => {
      seen.code = error.code;
    },
  );
  return seen;
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
  test("asleep: a timeout is checked, and the error names the call", () => {
    const scene = sceneOf(openSync({ wasm, shared: true, memoryBytes: 8 * MiB }));
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
