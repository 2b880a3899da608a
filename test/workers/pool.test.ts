import { describe, expect, test } from "vitest";
import { modifiers, negotiate } from "../../src/index.ts";
import { joinSync, openSync, type System } from "../../src/system.ts";
import type { ReadableFrame } from "../../src/workers/pool-frame.ts";
import { eachCore } from "../support/cores.ts";
import { codeOf, expectError } from "../support/errors.ts";
import { closeClean, type Hand, hire, pause } from "./crew.ts";

const MiB = 1 << 20;
const builds = eachCore.filter(({ shared }) => shared);
const evens = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

describe.each(eachCore)("frame pools on one thread of the $name core", (build) => {
  const open = (): System => build.system({ memoryBytes: 8 * MiB });

  test("a frame goes to its consumers and comes back; the report says who holds what", () => {
    const system = open();
    const pool = system.pool({ name: "video", count: 3, bytes: 10_000 });
    expect([pool.count, pool.frameBytes]).toEqual([3, 12_288]);
    const encoder = pool.consumer({ name: "encoder" });
    const screen = pool.consumer({ name: "screen" });
    const frame = pool.tryAcquire();
    frame?.views[0]?.fill(4);
    expect(pool.report().frames[0]).toMatchObject({ state: "written", holders: [{ thread: 0 }] });
    expect(frame?.publish()).toBe(2);
    expectError("ESTALE", () => frame?.publish());
    expectError("ESTALE", () => frame?.views);
    const read = encoder.tryTake();
    expect([read?.seqno, read?.views[0]?.[0]]).toEqual([1, 4]);
    expect(pool.report().frames[0]).toMatchObject({
      state: "published",
      seqno: 1,
      holders: [{ name: "encoder", thread: 0 }],
      pending: ["screen"],
    });
    expect(pool.report().frames[0]?.holders[0]?.forMs).toBeLessThan(10_000);
    read?.release();
    screen.tryTake()?.release();
    expect(pool.report().frames[0]).toMatchObject({ state: "free", holders: [], pending: [] });
    expect(pool.report().consumers).toMatchObject([
      { name: "encoder", taken: 1, dropped: 0, access: "read", policy: "every" },
      { name: "screen", taken: 1 },
    ]);
    pool.release();
    closeClean(system);
  });

  test("frames for pictures: the layout says the bytes, and is found on the frame", () => {
    const system = open();
    const layout = { width: 100, height: 60, format: "NV12", strideAlignBytes: 64 } as const;
    const pool = system.pool({ name: "video", count: 2, layout });
    const planes = [
      { offset: 0, stride: 128, sizeBytes: 7680 },
      { offset: 7680, stride: 128, sizeBytes: 3840 },
    ];
    expect(pool.layout).toMatchObject({ width: 100, height: 60, format: "NV12", planes });
    expect([pool.frameBytes, pool.layout?.sizeBytes]).toEqual([12_288, 11_520]);
    const { layout: storage } = negotiate([], {
      pixels: { width: 100, height: 60, formats: ["NV12"] },
    });
    const tight = system.pool({
      name: "tight",
      count: 1,
      layout: { width: 100, height: 60, format: "NV12" },
    });
    expect(tight.layout).toEqual(storage?.pixels); // as negotiate() lays it out
    const consumer = pool.consumer({ name: "screen" });
    const frame = pool.tryAcquire();
    expect(frame?.layout).toEqual(pool.layout);
    frame?.publish();
    expectError("ESTALE", () => frame?.layout);
    const read = consumer.tryTake();
    expect(read?.layout).toEqual(pool.layout);
    const panel = { name: "panel", pixels: { formats: { XRGB8888: [0n] } } };
    expect(expectError("EBUSY", () => read?.buf.attach(system.addDevice(panel)))).toContain("NV12");
    read?.release();
    const plain = system.pool({ name: "plain", count: 1, bytes: 1 });
    expect(plain.layout).toBeNull();
    for (const options of [
      {},
      { bytes: 4096, layout },
      { layout: { ...layout, width: 0 } },
      { layout: { ...layout, format: "NV99" as "NV12" } },
      { layout: { ...layout, modifier: modifiers.INVALID } },
      { layout: { ...layout, heightAlign: 5000 } },
    ])
      expectError("EINVAL", () => system.pool({ name: "p", count: 1, ...options }));
    for (const one of [pool, tight, plain]) one.release();
    closeClean(system);
  });

  test("publish({ to }) reaches the named only; nobody there: the frame is free again", () => {
    const system = open();
    const pool = system.pool({ name: "p", count: 1, bytes: 4096 });
    expect(pool.tryAcquire()?.publish()).toBe(0);
    const a = pool.consumer({ name: "a" });
    const b = pool.consumer({ name: "b" });
    expectError("ENOENT", () => pool.tryAcquire()?.publish({ to: "c" }));
    const frame = pool.tryAcquire();
    expect(frame).toBeNull(); // the refused one is still being written
    pool.abandon(0);
    expect(pool.tryAcquire()?.publish({ to: ["b", "b"] })).toBe(1);
    expect(a.tryTake()).toBeNull();
    b.tryTake()?.release();
    expectError("EEXIST", () => pool.consumer({ name: "a" }));
    expectError("EINVAL", () => pool.consumer({ name: "" }));
    expectError("EINVAL", () => system.pool({ name: "p", count: 0, bytes: 1 }));
    expectError("ENOMEM", () => system.pool({ name: "p", count: 99, bytes: MiB }));
    pool.release();
    closeClean(system);
  });

  test("latest wins: what was not taken is replaced; every gets all, in order", () => {
    const system = open();
    const pool = system.pool({ name: "p", count: 4, bytes: 4096 });
    const latest = pool.consumer({ name: "latest", policy: "latest" });
    const every = pool.consumer({ name: "every" });
    for (let i = 0; i < 4; i++) pool.tryAcquire()?.publish();
    expect(pool.tryAcquire()).toBeNull();
    const got = latest.tryTake();
    expect(got?.seqno).toBe(4);
    expect(latest.tryTake()).toBeNull();
    const seen: (number | undefined)[] = [];
    for (let frame = every.tryTake(); frame !== null; frame = every.tryTake()) {
      seen.push(frame.seqno);
      frame.release();
    }
    expect(seen).toEqual([1, 2, 3, 4]);
    expect(pool.report().consumers[0]).toMatchObject({ taken: 1, dropped: 3 });
    got?.release();
    pool.release();
    closeClean(system);
  });

  test("read-write: alone with the frame, after all readers, in turn", () => {
    const system = open();
    const pool = system.pool({ name: "p", count: 1, bytes: 4096 });
    const first = pool.consumer({ name: "first", access: "read-write" });
    const second = pool.consumer({ name: "second", access: "read-write" });
    const readers = [pool.consumer({ name: "r1" }), pool.consumer({ name: "r2" })];
    pool.tryAcquire()?.publish();
    expect([first.tryTake(), second.tryTake()]).toEqual([null, null]);
    const reads = readers.map((reader) => reader.tryTake()) as ReadableFrame[];
    reads[0]?.release();
    expect(first.tryTake()).toBeNull();
    reads[1]?.release();
    expect(second.tryTake()).toBeNull();
    const write = first.tryTake();
    expect(second.tryTake()).toBeNull();
    write?.release();
    second.tryTake()?.release();
    pool.tryAcquire()?.abandon();
    pool.release();
    closeClean(system);
  });

  test("a frame waits for the fences of its readers, and a reader for its writer's", async () => {
    const system = open();
    const pool = system.pool({ name: "p", count: 1, bytes: 4096 });
    const consumer = pool.consumer({ name: "c" });
    const written = system.fence("written");
    pool.tryAcquire()?.publish({ fence: written });
    expect(await codeOf(consumer.take({ timeoutMs: 5 }))).toBe("ETIME");
    expect(pool.tryAcquire()).toBeNull(); // it is the consumer's still
    written.signal();
    (await consumer.take({ timeoutMs: 1000 })).release();
    const again = system.fence("again");
    (await pool.acquire({ timeoutMs: 1000 })).publish({ fence: again });
    setTimeout(() => again.signal(), 5);
    const frame = await consumer.take({ timeoutMs: 1000 });
    expect(frame.acquireFence?.isSignaled).toBe(true);
    const read = system.fence("read");
    frame.release({ fence: read });
    expect(pool.tryAcquire()).toBeNull();
    setTimeout(() => read.signal(), 5);
    (await pool.acquire({ timeoutMs: 1000 })).abandon();
    pool.release();
    for (const fence of [written, again, read]) fence.release();
    expect(system.core.tokens.size).toBe(0);
    closeClean(system);
  });

  test("frames() is back-pressure, and gives back what the loop left", async () => {
    const system = open();
    const pool = system.pool({ name: "p", count: 2, bytes: 4096 });
    const consumer = pool.consumer({ name: "c" });
    let made = 0;
    const producing = (async () => {
      for await (const frame of pool.frames()) {
        if (made === 3) continue; // not published: given back
        made += 1;
        frame.publish();
        if (made === 3) break;
      }
    })();
    await pause(20);
    expect(made).toBe(2);
    for await (const frame of consumer.frames()) if (frame.seqno === 3) break;
    await producing;
    expect(pool.report().frames.map(({ state }) => state)).toEqual(["free", "free"]);
    const aborted = pool.consumer({ name: "d" }).take({ signal: AbortSignal.timeout(5) });
    expect(await codeOf(aborted)).toBe("EINTR");
    pool.close();
    expect(await codeOf(pool.acquire())).toBe("EPIPE");
    for await (const _ of consumer.frames()) throw new Error("nothing was published");
    pool.release();
    expectError("ESTALE", () => pool.report());
    closeClean(system);
  });
});

