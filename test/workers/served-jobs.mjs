/**
 * What Workers of the tests do with buffers whose exporter is JavaScript: export them, or use those
 * of another thread.
 *
 * @module
 */

const FRAME_BYTES = 4096;
const MiB = 1 << 20;

/** A buffer of `frames` scattered frames, whose exporter posts what it is asked. */
function exported(system, { frames = 3, pins = false, isStuck = false }, post) {
  const range = system.frames.alloc(2 * frames - 1);
  const list = Array.from({ length: frames }, (_, i) => range.pfn + 2 * i);
  const table = system.sgTableFromFrames(list);
  const says = (verb, { device }) => post(`${verb} ${device.name}`);
  const ops = {
    attach: (_, attachment) => says("attach", attachment),
    detach: (_, attachment) => says("detach", attachment),
    map: (attachment, direction) => {
      says("map", attachment);
      if (isStuck) return new Promise(() => {});
      return attachment.device.dma.mapSgtable(table, direction);
    },
    unmap: (attachment, mapping) => {
      says("unmap", attachment);
      attachment.device.dma.unmapSgtable(mapping);
    },
    vmap: () => table,
    release: () => {
      post("release");
      table.free();
      range.free();
    },
    ...(pins && { pin: (one) => says("pin", one), unpin: (one) => says("unpin", one) }),
  };
  const sizeBytes = frames * FRAME_BYTES;
  return system.export({ ops, sizeBytes, exporterName: "elsewhere", name: "theirs" });
}

/** Exports a buffer and keeps it until it is told; then puts it, and stays until it is released. */
async function serveBuffer(system, args, { receive, post }) {
  const { promise, resolve } = Promise.withResolvers?.() ?? deferred();
  const buf = exported(system, args, (said) => {
    post(said);
    if (said === "release") resolve();
  });
  post(buf.token);
  await receive();
  buf.put();
  await promise;
}

function deferred() {
  let resolve;
  const promise = new Promise((done) => {
    resolve = done;
  });
  return { promise, resolve };
}

/** Does with a buffer of another thread all that can be done, with a device of its own. */
async function useServed(system, { token, value }) {
  const buf = system.import(token);
  const { name, exporterName, sizeBytes } = buf;
  const device = system.addDevice({ name: "gpu", iommu: true, maxSegmentBytes: MiB });
  const attachment = await buf.attachAsync(device);
  const mapping = await attachment.mapAsync("bidirectional");
  await buf.beginCpuAccessAsync("bidirectional");
  const seen = await buf.vmapAsync();
  const before = seen.views.map((view) => view[0]);
  device.dma.write(mapping.address, new Uint8Array(sizeBytes).fill(value));
  const after = seen.views.flatMap((view) => [...view]).every((byte) => byte === value);
  await buf.vunmapAsync(seen);
  await buf.endCpuAccessAsync("bidirectional");
  await attachment.unmapAsync(mapping);
  let fault = "none";
  try {
    device.dma.read(mapping.address ?? 0, new Uint8Array(1));
  } catch (error) {
    fault = error.code;
  }
  await attachment.detachAsync();
  buf.put();
  device.remove();
  return { name, exporterName, sizeBytes, before, after, fault };
}

/** Attaches, maps and sees a buffer of another thread, and keeps that until it is killed. */
async function holdServed(system, { token }, { receive, post }) {
  const buf = system.import(token);
  const device = system.addDevice({ name: "gpu", iommu: true, maxSegmentBytes: MiB });
  const attachment = await buf.attachAsync(device);
  await attachment.mapAsync("bidirectional");
  await attachment.mapAsync("to-device");
  await buf.vmapAsync();
  post("held");
  await receive();
}

/** Uses one buffer of another thread over and over, as others do meanwhile. */
async function churnServed(system, { token, rounds, seed }) {
  const device = system.addDevice({ name: `gpu ${seed}`, iommu: true, maxSegmentBytes: MiB });
  let state = seed;
  const next = (limit) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
  /** A call that was given up may have something to undo still: then it is EBUSY. */
  const whenIdle = async (call) => {
    for (;;) {
      try {
        return await call();
      } catch (error) {
        if (error.code !== "EBUSY") throw error;
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
    }
  };
  let interrupted = 0;
  for (let round = 0; round < rounds; round++) {
    const buf = system.import(token);
    const attachment = await buf.attachAsync(device);
    const wait = next(3) === 0 ? { timeoutMs: next(2) } : {};
    const mapping = await attachment.mapAsync("bidirectional", wait).catch((error) => {
      if (error.code !== "ETIME") throw error;
      interrupted += 1;
      return null;
    });
    if (mapping !== null) {
      const bytes = new Uint8Array(64).fill(seed);
      device.dma.write(mapping.address + 64 * seed, bytes);
      const back = new Uint8Array(64);
      device.dma.read(mapping.address + 64 * seed, back);
      if (back.some((byte) => byte !== seed)) throw new Error("bytes of another thread");
      if (next(2) === 0) attachment.unmap(mapping);
      else await attachment.unmapAsync(mapping);
    }
    if (next(2) === 0) await whenIdle(() => attachment.detach());
    else await whenIdle(() => attachment.detachAsync());
    buf.put();
  }
  return { rounds, interrupted };
}

export const servedJobs = { churnServed, holdServed, serveBuffer, useServed };
