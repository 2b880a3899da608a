/**
 * A thread that dies inside the core: one that joins, is said to hold locks, and is reaped.
 *
 * @module
 */

import { expect } from "vitest";
import { type Core, joinCore } from "../../src/core/core.ts";
import { DIRECTORY_AT } from "./header.ts";

const DOOMED = 5;
const INDEX_MASK = 2 ** 18 - 1;
/** The locks that lie in the header, in bytes (assembly/layout.ts). */
const lockOffsets = {
  frames: 128,
  slab: 192,
  shadow: 288,
  movable: 704,
  reap: 896,
  domains: 960,
} as const;

/** Where a lock of the header lies. */
export function lockAt(core: Core, name: keyof typeof lockOffsets): number {
  return core.exports.HEADER_AT.value + lockOffsets[name];
}

/** Where every lock of the header lies. */
export function headerLocks(core: Core): number[] {
  return Object.values(lockOffsets).map((offset) => core.exports.HEADER_AT.value + offset);
}

/** Where the payload of an object lies (assembly/object.ts): its lock, if its kind has one. */
export function payloadAt(core: Core, handle: number): number {
  const index = handle & INDEX_MASK;
  const pfn = core.word(DIRECTORY_AT, index >> 6) + 1;
  return pfn * core.exports.FRAME_BYTES.value + (index & 63) * 64 + 16;
}

/**
 * Reaps a thread that held the locks at `locks` when it died, and had just done `damage` to what
 * they protect. Expects that they are open afterwards.
 */
export function reapHolding(core: Core, locks: readonly number[], damage = () => {}): void {
  joinCore(core, DOOMED);
  damage();
  for (const at of locks) {
    expect(core.word(at, 0)).toBe(0);
    core.u32[at / 4] = DOOMED + 1;
  }
  expect(core.exports.threadReap(DOOMED)).toBeGreaterThanOrEqual(0);
  expect(locks.map((at) => core.word(at, 0))).toEqual(locks.map(() => 0));
}
