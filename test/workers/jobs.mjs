/**
 * What Workers of the tests do: each job gets its system, its arguments, and a way to talk.
 *
 * @module
 */

import { servedJobs } from "./served-jobs.mjs";

const ANYWHERE = 0xffffffff;
const EBUSY = -16;
const MEET_MS = 60_000; // until two threads on a loaded machine have met

/** Imports a buffer, reads its first byte and name, writes the second, and lets go of it. */
async function useBuffer(system, { token }, { receive }) {
  const buf = system.import(token);
  const again = system.import(token);
  const isSame = again === buf;
  again.put();
  const mapping = buf.mmap();
  const first = mapping.views[0][0];
  mapping.views[0][1] = 77;
  mapping.unmap();
  const seen = { name: buf.name, sizeBytes: buf.sizeBytes, first, isSame };
  await receive();
  buf.put();
  return seen;
}

/** Attaches a device of its own to a buffer and writes through device addresses. */
function writeByDevice(system, { token }) {
  const buf = system.import(token);
  const device = system.addDevice({ name: "gpu", iommu: true, maxSegmentBytes: 1 << 20 });
  const attachment = buf.attach(device);
  const mapping = attachment.map("from-device");
  for (const { address, lengthBytes } of mapping.segments())
    device.dma.write(address, new Uint8Array(lengthBytes).fill(9));
  attachment.unmap(mapping);
  attachment.detach();
  buf.put();
}

/** Makes a buffer, passes it on, and keeps it until it is told. */
async function makeBuffer(system, { bytes }, { receive, post }) {
  const buf = system.heap("system").alloc(bytes, { name: "made elsewhere" });
  buf.mmap()[Symbol.dispose]();
  post(buf.token);
  await receive();
  buf.put();
}

/** Tries numbers that are no tokens, and tells the codes. */
function importNonsense(system, { tokens }) {
  return tokens.map((token) => {
    try {
      system.import(token).put();
      return "imported";
    } catch (error) {
      return error.code;
    }
  });
}

/** Imports a fence and waits for it, asleep or not. */
async function awaitFence(system, { token, isSync }) {
  const fence = system.importFence(token);
  if (isSync) fence.waitSync({ timeoutMs: 20_000 });
  else await fence.wait({ timeoutMs: 20_000 });
  const result = { status: fence.status, late: performance.timeOrigin + fence.timestampMs };
  fence.release();
  return result;
}

/** Makes fences one by one, posts each and signals it soon. */
async function signalFences(system, { count }, { receive, post }) {
  for (let i = 0; i < count; i++) {
    const fence = system.fence(`fence ${i}`);
    post(fence.token);
    if (i % 3 === 0) await receive();
    fence.signal(i % 5 === 4 ? "EIO" : null);
    if (i % 3 !== 0) await receive();
    fence.release();
  }
}

/** Writes `count` numbers into a pool's frames, with a fence of its own for each. */
async function produce(system, { token, count, to, isFenced }) {
  const pool = system.importPool(token);
  let n = 0;
  for await (const frame of pool.frames({ timeoutMs: 20_000 })) {
    if (n === count) break;
    const words = new Uint32Array(frame.views[0].buffer, frame.views[0].byteOffset, 2);
    const fence = isFenced ? system.fence(`frame ${n}`) : undefined;
    frame.publish({ ...(to && { to }), ...(fence && { fence }) });
    words[0] = n++; // after publishing: only the fence keeps readers off
    if (fence !== undefined) setTimeout(() => fence.signal(), n % 3);
  }
  pool.release();
  return n;
}

