/**
 * What a program does with its system calls, in one call each.
 *
 * @module
 */

import { MiB, O_RDWR, type System } from "../../src/index.ts";
import * as uapi from "../../src/uapi/index.ts";
import type { CoreVariant } from "./cores.ts";

/** Memory that may be read and written. */
export const RW: number = uapi.PROT_READ + uapi.PROT_WRITE;

/** A system with a CMA region, and a process in it with 16 KiB of memory. */
export function openProgram(
  build: CoreVariant,
  options: uapi.ProcessOptions = {},
): [System, uapi.Process] {
  const system = build.system({ memoryBytes: 8 * MiB, cma: { reserved: 4 * MiB } });
  return [system, new uapi.Process(system, { memory: new Uint8Array(16384), ...options })];
}

/** A descriptor for a buffer of heap "system". */
export function allocBuffer(process: uapi.Process, len = 4096, fdFlags: number = O_RDWR): number {
  const argument = uapi.dmaHeapAllocationData.encode({ len: BigInt(len), fdFlags });
  const heap = process.open("/dev/dma_heap/system");
  process.ioctl(heap, uapi.DMA_HEAP_IOCTL_ALLOC, argument);
  process.close(heap);
  return uapi.dmaHeapAllocationData.decode(argument).fd;
}

/** A descriptor for a fence of a sw_sync timeline. */
export function createFence(process: uapi.Process, timeline: number, value: number): number {
  const argument = uapi.swSyncCreateFenceData.encode({ value });
  process.ioctl(timeline, uapi.SW_SYNC_IOC_CREATE_FENCE, argument);
  return uapi.swSyncCreateFenceData.decode(argument).fence;
}

/** Makes a sync file an access under way. */
export function importFence(process: uapi.Process, buf: number, flags: number, fd: number): number {
  const argument = uapi.dmaBufSyncFile.encode({ flags, fd });
  return process.ioctl(buf, uapi.DMA_BUF_IOCTL_IMPORT_SYNC_FILE, argument);
}

/** Moves a sw_sync timeline on. */
export function inc(process: uapi.Process, timeline: number, count = 1): number {
  return process.ioctl(timeline, uapi.SW_SYNC_IOC_INC, Uint8Array.of(count, 0, 0, 0));
}

/** The argument of DMA_BUF_IOCTL_SYNC. */
export function sync(flags: number): Uint8Array {
  return uapi.dmaBufSync.encode({ flags: BigInt(flags) });
}
