/**
 * What do heaps cost: a buffer from one, its owner's charge, the choice of a storage, a move?
 *
 *     heaps/alloc/…     alloc + put of 64 KiB, with and without an owner
 *     heaps/negotiate/… one choice for four devices
 *     heaps/canAttach   the question for a buffer whose storage is there
 *     heaps/move/…      evict + validate of 4 MiB: the bytes go far and come back
 *
 * Nanoseconds per call; a move counts as two. The peer of a move copies as many bytes between two
 * typed arrays.
 *
 * @module
 */

import assert from "node:assert/strict";
import { KiB, MiB, modifiers, negotiate, openSync, type System } from "dmabuf";
import type { Family, Job, Suite } from "./suite.ts";

const MOVED_BYTES = 4 * MiB;

/** Adds the rows. */
export const family: Family = (suite: Suite) => {
  const system = openSync({
    memoryBytes: 64 * MiB,
    cma: { video: 16 * MiB },
    carveout: { vram: 8 * MiB },
  });
  for (const heap of ["system", "video", "auto"])
    suite.row(`heaps/alloc/${heap}/64KiB`, "pair", () => allocJob(system, heap, false));
  suite.row("heaps/alloc/video/64KiB/owner", "pair", () => allocJob(system, "video", true));
  suite.row("heaps/negotiate/bytes", "call", () => negotiateJob(system, false));
  suite.row("heaps/negotiate/picture", "call", () => negotiateJob(system, true));
  suite.row("heaps/canAttach", "call", () => canAttachJob(system));
  suite.row("heaps/move/4MiB", "move", () => moveJob(system));
  suite.peer("heaps/move/4MiB", "TypedArray.set", "move", setJob);
  assert.equal(system.check(), null);
};

function allocJob(system: System, name: string, isCharged: boolean): Job {
  const heap = system.heap(name);
  const options = isCharged ? { owner: system.owner(name, { quotaBytes: MiB }) } : {};
  const first = heap.alloc(64 * KiB, options);
  assert.equal(first.refCount, 1);
  first.put();
  return {
    run(count) {
      for (let i = 0; i < count; i++) heap.alloc(64 * KiB, options).put();
    },
  };
}

function negotiateJob(system: System, isPicture: boolean): Job {
  const formats = {
    XRGB8888: [modifiers.LINEAR, modifiers.I915_X_TILED],
    NV12: [modifiers.LINEAR],
  };
  const pixels = { formats, strideAlignBytes: 64 };
  const devices = [
    system.addDevice({ name: "gpu", iommu: true, pixels }),
    system.addDevice({ name: "display", maxSegments: 1, pixels }),
    system.addDevice({ name: "codec", iommu: true, maxSegmentBytes: MiB, pixels }),
    system.addDevice({ name: "disk", iommu: true }),
  ];
  const picture = { pixels: { width: 1920, height: 1080, formats: ["XRGB8888"] as const } };
  const request = isPicture ? picture : { sizeBytes: 8 * MiB };
  assert.equal(negotiate(devices, request).layout?.kind, "contiguous");
  return {
    run(count) {
      let bytes = 0;
      for (let i = 0; i < count; i++) bytes += negotiate(devices, request).layout?.sizeBytes ?? 0;
      assert(bytes > 0);
    },
  };
}

function canAttachJob(system: System): Job {
  const buf = system.heap("video").alloc(8 * MiB);
  const gpu = system.addDevice({ name: "gpu", iommu: true });
  assert.equal(buf.canAttach(gpu), null);
  return {
    run(count) {
      let refused = 0;
      for (let i = 0; i < count; i++) if (buf.canAttach(gpu) !== null) refused += 1;
      assert.equal(refused, 0);
    },
    end: () => buf.put(),
  };
}

function moveJob(system: System): Job {
  const heap = system.addEvictingHeap({ name: "moving", near: "vram", far: "system" });
  const buf = system.heap("moving").alloc(MOVED_BYTES);
  assert.equal(heap.placeOf(buf), "near");
  return {
    opsPerRun: 2,
    run(count) {
      const before = heap.stats().movedBytes;
      for (let i = 0; i < count; i++) {
        heap.evict(buf);
        heap.validate(buf);
      }
      assert.equal(heap.stats().movedBytes - before, 2 * count * MOVED_BYTES);
    },
    end: () => buf.put(),
  };
}

function setJob(): Job {
  const near = new Uint8Array(MOVED_BYTES).fill(1);
  const far = new Uint8Array(MOVED_BYTES).fill(2);
  return {
    opsPerRun: 2,
    run(count) {
      for (let i = 0; i < count; i++) {
        far.set(near);
        near.set(far);
      }
      assert.equal(near[MOVED_BYTES - 1], 1);
    },
  };
}
