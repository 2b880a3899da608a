import { describe, expect, test } from "vitest";
import {
  type Attachment,
  type AttachOps,
  type Device,
  type DeviceMapping,
  type DmaBuf,
  FRAME_BYTES,
  KiB,
  MiB,
  type System,
} from "../../../src/index.ts";
import { eachCore } from "../../support/cores.ts";
import { expectError, expectRefusal, expectRejection } from "../../support/errors.ts";
import { watch } from "../../support/watch.ts";

function fill(buf: DmaBuf, seed: number): void {
  using cpu = buf.mmap();
  for (const view of cpu.views) view.fill(seed & 255);
}

function holds(buf: DmaBuf, seed: number): boolean {
  using cpu = buf.mmap();
  return cpu.views.every((view) => view.every((byte) => byte === (seed & 255)));
}

/** An importer that unmaps when it is told of a move. */
class Importer implements AttachOps {
  readonly attachment: Attachment;
  notices = 0;
  keeps = false;
  #mapping: DeviceMapping | null = null;

  constructor(buf: DmaBuf, device: Device) {
    this.attachment = buf.dynamicAttach(device, this);
  }

  moveNotify(): void {
    this.notices += 1;
    if (this.#mapping === null || this.keeps) return;
    this.attachment.unmap(this.#mapping);
    this.#mapping = null;
  }

  map(): DeviceMapping {
    this.#mapping = this.attachment.mapUnlocked("bidirectional");
    return this.#mapping;
  }

  end(): void {
    if (this.#mapping !== null) this.attachment.unmapUnlocked(this.#mapping);
    this.attachment.detach();
  }
}

describe.each(eachCore)("eviction on the $name core", (build) => {
  const open = () => {
    const system = build.system({ memoryBytes: 32 * MiB, carveout: { vram: 4 * MiB } });
    const heap = system.addEvictingHeap({ name: "gpu", near: "vram", far: "system" });
    return { system, heap, alloc: (bytes: number) => system.heap("gpu").alloc(bytes) };
  };
  const gpuOf = (system: System) => system.addDevice({ name: "gpu", iommu: true });
  const firstOf = (buf: DmaBuf) => buf.storage?.cpu(0).pfn ?? -1;

  test("eviction makes room for the next buffer, the least recently used first, bytes intact", () => {
    const { system, heap, alloc } = open();
    const bufs = [0, 1, 2, 3].map(() => alloc(MiB));
    for (const [i, buf] of bufs.entries()) fill(buf, i + 1);
    heap.validate(bufs[0] as DmaBuf); // used again: 1 is next
    const more = alloc(2 * MiB);
    expect(bufs.map((buf) => heap.placeOf(buf))).toEqual(["near", "far", "far", "near"]);
    expect(heap.placeOf(more)).toBe("near");
    expect(bufs.every((buf, i) => holds(buf, i + 1))).toBe(true);
    expect(heap.stats()).toEqual({
      nearCount: 3,
      nearBytes: 4 * MiB,
      farCount: 2,
      farBytes: 2 * MiB,
      evictedCount: 2,
      validatedCount: 0,
      movedBytes: 2 * MiB,
    });
    expect(system.stats().bytesCopied).toBe(2 * MiB);
    for (const buf of [...bufs, more]) buf.put();
    expect(heap.stats()).toMatchObject({ nearCount: 0, farCount: 0, nearBytes: 0, farBytes: 0 });
    expect(system.region("vram").stats().usedFrames).toBe(0);
    expect(system.check(true)).toBeNull();
  });

  test("a buffer that is used comes back, and an importer sees the move as moveNotify", () => {
    const { system, heap, alloc } = open();
    const [first, second] = [alloc(3 * MiB), alloc(3 * MiB)];
    fill(first, 7);
    expect([heap.placeOf(first), heap.placeOf(second)]).toEqual(["far", "near"]);
    const importer = new Importer(second, gpuOf(system));
    importer.map();
    const user = new Importer(first, gpuOf(system));
    const mapping = user.map(); // the other one unmaps, and goes
    expect([heap.placeOf(first), heap.placeOf(second)]).toEqual(["near", "far"]);
    expect([importer.notices, importer.attachment.mapCount]).toEqual([1, 0]);
    expect([mapping.nents > 0, holds(first, 7)]).toEqual([true, true]);
    expect(firstOf(first)).toBe(system.region("vram").basePfn);
    importer.end();
    user.end();
    expect(system.check(true)).toBeNull();
  });

  test.each([
    ["pinned", (importer: Importer) => importer.attachment.pin(), "an importer pins it"],
    ["mapped for the CPU", (importer: Importer) => void importer.attachment.buf.mmap(), "the CPU"],
    [
      "mapped by an importer that does not let go",
      (importer: Importer) => {
        importer.keeps = true;
      },
      "kept its mapping",
    ],
    [
      "in use by a bookkeep fence",
      ({ attachment: { buf } }: Importer, system: System) =>
        buf.resv.addFence(system.fence("job"), "bookkeep"),
      "fences are pending",
    ],
    [
      "in use by a kernel fence",
      ({ attachment: { buf } }: Importer, system: System) =>
        buf.resv.addFence(system.fence("clear"), "kernel"),
      "fences are pending",
    ],
  ] as const)("eviction passes over a buffer that is %s", (_, use, why) => {
    const { system, heap, alloc } = open();
    const buf = alloc(3 * MiB);
    const importer = new Importer(buf, gpuOf(system));
    importer.map();
    buf.resv.lock();
    use(importer, system);
    buf.resv.unlock();
    const other = alloc(2 * MiB);
    expect([heap.placeOf(buf), heap.placeOf(other)]).toEqual(["near", "far"]);
    expect(expectRefusal(system, "EBUSY", () => heap.evict(buf))).toContain(why);
    expectRefusal(system, "ENOMEM", () => heap.validate(other));
    expect(heap.stats()).toMatchObject({ evictedCount: 0, nearCount: 1, farCount: 1 });
    expect(system.check(true)).toBeNull();
  });

  test("eviction passes over a locked reservation, and evict says EAGAIN", () => {
    const { system, heap, alloc } = open();
    const buf = alloc(3 * MiB);
    buf.resv.lock();
    expect(heap.placeOf(alloc(2 * MiB))).toBe("far");
    expectRefusal(system, "EAGAIN", () => heap.evict(buf));
    buf.resv.unlock();
    heap.evict(buf);
    heap.evict(buf); // it lies there
    expect(heap.stats().evictedCount).toBe(1);
  });

  test("evictAsync and validateAsync wait for fences, and the bytes arrive", async () => {
    const { system, heap, alloc } = open();
    const buf = alloc(3 * MiB);
    fill(buf, 3);
    const job = system.fence("job");
    buf.resv.addFence(job, "bookkeep");
    await expectRejection("ETIME", heap.evictAsync(buf, { timeoutMs: 2 }));
    const other = alloc(3 * MiB);
    fill(other, 4);
    const coming = heap.validateAsync(other);
    const came = watch(coming);
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect([came.code, heap.placeOf(other)]).toEqual(["pending", "far"]);
    job.signal();
    await coming;
    expect([heap.placeOf(buf), heap.placeOf(other)]).toEqual(["far", "near"]);
    expect([holds(buf, 3), holds(other, 4), buf.resv.isLocked]).toEqual([true, true, false]);
    await heap.evictAsync(other);
    expect(heap.placeOf(other)).toBe("far");
    const abort = new AbortController();
    buf.resv.addFence(system.fence("never"), "read");
    const waiting = heap.validateAsync(buf, { signal: abort.signal });
    abort.abort();
    await expectRejection("EINTR", waiting);
    expect([buf.refCount, system.check(true)]).toEqual([1, null]);
  });

  test("a static importer pins the buffer from attach to detach", () => {
    const { system, heap, alloc } = open();
    const buf = alloc(3 * MiB);
    const attachment = buf.attach(gpuOf(system));
    expectRefusal(system, "EBUSY", () => heap.evict(buf));
    attachment.detach();
    heap.evict(buf);
    expect(heap.placeOf(buf)).toBe("far");
  });

  test("devices that cannot use both places decide where the buffer lies", () => {
    const { system, heap, alloc } = open();
    const camera = system.addDevice({ name: "camera", contiguousOnly: true });
    const buf = alloc(MiB + 4 * KiB);
    fill(buf, 9);
    heap.evict(buf);
    const importer = new Importer(buf, camera);
    expect(importer.map().nents).toBe(1); // near: one run
    expect([heap.placeOf(buf), holds(buf, 9)]).toEqual(["near", true]);
    expect(heap.placeOf(alloc(3 * MiB))).toBe("far"); // the camera could not use it there
    expect(expectRefusal(system, "EBUSY", () => heap.evict(buf))).toContain("cannot use it far");
    const low = system.addDevice({ name: "low", dmaMaskBits: 24 }); // below the carve-out
    expect(buf.canAttach(low)?.message).toBe(expectRefusal(system, "EBUSY", () => buf.attach(low)));
    importer.end();
    heap.evict(buf);
    const again = new Importer(buf, camera); // it will have to come near, so the other cannot stay
    expect(expectRefusal(system, "EBUSY", () => buf.attach(low))).toContain("neither place suits");
    again.end();
    expect(buf.canAttach(low)).toBeNull();
    const toLow = new Importer(buf, low);
    toLow.map();
    expect([heap.placeOf(buf), holds(buf, 9)]).toEqual(["far", true]);
    expect(system.check(true)).toBeNull();
  });

  test("an evicting heap needs two places, and serves what it can", () => {
    const { system, alloc } = open();
    const add = (name: string, near: string, far: string) => () =>
      system.addEvictingHeap({ name, near, far });
    expectRefusal(system, "EINVAL", add("x", "system", "vram"));
    expectRefusal(system, "EINVAL", add("x", "vram", "vram"));
    expectRefusal(system, "EINVAL", add("x", "vram", "dram"));
    expectRefusal(system, "EINVAL", add("gpu", "vram", "system"));
    expectRefusal(system, "ENOMEM", () => alloc(40 * MiB));
    expectRefusal(system, "EINVAL", () =>
      system.heap("gpu").alloc(1, { pixels: { width: 1, height: 1 } }),
    );
    const big = alloc(5 * MiB);
    expect(big.storage?.origNents).toBeGreaterThan(1);
    const owner = system.owner("tab", { quotaBytes: FRAME_BYTES });
    const buf = system.heap("gpu").alloc(1, { owner });
    expectRefusal(system, "EDQUOT", () => system.heap("gpu").alloc(1, { owner }));
    buf.put();
    expect(owner.usedBytes).toBe(0);
  });

  test("an importer may use the heap while it is told of a move", () => {
    const { system, heap, alloc } = open();
    const buf = alloc(3 * MiB);
    const inner: DmaBuf[] = [];
    const importer = new Importer(buf, gpuOf(system));
    const attachment = buf.dynamicAttach(gpuOf(system), {
      moveNotify: () => {
        inner.push(alloc(MiB));
        expectError("EDEADLK", () => heap.evict(buf));
      },
    });
    importer.map();
    heap.evict(buf);
    expect([heap.placeOf(buf), inner.length]).toEqual(["far", 1]);
    attachment.detach();
    importer.end();
    for (const one of [buf, ...inner]) one.put();
    expect(heap.stats()).toMatchObject({ nearCount: 0, farCount: 0 });
    expect(system.check(true)).toBeNull();
  });
});
