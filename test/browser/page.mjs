/**
 * What the page checks with the package: both kinds of memory, both kinds of devices, the shipped
 * `.wasm` files, and a Worker on the same memory.
 *
 * The driver reads `globalThis.results`: a promise of `{ name, reason }` for each check, `reason`
 * empty when it passed.
 *
 * @module
 */

import { DmaBufError, FRAME_BYTES, join, KiB, MiB, open } from "dmabuf";
import {
  copyFromVideoFrame,
  drawPicture,
  readCanvas,
  videoFrameOf,
  writeGpuTexture,
} from "dmabuf/adapters";

const FRAME_COUNT = 32;
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

/** Opens a system, lets `work` use it, and demands that it is sound and closes. */
async function withSystem(options, work) {
  const system = await open({ memoryBytes: 16 * MiB, cma: { default: 4 * MiB }, ...options });
  await work(system);
  equal(system.check(true), null, "system.check(true)");
  equal(system.stats().faultCount, 0, "the number of faults");
  system.close();
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

/** A texture takes a buffer's bytes; skipped where the browser has no adapter. */
async function uploadTexture(system) {
  const adapter = await navigator.gpu?.requestAdapter();
  if (!adapter) {
    console.log("skipped: WebGPU has no adapter here");
    return;
  }
  const gpuDevice = await adapter.requestDevice();
  const texture = gpuDevice.createTexture({ size: [64, 16], format: "rgba8unorm", usage: 2 });
  const buf = system.heap("default").alloc(4096);
  const mapping = buf.mmap();
  const picture = { width: 64, height: 16, bytesPerRow: 256 };
  writeGpuTexture(gpuDevice.queue, { texture }, mapping.bytes, picture);
  await gpuDevice.queue.onSubmittedWorkDone();
  gpuDevice.destroy();
  mapping.unmap();
  buf.put();
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
  const consumer = other.importPool(pool.token).consumer({ name: "page" });
  setTimeout(() => pool.tryAcquire().publish(), 5);
  (await consumer.take({ timeoutMs: 5000 })).release();
  (await pool.acquire({ timeoutMs: 5000 })).abandon();
  other.importPool(pool.token).release();
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
    "WebGPU takes a buffer's bytes, where it has an adapter": using(uploadTexture),
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
    checks.push(["a Worker joins as thread 1 and gets frames of its own", join, true]);
  }
  const results = [];
  for (const [name, work, isShared = false] of checks) {
    const reason = await work().then(
      () => "",
      (error) => String(error?.stack ?? error),
    );
    results.push({ name: `${isShared ? "shared" : "unshared"}: ${name}`, reason });
  }
  return results;
}

globalThis.results = runAll();
