/**
 * What a system holds and has done, as numbers.
 *
 * @module
 */

import type { Core } from "./core/core.ts";
import type { Device } from "./device/device.ts";
import { FRAME_BYTES, KiB } from "./units.ts";

/** What a system holds and has done. */
export interface SystemStats {
  readonly frameCount: number;
  /** Frames that nobody holds, those inside CMA regions included. */
  readonly freeFrames: number;
  readonly bufferCount: number;
  readonly openFds: number;
  /** Bytes that the library moved for any caller; a device's own accesses are `dmaBytes`. */
  readonly bytesCopied: number;
  /** Bytes that went through device addresses. */
  readonly dmaBytes: number;
  /** Device accesses that were refused. */
  readonly faultCount: number;
  /** Frames that are pinned now. */
  readonly pinnedFrames: number;
  /** Bytes of the bounce pool; 0 without one. */
  readonly bounceBytes: number;
  /** Bytes of the bounce pool that mappings hold, in whole slots. */
  readonly bounceUsedBytes: number;
  /** Writes into memory that nobody held, as far as they were found. */
  readonly misuseCount: number;
}

/** What compacting gained. Runs are in frames, outside the CMA regions. */
export interface Compaction {
  readonly movedFrames: number;
  readonly largestRunBefore: number;
  readonly largestRunAfter: number;
}

/** States of frames that nobody holds (assembly/page.ts): free, cached, in quarantine. */
const NOBODYS: readonly number[] = [0, 1, 9];
const SLOT_BYTES = 2 * KiB; // of the bounce pool

/** What can be told from the memory and the devices, those included that were removed. */
export function statsOf(
  core: Core,
  devices: Iterable<Device>,
): Omit<SystemStats, "bufferCount" | "openFds"> {
  const { exports, u8, bytesCopied } = core;
  let [dmaBytes, faultCount] = [0, 0];
  for (const { dma } of devices) {
    dmaBytes += dma.bytes;
    faultCount += dma.faultCount;
  }
  return {
    frameCount: u8.length / FRAME_BYTES,
    freeFrames: NOBODYS.reduce((total, state) => total + exports.frameCountIn(state), 0),
    bytesCopied: bytesCopied + exports.movedFrameCount() * FRAME_BYTES + exports.bouncedBytes(),
    dmaBytes,
    faultCount,
    pinnedFrames: exports.pinnedFrameCount(),
    bounceBytes: exports.bounceSlotCount() * SLOT_BYTES,
    bounceUsedBytes: exports.bounceUsedSlots() * SLOT_BYTES,
    misuseCount: exports.misuseCount() >>> 0,
  };
}

/** Moves movable frames to the top of memory. */
export function compact({ exports }: Core): Compaction {
  exports.magazineDrain(); // what this thread has cached is free, and no gain of the moves
  const largestRunBefore = exports.largestFreeRun();
  const movedFrames = exports.compact();
  return { movedFrames, largestRunBefore, largestRunAfter: exports.largestFreeRun() };
}
