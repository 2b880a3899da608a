import { Worker } from "node:worker_threads";
import { describe, expect, test } from "vitest";
import { type Core, joinCore } from "../../src/core/core.ts";
import { joinSync, openSync, type System } from "../../src/system.ts";
import { eachCore, type TestCore } from "../support/cores.ts";
import { expectError } from "../support/errors.ts";
import { DIRECTORY_AT } from "../support/header.ts";
import { Prng } from "../support/prng.ts";
import { expectSound, freeCount } from "../support/sound.ts";

const MiB = 1 << 20;
const NONE = 0xffffffff;
const builds = eachCore.filter(({ shared }) => shared);

/** The lock of what lies at an address, and the state of a thread's slot. */
function wordsOf({ core }: TestCore): Int32Array {
  return core.i32;
}

/** Something of every kind, made by a thread that will be gone. */
function leaveBehind({ exports }: Core, region: number): void {
  for (const count of [1, 1, 7, 64]) exports.frameAlloc(count, 0, NONE);
  exports.cmaAlloc(region, 5, 0);
  const domain = exports.iommuDomainAlloc();
  const device = exports.dmaDeviceAdd(domain, 0xfffff, 65_536, NONE, NONE, 0, 0, 32);
  const direct = exports.dmaDeviceAdd(0, 0xfffff, 65_536, NONE, NONE, 0, 0, 32);
  for (const frames of [1, 300]) {
    const table = exports.storageAllocBlocks(frames, NONE, 0);
    exports.dmaMapTable(device, table, 0, 0);
    exports.dmaMapTable(direct, table, 1, 0);
    exports.pinAdd(table);
  }
  exports.sgTableFromRange(100, 5, 4096);
  exports.movablePin(exports.movableAlloc(20), 0);
  exports.movableAlloc(3);
  exports.fenceAlloc(1, 1);
  exports.bufferAlloc(exports.storageAllocRegion(region, 3, 0), 4096);
  const pool = exports.poolAlloc(4);
  exports.poolConsumerAdd(pool, 0);
  exports.poolAcquire(pool, 1);
}

