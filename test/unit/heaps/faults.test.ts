import { describe, expect, test } from "vitest";
import {
  type DmaBuf,
  DmaBufError,
  FRAME_BYTES,
  KiB,
  MiB,
  type System,
} from "../../../src/index.ts";
import { FOR_EVER, faultyCores, sweepFaults } from "../../support/faults.ts";

/** Runs `call`; whether it succeeded, and did not run out of memory. */
function succeeds(call: () => void): boolean {
  try {
    call();
    return true;
  } catch (error) {
    if (error instanceof DmaBufError && error.code === "ENOMEM") return false;
    throw error;
  }
}

function fill(buf: DmaBuf, byte: number): void {
  using cpu = buf.mmap();
  for (const view of cpu.views) view.fill(byte);
}

/** Looks at the bytes without a mapping, which could fail too. */
function holds({ core }: System, buf: DmaBuf, byte: number): boolean {
  return [...(buf.storage?.entries() ?? [])].every(({ pfn, lengthBytes }) => {
    const bytes = core.view(pfn * FRAME_BYTES, lengthBytes);
    return Buffer.compare(bytes, Buffer.alloc(lengthBytes, byte)) === 0;
  });
}

describe.each(faultyCores)("faults in heaps on the $name core", (build) => {
  describe.each([1, FOR_EVER])("nothing leaks when %d allocations fail", (times) => {
    test("while the storage of heap auto moves, bytes intact", () => {
      const system = build.system({ memoryBytes: 16 * MiB, cma: { video: 4 * MiB } });
      const gpu = system.addDevice({ name: "gpu", iommu: true });
      const camera = system.addDevice({ name: "camera", maxSegments: 1 });
      const failed = sweepFaults(system.core, times, () => {
        using buf = system.heap("auto").alloc(300 * KiB);
        const hasBytes = succeeds(() => {
          using toGpu = buf.attach(gpu);
          toGpu.unmap(toGpu.map("to-device"));
        });
        if (!hasBytes || buf.storage === null) return false;
        if (!succeeds(() => fill(buf, 5))) return false;
        const isMoved = succeeds(() => {
          using toCamera = buf.attach(camera);
          toCamera.unmap(toCamera.map("to-device"));
        });
        expect(holds(system, buf, 5)).toBe(true);
        return isMoved;
      });
      expect(failed).toBeGreaterThan(1);
    });

    test("while an evicting heap makes room, bytes intact", () => {
      const system = build.system({ memoryBytes: 16 * MiB, carveout: { vram: 4 * MiB } });
      const heap = system.addEvictingHeap({ name: "gpu", near: "vram", far: "system" });
      const failed = sweepFaults(system.core, times, () => {
        const bufs: DmaBuf[] = [];
        const isDone = succeeds(() => {
          for (const byte of [1, 2, 3]) {
            const buf = system.heap("gpu").alloc(2 * MiB);
            bufs.push(buf);
            fill(buf, byte);
          }
          for (const buf of bufs) heap.validate(buf);
        });
        for (const [i, buf] of bufs.entries()) {
          const isFilled = isDone || holds(system, buf, i + 1) || holds(system, buf, 0);
          expect(isFilled).toBe(true);
          if (isDone) expect(holds(system, buf, i + 1)).toBe(true);
          buf.put();
        }
        const { nearCount, farCount } = heap.stats();
        expect([nearCount, farCount]).toEqual([0, 0]);
        return isDone;
      });
      expect(failed).toBeGreaterThan(0);
    });
  });
});
