/**
 * Page map: which frame belongs to whom, for people.
 *
 * Reads through the public API only, and copies nothing but numbers. Cost: O(frames + table
 * entries).
 *
 * @module
 */

import { requireMethods } from "../arguments.ts";
import type { DmaBuf } from "../dma-buf/dma-buf.ts";
import type { System } from "../system.ts";
import { framesOf } from "../units.ts";

/** What a frame is used for. */
export type FrameUse =
  | "free"
  | "cached"
  | "reserved"
  | "owned"
  | "movable"
  | "cma"
  | "table"
  | "slab"
  | "object"
  | "quarantine";

const uses: readonly FrameUse[] = [
  "free",
  "cached",
  "reserved",
  "owned",
  "movable",
  "cma",
  "table",
  "slab",
  "object",
  "quarantine",
];

/** One frame of a map. */
export interface FrameInfo {
  readonly pfn: number;
  readonly use: FrameUse;
  /** The buffer whose storage the frame is; null for all else. */
  readonly buf: DmaBuf | null;
  readonly pins: number;
}

/** Every frame of a system, in order. */
export function pageMap(system: System): FrameInfo[] {
  requireMethods(system, ["stats"], "the system", "map the frames");
  const frameCount = system.stats().frameCount;
  const owners = bufferByFrame(system);
  return Array.from({ length: frameCount }, (_, pfn) => {
    const word = system.core.exports.frameWord(pfn) >>> 0;
    return {
      pfn,
      use: uses[word % 16] ?? "reserved",
      buf: owners.get(pfn) ?? null,
      pins: Math.floor(word / 2 ** 14),
    };
  });
}

function bufferByFrame(system: System): Map<number, DmaBuf> {
  const owners = new Map<number, DmaBuf>();
  for (const buf of system.buffers) {
    for (const { pfn, offset, lengthBytes } of buf.storage?.entries() ?? []) {
      for (let i = 0; i < framesOf(offset + lengthBytes); i++) owners.set(pfn + i, buf);
    }
  }
  return owners;
}
