/**
 * What the page checks with the package: both kinds of memory, both kinds of devices, the shipped
 * `.wasm` files, and a Worker on the same memory.
 *
 * The driver reads `globalThis.results`: a promise of `{ name, reason, skipped }` for each check.
 * `reason` is empty when it passed; `skipped` says why it could not be made.
 *
 * @module
 */

import { DmaBufError, FRAME_BYTES, join, KiB, MiB, open } from "dmabuf";
import {
  copyFromVideoFrame,
  drawPicture,
  readCanvas,
  videoFrameOf,
  writeGpuBuffer,
  writeGpuTexture,
} from "dmabuf/adapters";

const FRAME_COUNT = 32;
const RUN = 64; // frames: more than a thread keeps for itself
const HOLD_MS = 1200;
/** Of a texture. */
const BYTES_OF_ROWS = 256;
const ROWS = 16;
const ANYWHERE = 0xffffffff;
const camera = { name: "camera", maxSegments: 1, maxSegmentBytes: 4 * MiB };
const gpu = { name: "gpu", iommu: true, maxSegmentBytes: MiB };
const wasmNames = { unshared: "dmabuf/core.wasm", shared: "dmabuf/core-shared.wasm" };

function equal(actual, expected, what) {
  if (actual !== expected) throw new Error(`${what} is ${actual}, not ${expected}`);
}

function pattern(lengthBytes, seed) {
  return Uint8Array.from({ length: lengthBytes }, (_, i) => (i * 7 + seed + (i >> 8)) % 256);
}

function equalBytes(actual, expected, what) {
  equal(actual.length, expected.length, `the length of ${what}`);
  const at = expected.findIndex((byte, i) => actual[i] !== byte);
  if (at >= 0) equal(actual[at], expected[at], `byte ${at} of ${what}`);
}

/** Opens a system, lets `work` use it, demands that it is sound and closes. What work returns. */
async function withSystem(options, work) {
  const system = await open({ memoryBytes: 16 * MiB, cma: { default: 4 * MiB }, ...options });
  const skipped = await work(system);
  equal(system.check(true), null, "system.check(true)");
  equal(system.stats().faultCount, 0, "the number of faults");
  system.close();
  return skipped;
}

/** A device writes through all its segments of a buffer, and reads back what it wrote. */
function writeAndRead(device, mapping, seed) {
  for (const { address, lengthBytes } of mapping.segments()) {
    const bytes = pattern(lengthBytes, seed);
    device.dma.write(address, bytes);
    const back = new Uint8Array(lengthBytes);
    device.dma.read(address, back);
    equalBytes(back, bytes, `what ${device.name} reads`);
  }
}

/** One device maps a buffer of the heap, writes, reads, and lets go of it. */
function useDevice(system, deviceOptions, heapName) {
  const device = system.addDevice(deviceOptions);
  const buf = system.heap(heapName).alloc(300 * KiB);
  const attachment = buf.attach(device);
  const mapping = attachment.map("bidirectional");
  equal(mapping.lengthBytes, buf.sizeBytes, "the mapped length");
  writeAndRead(device, mapping, 11);
  attachment.unmap(mapping);
  attachment.detach();
  buf.put();
}

/** What one device wrote, another reads, after the writer's fence. */
async function passOn(system) {
  const buf = system.heap("auto").alloc(300 * KiB);
  const [writer, reader] = [camera, gpu].map((options) => buf.attach(system.addDevice(options)));
  const [to, from] = [writer.map("from-device"), reader.map("to-device")];
  const timeline = system.timeline("camera");
  const fence = timeline.fence();
  buf.resv.addFence(fence, "write");
  const bytes = pattern(buf.sizeBytes, 42);
  setTimeout(() => {
    writer.device.dma.write(to.at(0).address, bytes);
    timeline.advance();
  }, 5);
  await buf.resv.wait("write", { timeoutMs: 5000 });
  equal(fence.status, 1, "the fence's status");
  const back = new Uint8Array(buf.sizeBytes);
  let done = 0;
  for (const { address, lengthBytes } of from.segments()) {
    reader.device.dma.read(address, back.subarray(done, done + lengthBytes));
    done += lengthBytes;
  }
  equalBytes(back, bytes, "what the GPU reads");
  writer.unmap(to);
  reader.unmap(from);
  for (const attachment of [writer, reader]) attachment.detach();
  buf.put();
}

