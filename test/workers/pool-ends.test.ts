import { describe, expect, test, vi } from "vitest";
import { joinSync, openSync } from "../../src/system.ts";
import { eachCore } from "../support/cores.ts";
import { expectError, expectRejection } from "../support/errors.ts";
import { settle } from "../support/slow-exporter.ts";
import { closeClean } from "./crew.ts";
import { closeScene, type Scene, sceneOf } from "./pool-scene.ts";

const MiB = 1 << 20;

describe.each(eachCore)("frames that nobody takes, on the $name core", (build) => {
  const setUp = (count?: number): Scene => sceneOf(build.system({ memoryBytes: 8 * MiB }), count);

  test("PO3: who writes waits for who wrote last, when the frame went to nobody", async () => {
    const scene = setUp();
    const { system, pool } = scene;
    const fence = system.fence("rendered");
    expect(pool.tryAcquire()?.publish({ to: [], fence })).toBe(0);
    expect(pool.tryAcquire()).toBeNull();
    await expectRejection("ETIME", pool.acquire({ timeoutMs: 1 }));
    const acquiring = pool.acquire();
    await settle();
    fence.signal();
    (await acquiring).abandon();
    expect(pool.tryAcquire()?.publish({ to: [] })).toBe(0); // without a fence
    expect(pool.tryAcquire()?.index).toBe(0);
    closeScene(scene);
  });

  test("PO3: the same when a later frame replaced it, or its consumer was closed", () => {
    const scene = setUp(3);
    const { system, pool } = scene;
    const latest = pool.consumer({ name: "latest", policy: "latest" });
    const [first, second] = [system.fence("first"), system.fence("second")];
    pool.tryAcquire()?.publish({ to: "latest", fence: first });
    pool.tryAcquire()?.publish({ to: "latest", fence: second });
    latest.close();
    expect(pool.tryAcquire()?.index).toBe(2);
    expect(pool.tryAcquire()).toBeNull();
    second.signal();
    expect(pool.tryAcquire()?.index).toBe(1);
    first.signal();
    expect(pool.tryAcquire()?.index).toBe(0);
    closeScene(scene);
  });

  test("PO3: the same when its reader did not wait for it; no record is left behind", () => {
    const scene = setUp();
    const { system, pool, consumer } = scene;
    const before = system.stats().freeFrames;
    for (let i = 0; i < 300; i++) {
      const fence = system.fence("rendered");
      pool.tryAcquire()?.publish({ fence });
      consumer.tryTake()?.release();
      expect(pool.tryAcquire()).toBeNull();
      fence.signal();
    }
    pool.tryAcquire()?.abandon();
    expect(before - system.stats().freeFrames).toBeLessThanOrEqual(1); // records take frames whole
    closeScene(scene);
  });

  test("PF2: fences that are pending when the pool is released go when they signal", () => {
    const scene = setUp(2);
    const { system, pool, consumer } = scene;
    const [written, read, told] = [system.fence("written"), system.fence("read"), vi.fn()];
    for (const fence of [written, read]) fence.addCallback(told);
    pool.tryAcquire()?.publish();
    consumer.tryTake()?.release({ fence: read });
    pool.tryAcquire()?.publish({ to: [], fence: written });
    pool.release();
    expect([written.isSignaled, read.isSignaled, system.core.tokens.size]).toEqual([
      false,
      false,
      2,
    ]);
    read.signal();
    expect([written.isSignaled, system.core.tokens.size]).toEqual([false, 1]);
    written.signal("EIO");
    expect([told.mock.calls.length, system.core.tokens.size]).toEqual([2, 0]);
    expectError("ESTALE", () => written.token);
    closeScene(scene);
  });

  test("PF2: the same for what a consumer left on frames and is closed", () => {
    const scene = setUp();
    const { system, pool, consumer } = scene;
    const fence = system.fence("read");
    pool.tryAcquire()?.publish();
    consumer.tryTake()?.release({ fence });
    consumer.close();
    expect(pool.tryAcquire()).toBeNull(); // it is read still
    fence.signal();
    expectError("ESTALE", () => fence.token);
    expect(pool.tryAcquire()?.index).toBe(0);
    closeScene(scene);
  });

  test("PW4: a consumer that was closed while it waited takes no frame of the next one", async () => {
    const scene = setUp();
    const { pool, consumer } = scene;
    const taking = consumer.take();
    await settle();
    consumer.close();
    const next = pool.consumer({ name: "next" }); // has the place of the closed one
    pool.tryAcquire()?.publish();
    await expectRejection("ESTALE", taking);
    next.tryTake()?.release();
    expect(pool.tryAcquire()?.index).toBe(0);
    next.close();
    closeScene(scene);
  });
});

describe.each(eachCore.filter(({ shared }) => shared))(
  "a pool that is released or imported again, on the $name core",
  ({ wasm }) => {
    test("PF2: another thread goes on waiting for the fence of who has released the pool", () => {
      const system = openSync({ wasm, shared: true, memoryBytes: 8 * MiB });
      const pool = system.pool({ name: "video", count: 1, bytes: 4096 });
      const other = joinSync(system.share());
      const theirs = other.importPool(pool.token);
      const consumer = theirs.consumer({ name: "encoder" });
      const fence = system.fence("written");
      pool.tryAcquire()?.publish({ fence });
      pool.release();
      const frame = consumer.tryTake();
      expect(frame?.acquireFence?.isSignaled).toBe(false);
      fence.signal("EIO");
      expect(frame?.acquireFence?.status).toBe(-5);
      expect(system.core.tokens.size).toBe(0);
      theirs.release();
      expect(other.core.tokens.size).toBe(0);
      other.close();
      closeClean(system);
    });

    test("PF2: an imported fence that was left on a frame stays its importer's", () => {
      const scene = sceneOf(openSync({ wasm, shared: true, memoryBytes: 8 * MiB }));
      const { system, pool, consumer } = scene;
      const other = joinSync(system.share());
      const fence = other.fence("read");
      const imported = system.importFence(fence.token);
      pool.tryAcquire()?.publish();
      consumer.tryTake()?.release({ fence: imported });
      pool.release();
      expect(imported.isSignaled).toBe(false);
      fence.signal();
      expect(imported.status).toBe(1);
      imported.release();
      fence.release();
      other.close();
      closeScene(scene);
    });

    test("PW4: who waited before gets no frame, and leaves none behind", async () => {
      const scene = sceneOf(openSync({ wasm, shared: true, memoryBytes: 8 * MiB }));
      const { system, pool } = scene;
      const other = joinSync(system.share());
      const theirs = other.importPool(pool.token);
      const frame = pool.tryAcquire();
      const acquiring = theirs.acquire();
      await settle();
      theirs.release();
      const again = other.importPool(pool.token);
      frame?.abandon();
      await expectRejection("ESTALE", acquiring);
      const stale = again.tryAcquire();
      expect(stale?.index).toBe(0);
      again.release();
      const last = other.importPool(pool.token);
      const writing = last.tryAcquire();
      expect(writing?.index).toBe(0);
      expectError("ESTALE", () => stale?.publish());
      expect(writing?.publish({ to: [] })).toBe(0);
      last.release();
      other.close();
      closeScene(scene);
    });
  },
);
