import { describe, expect, test } from "vitest";
import {
  type Attachment,
  type Device,
  type DeviceMapping,
  type DmaBuf,
  DmaBufError,
  type EvictingHeap,
  type Fence,
  KiB,
  MiB,
  type System,
} from "../../src/index.ts";
import { eachCore } from "../support/cores.ts";
import { fuzzSeed, Prng } from "../support/prng.ts";

/** A buffer as the fuzz knows it: the byte that it is filled with, and who uses it. */
interface Known {
  readonly buf: DmaBuf;
  seed: number;
  readonly attachments: Map<Attachment, { mapping: DeviceMapping | null; keeps: boolean }>;
  pins: number;
  fence: Fence | null;
}

/** Random events on the buffers of an evicting heap, and what must be true after each. */
class EvictionFuzz {
  readonly #random: Prng;
  readonly #system: System;
  readonly #heap: EvictingHeap;
  readonly #devices: readonly Device[];
  readonly #known: Known[] = [];

  constructor(seed: number, system: System) {
    this.#random = new Prng(seed);
    this.#system = system;
    this.#heap = system.addEvictingHeap({ name: "gpu", near: "vram", far: "system" });
    this.#devices = [
      system.addDevice({ name: "gpu", iommu: true }),
      system.addDevice({ name: "nic" }),
      system.addDevice({ name: "camera", contiguousOnly: true }),
    ];
  }

  step(): void {
    const events = [
      this.#alloc,
      this.#put,
      this.#write,
      this.#attach,
      this.#map,
      this.#map,
      this.#unmap,
      this.#detach,
      this.#pin,
      this.#fence,
      this.#move,
      this.#move,
    ];
    try {
      this.#random.pick(events).call(this);
    } catch (error) {
      if (!(error instanceof DmaBufError)) throw error;
      expect(["ENOMEM", "EBUSY"]).toContain(error.code);
    }
  }

  verify(): void {
    const lies = { near: 0, far: 0 };
    for (const { buf, seed } of this.#known) {
      const place = this.#heap.placeOf(buf);
      lies[place] += buf.sizeBytes;
      const region = this.#system.region("vram");
      const pfn = buf.storage?.cpu(0).pfn ?? 0;
      const isInside = pfn >= region.basePfn && pfn < region.basePfn + region.frameCount;
      expect(isInside).toBe(place === "near");
      for (const { pfn: first, lengthBytes } of buf.storage?.entries() ?? []) {
        const bytes = this.#system.core.view(first * 4 * KiB, lengthBytes);
        const expected = new Uint8Array(lengthBytes).fill(seed);
        expect(Buffer.compare(bytes, expected), buf.name).toBe(0);
      }
    }
    const { nearBytes, farBytes, nearCount, farCount } = this.#heap.stats();
    expect([nearBytes, farBytes]).toEqual([lies.near, lies.far]);
    expect(nearCount + farCount).toBe(this.#known.length);
    expect(this.#system.check()).toBeNull();
  }

  /** Ends everything; what is left then. */
  finish(): void {
    for (const known of this.#known) {
      known.fence?.signal();
      known.buf.resv.lock();
      for (const [attachment, use] of known.attachments) {
        if (use.mapping !== null) attachment.unmap(use.mapping);
        while (attachment.pinCount > 0) attachment.unpin();
      }
      known.buf.resv.unlock();
      for (const attachment of known.attachments.keys()) attachment.detach();
      known.buf.put();
    }
    const { nearCount, farCount, evictedCount, validatedCount } = this.#heap.stats();
    expect([nearCount, farCount]).toEqual([0, 0]);
    expect(Math.min(evictedCount, validatedCount)).toBeGreaterThan(5);
    expect(this.#system.check(true)).toBeNull();
    this.#system.close();
  }

  #pick(): Known | null {
    return this.#known.length === 0 ? null : this.#random.pick(this.#known);
  }

  #pickUse(): [Known, Attachment] | null {
    const known = this.#pick();
    const all = [...(known?.attachments.keys() ?? [])];
    return known === null || all.length === 0 ? null : [known, this.#random.pick(all)];
  }

  #alloc(): void {
    if (this.#known.length > 20) return;
    const buf = this.#system.heap("gpu").alloc(this.#random.below(768 * KiB) + 1);
    this.#known.push({ buf, seed: 0, attachments: new Map(), pins: 0, fence: null });
  }

  #put(): void {
    const known = this.#pick();
    if (known === null || known.attachments.size > 0) return;
    known.buf.put();
    this.#known.splice(this.#known.indexOf(known), 1);
  }

  #write(): void {
    const known = this.#pick();
    if (known === null) return;
    known.seed = this.#random.below(256);
    using cpu = known.buf.mmap();
    for (const view of cpu.views) view.fill(known.seed);
  }

  #attach(): void {
    const known = this.#pick();
    if (known === null || known.attachments.size > 2) return;
    const use = { mapping: null as DeviceMapping | null, keeps: this.#random.below(4) === 0 };
    const attachment = known.buf.dynamicAttach(this.#random.pick(this.#devices), {
      moveNotify: (told) => {
        if (use.mapping === null || use.keeps) return;
        told.unmap(use.mapping);
        use.mapping = null;
      },
    });
    known.attachments.set(attachment, use);
  }

  /** Maps, and writes through the device's addresses. */
  #map(): void {
    const [known, attachment] = this.#pickUse() ?? [];
    const use = attachment && known?.attachments.get(attachment);
    if (!known || !use || use.mapping !== null) return;
    use.mapping = attachment.mapUnlocked("bidirectional");
    known.seed = this.#random.below(256);
    for (const { address, lengthBytes } of use.mapping.segments())
      attachment.device.dma.write(address, new Uint8Array(lengthBytes).fill(known.seed));
  }

  #unmap(): void {
    const [known, attachment] = this.#pickUse() ?? [];
    const use = attachment && known?.attachments.get(attachment);
    if (!use || use.mapping === null) return;
    attachment.unmapUnlocked(use.mapping);
    use.mapping = null;
  }

  #detach(): void {
    const [known, attachment] = this.#pickUse() ?? [];
    if (!known || !attachment) return;
    if (attachment.mapCount + attachment.pinCount > 0) return;
    attachment.detach();
    known.attachments.delete(attachment);
  }

  #pin(): void {
    const [known, attachment] = this.#pickUse() ?? [];
    if (!known || !attachment) return;
    known.buf.resv.lock();
    try {
      if (attachment.pinCount > 0) attachment.unpin();
      else attachment.pin();
    } finally {
      known.buf.resv.unlock();
    }
  }

  #fence(): void {
    const known = this.#pick();
    if (known === null) return;
    if (known.fence === null) {
      known.fence = this.#system.fence("job");
      known.buf.resv.addFence(known.fence, this.#random.pick(["kernel", "bookkeep"]));
    } else {
      known.fence.signal();
      known.fence = null;
    }
  }

  #move(): void {
    const known = this.#pick();
    if (known === null) return;
    if (this.#random.below(3) === 0) this.#heap.evict(known.buf);
    else this.#heap.validate(known.buf);
  }
}

describe.each(eachCore)("eviction fuzz on the $name core", (build) => {
  test("bytes stay intact wherever buffers move, and the memory is sound after every event", () => {
    const seed = fuzzSeed(20261121);
    const system = build.system({ memoryBytes: 16 * MiB, carveout: { vram: 4 * MiB } });
    const fuzz = new EvictionFuzz(seed, system);
    for (let event = 0; event < 400; event++) {
      try {
        fuzz.step();
        fuzz.verify();
      } catch (error) {
        throw new Error(`seed ${seed}, event ${event}`, { cause: error });
      }
    }
    fuzz.finish();
  });
});
