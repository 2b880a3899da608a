// Objects that have ended, of every class that has an end: a method is refused with an errno, or
// answers as the table below says; no property throws anything else, and nothing changes.

import { describe, expect, test } from "vitest";
import { DmaBufError } from "../../src/index.ts";
import { makeWorld } from "../support/public-calls.ts";
import { type Class, lineage, publicSurface } from "../support/public-surface.ts";
import { begun, stateOf, type World } from "../support/public-world.ts";

/** Ends what `make` makes by `end`; the object. */
function ended<T extends object>(made: T, end: (made: T) => unknown): T {
  end(made);
  return made;
}

/** An object of each class that has an end, after it. */
const makers: Readonly<Record<string, (w: World) => object>> = {
  FrameRange: ({ spare }) => ended(spare, (one) => one.free()),
  PinnedRange: ({ spare }) => ended(spare.pin(), (one) => one.unpin()),
  Movable: ({ movable }) => ended(movable, (one) => one.free()),
  PinnedMovable: ({ movable }) => ended(movable.pin(), (one) => one.unpin()),
  SgTable: ({ system, range }) => ended(system.sgTableFromRange(range.pfn, 1), (one) => one.free()),
  PinnedTable: ({ table }) => ended(table.pin(), (one) => one.unpin()),
  DmaBuf: ({ system }) => ended(system.heap("system").alloc(4096), (one) => one.put()),
  Attachment: ({ other, camera }) => ended(other.attach(camera), (one) => one.detach()),
  CpuMapping: ({ window }) => ended(window, (one) => one.unmap()),
  Vmapping: ({ seen, vmapping }) => ended(vmapping, (one) => seen.vunmap(one)),
  DeviceMapping: ({ gpu, page }) => ended(page, (one) => gpu.dma.unmapPage(one)),
  CoherentBuffer: ({ gpu }) => ended(gpu.dma.allocCoherent(4096), (one) => one.free()),
  NoncontiguousBuffer: ({ gpu }) =>
    ended(gpu.dma.allocNoncontiguous(4096, "to-device"), (one) => one.free()),
  DmaIova: ({ iova }) => ended(iova, (one) => one.free()),
  Device: ({ camera }) => ended(camera, (one) => one.remove()),
  DeviceDma: ({ camera }) => ended(camera.dma, () => camera.remove()),
  HeldPages: ({ held }) => ended(held, (one) => one.release()),
  Memfd: ({ mem }) => ended(mem, (one) => one.put()),
  MemfdMapping: ({ mem }) =>
    ended(mem, (one) => one.truncate(4096)) && ended(mem.mmap(), (one) => one.unmap()),
  SyncFile: ({ file2 }) => ended(file2, (one) => one.put()),
  SwSync: ({ sw }) => ended(sw, (one) => one.put()),
  Timeline: ({ timeline }) => ended(timeline, (one) => one.close()),
  Fence: ({ fence2 }) => ended(fence2, (one) => one.release()),
  FenceArray: ({ both }) => ended(both, (one) => one.release()),
  FenceChain: ({ chain }) => ended(chain, (one) => one.release()),
  ImportedFence: ({ imported }) => ended(imported, (one) => one.release()),
  Owner: ({ owner }) => ended(owner, (one) => one.remove()),
  IommuGroup: ({ system }) => ended(system.iommu.group(), (one) => one.free()),
  BuiltInDomain: ({ domain }) => ended(domain, (one) => one.free()),
  Module: ({ system }) =>
    ended(system.loadModule({ name: "m", license: "GPL", uses: [] }), (one) => one.unload()),
  Pool: ({ system }) =>
    ended(system.pool({ name: "gone", count: 1, bytes: 1 }), (one) => one.release()),
  FrameConsumer: ({ pool }) => ended(pool.consumer({ name: "gone" }), (one) => one.close()),
  WritableFrame: ({ writing }) => ended(writing, (one) => one.abandon()),
  ReadableFrame: ({ reading }) => ended(reading, (one) => one.release()),
  Process: ({ process }) => ended(process, (one) => one.exit()),
  UserMapping: ({ userMapping }) => ended(userMapping, (one) => one.unmap()),
  AcquireContext: ({ context }) => ended(context, (one) => one.fini()),
};

/** A released fence has signaled: who waits is told so. */
const fence = [
  "Fence.enableSignaling",
  "Fence.addCallback",
  "Fence.removeCallback",
  "Fence.signal",
  "Fence.setDeadline",
  "Fence.release",
  "Fence.wait",
  "Fence.waitSync",
];
const importedFence = ["signal", "release", "addCallback", "removeCallback", "waitSync"];