describe.each(eachCore)("reap on the $name core", (build) => {
  test("a dead thread's frames, objects, pins and magazine are all free again", () => {
    const test = build.open(8192);
    const { exports } = test;
    const region = exports.cmaDeclare(7168, 1024, 0);
    const own = exports.storageAllocBlocks(40, NONE, 0);
    const before = freeCount(test);
    for (let round = 0; round < 3; round++) {
      leaveBehind(joinCore(test.core, 1), region);
      expect(freeCount(test)).toBeLessThan(before - 300);
      expect(exports.threadReap(1)).toBeGreaterThan(300);
      expectSound(test);
      exports.magazineDrain();
      expect(freeCount(test)).toBe(before);
      expect(exports.pinnedFrameCount()).toBe(0);
    }
    expect(exports.storageFree(own)).toBe(0);
  });

  test("threads that are not there, or here, are refused", () => {
    const { exports } = build.open(1024);
    expect([exports.threadReap(0), exports.threadReap(99), exports.threadReap(3)]).toEqual([
      -22, -22, -3,
    ]);
    const kept = exports.threadReserve();
    expect([exports.threadState(kept), exports.threadReap(kept)]).toEqual([2, 0]);
    expect(exports.threadState(kept)).toBe(0);
  });

  test("a buffer that another thread holds stays, with the pins and maps of the living", () => {
    const test = build.open(4096);
    const { exports } = test;
    const dead = joinCore(test.core, 1).exports;
    const table = dead.storageAllocBlocks(33, NONE, 0);
    const buffer = dead.bufferAlloc(table, 4096);
    const pinned = [dead.pinAdd(table), exports.pinAdd(table)];
    const devices = [dead, exports].map((core) =>
      core.dmaDeviceAdd(0, 0xfffff, 65_536, NONE, NONE, 0, 0, 32),
    );
    for (const device of devices) exports.dmaMapTable(device, table, 0, 0);
    expect(exports.shareImport(buffer, exports.KIND_BUFFER.value)).toBe(0);
    const pool = dead.poolAlloc(2);
    expect(exports.shareImport(pool, exports.KIND_POOL.value)).toBe(0);
    const consumer = dead.poolConsumerAdd(pool, 0);
    expect([exports.poolAcquire(pool, 1), dead.poolAcquire(pool, 1)]).toEqual([0, 1]);
    exports.poolPublish(pool, 0, 0xffff, 0, 2);
    expect(dead.poolTake(pool, consumer, 3)).toBe(0);

    expect(exports.threadReap(1)).toBeGreaterThanOrEqual(0);
    expectSound(test);
    expect(exports.pinnedFrameCount()).toBe(33);
    expect(exports.poolAcquire(pool, 4)).toBe(-130);
    expect(exports.poolFree(pool)).toBe(0);
    expect(exports.bufferFree(buffer)).toBe(-16);
    expect(exports.pinRemove(pinned[0] as number)).toBe(-116);
    exports.pinRemove(pinned[1] as number);
    expect(exports.dmaDeviceRemove(devices[0] as number)).toBe(-116);
    expect(exports.dmaUnmap(findMapping(test))).toBe(0);
    expect(exports.bufferFree(buffer)).toBe(0);
    exports.dmaDeviceRemove(devices[1] as number);
    expectSound(test);
  });

  test("fences of a dead thread end with EOWNERDEAD, and those it imported go on", () => {
    const test = build.open(1024);
    const { exports } = test;
    const dead = joinCore(test.core, 2).exports;
    const [mine, its] = [exports.fenceAlloc(1, 1), dead.fenceAlloc(2, 1)];
    exports.shareImport(its, exports.KIND_FENCE.value);
    dead.shareImport(mine, exports.KIND_FENCE.value);
    expect(dead.fenceSignal(mine, 0, 1)).toBe(-1);
    exports.threadReap(2);
    expect([exports.fenceStatus(its), exports.fenceStatus(mine)]).toEqual([-130, 0]);
    expect([
      exports.fenceFree(its),
      exports.fenceSignal(mine, 0, 1),
      exports.fenceFree(mine),
    ]).toEqual([0, 1, 0]);
    expectSound(test);
  });

  test("every lock that it held is opened, and what that lock protects is right again", () => {
    const test = build.open(8192);
    const { exports } = test;
    const region = exports.cmaDeclare(7168, 1024, 0);
    exports.cmaAlloc(region, 9, 0);
    const header = exports.HEADER_AT.value;
    const damages: Record<string, [at: number, damage: () => void]> = {
      frames: [header + 128, () => wordsOf(test).fill(0, (header + 448) / 4, (header + 668) / 4)],
      slab: [header + 192, () => wordsOf(test).fill(77, (header + 256) / 4, (header + 272) / 4)],
      movable: [header + 704, () => {}],
      region: [
        exports.cmaRegionAt(region),
        () => {
          exports.bitmapFree(test.core.word(exports.cmaRegionAt(region), 4), 0, 3);
        },
      ],
    };
    for (const [name, [at, damage]] of Object.entries(damages)) {
      leaveBehind(joinCore(test.core, 5), region);
      wordsOf(test)[at / 4] = 6;
      damage();
      exports.threadReap(5);
      expectSound(test, name);
      expect(wordsOf(test)[at / 4], name).toBe(0);
      expect(exports.frameAlloc(512, 0, NONE), name).toBeGreaterThan(0);
    }
  });

  test("the pieces that a half-done call leaves behind are found", () => {
    const test = build.open(4096);
    const { exports } = test;
    const dead = joinCore(test.core, 1).exports;
    const before = freeCount(test);
    const buffer = dead.bufferAlloc(dead.storageAllocBlocks(20, NONE, 0), 4096);
    const at = exports.shareImport(buffer, 8) === 0 ? exports.bufferAt(buffer) : 0;
    test.core.u32.fill(0, (at + 40) / 4, (at + 48) / 4); // it died while it freed the last hold
    expect(exports.check(0)).toBe(7201);
    const pinned = dead.storageAllocBlocks(6, NONE, 0);
    dead.pinAdd(pinned);
    const pin = findObject(test, 10);
    test.core.u32[pin / 4] = 1; // it died while it counted the pins
    exports.threadReap(1);
    expectSound(test);
    exports.magazineDrain();
    expect(freeCount(test)).toBe(before);
  });
});

/** The payload of the first live object of a kind. */
function findObject({ core }: TestCore, kind: number): number {
  for (let number = 0; number < 64; number++) {
    const pfn = core.word(DIRECTORY_AT, number) + 1;
    for (let i = 1; pfn !== 1 && i < core.word(pfn * 4096, 3); i++)
      if (core.word(pfn * 4096 + i * 64, 0) === kind) return pfn * 4096 + i * 64 + 16;
  }
  return 0;
}

