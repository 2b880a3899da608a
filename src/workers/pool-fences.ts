/**
 * What both sides of a pool need: the clock, and what becomes of the fences that come with frames.
 *
 * - PF2  A fence that is given with a frame belongs to the pool from then on: its record is freed
 *        when it has signaled and the frame has come back, or who gave it has left the pool.
 * - PF3  A fence that its thread left pending is never taken for one that is over: its frame says
 *        so, even when the record is gone (assembly/reap.ts).
 * - PF4  A fence of another thread is held here once for each use of it (FI5), and let go of with
 *        the last: it may be on several frames, and pending then. What this thread has imported by
 *        itself stays its own, and the other way round.
 *
 * @module
 */

import { requireInstance } from "../arguments.ts";
import type { Core } from "../core/core.ts";
import { DmaBufError, fail } from "../errors.ts";
import { Fence } from "../fence/fence.ts";
import { ImportedFence, useFence } from "../fence/imported-fence.ts";

/** Milliseconds since 1970, with fractions: the clock that all threads share. */
export function nowMs(): number {
  return performance.timeOrigin + performance.now();
}

/** In the place of a token: the fence's thread is gone, and had not signaled it (PF3). */
const ABANDONED = 2 ** 32 - 1;
/** Why the number of a released fence names none: its record, or all around it, is gone. */
const GONE: readonly string[] = ["ESTALE", "EBADF"];

/** Throws EINVAL for what is no fence, or another memory's. */
export function requireFence(fence: Fence, core: Core, operation: string): void {
  requireInstance(fence, Fence, "the fence", operation);
  if (!fence.isOn(core)) fail("EINVAL", operation, "the fence is of another system");
}

/** The fence of a token, until letGo(); null when it has signaled and is gone. */
export function fenceOf(core: Core, token: number): Fence | null {
  if (token === ABANDONED) return abandonedFence(core);
  try {
    return useFence(core, token);
  } catch (error) {
    if (error instanceof DmaBufError && GONE.includes(error.code)) return null;
    throw error;
  }
}

function abandonedFence(core: Core): Fence {
  const fence = new Fence(core, core.exports.fenceContextAlloc(1) >>> 0, 1, "abandoned");
  fence.signal("EOWNERDEAD");
  return fence;
}

/** Ends one use of a fence (PF4). */
export function letGo(fence: Fence): void {
  if (fence instanceof ImportedFence) fence.endUse();
}

/**
 * Frees the record of a fence that was given with a frame, now or when it signals (PF2). A pending
 * one of another thread is left to who imported it.
 */
export function releaseGiven(fence: Fence | undefined): void {
  if (fence === undefined) return;
  if (fence.isSignaled) fence.release();
  else if (!(fence instanceof ImportedFence)) fence.addCallback(releaseAfterCallbacks);
}

function releaseAfterCallbacks(fence: Fence): void {
  fence.defer(() => fence.release());
}
