/**
 * Unwrapping composite fences into their leaves, and merging fences into one.
 *
 *     chain ─► node 2: array [c, d] ─► node 1: b            unwrap: c, d, b
 *
 * - U1  Nodes of a chain come newest first, parts of an array in their order.
 * - U2  Signaled leaves are included, unless walking the chain dropped their node.
 * - U3  A merge holds pending leaves only, the latest of each context, by rising context.
 *
 * Compare the kernel's drivers/dma-buf/dma-fence-unwrap.c.
 *
 * @module
 */

import { requireInstance, requireObjects } from "../arguments.ts";
import { Fence, signaledFence } from "./fence.ts";
import { FenceArray } from "./fence-array.ts";
import { containedFence, walkChain } from "./fence-chain.ts";
import { isLater } from "./order.ts";

/** The leaves of a fence (U1, U2); a plain fence is its own leaf, null has none. */
export function* unwrapFence(fence: Fence | null): Generator<Fence, void, undefined> {
  for (const node of walkChain(fence)) {
    const contained = containedFence(node);
    if (contained instanceof FenceArray) yield* contained.fences;
    else yield contained;
  }
}

/**
 * One fence that signals when all of `fences` have (U3): the pending leaf if there is just one, a
 * signaled fence if there is none, else an array.
 */
export function mergeFences(...fences: readonly (Fence | null)[]): Fence {
  const pending: Fence[] = [];
  let lastMs = 0;
  for (const fence of fences) {
    if (fence !== null) requireInstance(fence, Fence, "a fence", "merge fences");
    for (const leaf of unwrapFence(fence)) {
      if (!leaf.isSignaled) pending.push(leaf);
      else lastMs = Math.max(lastMs, leaf.timestampMs);
    }
  }
  const latest = latestOfEachContext(pending);
  const [first] = latest;
  if (first === undefined) return signaledFence(lastMs);
  if (latest.length === 1) return first;
  return arrayOf(latest);
}

/** The latest fence of each context, by rising context: dma_fence_dedup_array(). */
export function latestOfEachContext(fences: readonly Fence[]): Fence[] {
  requireObjects(fences, "the fences", "find the latest fences");
  const latest = new Map<number, Fence>();
  for (const fence of fences) {
    const known = latest.get(fence.context);
    if (known === undefined || isLater(fence, known)) latest.set(fence.context, fence);
  }
  return [...latest.values()].sort((a, b) => a.context - b.context);
}

/** An array of leaves, in a context of its own. */
export function arrayOf(fences: readonly Fence[]): Fence {
  const core = fences.find((fence) => fence.core !== null)?.core ?? null;
  return core === null ? signaledFence(0) : new FenceArray(core, fences);
}
