import { describe, expect, test } from "vitest";
import type { Fence } from "../../src/fence/fence.ts";
import { joinSync, openSync, type System } from "../../src/system.ts";
import type { Pool } from "../../src/workers/pool.ts";
import { eachCore } from "../support/cores.ts";
import { expectError } from "../support/errors.ts";
import { closeClean, pause } from "./crew.ts";

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
