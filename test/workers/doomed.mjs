/**
 * A Worker that does not end well: it joins, does its job, and is killed or dies on the way.
 *
 * @module
 */

import { parentPort } from "node:worker_threads";
import { joinSync } from "dmabuf";

const ANYWHERE = 0xffffffff;

/** Numbers below `limit`. */
function prng(seed) {
  let state = seed;
  return (limit) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
}

/** Holds one of everything. */
function hold(system) {
  const device = system.addDevice({ name: "gpu", iommu: true });
  for (const name of ["system", "default", "auto"]) {
    const buf = system.heap(name).alloc(100_000);
    buf.attach(device).map("bidirectional");
    buf.mmap();
    buf.token;
  }
  system.movable(20).pin();
  system.frames.alloc(9).pin();
  system.fence("f").token;
  system.pool({ name: "p", count: 3, bytes: 5000 }).tryAcquire();
}

/** All that the core can do, over and over, as fast as it can. */
function churn(system, tokens, next) {
  const { frameAlloc, frameFree } = system.core.exports;
  const devices = [true, false].map((iommu) => system.addDevice({ name: `${iommu}`, iommu }));
  const pool = system.pool({ name: "p", count: 3, bytes: 8192 });
  const consumer = pool.consumer({ name: "c" });
  const actions = [
    () => {
      const count = 1 + next(40);
      const pfn = frameAlloc(count, 0, ANYWHERE);
      if (pfn > 0) frameFree(pfn, count);
    },
    () => {
      const buf = system.heap(next(2) === 0 ? "system" : "default").alloc(1 + next(600_000));
      if (next(2) === 0) buf.token;
      const attachments = devices.map((device) => buf.attach(device));
      const mappings = attachments.map((attachment) => attachment.map("bidirectional"));
      const seen = buf.mmap();
      for (const [i, attachment] of attachments.entries()) {
        attachment.unmap(mappings[i]);
        attachment.detach();
      }
      seen.unmap();
      buf.put();
    },
    () => {
      const movable = system.movable(1 + next(30));
      const pinned = movable.pin({ longterm: next(2) === 0 });
      pinned.unpin();
      movable.free();
    },
    () => {
      const buf = system.import(tokens.buffer);
      const mapping = buf.mmap();
      mapping.unmap();
      buf.put();
    },
    () => {
      const fence = system.fence("f");
      fence.token;
      fence.signal();
      fence.release();
      system.importFence(tokens.fence).release();
    },
    () => {
      pool.tryAcquire()?.publish();
      consumer.tryTake()?.release();
    },
    () => {
      if (next(20) === 0) system.compact();
    },
  ];
  while (true) {
    try {
      actions[next(actions.length)]();
    } catch (error) {
      if (error.code !== "ENOMEM" && error.code !== "EBUSY") throw error;
    }
  }
}

parentPort.once("message", ({ share, job, tokens, seed }) => {
  parentPort.postMessage("begun");
  if (job === "neverJoin") return;
  const system = joinSync(share);
  if (job === "everything") churn(system, tokens, prng(seed));
  hold(system);
  if (job === "crash") throw new Error("crashed");
  setInterval(() => {}, 1000);
});
