import { describe, expect, test } from "vitest";
import { ConflictError, type DmaBuf, type DmaBufOps, modifiers } from "../../src/index.ts";
import { joinSync, openSync, type System } from "../../src/system.ts";
import { eachCore } from "../support/cores.ts";
import { codeOf, expectError } from "../support/errors.ts";
import { watched } from "../support/exporter.ts";
import { closeClean, hire, until } from "./crew.ts";

const MiB = 1 << 20;
const builds = eachCore.filter(({ shared }) => shared);

describe.each(builds)("buffers of JavaScript exporters on the $name core", ({ wasm }) => {
  const open = (options = {}): System =>
    openSync({ wasm, shared: true, memoryBytes: 16 * MiB, ...options });
  /** The owner's system, another thread's, and a device of that one. */
  const pair = (options = {}) => {
    const system = open(options);
    const other = joinSync(system.share());
    const gpu = other.addDevice({ name: "gpu", iommu: true, maxSegmentBytes: MiB });
    return { system, other, gpu };
  };

  test.each([false, true])(
    "a Worker attaches, maps, brackets and sees one, the exporter dynamic: %s",
    async (pins) => {
      const system = open();
      const calls: string[] = [];
      const buf = watched(system, calls, { frames: 3, pins, info: { name: "served" } });
      const table = buf.vmap();
      for (const view of table.views) view.fill(3);
      buf.vunmap(table);
      calls.length = 0;
      const hand = await hire(system, "useServed", { token: buf.token, value: 77 });
      expect(await hand.done()).toEqual({
        name: "served",
        exporterName: "watched",
        sizeBytes: 12_288,
        before: [3, 3, 3],
        after: true,
        fault: "ESTALE",
      });
      const lock = pins ? "locked" : "unlocked";
      expect(calls).toEqual([
        "attach gpu (thread 1) unlocked",
        ...(pins ? ["pin gpu (thread 1) locked"] : []),
        `map gpu (thread 1) ${lock}`,
        "begin bidirectional unlocked",
        "vmap unlocked",
        "vunmap unlocked",
        "end bidirectional unlocked",
        `unmap gpu (thread 1) ${lock}`,
        ...(pins ? ["unpin gpu (thread 1) locked"] : []),
        "detach gpu (thread 1) unlocked",
      ]);
      buf.put();
      expect(calls.at(-1)).toBe("release unlocked");
      closeClean(system);
    },
  );

  test("one of a Worker is used here; synchronous calls that take are EWOULDBLOCK and ask nothing", async () => {
    const system = open();
    const hand = await hire(system, "serveBuffer", { frames: 2 });
    const token = (await hand.heard()) as number;
    const buf = system.import(token);
    expect(system.import(token)).toBe(buf);
    buf.put();
    const device = system.addDevice({ name: "camera", iommu: true, maxSegmentBytes: MiB });
    for (const call of [
      () => buf.attach(device),
      () => buf.dynamicAttach(device, { moveNotify: () => {} }),
      () => buf.vmap(),
      () => buf.mmap(),
      () => buf.beginCpuAccess("from-device"),
      () => buf.endCpuAccess("from-device"),
    ])
      expect(expectError("EWOULDBLOCK", call)).toContain("Async()");
    const attachment = await buf.attachAsync(device);
    expectError("EWOULDBLOCK", () => attachment.map("to-device"));
    const mapping = await attachment.mapAsync("from-device");
    device.dma.write(mapping.address, new Uint8Array(8192).fill(9));
    const seen = await buf.vmapAsync();
    expect(seen.views.flatMap((view) => [...view]).every((byte) => byte === 9)).toBe(true);
    buf.vunmap(seen); // what gives back takes place here at once, and is told there
    attachment.unmap(mapping);
    expectError("EFAULT", () => device.dma.read(4096, new Uint8Array(1)));
    attachment.detach();
    hand.tell("put it");
    const said = [];
    for (let i = 0; i < 4; i++) said.push(await hand.heard());
    expect(said).toEqual([
      "attach camera (thread 0)",
      "map camera (thread 0)",
      "unmap camera (thread 0)",
      "detach camera (thread 0)",
    ]);
    buf.put(); // the last holder of all
    expect(await hand.heard()).toBe("release");
    await hand.done();
    expect(["ESTALE", "EBADF"]).toContain(await codeOf((async () => system.import(token))()));
    closeClean(system);
  });

  test("a dynamic importer of another thread pins nothing more: the attachment is pinned there", async () => {
    const { system, other, gpu } = pair();
    const calls: string[] = [];
    const buf = watched(system, calls, { pins: true });
    const there = other.import(buf.token);
    const attachment = await there.dynamicAttachAsync(gpu, { moveNotify: () => {} });
    await attachment.pinAsync();
    await attachment.unpinAsync();
    const first = await attachment.mapAsync("to-device");
    expect(await attachment.mapAsync("from-device")).toBe(first); // kept, for both directions
    await attachment.unmapAsync(first);
    await attachment.unmapAsync(first);
    await attachment.detachAsync();
    expect(calls.filter((call) => call.startsWith("pin"))).toHaveLength(1);
    there.put();
    buf.put();
    closeClean(system, other);
  });

  test("errors travel: codes, reasons, conflicts, and what is no DmaBufError", async () => {
    const { system, other, gpu } = pair();
    const throwing = (ops: Partial<DmaBufOps>): DmaBuf =>
      other.import(watched(system, [], { ops }).token);
    const conflict = { field: "iommu", devices: ["gpu"], allowed: true, needed: false } as const;
    const picky = throwing({
      attach: (buf) => {
        throw new ConflictError("EBUSY", "x", "it does not fit", [conflict], buf.sizeBytes);
      },
    });
    const refusal = await picky.attachAsync(gpu).catch((error: ConflictError) => error);
    expect(refusal).toBeInstanceOf(ConflictError);
    expect(refusal).toMatchObject({ code: "EBUSY", conflicts: [conflict] });
    expect((refusal as Error).message).toBe(
      `Cannot attach gpu to ${picky.name}: it does not fit: ` +
        "for 4 KiB, gpu allows iommu true and false would be needed",
    );
    const broken = throwing({
      beginCpuAccess: () => {
        throw new TypeError("oh");
      },
      vmap: async () => ({}) as never,
    });
    await expect(broken.beginCpuAccessAsync("to-device")).rejects.toMatchObject({
      code: "EIO",
      message: expect.stringContaining("TypeError: oh"),
    });
    expect(await codeOf(broken.vmapAsync())).toBe("ENOMEM");
    await expect(broken.beginCpuAccessAsync("none")).rejects.toMatchObject({ code: "EINVAL" });
    for (const buf of [picky, broken]) buf.put();
    for (const buf of system.buffers) buf.put();
    closeClean(system, other);
  });

  test("what fits the exporter but not the device is ended there: no mapping is left", async () => {
    const { system, other } = pair();
    const calls: string[] = [];
    const buf = watched(system, calls, { frames: 3 });
    const there = other.import(buf.token);
    const devices = [
      [other.addDevice({ name: "panel", dmaMaskBits: 64, maxSegments: 2 }), "EINVAL"],
      [
        other.addDevice({ name: "stale", coherent: false, simulatedCache: true }),
        "EOPNOTSUPP", // the exporter could not sync for it
      ],
    ] as const;
    for (const [device, code] of devices) {
      calls.length = 0;
      const attachment = await there.attachAsync(device);
      expect(await codeOf(attachment.mapAsync("bidirectional"))).toBe(code);
      await attachment.detachAsync();
      expect(calls.map((call) => call.split(" ")[0])).toEqual(["attach", "map", "unmap", "detach"]);
    }
    there.put();
    buf.put();
    closeClean(system, other);
  });

  test("the exporter sees the device's limits and pictures, and its own thread's fences count", async () => {
    const { system, other } = pair();
    const seen: unknown[] = [];
    const buf = watched(system, [], {
      ops: { attach: (_, { device }) => void seen.push(device.limits) },
    });
    const there = other.import(buf.token);
    const pixels = {
      formats: { NV12: [modifiers.LINEAR, modifiers.I915_Y_TILED] },
      heightAlign: 16,
    };
    const camera = other.addDevice({ name: "camera", dmaMaskBits: 40, maxSegments: 7, pixels });
    const attachment = await there.attachAsync(camera);
    expect(seen).toEqual([camera.limits]);
    const fence = system.fence("a move");
    buf.resv.addFence(fence, "kernel");
    expect(await codeOf(attachment.mapAsync("to-device", { timeoutMs: 10 }))).toBe("ETIME");
    const late = attachment.mapAsync("to-device");
    expect(await codeOf(there.beginCpuAccessAsync("to-device", { timeoutMs: 10 }))).toBe("ETIME");
    fence.signal();
    attachment.unmap(await late);
    await there.beginCpuAccessAsync("to-device");
    await there.endCpuAccessAsync("to-device");
    attachment.detach();
    there.put();
    await until(() => buf.stats().attachmentCount === 0);
    buf.put();
    fence.release();
    closeClean(system, other);
  });

  test("a buffer of an evicting heap has a token: it lies still while another thread has it", async () => {
    const { system, other, gpu } = pair({ carveout: { vram: MiB } });
    const heap = system.addEvictingHeap({ name: "ttm", near: "vram", far: "system" });
    const buf = system.heap("ttm").alloc(MiB);
    const there = other.import(buf.token);
    expect([there.exporterName, heap.placeOf(buf)]).toEqual(["ttm", "near"]);
    const options = { name: "p", count: 1, bytes: 4096, heap: "ttm" };
    expectError("EOPNOTSUPP", () => system.pool(options)); // its frames must lie still
    heap.evict(buf);
    const attachment = await there.attachAsync(gpu); // used: it comes near
    expect(heap.placeOf(buf)).toBe("near");
    const mapping = await attachment.mapAsync("from-device");
    gpu.dma.write(mapping.address, new Uint8Array(MiB).fill(5));
    expectError("EBUSY", () => heap.evict(buf));
    await attachment.unmapAsync(mapping);
    await attachment.detachAsync();
    heap.evict(buf);
    const seen = await there.vmapAsync();
    expect(seen.views[0]?.[4095]).toBe(5);
    expectError("EBUSY", () => heap.validate(buf)); // the CPU sees it
    await there.vunmapAsync(seen);
    buf.put(); // the other thread's from here on
    expectError("ESTALE", () => buf.put());
    expect(heap.stats().farCount).toBe(1);
    there.put();
    await until(() => heap.stats().farCount === 0);
    closeClean(system, other);
  });

  test("pictures, long names and the symbol policy travel", () => {
    const system = open({ symbolPolicy: "any" });
    const other = joinSync(system.share());
    expect(other.symbols.policy).toBe("any");
    const name = "thirty-one bytes of a name, all!";
    const pixels = { width: 64, height: 48, formats: ["NV12"] as const };
    const picture = system.heap("auto").alloc(64 * 72, { name: name.slice(0, 31), pixels });
    picture.mmap().unmap();
    const there = other.import(picture.token);
    expect([there.name, there.layout]).toEqual([name.slice(0, 31), picture.layout]);
    expect(there.layout?.planes).toHaveLength(2);
    const served = watched(system, [], { frames: 2, ops: { layout: () => picture.layout } });
    expect(other.import(served.token).layout).toEqual(picture.layout);
    const blind = { formats: { NV12: [modifiers.I915_Y_TILED] } };
    const panel = other.addDevice({ name: "panel", pixels: blind });
    expect(expectError("EBUSY", () => there.attach(panel))).toContain("modifiers");
    const layout = { width: 8, height: 8, format: "R8" } as const;
    const pool = system.pool({ name: "tiles", count: 2, layout });
    const joined = other.importPool(pool.token);
    expect(joined.layout).toEqual(pool.layout);
    expect(joined.tryAcquire()?.layout?.format).toBe("R8");
    for (const one of [joined, pool]) one.release();
    for (const buf of [...other.buffers, ...system.buffers]) buf.put();
    closeClean(system, other);
  });
});