async function waitForFence(system) {
  const fence = system.fence("job");
  setTimeout(() => fence.signal(), 5);
  await fence.wait({ timeoutMs: 5000 });
  equal(fence.isSignaled, true, "fence.isSignaled");
  const late = system.fence("late");
  const code = await late.wait({ timeoutMs: 5 }).catch((error) => error.code);
  equal(code, "ETIME", "the code of a wait that takes too long");
  late.signal();
}

function fetchCore(kind) {
  return fetch(import.meta.resolve(wasmNames[kind]));
}

/** A compiled module of one kind is refused for memory of the other, and the right file named. */
async function refuseOther(kind) {
  const other = kind === "shared" ? "unshared" : "shared";
  const wasm = await WebAssembly.compileStreaming(fetchCore(other));
  const error = await open({ memoryBytes: MiB, shared: kind === "shared", wasm }).then(
    () => new Error("it opened"),
    (reason) => reason,
  );
  if (!(error instanceof DmaBufError)) throw error;
  equal(error.code, "EINVAL", "the code");
  if (!error.message.includes(`${wasmNames[kind]} `))
    throw new Error(`the message does not name ${wasmNames[kind]}: ${error.message}`);
}

/** The next message of a Worker; its failure, if that comes first. */
function nextMessage(worker) {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error("the Worker is silent for 10 s")), 10_000);
    worker.onmessage = ({ data }) => {
      clearTimeout(late);
      if (data.error === undefined) resolve(data);
      else reject(new Error(`in the Worker: ${data.error}`));
    };
    worker.onerror = ({ message }) => reject(new Error(message ?? "the Worker does not load"));
  });
}

function allocFrames(core) {
  return Array.from({ length: FRAME_COUNT }, () => core.exports.frameAlloc(1, 0, ANYWHERE));
}

/** A Worker joins as thread 1 and allocates; no frame is given to both threads. */
async function joinFromWorker(system) {
  const { core } = system;
  const worker = new Worker("./worker.mjs", { type: "module" });
  try {
    const frames = allocFrames(core);
    const message = nextMessage(worker);
    worker.postMessage({ memory: core.memory, module: core.module, count: FRAME_COUNT });
    const { thread, pfns } = await message;
    frames.push(...allocFrames(core));
    equal(thread, 1, "the Worker's thread");
    equal(Math.min(...frames, ...pfns) > 0, true, "that every allocation succeeds");
    equal(new Set([...frames, ...pfns]).size, 3 * FRAME_COUNT, "the number of different frames");
    for (const pfn of pfns) equal(core.u8[pfn * FRAME_BYTES], 1, "the Worker's byte in its frame");
    const left = nextMessage(worker);
    worker.postMessage({ leave: true });
    await left;
    for (const pfn of frames) equal(core.exports.frameFree(pfn, 1), 0, "frameFree()");
  } finally {
    worker.terminate();
  }
}

