import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import {
  FRAME_BYTES,
  MiB,
  memfdCreate,
  negotiate,
  openSync,
  type System,
} from "../../src/index.ts";

const _ = undefined;

/** A system that is opened with options that are all there and say nothing. */
function open(): System {
  const options = { shared: _, threads: _, physicalBase: _, poison: _, strict: _, onMisuse: _ };
  const more = { unbackedFrames: _, bounceBytes: _, prefault: _, wasm: _, carveout: _ };
  const cma = { default: { sizeBytes: 4 * MiB, base: _, limit: _, isFixed: _, orderPerBit: _ } };
  return openSync({ ...options, ...more, memoryBytes: 16 * MiB, cma, symbolPolicy: _ });
}

describe("an option that is undefined is one that is not given", () => {
  test("of systems and devices", () => {
    openSync({ memoryBytes: _, canBlock: _, trackHolders: _ }).close();
    const system = open();
    const limits = { dmaMaskBits: _, maxSegments: _, maxSegmentBytes: _, pixels: _, coherent: _ };
    const device = system.addDevice({ name: "d", iommu: _, ...limits, contiguousOnly: _ });
    expect(device.limits).toEqual(system.addDevice({ name: "e" }).limits);
    const group = system.iommu.group({ name: _, invalidation: _, iotlb: _, clock: _, reserved: _ });
    expect(group.invalidation).toBe("strict");
    const domain = { type: _, granuleBytes: _, stage: _, addressBits: _, outputBits: _ };
    const iotlb = { entries: 8, ways: _, eviction: _ };
    expect(system.iommu.domain({ ...domain, iotlb }).format?.iotlb).toEqual({
      entries: 8,
      ways: 8,
      eviction: "lru",
    });
    const range = system.frames.alloc(1, { alignOrder: _, maskBits: _, type: _ });
    const attrs = { skipCpuSync: _, noWarn: _, privileged: _, weakOrdering: _ };
    device.dma.unmapPage(device.dma.mapPage(range.pfn, 0, FRAME_BYTES, "to-device", attrs));
    range.free();
  });

  test("of buffers, fences and files", async () => {
    const system = open();
    const options = { name: _, owner: _, fdFlags: _, heapFlags: _, pixels: _, layout: _ };
    const buf = system.heap("system").alloc(FRAME_BYTES, options);
    expect(buf.label).toBeNull();
    buf.mmap({ pageOffset: _, pageCount: _, shared: _ }).unmap();
    const attachment = await buf.attachAsync(system.addDevice({ name: "d" }), {
      signal: _,
      timeoutMs: _,
      context: _,
    });
    const mapping = await attachment.mapAsync("to-device", { timeoutMs: _ });
    await attachment.unmapAsync(mapping, { direction: _ });
    await attachment.detachAsync({});
    const fd = system.files.install(buf, { closeOnExec: _, min: _ });
    expect([fd, system.files.isCloseOnExec(fd)]).toEqual([0, false]);
    const fence = system.fence("f", { context: _, seqno: _, ops: _ });
    expect(fence.seqno).toBe(1);
    expect(system.fenceArray([fence], { mode: _, context: _, seqno: _ }).isSignaled).toBe(false);
    setTimeout(() => fence.signal(), 1);
    await fence.wait({ timeoutMs: _, signal: _, clock: _ });
    const owner = system.owner("o", { quotaBytes: _ });
    expect(owner.quotaBytes).toBe(Infinity);
    memfdCreate(system, "m", { allowSealing: _ }).put();
    const { layout } = negotiate([], { sizeBytes: FRAME_BYTES, pixels: _ });
    expect(layout).not.toBeNull();
  });

  test("of a module's buffers: they are still the module's", () => {
    const system = open();
    const module = system.loadModule({
      name: "m",
      license: "GPL",
      uses: ["dma_buf_export"],
      imports: ["DMA_BUF"],
    });
    const ops = { map: () => expect.unreachable(), unmap() {}, release() {} };
    const info = { ops, sizeBytes: FRAME_BYTES, exporterName: _, owner: _, name: _, flags: _ };
    const buf = module.symbols.dma_buf_export(info);
    expect(buf.exporterName).toBe("m");
    expect(() => module.unload()).toThrow(/EBUSY|buffers|use/);
    buf.put();
    module.unload();
  });

  test("of a pool and a share", () => {
    const system = openSync({ memoryBytes: 8 * MiB, shared: true });
    const pool = system.pool({ name: "p", count: 1, bytes: FRAME_BYTES, layout: _, heap: _ });
    const consumer = pool.consumer({ name: "c", access: _, policy: _ });
    pool.tryAcquire()?.publish({ to: _, fence: _ });
    consumer.takeSync({ timeoutMs: _ }).release({ fence: _ });
    pool.release();
    expect(system.share({ worker: _, reserve: _ }).thread).toBeNull();
    system.close();
  });

  test("every optional member of the library's types may be", () => {
    const folder = new URL("../../src/", import.meta.url);
    const names = readdirSync(folder, { recursive: true, encoding: "utf8" });
    const files = names.filter((name) => name.endsWith(".ts"));
    expect(files.length).toBeGreaterThan(100);
    const wrong = files.flatMap((file) => {
      const source = readFileSync(new URL(file, folder), "utf8");
      const types = source.match(/^export interface [\s\S]*?^}/gm) ?? [];
      const members = types.flatMap((type) => type.match(/^ {2}readonly \w+\?:.*;$/gm) ?? []);
      return members
        .filter((member) => !/(\| undefined|: unknown);$/.test(member))
        .map((m) => `${file}: ${m}`);
    });
    expect(wrong).toEqual([]);
  });
});
