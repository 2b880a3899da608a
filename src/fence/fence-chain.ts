/**
 * FenceChain: a timeline's points, each a fence of its own, newest first.
 *
 *     node 5 ──previous──► node 3 ──previous──► node 2 ──► (end)      one context, rising seqno
 *        │                    │                    │
 *      fence                fence                fence                contained: any but a chain
 *
 * - CH1  A node has signaled when its own fence and all before it have.
 * - CH2  A later seqno continues the context of the node before; any other starts a new one, with a
 *        seqno that is not below.
 * - CH3  Walking drops nodes whose own fence has signaled, apart from the node it starts at.
 *
 * Compare the kernel's drivers/dma-buf/dma-fence-chain.c.
 *
 * @module
 */

import { requireInstance } from "../arguments.ts";
import type { Core } from "../core/core.ts";
import { fail, requireInteger, textOf } from "../errors.ts";
import { Fence, type FenceOps } from "./fence.ts";

/** A point of a timeline. Made by `system.fenceChain()`. */
export class FenceChain extends Fence {
  static readonly #ops: FenceOps = {
    driverName: "dma_fence_chain",
    timelineName: "unbound",
    hasWideSeqno: true,
    enableSignaling: (fence) => (fence as FenceChain).#hook(),
    signaled: (fence) => isChainSignaled(fence as FenceChain),
    setDeadline: (fence, atMs) => {
      for (const node of walkChain(fence)) containedFence(node).setDeadline(atMs);
    },
  };
  /** What this point waits for, apart from the points before it. */
  readonly fence: Fence;
  /** The seqno of the point before; 0 where a context begins. */
  readonly prevSeqno: number;
  #previous: Fence | null;

  /** @internal */
  constructor(core: Core, previous: Fence | null, fence: Fence, seqno: number) {
    const operation = "make a chain node";
    requireInteger(seqno, "seqno", 0, Number.MAX_SAFE_INTEGER, operation);
    if (!(fence instanceof Fence)) fail("EINVAL", operation, "what it contains is not a fence");
    if (previous !== null) requireInstance(previous, Fence, "what is before it", operation);
    if (!fence.isOn(core) || previous?.isOn(core) === false)
      fail("EINVAL", operation, "a fence is of another system");
    if (fence instanceof FenceChain) fail("EINVAL", operation, "a chain cannot contain a chain");
    const before = previous instanceof FenceChain ? previous : null;
    const continues = before !== null && seqno > before.seqno;
    const context = continues ? before.context : core.exports.fenceContextAlloc(1) >>> 0;
    const ownSeqno = Math.max(seqno, before?.seqno ?? 0); // CH2
    super(core, context, ownSeqno, `chain ${context}:${ownSeqno}`, FenceChain.#ops, false);
    this.fence = fence;
    this.#previous = previous;
    this.prevSeqno = continues ? before.seqno : 0;
  }

  override get isContainer(): boolean {
    return true;
  }

  /**
   * The next older fence that is pending, or null; forgets what has signaled on the way (CH3). The
   * kernel's dma_fence_chain_walk().
   */
  previous(): Fence | null {
    while (this.#previous !== null && containedFence(this.#previous).isSignaled)
      this.#previous = this.#previous instanceof FenceChain ? this.#previous.#previous : null;
    return this.#previous;
  }

  /** Hooks the node to a pending fence of the chain. Returns false if there is none. */
  #hook(): boolean {
    for (const node of walkChain(this)) {
      if (containedFence(node).addCallback(this.#onSignaled)) return true;
    }
    return false;
  }

  /** Tries the next pending fence; without one, the node has signaled (CH1). */
  readonly #onSignaled = (fence: Fence): void => {
    fence.defer(() => {
      if (!this.#hook()) this.signal();
    });
  };
}

/** What a chain node contains; any other fence is its own. */
export function containedFence(fence: Fence): Fence {
  requireInstance(fence, Fence, "the fence", "look into a fence");
  return fence instanceof FenceChain ? fence.fence : fence;
}

/** The nodes of a chain, `head` first, then older ones that are pending (CH3). */
export function* walkChain(head: Fence | null): Generator<Fence, void, undefined> {
  if (head !== null) requireInstance(head, Fence, "the head", "walk a chain");
  for (let node = head; node !== null; node = node instanceof FenceChain ? node.previous() : null)
    yield node;
}

/**
 * The oldest fence of a chain that covers point `seqno`, or null if that point has signaled. Point
 * 0 is `head` itself. EINVAL: `head` is no chain, or has not come that far.
 */
export function findSeqno(head: Fence, seqno: number): Fence | null {
  if (seqno === 0) return head;
  const operation = `find point ${textOf(seqno)}`;
  if (typeof seqno !== "number") fail("EINVAL", operation, "a point is a number");
  if (!(head instanceof FenceChain)) fail("EINVAL", operation, "the fence is not a chain");
  if (head.seqno < seqno) fail("EINVAL", operation, `the chain ends at ${head.seqno}`);
  for (const node of walkChain(head)) {
    if (node.context !== head.context) return node;
    if (node instanceof FenceChain && node.prevSeqno < seqno) return node;
  }
  return null;
}

/** CH1. */
function isChainSignaled(head: FenceChain): boolean {
  for (const node of walkChain(head)) {
    if (!containedFence(node).isSignaled) return false;
  }
  return true;
}
