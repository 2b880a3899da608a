import { describe, expect, test } from "vitest";
import { joinSync, openSync } from "../../src/system.ts";
import { eachCore } from "../support/cores.ts";
import { expectError, expectRejection } from "../support/errors.ts";
import { settle } from "../support/slow-exporter.ts";
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
  "a pool that is imported again, on the $name core",
  ({ wasm }) => {
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