/** While a Worker has the allocator's lock, the page goes on; what allocates is awaited. */
async function waitForLock(system) {
  const worker = new Worker("./worker.mjs", { type: "module" });
  const { core } = system;
  const pool = system.pool({ name: "video", count: 2, bytes: 4096 });
  const consumer = pool.consumer({ name: "page" });
  const allocRun = () => system.frames.alloc(RUN);
  try {
    const joined = nextMessage(worker);
    worker.postMessage({ memory: core.memory, module: core.module, count: 0 });
    await joined;
    const held = nextMessage(worker);
    worker.postMessage({ holdMs: HOLD_MS });
    await held;
    const released = nextMessage(worker);
    const start = performance.now();
    const code = await Promise.resolve()
      .then(allocRun)
      .catch((error) => error.code);
    equal(code, "EAGAIN", "the code of a call that would wait");
    const late = await system.retry(allocRun, { timeoutMs: 20 }).catch((error) => error.code);
    equal(late, "ETIME", "the code of calls that waited too long");
    pool.tryAcquire().publish(); // frames go their way without any lock
    (await consumer.take({ timeoutMs: 1000 })).release();
    let ticks = 0;
    const ticking = setInterval(() => ticks++, 5);
    const range = await system.retry(allocRun, { timeoutMs: 10_000 });
    clearInterval(ticking);
    const waitedMs = performance.now() - start;
    if (waitedMs < HOLD_MS / 2) throw new Error(`it got the lock after ${waitedMs} ms`);
    if (ticks < 5) throw new Error(`the page's timer ran ${ticks} times in ${waitedMs} ms`);
    await released;
    range.free();
    const left = nextMessage(worker);
    worker.postMessage({ leave: true });
    await left;
  } finally {
    worker.terminate();
    pool.release();
  }
}

/** A picture of one colour goes from a buffer to a VideoFrame and to a canvas, and back. */
async function showPicture(system) {
  const [width, height] = [64, 32];
  const buf = system.heap("default").alloc(width * height * 4);
  const mapping = buf.mmap();
  const pixels = mapping.bytes.subarray(0, width * height * 4);
  const colour = [10, 200, 60, 255];
  for (let i = 0; i < pixels.length; i++) pixels[i] = colour[i % 4];
  const picture = { format: "RGBA", codedWidth: width, codedHeight: height };
  const frame = videoFrameOf(pixels, { ...picture, timestamp: 7 });
  pixels.fill(0); // the frame is a copy
  const [plane] = await copyFromVideoFrame(frame, pixels);
  const tooShort = copyFromVideoFrame(frame, new Uint8Array(9));
  equal(await tooShort.catch((error) => error.code), "EINVAL", "the code of too little room");
  frame.close();
  equal(plane.stride, width * 4, "the stride");
  equalBytes(pixels.slice(0, 4), Uint8Array.from(colour), "the copied pixel");
  const canvas = new OffscreenCanvas(width, height);
  drawPicture(canvas.getContext("2d"), pixels, picture);
  pixels.fill(0);
  await readCanvas(canvas, pixels);
  const isNear = colour.every((value, i) => Math.abs(value - pixels.at(i - 4)) <= 2);
  equal(isNear, true, `that the canvas shows ${colour}, not ${pixels.slice(-4)},`);
  mapping.unmap();
  buf.put();
}

/** A GPU buffer and a texture take a buffer's bytes. Why not, where there is no adapter. */
async function uploadToGpu(system) {
  const adapter = await navigator.gpu?.requestAdapter();
  if (!adapter) return "WebGPU has no adapter here";
  const gpuDevice = await adapter.requestDevice();
  const { queue } = gpuDevice;
  const buf = system.heap("default").alloc(BYTES_OF_ROWS * ROWS);
  const mapping = buf.mmap();
  const bytes = pattern(mapping.bytes.length, 3);
  mapping.bytes.set(bytes);
  const make = (usage) => gpuDevice.createBuffer({ size: bytes.length, usage });
  const back = async (gpuBuffer) => {
    await gpuBuffer.mapAsync(GPUMapMode.READ);
    return new Uint8Array(gpuBuffer.getMappedRange()).slice();
  };
  const whole = make(GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ);
  writeGpuBuffer(queue, whole, [mapping.bytes.subarray(0, 100), mapping.bytes.subarray(100)]);
  const picture = { width: BYTES_OF_ROWS / 4, height: ROWS, bytesPerRow: BYTES_OF_ROWS };
  const size = [picture.width, picture.height];
  const usage = GPUTextureUsage.COPY_DST | GPUTextureUsage.COPY_SRC;
  const texture = gpuDevice.createTexture({ size, format: "rgba8unorm", usage });
  writeGpuTexture(queue, { texture }, mapping.bytes, picture);
  mapping.bytes.fill(0); // the host has copied them
  const copied = make(GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ);
  const encoder = gpuDevice.createCommandEncoder();
  const target = { buffer: copied, bytesPerRow: BYTES_OF_ROWS };
  encoder.copyTextureToBuffer({ texture }, target, size);
  queue.submit([encoder.finish()]);
  equalBytes(await back(whole), bytes, "the GPU buffer");
  equalBytes(await back(copied), bytes, "the texture");
  gpuDevice.destroy();
  mapping.unmap();
  buf.put();
  return "";
}

