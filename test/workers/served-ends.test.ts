import { Worker } from "node:worker_threads";
import { describe, expect, test } from "vitest";
import { joinSync, openSync, type System } from "../../src/system.ts";
import { eachCore } from "../support/cores.ts";
import { codeOf, expectError } from "../support/errors.ts";
import { watched } from "../support/exporter.ts";
import { Prng } from "../support/prng.ts";
import { Hand, hire, until } from "./crew.ts";

const MiB = 1 << 20;
const builds = eachCore.filter(({ shared }) => shared);

function expectClean(system: System, freeFrames: number): void {
  expect(system.check(true)).toBeNull();
  system.core.exports.magazineDrain();
  expect(system.stats()).toMatchObject({ bufferCount: 0, pinnedFrames: 0, freeFrames });
}

/** A Worker with a thread of its own, that is reaped when it exits. */
async function mortal(
  system: System,
  job: string,
  args: object,
): Promise<Hand & { thread: number }> {
  const share = system.share({ reserve: true });
  const hand = new Hand(share, job, args);
  hand.worker.once("exit", () => system.reap(share.thread as number));
  await hand.ready;
  return Object.assign(hand, { thread: share.thread as number });
}

describe.each(builds)("served buffers and the end of threads on the $name core", ({ wasm }) => {
  const open = (options = {}): System =>
    openSync({ wasm, shared: true, memoryBytes: 16 * MiB, ...options });

  test("an owner that is killed: pending and later requests are EOWNERDEAD", async () => {
    const system = open();
    const before = system.stats().freeFrames;
    const owner = await mortal(system, "serveBuffer", { isStuck: true });
    const buf = system.import((await owner.heard()) as number);
    const device = system.addDevice({ name: "gpu", iommu: true, maxSegmentBytes: MiB });
    const attachment = await buf.attachAsync(device);
    const pending = attachment.mapAsync("to-device");
    expect(await owner.heard()).toBe("attach gpu (thread 0)");
    expect(await owner.heard()).toBe("map gpu (thread 0)"); // and it will never answer
    await buf.beginCpuAccessAsync("from-device");
    const seen = await buf.vmapAsync();
    await owner.worker.terminate();
    expect([await codeOf(pending), seen.isMapped]).toEqual(["EOWNERDEAD", true]);
    expect(await codeOf(attachment.mapAsync("to-device"))).toBe("EOWNERDEAD");
    expect(await codeOf(buf.beginCpuAccessAsync("from-device"))).toBe("EOWNERDEAD");
    const other = system.addDevice({ name: "other", iommu: true });
    expect(await codeOf(buf.attachAsync(other))).toBe("EOWNERDEAD");
    await buf.vunmapAsync(seen); // what gives back has nobody to tell, and works
    await attachment.detachAsync();
    const { token } = buf;
    buf.put();
    expect(["ESTALE", "EBADF"]).toContain(await codeOf((async () => system.import(token))()));
    for (const one of [device, other]) one.remove();
    expectClean(system, before);
    expect(system.core.exports.threadState(owner.thread)).toBe(0);
    system.close();
  });

  test("what is mapped and seen of a dead owner's memory stays until it is given back", async () => {
    const system = open({ threads: 3 });
    const before = system.stats().freeFrames;
    const owner = await mortal(system, "serveBuffer", { frames: 5 });
    const buf = system.import((await owner.heard()) as number);
    const device = system.addDevice({ name: "gpu", iommu: true, maxSegmentBytes: MiB });
    const attachment = await buf.attachAsync(device);
    const mapping = await attachment.mapAsync("bidirectional");
    const seen = await buf.vmapAsync();
    await owner.worker.terminate();
    await owner.exit;
    expect(system.check(true)).toBeNull();
    expect(system.stats().pinnedFrames).toBe(5);
    const hog = system.frames.alloc(512); // nobody gets the frames meanwhile
    const pinned = hog.pin();
    pinned.bytes.fill(1);
    device.dma.write(mapping.address, new Uint8Array(5 * 4096).fill(8));
    expect(seen.views.flatMap((view) => [...view]).every((byte) => byte === 8)).toBe(true);
    await attachment.unmapAsync(mapping);
    expect(system.core.exports.threadState(owner.thread)).toBe(3); // its slot waits for the views
    buf.vunmap(seen);
    expect(system.core.exports.threadState(owner.thread)).toBe(0);
    await attachment.detachAsync();
    buf.put();
    device.remove();
    pinned.unpin();
    hog.free();
    expectClean(system, before);
    system.close();
  });

  test("a borrower that dies after its lender: the last of both frees the frames", async () => {
    const system = open({ threads: 4 });
    const before = system.stats().freeFrames;
    const owner = await mortal(system, "serveBuffer", { frames: 4 });
    const token = (await owner.heard()) as number;
    const users = [1, 2].map(() => mortal(system, "holdServed", { token }));
    const [first, second] = await Promise.all(users);
    for (const user of [first, second]) await user?.heard();
    await owner.worker.terminate();
    await owner.exit;
    await first?.worker.terminate();
    await first?.exit;
    expect(system.check(true)).toBeNull();
    expect(system.stats().pinnedFrames).toBe(4);
    await second?.worker.terminate();
    await second?.exit;
    expectClean(system, before);
    for (const thread of [1, 2, 3]) expect(system.core.exports.threadState(thread)).toBe(0);
    system.close();
  });

  test("a requester that is killed is detached: its mappings, views and pins end here", async () => {
    const system = open();
    const before = system.stats().freeFrames;
    const calls: string[] = [];
    const buf = watched(system, calls, { frames: 3, pins: true });
    const user = await mortal(system, "holdServed", { token: buf.token });
    await user.heard();
    expect(buf.stats()).toMatchObject({ attachmentCount: 1, mapCount: 2, vmapCount: 1 });
    buf.put(); // the other thread's now
    await user.worker.terminate();
    await until(() => calls.at(-1) === "release unlocked");
    expect(calls.map((call) => call.split(" ")[0])).toEqual(
      "attach pin map vmap vunmap unmap unpin detach release".split(" "),
    );
    await until(() => system.stats().pinnedFrames === 0);
    expectClean(system, before);
    system.close();
  });

  test("timeouts and aborts: what nobody took is never asked, what comes late is given back", async () => {
    const system = open();
    const other = joinSync(system.share());
    const calls: string[] = [];
    let answer: () => void = () => {};
    let isSlow = false;
    const plain = watched(system, calls);
    const buf = watched(system, calls, {
      ops: {
        map: async (attachment, direction, wait) => {
          calls.push(`map ${wait?.signal?.aborted}`);
          if (isSlow) await new Promise<void>((done) => (answer = done));
          calls.push(`answer ${wait?.signal?.aborted}`);
          const table = plain.storage ?? system.sgTableFromRange(frames.pfn, 1);
          return attachment.device.dma.mapSgtable(table, direction);
        },
        unmap: ({ device }, mapping) => {
          calls.push("unmap");
          device.dma.unmapSgtable(mapping);
        },
      },
    });
    const frames = system.frames.alloc(1);
    const there = other.import(buf.token);
    const gpu = other.addDevice({ name: "gpu", iommu: true });
    const attachment = await there.attachAsync(gpu);
    calls.length = 0;
    isSlow = true;
    const abort = new AbortController();
    const slow = attachment.mapAsync("to-device", { signal: abort.signal });
    const queued = attachment.mapAsync("to-device", { timeoutMs: 20 });
    expect(await codeOf(queued)).toBe("ETIME");
    abort.abort();
    expect(await codeOf(slow)).toBe("EINTR");
    await until(() => calls.length === 1);
    answer();
    await until(() => calls.includes("unmap") || calls.includes("answer true"));
    isSlow = false;
    const mapping = await attachment.mapAsync("to-device");
    await attachment.unmapAsync(mapping);
    expect(calls.filter((call) => call.startsWith("map"))).toHaveLength(2);
    expect(buf.stats().mapCount).toBe(0);
    expect(await codeOf(attachment.mapAsync("to-device", { timeoutMs: 0 }))).toBe("ETIME");
    expect(await codeOf(attachment.mapAsync("to-device", { timeoutMs: -1 }))).toBe("EINVAL");
    expect(await codeOf(there.attachAsync(gpu, { signal: AbortSignal.abort() }))).toBe("EINTR");
    await attachment.detachAsync();
    there.put();
    await until(() => buf.stats().attachmentCount === 0);
    for (const one of [buf, plain]) one.put();
    expect(system.check(true)).toBeNull();
    other.close();
    system.close();
  });

  test("an owner that leaves: ENODEV for who asks, and nothing is left of either", async () => {
    const system = open();
    const before = system.stats().freeFrames;
    const owner = joinSync(system.share());
    const served = watched(owner, [], { ops: { map: () => new Promise(() => {}) } });
    const buf = system.import(served.token);
    const device = system.addDevice({ name: "gpu" });
    const attachment = await buf.attachAsync(device);
    const pending = attachment.mapAsync("to-device");
    await until(() => served.holders().length === 3); // a reference, an attachment, a thread
    expectError("EBUSY", () => owner.close());
    setTimeout(() => owner.core.exports.coreLeave(), 5); // as dmabuf/core has it
    expect(await codeOf(pending)).toBe("ENODEV");
    expect(await codeOf(buf.vmapAsync())).toBe("ENODEV");
    attachment.detach();
    const { token } = buf;
    buf.put();
    expect(["ESTALE", "EBADF"]).toContain(await codeOf((async () => system.import(token))()));
    device.remove();
    expect(system.check(true)).toBeNull();
    expect(system.stats().freeFrames).toBeLessThanOrEqual(before);
    system.close();
  });

  test("forged numbers: links, tables and tokens of nobody are refused, and nothing breaks", () => {
    const system = open();
    const other = joinSync(system.share());
    const buf = watched(system, []);
    const there = other.import(buf.token);
    const { exports } = other.core;
    const rng = new Prng(7);
    const plain = system.heap("system").alloc(4096);
    const numbers = [buf.token, plain.token, plain.storage?.handle ?? 0, 0, 1, 2 ** 31 - 1];
    for (let i = 0; i < 4000; i++) numbers.push(rng.below(2 ** 31));
    for (const number of numbers) {
      expect(exports.linkPost(number, 0, 0, 0)).toBeLessThan(0);
      expect(exports.linkCancel(number)).toBeLessThan(0);
      expect(exports.linkAnswer(number, 0, 0, 0, 0)).toBeLessThan(0);
      expect(exports.tableReturn(number)).toBeLessThan(0);
      expect(exports.bufferUnserve(number)).toBeLessThan(0);
      if (number !== plain.storage?.handle) expect(exports.tableBorrow(number)).toBeLessThan(0);
      if (number !== buf.token) expect(exports.linkAlloc(number)).toBeLessThan(0);
    }
    const link = system.core.exports.linkAlloc(buf.token); // of thread 0: not for others to use
    expect([exports.linkPost(link, 0, 0, 0), exports.linkFree(link)]).toEqual([-116, -116]);
    expect(exports.linkAnswer(link, 0, 0, 0, 0)).toBe(-22);
    system.core.exports.linkFree(link);
    for (const one of [there, plain, buf]) one.put();
    expect(system.check(true)).toBeNull();
    other.close();
    system.close();
  });

  test("Workers that use one buffer at the same time, with timeouts: counts are exact", async () => {
    const system = open({ threads: 5 });
    const before = system.stats().freeFrames;
    for (const pins of [false, true]) {
      const calls: string[] = [];
      const buf = watched(system, calls, { frames: 2, pins });
      const { token } = buf;
      const seeds = [1, 2, 3];
      const hands = await Promise.all(
        seeds.map((seed) => hire(system, "churnServed", { token, rounds: 40, seed })),
      );
      for (const hand of hands) expect(await hand.done()).toMatchObject({ rounds: 40 });
      await until(() => buf.stats().attachmentCount === 0);
      const count = (verb: string): number => calls.filter((call) => call.startsWith(verb)).length;
      expect(count("attach")).toBe(120);
      for (const [one, back] of ["attach detach", "map unmap", "pin unpin"].map((p) =>
        p.split(" "),
      ))
        expect(count(`${one} `)).toBe(count(`${back} `));
      buf.put();
    }
    expectClean(system, before);
    system.close();
  }, 300_000);
});