describe.each(builds)("frame pools across threads on the $name core", ({ wasm }) => {
  const open = (): System => openSync({ wasm, shared: true, memoryBytes: 16 * MiB });

  async function run(system: System, consumers: object[], count: number, producer: object = {}) {
    const pool = system.pool({ name: "video", count: 3, bytes: 8192 });
    const { token } = pool;
    const hands: Hand[] = [];
    for (const consumer of consumers) {
      const hand = await hire(system, "consume", { token, ...consumer });
      await hand.heard();
      hands.push(hand);
    }
    const maker = await hire(system, "produce", { token, count, isFenced: true, ...producer });
    expect(await maker.done()).toBe(count);
    pool.close();
    const seen = await Promise.all(hands.map((hand) => hand.done()));
    const { consumers: left, frames } = pool.report();
    expect(left).toEqual([]);
    expect(frames.every(({ state }) => state === "free")).toBe(true);
    pool.release();
    return seen as number[][];
  }

  test("a Worker produces, three consume: every frame, in order, whole", async () => {
    const system = open();
    const seen = await run(
      system,
      [
        { options: { name: "async" } },
        { options: { name: "sync" }, isSync: true },
        { options: { name: "fenced" }, isFenced: true },
      ],
      200,
    );
    for (const numbers of seen) expect(numbers.filter((_, i) => i % 2 === 0)).toEqual(evens(200));
    closeClean(system);
  });

  test("a slow consumer of the latest holds nobody back", async () => {
    const system = open();
    const [latest, every] = await run(
      system,
      [
        { options: { name: "slow", policy: "latest" }, pauseMs: 20 },
        { options: { name: "every" } },
      ],
      100,
    );
    const numbers = (latest ?? []).filter((_, i) => i % 2 === 0);
    expect(numbers.length).toBeLessThan(60);
    expect(numbers).toEqual([...numbers].sort((a, b) => a - b));
    expect(every?.length).toBe(200);
    closeClean(system);
  });

  test("a read-write consumer comes after the readers of each frame", async () => {
    const system = open();
    const [, read] = await run(
      system,
      [{ options: { name: "stamp", access: "read-write" } }, { options: { name: "read" } }],
      60,
    );
    // Frame n was stamped once for each time before that its memory came by.
    const stamps = (read ?? []).filter((_, i) => i % 2 === 1);
    expect(stamps.length).toBe(60);
    expect(Math.max(...stamps)).toBeGreaterThan(10);
    closeClean(system);
  });

  test("each who imports a pool releases it; a thread lets go with the last", () => {
    const system = open();
    const pool = system.pool({ name: "p", count: 1, bytes: 4096 });
    const other = joinSync(system.share());
    const users = [other.importPool(pool.token), other.importPool(pool.token)];
    expect(users[1]).toBe(users[0]);
    expect(system.importPool(pool.token)).toBe(pool); // its maker's
    const consumer = users[0]?.consumer({ name: "c" });
    users[1]?.release();
    pool.release();
    pool.tryAcquire()?.publish();
    consumer?.tryTake()?.release();
    users[0]?.release();
    expectError("ESTALE", () => consumer?.tryTake());
    expectError("ESTALE", () => users[0]?.report());
    users[0]?.release(); // once more than it was imported: nothing is left to let go of
    expect(pool.report().consumers).toEqual([]);
    other.close();
    pool.release();
    expectError("ESTALE", () => pool.report());
    closeClean(system);
  });

  test("whoever imports a pool keeps it when its maker has left", async () => {
    const system = open();
    const other = joinSync(system.share());
    const pool = other.pool({ name: "p", count: 2, bytes: 4096 });
    const here = system.importPool(pool.token);
    expect(here.name).toBe("p");
    const consumer = here.consumer({ name: "c" });
    pool.tryAcquire()?.publish();
    expectError("EPERM", () => here.close());
    pool.release();
    other.close();
    const frame = await consumer.take();
    expect(frame.seqno).toBe(1);
    frame.release();
    expect(await codeOf(consumer.take())).toBe("EPIPE");
    here.release();
    closeClean(system);
  });
});
