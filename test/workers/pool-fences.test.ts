import { describe, expect, test } from "vitest";
import type { Fence } from "../../src/fence/fence.ts";
import { joinSync, openSync, type System } from "../../src/system.ts";
import type { Pool } from "../../src/workers/pool.ts";
import { eachCore } from "../support/cores.ts";
import { expectError } from "../support/errors.ts";
import { settle } from "../support/slow-exporter.ts";
import { watch } from "../support/watch.ts";
import { closeClean, pause } from "./crew.ts";
import { closeScene as closeOne, sceneOf } from "./pool-scene.ts";

const MiB = 1 << 20;
const builds = eachCore.filter(({ shared }) => shared);

/** Two threads of one system, and a pool of the first. */
interface Scene {
  readonly system: System;
  readonly other: System;
  readonly pool: Pool;
  /** A frame of the other thread is pending, with this fence. */
  readonly fence: Fence;
  readonly token: number;
}

describe.each(builds)(
  "a fence that a pool and this thread itself import, on the $name core",
  ({ wasm }) => {
    /** A frame of another thread with a pending fence, and how the scene ends. */
    function setUp() {
      const scene = sceneOf(openSync({ wasm, shared: true, memoryBytes: 8 * MiB }));
      const { system, pool, consumer } = scene;
      const other = joinSync(system.share());
      const theirs = other.importPool(pool.token);
      const fence = other.fence("theirs");
      const close = (): void => {
        theirs.release();
        fence.release();
        expect(other.core.tokens.size).toBe(0);
        other.close();
        closeOne(scene);
      };
      return { system, pool, consumer, theirs, fence, close };
    }

    test.each(["before", "after"])(
      "PF4: released while a frame is used, imported %s it",
      (when) => {
        const { system, consumer, theirs, fence, close } = setUp();
        theirs.tryAcquire()?.publish({ fence });
        const before = when === "before" ? system.importFence(fence.token) : null;
        const frame = consumer.tryTake();
        const mine = before ?? system.importFence(fence.token);
        expect(frame?.acquireFence).toBe(mine);
        mine.release();
        mine.release(); // once is all that was its user's
        expect(frame?.acquireFence?.status).toBe(0);
        fence.signal();
        expect(frame?.acquireFence?.status).toBe(1);
        frame?.release();
        close();
      },
    );

    test("PF4: it stays this thread's when the frame is released, until that is too", () => {
      const { system, consumer, theirs, fence, close } = setUp();
      theirs.tryAcquire()?.publish({ fence });
      const frame = consumer.tryTake();
      const mine = system.importFence(fence.token);
      frame?.release();
      expect([mine.status, system.importFence(fence.token) === mine]).toEqual([0, true]);
      mine.release();
      expect(mine.errorCode).toBe("EDEADLK"); // nobody is left here who would be told
      const again = system.importFence(fence.token);
      fence.signal("EIO");
      expect(again.status).toBe(-5);
      close();
    });

    test("PF4: who waits for a frame goes on, though this thread lets go of the fence", async () => {
      const { system, pool, theirs, fence, close } = setUp();
      const reader = theirs.consumer({ name: "reader" });
      pool.tryAcquire()?.publish({ to: "reader" });
      reader.tryTake()?.release({ fence });
      const mine = system.importFence(fence.token);
      const acquiring = pool.acquire();
      const acquired = watch(acquiring);
      await settle();
      mine.release();
      await settle();
      expect(acquired.code).toBe("pending"); // it is read still
      fence.signal();
      (await acquiring).abandon();
      close();
    });

    test("PF4: who waits by himself goes on, though a frame lets go of the fence", async () => {
      const { system, consumer, theirs, fence, close } = setUp();
      theirs.tryAcquire()?.publish({ fence });
      const frame = consumer.tryTake();
      const waiting = system.importFence(fence.token).wait({ timeoutMs: 5000 });
      const waited = watch(waiting);
      frame?.release();
      await settle();
      expect(waited.code).toBe("pending");
      fence.signal();
      await waiting;
      close();
    });
  },
);

describe.each(builds)("frames whose producer is gone, on the $name core", ({ wasm }) => {
  function setUp(): Scene {
    const system = openSync({ wasm, shared: true, memoryBytes: 8 * MiB });
    const pool = system.pool({ name: "video", count: 2, bytes: 4096 });
    const other = joinSync(system.share());
    for (let i = 0; i < 200; i++) other.fence("other"); // whose records fill frames of memory
    const fence = other.fence("written");
    return { system, other, pool, fence, token: fence.token };
  }

  function publish({ other, pool, fence }: Scene): Pool {
    const theirs = other.importPool(pool.token);
    expect(theirs.tryAcquire()?.publish({ fence })).toBe(1);
    return theirs;
  }

  function closeScene({ system, pool }: Scene): void {
    pool.release();
    closeClean(system);
  }

  test("it had finished and left, its fence's record with it: the frame is whole", () => {
    const scene = setUp();
    const consumer = scene.pool.consumer({ name: "encoder" });
    const theirs = publish(scene);
    scene.fence.signal();
    theirs.release();
    scene.other.close();
    expectError("EBADF", () => scene.system.importFence(scene.token)); // all around it is gone
    const frame = consumer.tryTake();
    expect(frame?.acquireFence).toBeNull();
    frame?.release();
    closeScene(scene);
  });

  test("it died before it had finished: the frame's fence says so", async () => {
    const scene = setUp();
    const consumer = scene.pool.consumer({ name: "encoder" });
    publish(scene);
    scene.system.reap(scene.other.thread);
    const frame = await consumer.take({ timeoutMs: 1000 });
    expect(frame.acquireFence?.errorCode).toBe("EOWNERDEAD");
    frame.release();
    closeScene(scene);
  });

  test("it died while the consumer waited: the wait ends, and the fence says so", async () => {
    const scene = setUp();
    const consumer = scene.pool.consumer({ name: "encoder" });
    publish(scene);
    const taking = consumer.take({ timeoutMs: 5000 });
    await pause(5);
    scene.system.reap(scene.other.thread);
    const frame = await taking;
    expect(frame.acquireFence?.errorCode).toBe("EOWNERDEAD");
    frame.release();
    closeScene(scene);
  });

  test("a consumer that died while it read is waited for no more", async () => {
    const scene = setUp();
    const { system, other, pool, fence } = scene;
    const consumer = other.importPool(pool.token).consumer({ name: "encoder" });
    for (let i = 0; i < 2; i++) pool.tryAcquire()?.publish();
    consumer.tryTake()?.release({ fence });
    expect(pool.tryAcquire()).toBeNull();
    system.reap(other.thread);
    for (let i = 0; i < 2; i++) (await pool.acquire({ timeoutMs: 1000 })).publish();
    closeScene(scene);
  });
});