/** What answers after the end: it tells what was or that nothing is left, or ends once more. */
const answers: Readonly<Record<string, readonly string[]>> = {
  DmaBuf: ["DmaBuf.stats", "DmaBuf.holders"],
  SyncFile: ["SyncFile.info"],
  Timeline: ["Timeline.advance", "Timeline.close"], // what it has made goes on
  Fence: fence,
  FenceArray: [...fence, "FenceArray.matchesContext"],
  FenceChain: [...fence, "FenceChain.previous"],
  ImportedFence: [...fence, ...importedFence.map((name) => `ImportedFence.${name}`)],
  Owner: ["Owner.setQuota"],
  IommuGroup: ["IommuGroup.flush"],
  BuiltInDomain: ["BuiltInDomain.gather", "Domain.setFaultHandler"],
  Module: ["Module.tryGet"],
  Pool: ["Pool.release"],
  FrameConsumer: ["FrameConsumer.close"],
  Process: ["Process.poll", "Process.pollAsync", "Process.exec", "Process.exit"], // POLLNVAL
  AcquireContext: ["AcquireContext.done", "AcquireContext.fini"],
};

/** Whose methods of such names end something else, and what has a test of its own. */
const lasting = ["FdTable", "WaitQueue", "IommuDomain", "UserRange"];
const elsewhere = ["System"]; // unit/closed-system.test.ts

const surface = await publicSurface();

/** What an object's class and those above it declare for everybody. */
function methodsOf(object: object): string[] {
  const classes = lineage(object.constructor as Class).map(({ name }) => name);
  return surface
    .map(({ name }) => name)
    .filter((name) => classes.includes(name.slice(0, name.indexOf("."))))
    .filter((name) => !name.endsWith(".constructor"));
}

/** The properties that an object's class and those above it compute. */
function gettersOf(object: object): string[] {
  return lineage(object.constructor as Class).flatMap((one) =>
    Object.entries(Object.getOwnPropertyDescriptors((one as { prototype?: object }).prototype))
      .filter(([, { get }]) => get !== undefined)
      .map(([key]) => key),
  );
}

function expectTyped(error: unknown, what: string): void {
  expect(error, what).toBeInstanceOf(DmaBufError);
  expect((error as DmaBufError).errno, what).toBeGreaterThan(0);
  expect((error as DmaBufError).message, what).toMatch(/^Cannot .+: .+/s);
}

describe("after its end", () => {
  test.each(Object.entries(makers))("%s refuses, or answers as it says", async (name, make) => {
    const { objects, calls } = makeWorld();
    const one = make(objects);
    const before = stateOf(objects);
    const answered: string[] = [];
    for (const what of methodsOf(one)) {
      const method = what.slice(what.indexOf(".") + 1);
      const key = method === "[Symbol.dispose]" ? Symbol.dispose : method;
      const { args = [] } = calls.find(({ covers }) => covers === what) ?? {};
      try {
        const call = (one as Record<string | symbol, (...all: unknown[]) => unknown>)[key];
        await begun(call?.apply(one, args as unknown[]));
        if (key !== Symbol.dispose) answered.push(what);
      } catch (error) {
        expectTyped(error, what);
      }
      expect(stateOf(objects), what).toEqual(before);
    }
    expect(answered).toEqual(answers[name] ?? []);
  });

  test.each(Object.entries(makers))("no property of %s throws another error", (_, make) => {
    const one = make(makeWorld().objects) as Record<string, unknown>;
    for (const key of gettersOf(one)) {
      try {
        void one[key];
      } catch (error) {
        expectTyped(error, key);
      }
    }
  });

  test("every class of which a method is called free, close, put or the like is here", () => {
    const ends = /^(\w+)\.(free|close|put|release|unpin|unmap|detach|remove|unload|exit|fini)$/;
    const classes = surface.map(({ name }) => ends.exec(name)?.[1] ?? "").filter(Boolean);
    const others = [...lasting, ...elsewhere];
    const covered = Object.values(makers).flatMap((make) =>
      lineage(make(makeWorld().objects).constructor as Class).map(({ name }) => name),
    );
    expect([...new Set(classes)].filter((name) => !covered.includes(name)).sort()).toEqual(
      others.sort(),
    );
  });
});
