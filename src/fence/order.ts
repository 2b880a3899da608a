/**
 * Order of fences: within one context, by seqno.
 *
 * - FO1  32-bit seqnos wrap: the later of two is the one that is less than 2^31 ahead.
 * - FO2  Two contexts have no order; asking for it is a mistake.
 *
 * Compare dma_fence_is_later() in the kernel's include/linux/dma-fence.h.
 *
 * @module
 */

import { requireObject } from "../arguments.ts";
import { fail, textOf } from "../errors.ts";
import type { Fence } from "./fence.ts";

/** A sequence number: a number below 2^53, or a bigint of up to 64 bits. */
export type Seqno = number | bigint;

/** Whether `a` comes after `b`, as numbers of 32 bits that wrap (FO1), or of 64 that do not. */
export function isSeqnoLater(a: Seqno, b: Seqno, bits: 32 | 64 = 32): boolean {
  for (const seqno of [a, b])
    if (!Number.isInteger(seqno) && typeof seqno !== "bigint")
      fail("EINVAL", "order two numbers", `${textOf(seqno)} is no sequence number`);
  if (bits === 64) return a > b;
  if (typeof a === "number" && typeof b === "number") return ((a - b) | 0) > 0;
  return BigInt.asIntN(32, BigInt(a) - BigInt(b)) > 0n;
}

/** Whether `a` completes after `b`. EINVAL: FO2. */
export function isLater(a: Fence, b: Fence): boolean {
  requireOneContext(a, b);
  return isSeqnoLater(a.seqno, b.seqno, a.hasWideSeqno ? 64 : 32);
}

/** The later of two fences of one context, or null if that one has signaled. EINVAL: FO2. */
export function laterFence(a: Fence, b: Fence): Fence | null {
  const later = isLater(a, b) ? a : b;
  return later.isSignaled ? null : later;
}

function requireOneContext(a: Fence, b: Fence): void {
  requireObject(a, "the first", "order two fences");
  requireObject(b, "the second", "order two fences");
  if (a.context === b.context) return;
  const contexts = `${a.context} and ${b.context}`;
  fail("EINVAL", `order ${a.name} and ${b.name}`, `their contexts ${contexts} have no order`);
}
