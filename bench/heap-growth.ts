/**
 * What does the JavaScript heap gain from mapping and unmapping, and from fences, over and over?
 *
 *     node --expose-gc build/bench/heap-growth.js
 *
 * 8 MiB of one run, shown to a device behind an IOMMU: 10 million cycles of map + unmap on a
 * standing attachment, of attach + map + unmap + detach, and of a fence with a callback that is
 * signaled. Prints the bytes that each left behind after the garbage was collected, as JSON. A byte
 * left by each cycle would be 10 MB.
 *
 * @module
 */

import assert from "node:assert/strict";
import { GiB, MiB, openSync } from "dmabuf";

const CYCLES = 10_000_000;
const WARM_CYCLES = 100_000;

const { gc } = globalThis as { gc?: () => void };

/** Bytes of live objects. */
function heapBytes(): number {
  assert(gc !== undefined, "run this with node --expose-gc");
  for (let i = 0; i < 3; i++) gc();
  return process.memoryUsage().heapUsed;
}

const system = openSync({ memoryBytes: 32 * MiB, cma: { video: 12 * MiB } });
const device = system.addDevice({ name: "gpu", iommu: true, maxSegmentBytes: GiB });
const buf = system.heap("video").alloc(8 * MiB);
const attachment = buf.attach(device);

function standing(count: number): void {
  for (let i = 0; i < count; i++) attachment.unmap(attachment.map("bidirectional"));
}

function whole(count: number): void {
  for (let i = 0; i < count; i++) {
    const one = buf.attach(device);
    one.unmap(one.map("bidirectional"));
    one.detach();
  }
}

let signaledCount = 0;
const onSignaled = (): void => {
  signaledCount++;
};

function fences(count: number): void {
  const before = signaledCount;
  for (let i = 0; i < count; i++) {
    const fence = system.fence("work");
    fence.addCallback(onSignaled);
    fence.signal();
  }
  assert.equal(signaledCount - before, count);
}

/** Bytes that the cycles leave behind. */
function growth(cycles: (count: number) => void): number {
  cycles(WARM_CYCLES);
  const { freeFrames } = system.stats();
  const before = heapBytes();
  cycles(CYCLES);
  const bytes = heapBytes() - before;
  assert.deepEqual([system.stats().freeFrames, system.check()], [freeFrames, null]);
  return bytes;
}

const standingBytes = growth(standing);
const wholeBytes = growth(whole);
const fenceBytes = growth(fences);
console.log(JSON.stringify({ standingBytes, wholeBytes, fenceBytes }));
