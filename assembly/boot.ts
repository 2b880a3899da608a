// The first and the last thing that happens to a memory: it becomes a system, threads join and
// leave.

import { rangeInsert } from "./free-list";
import { PAGEBLOCK_ORDER, POISON, PREFAULT, STRICT, frameAt, header, layoutInit } from "./layout";
import { magazineDrain } from "./magazine";
import { KINDS } from "./object";
import {
  MIGRATE_MOVABLE,
  MIGRATE_UNMOVABLE,
  RESERVED,
  pageblocksMark,
  setPageblockType,
  wordsChange,
} from "./page";
import { threadForgets } from "./reap";
import { threadJoin, threadLeave } from "./thread";
import { warmClear } from "./warm";

/**
 * Makes a system of zeroed memory and joins it. `frameCount` frames get a descriptor, the first
 * `backedFrames` have bytes; `physPfnBase` is the device-side number of frame 0, a multiple of
 * 1024; `flags` are POISON, STRICT, PREFAULT. 0, or EINVAL, ENOMEM, ENOSPC, EBUSY.
 */
export function coreOpen(
  frameCount: u32,
  backedFrames: u32,
  threadCount: u32,
  physPfnBase: u32,
  isShared: u32,
  canBlock: u32,
  flags: u32,
): i32 {
  const firstFrame = layoutInit(frameCount, backedFrames, threadCount, physPfnBase, isShared);
  if (firstFrame < 0) return firstFrame;
  wordsChange(0, firstFrame, 0, RESERVED);
  wordsChange(backedFrames, frameCount - backedFrames, 0, RESERVED);
  header().reservedFrames = <u32>firstFrame + frameCount - backedFrames;
  header().freeFlags = flags & (POISON | STRICT);
  for (let kind: u32 = 0; kind < KINDS; kind++) warmClear(kind); // O5
  if ((flags & PREFAULT) != 0) framesTouch(firstFrame, backedFrames);
  const joined = threadJoin(canBlock);
  if (joined < 0) return joined;
  pageblocksMark(0, backedFrames, MIGRATE_MOVABLE);
  setPageblockType(firstFrame, MIGRATE_UNMOVABLE); // shared with the map: records go here first
  framesInsert(firstFrame, backedFrames);
  header().reserveFrames = <u32>sqrt<f64>(<f64>(backedFrames * 4)); // 4 sqrt(KiB) KiB, as Linux
  return 0;
}

/** Writes into each frame, so that the host has it at hand before the first use. */
function framesTouch(pfn: u32, pfnEnd: u32): void {
  for (; pfn < pfnEnd; pfn++) memory.fill(frameAt(pfn), 0, 1);
}

/** Gives all frames to the buddy, the lowest last: lists are stacks, so allocations start low. */
function framesInsert(pfn: u32, pfnEnd: u32): void {
  while (pfnEnd > pfn) {
    const start = max(pfn, (pfnEnd - 1) & (~(<u32>0) << PAGEBLOCK_ORDER));
    rangeInsert(start, pfnEnd);
    pfnEnd = start;
  }
}

/**
 * Joins a system that another instance opened on the same memory. The thread's index, or EINVAL,
 * ENOSPC, EBUSY.
 */
export function coreJoin(canBlock: u32): i32 {
  return threadJoin(canBlock);
}

/**
 * Leaves: what the thread shares or holds of others is let go, its pending fences end with
 * EOWNERDEAD, the magazine's frames go back, and the slot is free for another instance.
 */
export function coreLeave(): void {
  threadForgets();
  magazineDrain();
  threadLeave();
}
