// What a TypeScript user does: only its types are checked.
import { type Device, type DmaBuf, DmaBufError, type OpenOptions, open } from "dmabuf";
import { type Core, openCoreSync } from "dmabuf/core";
import { pageMap } from "dmabuf/inspect";
import { dmaBufSync, Process } from "dmabuf/uapi";

const options: OpenOptions = { memoryBytes: { min: 2 ** 20, preferred: 2 ** 26 }, shared: false };
const system = await open(options);
const device: Device = system.addDevice({ name: "gpu", iommu: true });
const buf: DmaBuf = system.heap("system").alloc(4096);
const address: number = buf.attach(device).map("bidirectional").at(0).address;
const core: Core = openCoreSync();
export const frames: number = pageMap(system).length + core.thread + address;
export const flags: bigint = dmaBufSync.decode(new Uint8Array(8)).flags;
export const fd: number = new Process(system).memfdCreate("clip");
// @ts-expect-error: an attachment is mapped in one of three directions, and "sideways" is none
buf.attach(device).map("sideways");
export const explain = (error: unknown): string =>
  error instanceof DmaBufError ? error.code : "unknown";