/** The handle of a live mapping. */
function findMapping(test: TestCore): number {
  return test.core.word(findObject(test, 5) - 16, 1);
}

describe.each(builds)("system.reap() on the $name core", ({ wasm }) => {
  const open = (options = {}): System =>
    openSync({ wasm, shared: true, memoryBytes: 16 * MiB, cma: { default: 4 * MiB }, ...options });

  test("ends waits with EOWNERDEAD, and says who is not there", async () => {
    const system = open();
    const other = joinSync(system.share());
    const fence = system.importFence(other.fence("never").token);
    const pool = other.pool({ name: "p", count: 2, bytes: 4096 });
    const here = system.importPool(pool.token);
    const consumer = here.consumer({ name: "c" });
    pool.tryAcquire()?.publish();
    pool.tryAcquire();
    setTimeout(() => system.reap(other.thread), 5);
    await fence.wait({ timeoutMs: 5000 });
    expect(fence.errorCode).toBe("EOWNERDEAD");
    (await consumer.take()).release(); // what was published is there
    await expect(consumer.take()).rejects.toMatchObject({ code: "EOWNERDEAD" });
    expect(here.report().frames.map(({ state }) => state)).toEqual(["free", "free"]);
    here.release();
    fence.release();
    expect(system.check(true)).toBeNull();
    expectError("ESRCH", () => system.reap(1));
    expectError("EINVAL", () => system.reap(0));
    expectError("EINVAL", () => system.reap(64));
    system.close();
  });

  test("a Worker given to share() is reaped when it exits, also when it never joined", async () => {
    const system = open({ threads: 3 });
    const before = system.stats().freeFrames;
    for (const job of ["holdForever", "crash", "neverJoin"]) {
      const worker = new Worker(new URL("./doomed.mjs", import.meta.url));
      worker.on("error", () => {});
      const share = system.share({ worker });
      expect(share.thread).toBe(1);
      const said = new Promise((resolve) => worker.once("message", resolve));
      const exit = new Promise((resolve) => worker.once("exit", resolve));
      worker.postMessage({ share, job, seed: 1 });
      await said;
      await worker.terminate();
      await exit;
      expect(system.core.exports.threadState(1)).toBe(0);
      expect(system.check(true), job).toBeNull();
      system.core.exports.magazineDrain();
      expect(system.stats().freeFrames, job).toBe(before);
    }
    system.close();
  });

  // KILLS=1000 npx vitest run test/workers/reap.test.ts -t "killed at random"    takes a while
  test("Workers that are killed at random moments: nothing leaks, nobody hangs", async () => {
    const kills = Number(process.env.KILLS ?? 10);
    const system = open({ memoryBytes: 32 * MiB, threads: 6 });
    const rng = new Prng(Number(process.env.SEED ?? 20261121));
    const before = system.stats().freeFrames;
    const shared = system.heap("system").alloc(65_536, { name: "shared" });
    const fence = system.fence("shared");
    const tokens = { buffer: shared.token, fence: fence.token };
    const start = async (seed: number) => {
      const worker = new Worker(new URL("./doomed.mjs", import.meta.url));
      const { thread } = system.share({ worker });
      const share = { ...system.share(), thread };
      const said = new Promise((resolve) => worker.once("message", resolve));
      worker.postMessage({ share, job: "everything", tokens, seed });
      await said;
      return { worker, thread: thread as number };
    };
    const lives = await Promise.all([1, 2, 3].map(start));
    for (let kill = 0; kill < kills; kill++) {
      await new Promise((resolve) => setTimeout(resolve, rng.below(20)));
      const [life] = lives.splice(rng.below(lives.length), 1);
      await life?.worker.terminate(); // until then this thread stays out of the core
      expect(system.core.exports.threadState(life?.thread ?? 0)).toBe(0);
      system.heap("system").alloc(200_000).put(); // nobody hangs: two others are at work
      lives.push(await start(kill + 4));
    }
    for (const { worker } of lives) await worker.terminate();
    fence.signal();
    fence.release();
    shared.put();
    expect(system.check(true)).toBeNull();
    system.core.exports.magazineDrain();
    expect(system.stats()).toMatchObject({ freeFrames: before, pinnedFrames: 0, bufferCount: 0 });
    system.close();
  }, 7_200_000);
});
