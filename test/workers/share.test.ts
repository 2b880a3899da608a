import { describe, expect, test } from "vitest";
import { joinSync, openSync, type System } from "../../src/system.ts";
import { eachCore } from "../support/cores.ts";
import { expectError } from "../support/errors.ts";
import { closeClean, hire, pause } from "./crew.ts";

const MiB = 1 << 20;
const builds = eachCore.filter(({ shared }) => shared);

describe.each(builds)("one system, several threads, on the $name core", ({ wasm }) => {
  const open = (): System =>
    openSync({ wasm, shared: true, memoryBytes: 24 * MiB, cma: { default: 4 * MiB } });

  test("share() can be posted, and a Worker joins: a buffer travels as a token", async () => {
    const system = open();
    const buf = system.heap("system").alloc(100_000, { name: "frame 7 ☃" });
    const mapping = buf.mmap();
    mapping.views[0]?.fill(5);
    const hand = await hire(system, "useBuffer", { token: buf.token });
    expect(await hand.ready).toBe(1);
    hand.tell("let go");
    expect(await hand.done()).toEqual({
      name: "frame 7 ☃",
      sizeBytes: 102_400,
      first: 5,
      isSame: true,
    });
    expect(mapping.views[0]?.[1]).toBe(77);
    mapping.unmap();
    buf.put();
    closeClean(system);
  });

  test("the last thread that holds a buffer frees it, whoever made it", async () => {
    const system = open();
    const before = system.stats().freeFrames;
    const buf = system.heap("default").alloc(64 * 1024);
    const { token } = buf;
    const hand = await hire(system, "useBuffer", { token });
    while (system.core.word(system.core.exports.bufferAt(token), 10) !== 3) await pause(5);
    buf.put(); // the Worker holds it still
    expect(system.stats().freeFrames).toBeLessThan(before - 15);
    expectError("EBADF", () => system.import(1));
    hand.tell("let go");
    await hand.done();
    expectError("ESTALE", () => system.import(token));
    expect(system.region("default").stats().usedFrames).toBe(0);
    closeClean(system);
  });

  test("a buffer made by a Worker is imported here, attached and mapped by both", async () => {
    const system = open();
    const hand = await hire(system, "makeBuffer", { bytes: 3 * 4096 });
    const token = (await hand.heard()) as number;
    const buf = system.import(token);
    expect([buf.name, buf.sizeBytes]).toEqual(["made elsewhere", 3 * 4096]);
    hand.tell("let go");
    await hand.done();
    const writer = await hire(system, "writeByDevice", { token });
    await writer.done();
    const mapping = buf.mmap();
    expect(mapping.views.flatMap((view) => [...view]).every((byte) => byte === 9)).toBe(true);
    mapping.unmap();
    buf.put();
    closeClean(system);
  });

  test("a stale or forged token is ESTALE or EBADF, never corruption", async () => {
    const system = open();
    const gone = system.heap("system").alloc(4096);
    const { token: stale } = gone;
    gone.put();
    const region = system.region("default").handle;
    const fence = system.fence("f");
    const forged = [0, -1, 1.5, 2 ** 31, 63, 64, stale + 1, region, fence.token, "7", null];
    const hand = await hire(system, "importNonsense", { tokens: [stale, ...forged] });
    const codes = (await hand.done()) as string[];
    expect(codes[0]).toBe("ESTALE");
    for (const [i, code] of codes.slice(1).entries())
      expect(["EBADF", "ESTALE"], `${String(forged[i])}`).toContain(code);
    let seed = 1;
    for (let i = 0; i < 20_000; i++) {
      seed = (Math.imul(seed, 48271) >>> 0) % 2147483647;
      if (seed !== fence.token) expect(system.core.exports.shareImport(seed, 6)).toBeLessThan(0);
    }
    expectError("EBADF", () => system.importFence(region));
    expectError("EBADF", () => system.importPool(fence.token));
    fence.signal();
    fence.release();
    closeClean(system);
  });

  test("join() finds a free thread, or takes the one that share() keeps", () => {
    const system = openSync({ wasm, shared: true, memoryBytes: 8 * MiB, threads: 4 });
    const kept = system.share({ reserve: true });
    expect(kept.thread).toBe(1);
    const any = joinSync(system.share());
    expect(any.thread).toBe(2);
    const known = joinSync(kept);
    expect([known.thread, known.physicalBase]).toEqual([1, 0]);
    const used = expectError("EBUSY", () => joinSync(kept));
    expect(used).toMatch(/this share was used.* thread 1 .*call system\.share\(\) again/);
    const last = joinSync(system.share());
    expectError("ENOSPC", () => joinSync(system.share()));
    expectError("ENOSPC", () => system.share({ reserve: true }));
    for (const other of [any, known, last]) other.close();
    expect(joinSync(system.share()).thread).toBe(1);
  });

  test("who is no Worker of node is refused, and keeps no thread", () => {
    const system = openSync({ wasm, shared: true, memoryBytes: 8 * MiB, threads: 2 });
    for (const worker of [{ postMessage() {} }, null, 5])
      expectError("EINVAL", () => system.share({ worker: worker as never }));
    joinSync(system.share()).close();
    const page = system.share({ reserve: true }); // as a page does
    expect(system.reap(page.thread ?? 0)).toBe(0);
    joinSync(system.share()).close();
  });

  test("a join that fails midway leaves the thread free", () => {
    const system = openSync({ wasm, shared: true, memoryBytes: 8 * MiB, threads: 2 });
    const share = system.share();
    const symbolPolicy = "none" as "any";
    expectError("EINVAL", () => joinSync({ ...share, symbolPolicy }));
    expectError("ESTALE", () => joinSync({ ...share, areas: [{ name: "a", handle: 77 }] }));
    const other = joinSync(share);
    expect(other.thread).toBe(1);
    other.close();
    closeClean(system);
  });

  const LOCKS = { frames: 128, slab: 192, movable: 704, domains: 960 }; // layout.ts
  test.each(Object.entries(LOCKS))(
    "a thread that may not sleep is refused with EAGAIN while the %s lock is held",
    (name, offset) => {
      const system = open();
      const page = joinSync(system.share(), { canBlock: false });
      page.frames.alloc(1).free(); // so that neither needs frames for its first records
      const before = page.stats();
      const { i32, exports } = system.core;
      const buffer = (): void => page.heap("system").alloc(100_000).put();
      const fence = (): void => page.fence("late").release();
      const movable = (): void => page.movable(2).free();
      const pool = (): void => page.pool({ name: "none", count: 1, bytes: 4096 }).release();
      const gpu = (): void => page.addDevice({ name: "gpu", iommu: true }).remove();
      const disk = (): void => page.addDevice({ name: "disk" }).remove();
      const allocate: Record<string, (() => void)[]> = {
        frames: [buffer, movable],
        slab: [buffer, fence, movable, pool, gpu, disk],
        movable: [movable],
        domains: [gpu, disk],
      };
      i32[(exports.HEADER_AT.value + offset) / 4] = 1; // thread 0 holds it
      for (const call of allocate[name] ?? [])
        expect(expectError("EAGAIN", call)).toContain("try again");
      i32[(exports.HEADER_AT.value + offset) / 4] = 0;
      expect(page.stats()).toEqual(before);
      for (const call of allocate[name] ?? []) call(); // and then they are served
      page.close();
      closeClean(system);
    },
  );

  test("retry() waits for its turn, up to its limit", async () => {
    const system = open();
    const page = joinSync(system.share(), { canBlock: false });
    const { i32, exports } = system.core;
    const framesLock = (exports.HEADER_AT.value + LOCKS.frames) / 4;
    i32[framesLock] = 1; // thread 0 holds the allocator
    const late = page.retry(() => page.heap("system").alloc(100_000), { timeoutMs: 5 });
    await expect(late).rejects.toMatchObject({ code: "ETIME" });
    setTimeout(() => {
      i32[framesLock] = 0;
    }, 10);
    const buf = await page.retry(() => page.heap("system").alloc(100_000), { timeoutMs: 5000 });
    await expect(page.retry(() => page.heap("none"))).rejects.toMatchObject({ code: "ENOENT" });
    buf.put();
    page.close();
    closeClean(system);
  });

  test("a joined system has the regions, and buffers of both are numbers of one memory", () => {
    const system = open();
    const other = joinSync(system.share());
    expect(other.regions.map(({ name, basePfn }) => [name, basePfn])).toEqual(
      system.regions.map(({ name, basePfn }) => [name, basePfn]),
    );
    const buf = other.heap("default").alloc(4096);
    const here = system.import(buf.token);
    expect(here.storage?.handle).toBe(buf.storage?.handle);
    expect(here.token).toBe(buf.token);
    expect(other.import(here.token)).toBe(buf);
    buf.put();
    buf.put();
    const device = system.addDevice({ name: "camera", maxSegments: 1 });
    const attachment = here.attach(device);
    expectError("EBUSY", () => here.put()); // the last reference of the last thread
    attachment.detach();
    here.put();
    other.close();
    closeClean(system);
  });
});

test("an unshared system is not shared: share() says how to open it", () => {
  const system = openSync({ memoryBytes: 8 * MiB });
  expect(expectError("EINVAL", () => system.share())).toContain("shared: true");
  const buf = system.heap("system").alloc(4096);
  expect(system.import(buf.token)).toBe(buf);
  buf.put();
  buf.put();
  const mine = system.export({
    ops: { map: () => fail(), unmap() {}, release() {} },
    sizeBytes: 4096,
    exporterName: "mine",
  });
  expectError("EOPNOTSUPP", () => mine.token);
  mine.put();
  expect(system.check(true)).toBeNull();
});

function fail(): never {
  throw new Error("not to be called");
}