/** The page may not sleep: it waits for what another thread's system does without blocking. */
async function shareWithPage(system) {
  const other = await join(system.share());
  const fence = system.fence("job");
  const imported = other.importFence(fence.token);
  const code = await Promise.resolve()
    .then(() => imported.waitSync())
    .catch((error) => error.code);
  equal(code, "EWOULDBLOCK", "the code of a page that would sleep");
  setTimeout(() => fence.signal(), 5);
  await imported.wait({ timeoutMs: 5000 });
  imported.release();
  fence.release();
  const pool = system.pool({ name: "video", count: 1, bytes: 4096 });
  const theirs = other.importPool(pool.token);
  const consumer = theirs.consumer({ name: "page" });
  setTimeout(() => pool.tryAcquire().publish(), 5);
  (await consumer.take({ timeoutMs: 5000 })).release();
  (await pool.acquire({ timeoutMs: 5000 })).abandon();
  theirs.release();
  pool.release();
  other.close();
}

function checksOf(kind) {
  const shared = kind === "shared";
  const using = (work) => () => withSystem({ shared }, work);
  return {
    "a device without an IOMMU uses a buffer of a CMA region": using((system) =>
      useDevice(system, camera, "default"),
    ),
    "a device behind an IOMMU uses a buffer of the system heap": using((system) =>
      useDevice(system, gpu, "system"),
    ),
    "what the camera wrote the GPU reads, after the fence": using(passOn),
    "a fence wait ends with the signal or the time limit": using(waitForFence),
    "a picture goes to a VideoFrame and a canvas, and back": using(showPicture),
    "WebGPU takes a buffer's bytes, where it has an adapter": using(uploadToGpu),
    [`${wasmNames[kind]} opens by fetch`]: () =>
      withSystem({ shared, wasm: fetchCore(kind) }, passOn),
    [`${wasmNames[kind]} opens as a compiled module`]: async () => {
      const wasm = await WebAssembly.compileStreaming(fetchCore(kind));
      await withSystem({ shared, wasm }, passOn);
    },
    "a compiled module of the other kind is refused": () => refuseOther(kind),
  };
}

async function runAll() {
  const checks = Object.entries(checksOf("unshared"));
  if (crossOriginIsolated) {
    checks.push(...Object.entries(checksOf("shared")).map(([name, work]) => [name, work, true]));
    const join = () => withSystem({ shared: true }, joinFromWorker);
    const share = () => withSystem({ shared: true }, shareWithPage);
    checks.push(["the page waits for fences and frames without blocking", share, true]);
    const lock = () => withSystem({ shared: true }, waitForLock);
    checks.push(["a lock of a Worker's makes the page await, not throw or hang", lock, true]);
    checks.push(["a Worker joins as thread 1 and gets frames of its own", join, true]);
  }
  const results = [];
  for (const [name, work, isShared = false] of checks) {
    const outcome = await work().then(
      (skipped = "") => ({ reason: "", skipped }),
      (error) => ({ reason: String(error?.stack ?? error), skipped: "" }),
    );
    results.push({ name: `${isShared ? "shared" : "unshared"}: ${name}`, ...outcome });
  }
  return results;
}

globalThis.results = runAll();