/** Reads a pool's frames until it is closed, and tells the numbers that it found. */
async function consume(system, { token, options, pauseMs, isFenced, isSync }, { post }) {
  const pool = system.importPool(token);
  const consumer = pool.consumer(options);
  post("ready");
  const seen = [];
  const use = (frame) => {
    const { buffer, byteOffset } = frame.views[0];
    const words = new Uint32Array(buffer, byteOffset, 2);
    seen.push(words[0]);
    if (options.access === "read-write") words[1] += 1;
    else seen.push(words[1]);
    const fence = isFenced ? system.fence("read") : null;
    frame.release({ fence });
    if (fence !== null) setTimeout(() => fence.signal(), 1);
  };
  if (isSync) {
    try {
      while (true) use(consumer.takeSync({ timeoutMs: 20_000 }));
    } catch (error) {
      if (error.code !== "EPIPE") throw error;
    }
  } else {
    for await (const frame of consumer.frames({ timeoutMs: 20_000 })) {
      use(frame);
      if (pauseMs > 0) await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
  }
  pool.release();
  return seen;
}

/** Allocates and frees runs of frames, with an owner count for each frame. Returns how many. */
function churnFrames(system, { pairs, ownersAt, seed }) {
  const { frameAlloc, frameFree } = system.core.exports;
  const owners = new Int32Array(system.core.memory.buffer, ownersAt);
  const live = [];
  let state = seed;
  const next = (limit) => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
  const give = (i) => {
    const { pfn, count } = live[i];
    for (let k = 0; k < count; k++)
      if (Atomics.sub(owners, pfn + k, 1) !== 1) throw new Error(`frame ${pfn + k} had two owners`);
    if (frameFree(pfn, count) !== 0) throw new Error(`frame ${pfn} was not ours`);
    live[i] = live[live.length - 1];
    live.pop();
  };
  let done = 0;
  while (done < pairs) {
    if (live.length > 64) give(next(live.length));
    const count = next(8) === 0 ? 1 + next(16) : 1;
    const pfn = frameAlloc(count, 0, ANYWHERE);
    if (pfn < 0) {
      while (live.length > 0) give(live.length - 1);
      continue;
    }
    for (let k = 0; k < count; k++)
      if (Atomics.add(owners, pfn + k, 1) !== 0)
        throw new Error(`frame ${pfn + k} was given twice`);
    live.push({ pfn, count });
    done += 1;
  }
  while (live.length > 0) give(live.length - 1);
  return done;
}

/**
 * Gives runs of five frames, of a CMA region if one is named, back one by one, while pinRuns() pins
 * whole runs: an unpinned frame is free after the call, a pinned one is not. How many calls met a
 * pin.
 */
function freeAgainstPins(system, { rounds, runAt, region }) {
  const { frameAlloc, frameFree, cmaAlloc, cmaRelease } = system.core.exports;
  const alloc = region ? () => cmaAlloc(region, 5, 0) : () => frameAlloc(5, 0, ANYWHERE);
  const free = region ? (pfn) => cmaRelease(region, pfn, 1) : (pfn) => frameFree(pfn, 1);
  const published = new Int32Array(system.core.memory.buffer, runAt, 2);
  const limit = performance.now() + MEET_MS;
  let refused = 0;
  const freeWhole = (pfn) => {
    for (let result = free(pfn); result !== 0; result = free(pfn)) {
      if (result !== EBUSY) throw new Error(`frame ${pfn} was not ours: ${result}`);
      refused += 1;
    }
  };
  try {
    for (let round = 0; round < rounds || (refused === 0 && performance.now() < limit); round++) {
      const pfn = alloc();
      Atomics.store(published, 0, pfn);
      for (let i = 0; i < 5; i++) freeWhole(pfn + i);
    }
  } finally {
    Atomics.store(published, 1, 1); // pinRuns() ends
  }
  return refused;
}

/** Pins and unpins the run that freeAgainstPins() has, as often as it can. How often it could. */
function pinRuns(system, { runAt }) {
  const { pinRange, unpinRange } = system.core.exports;
  const published = new Int32Array(system.core.memory.buffer, runAt, 2);
  let pinned = 0;
  while (Atomics.load(published, 1) === 0) {
    const pfn = Atomics.load(published, 0);
    if (pfn === 0 || pinRange(pfn, 5) !== 0) continue;
    pinned += 1;
    if (unpinRange(pfn, 5) !== 0) throw new Error(`a pinned frame of run ${pfn} was freed`);
  }
  return pinned;
}

/** Maps, pins and lets go of one buffer that others use too, and checks its bytes' own place. */
function useTogether(system, { token, rounds }) {
  const devices = [true, false].map((iommu) =>
    system.addDevice({ name: `${iommu ? "gpu" : "dma"}`, iommu, maxSegmentBytes: 1 << 20 }),
  );
  const mine = system.thread;
  for (let round = 0; round < rounds; round++) {
    const buf = system.import(token);
    const attachments = devices.map((device) => buf.attach(device));
    const mappings = attachments.map((attachment) => attachment.map("bidirectional"));
    const seen = buf.mmap();
    seen.views[0][mine] = round;
    for (const { dma } of devices) if (dma.faultCount > 0) throw new Error("a device faulted");
    const back = new Uint8Array(1);
    devices[0].dma.read(mappings[0].dma(0).address + mine, back);
    if (back[0] !== round % 256) throw new Error(`round ${round} reads ${back[0]}`);
    for (const [i, attachment] of attachments.entries()) {
      attachment.unmap(mappings[i]);
      attachment.detach();
    }
    seen.unmap();
    buf.put();
  }
  return rounds;
}

export const jobs = {
  ...servedJobs,
  awaitFence,
  churnFrames,
  consume,
  freeAgainstPins,
  importNonsense,
  makeBuffer,
  pinRuns,
  produce,
  signalFences,
  useBuffer,
  useTogether,
  writeByDevice,
};
