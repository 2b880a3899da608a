import { describe, expect, test } from "vitest";
import { DmaBufError, joinSync, MiB, type System } from "../../src/index.ts";
import { eachCore } from "../support/cores.ts";
import { expectError } from "../support/errors.ts";
import { makeWorld } from "../support/public-calls.ts";
import type { World } from "../support/public-world.ts";

/** Gives back what keeps a system from being closed, and closes it. */
function closeWorld(w: World): void {
  w.attachment.unmap(w.mapping);
  for (const attachment of [w.attachment, w.second, w.dynamic]) attachment.detach();
  w.seen.vunmap(w.vmapping);
  w.window.unmap();
  w.gpu.dma.unmapPage(w.page);
  w.iova.free();
  w.pool.release();
  for (const buf of [w.buf, w.other, w.seen, w.evictable]) buf.put();
  w.system.close();
}

describe("a closed system writes nothing into its memory", () => {
  const { objects, calls } = makeWorld();
  const { u8 } = objects.system.core;
  closeWorld(objects);
  const before = u8.slice();

  test.each(calls.map((call) => [call.name, call] as const))("%s", async (_, { call, args }) => {
    try {
      const result = call(...(args as never[]));
      if (result instanceof Promise) await result;
    } catch (error) {
      expect(error).toBeInstanceOf(DmaBufError);
      expect((error as DmaBufError).message).toMatch(/^Cannot .+: .+/s);
    }
    expect(Buffer.compare(u8, before)).toBe(0);
  });
});

const shared = eachCore.filter((build) => build.shared);

describe.each(shared)("after close() on the $name core", (build) => {
  const open = (): System =>
    build.system({ memoryBytes: 16 * MiB, cma: { default: 4 * MiB }, threads: 3 });

  test("what a system gave out refuses with ENODEV, and leaves the memory to its next thread", () => {
    const system = open();
    const first = joinSync(system.share());
    const device = first.addDevice({ name: "d", iommu: true });
    const { dma } = device;
    const [frames, heap] = [first.frames, first.heap("system")];
    const [auto, region] = [first.heap("auto"), first.region("default")];
    const [timeline, swSync] = [first.timeline("t"), first.swSync("s")];
    const [domain, group] = [first.iommu.domain(), first.iommu.group()];
    const [range, movable] = [frames.alloc(2), first.movable(2)];
    const [pinnedRange, pinnedMovable] = [range.pin(), movable.pin()];
    const table = first.sgTableFromRange(range.pfn, 2);
    const pinnedTable = table.pin();
    const module = first.loadModule({
      name: "m",
      license: "GPL",
      uses: ["dma_fence_context_alloc", "dma_fence_init"],
    });
    first.close();
    first.close();
    const second = joinSync(system.share());
    expect(second.thread).toBe(first.thread);
    const held = second.frames.alloc(3);
    const before = system.core.u8.slice();
    for (const call of [
      () => frames.alloc(1),
      () => frames.allocAt(range.pfn, 1),
      () => heap.alloc(4096),
      () => auto.alloc(4096),
      () => first.heap("system"),
      () => region.alloc(1),
      () => region.stats(),
      () => timeline.fence(),
      () => swSync.createFence(9),
      () => domain.map(0x1000, 0x20_0000, 4096, 3),
      () => domain.unmap(0x1000, 4096),
      () => domain.iovaToPhys(0x1000),
      () => domain.free(),
      () => group.attach(domain),
      () => group.free(),
      () => range.pin(),
      () => range.free(),
      () => pinnedRange.unpin(),
      () => movable.pin(),
      () => movable.write(new Uint8Array(8)),
      () => movable.free(),
      () => pinnedMovable.views,
      () => pinnedMovable.unpin(),
      () => table.free(),
      () => table.lengthBytes,
      () => pinnedTable.unpin(),
      () => dma.mapPage(range.pfn, 0, 100, "to-device"),
      () => dma.mapSg([{ pfn: range.pfn, offset: 0, lengthBytes: 4096 }], "to-device"),
      () => dma.allocCoherent(4096),
      () => dma.allocNoncontiguous(4096, "to-device"),
      () => dma.iovaTryAlloc(4096),
      () => device.setDmaMask(32),
      () => first.fenceContexts(1),
      () => module.symbols.dma_fence_context_alloc(1),
      () => module.symbols.dma_fence_init("f", 1, 1),
      () => first.iommu.group(),
      () => first.import(1),
      () => first.core.check(),
      () => first.core.view(0, 8),
    ])
      expect(expectError("ENODEV", call)).toContain("the system is closed");
    expect(group.flush()).toBe(0);
    expect(Buffer.compare(system.core.u8, before)).toBe(0);
    held.free();
    second.close();
    expect(system.check(true)).toBeNull();
  });

  test("a fence of a closed system is its thread's alone: the next one's hold stays", async () => {
    const system = open();
    const fence = system.fence("job");
    const first = joinSync(system.share());
    const mine = first.importFence(fence.token);
    const own = first.fence("own");
    const seen = system.importFence(own.token);
    const waited = mine.wait();
    first.close();
    await waited;
    expect([mine.errorCode, mine.isSignaled]).toEqual(["ENODEV", true]);
    const second = joinSync(system.share());
    expect(second.thread).toBe(first.thread);
    const theirs = second.importFence(fence.token);
    fence.signal();
    fence.release();
    mine.release();
    expect(system.core.exports.fenceAt(theirs.token)).toBeGreaterThan(0); // the second one's hold
    expect(theirs.status).toBe(1);
    expect([seen.isSignaled, seen.errorCode]).toEqual([true, "EOWNERDEAD"]);
    expect(own.signal()).toBe(true); // on its own thread
    own.release();
    expectError("ENODEV", () => first.fence("late"));
    theirs.release();
    second.close();
    expect(system.check(true)).toBeNull();
  });

  test("a Worker that ends after its system was closed is not reaped by the slot's next owner", () => {
    const system = open();
    const first = joinSync(system.share());
    let ended = (): void => {};
    const worker = { once: (_: "exit", listener: () => void) => (ended = listener) };
    const share = first.share({ worker });
    first.close();
    const second = joinSync(system.share());
    const third = joinSync(share);
    expect(second.thread).toBe(first.thread);
    ended();
    expect(system.core.exports.threadState(third.thread)).toBe(1); // it runs
    third.close();
    second.close();
  });
});
