// What an ESM user does: every code entry, the two files, one round trip through a device.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { MiB, open } from "dmabuf";
import { joinCore } from "dmabuf/core";
import { pageMap } from "dmabuf/inspect";
import { DMA_HEAP_IOCTL_ALLOC, dmaHeapAllocationData, Process, SEEK_END } from "dmabuf/uapi";

function wasmOf(name) {
  return new Uint8Array(readFileSync(fileURLToPath(import.meta.resolve(name))));
}

for (const [shared, name] of [
  [false, "dmabuf/core.wasm"],
  [true, "dmabuf/core-shared.wasm"],
]) {
  const system = await open({ memoryBytes: 4 * MiB, shared, wasm: wasmOf(name) });
  const device = system.addDevice({ name: "gpu", iommu: true });
  const buf = system.heap("system").alloc(8192);
  const attachment = buf.attach(device);
  const mapping = attachment.map("bidirectional");
  device.dma.write(mapping.at(5000).address, Uint8Array.of(1, 2, 3));
  const back = new Uint8Array(3);
  device.dma.read(mapping.at(5000).address, back);
  const owned = pageMap(system).filter((frame) => frame.buf === buf).length;
  attachment.unmap(mapping);
  attachment.detach();
  buf.put();
  const program = new Process(system);
  const argument = dmaHeapAllocationData.encode({ len: 8192n, fdFlags: 2 });
  program.ioctl(program.open("/dev/dma_heap/system"), DMA_HEAP_IOCTL_ALLOC, argument);
  const size = program.lseek(dmaHeapAllocationData.decode(argument).fd, 0, SEEK_END);
  program.exit();
  const second = joinCore(system.core, 1);
  second.exports.coreLeave();
  if (back.join() !== "1,2,3" || owned !== 2 || size !== 8192 || system.check(true) !== null)
    throw new Error(`${name}: read ${back}, ${owned} frames, check ${system.check(true)}`);
  system.close();
}