/** A Worker that serves a buffer, and has nothing else to do. */
function idleServer(rest: string): Worker {
  const code = `
    import("dmabuf").then(({ joinSync, openSync }) => {
      const system = openSync({ shared: true, memoryBytes: 8 << 20 });
      const ops = { map: () => null, unmap() {}, release() {} };
      const { token } = system.export({ ops, sizeBytes: 4096 });
      ${rest}
    });`;
  return new Worker(code, { eval: true });
}

test("a thread is kept alive by the buffers that others hold of it, not by those it shares", async () => {
  const ended = (worker: Worker): Promise<string> =>
    new Promise((done) => worker.once("exit", () => done("it ended")));
  expect(await ended(idleServer(""))).toBe("it ended");
  const needed = idleServer("globalThis.held = joinSync(system.share()).import(token);");
  const later = new Promise((done) => setTimeout(done, 700, "it runs"));
  expect(await Promise.race([ended(needed), later])).toBe("it runs");
  await needed.terminate();
});

test("a thread is kept alive while it waits, also behind what it has told before", async () => {
  const system = openSync({ shared: true, memoryBytes: 8 * MiB });
  const buf = watched(system, []);
  const code = `
    const { parentPort, workerData } = require("node:worker_threads");
    import("dmabuf").then(async ({ joinSync }) => {
      const system = joinSync(workerData.share);
      const buf = system.import(workerData.token);
      const attachment = await buf.attachAsync(system.addDevice({ name: "gpu" }));
      for (let i = 0; i < 20; i++) attachment.unmap(await attachment.mapAsync("to-device"));
      await attachment.detachAsync();
      buf.put();
      system.close();
      parentPort.postMessage("done");
    });`;
  const workerData = { share: system.share(), token: buf.token };
  const worker = new Worker(code, { eval: true, workerData });
  const said = await new Promise((done) => worker.once("message", done).once("exit", done));
  expect(said).toBe("done");
  buf.put();
  system.close();
});
