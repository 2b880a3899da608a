/**
 * Resv: which operations on a buffer are under way, as fences with a usage.
 *
 *     kernel < write < read < bookkeep      asking for a usage means all fences of it and of those
 *     before it
 *
 * - RV1  Only pending fences count; signaled ones are dropped when the list is touched.
 * - RV2  A new writer waits for readers and writers, a new reader for writers only.
 * - RV3  A fence replaces an older one of its context with an equal or weaker usage.
 *
 * Compare the kernel's drivers/dma-buf/dma-resv.c.
 *
 * @module
 */

import { fail } from "../errors.ts";
import type { Fence } from "../fence/fence.ts";
import type { WaitOptions } from "../fence/wait.ts";

/** What an operation does with the buffer. */
export type ResvUsage = "kernel" | "write" | "read" | "bookkeep";

const ranks: Record<ResvUsage, number> = { kernel: 0, write: 1, read: 2, bookkeep: 3 };

/** What a new access must wait for (RV2). */
export function usageFor(isWrite: boolean): ResvUsage {
  return isWrite ? "read" : "write";
}

/** The fences of a buffer. Found as `buf.resv`. */
export class Resv {
  #entries: { readonly fence: Fence; readonly rank: number }[] = [];

  /** Adds an operation that is under way (RV3). EINVAL: no such usage. */
  addFence(fence: Fence, usage: ResvUsage): void {
    const rank = ranks[usage];
    if (rank === undefined)
      fail(
        "EINVAL",
        `add fence ${fence.name}`,
        `the usage must be one of ${Object.keys(ranks).join(", ")}`,
      );
    const isReplaced = (old: { fence: Fence; rank: number }): boolean =>
      old.fence.isSignaled ||
      old.fence === fence ||
      (old.fence.context === fence.context && old.rank >= rank && old.fence.seqno < fence.seqno);
    this.#entries = this.#entries.filter((entry) => !isReplaced(entry));
    if (!fence.isSignaled) this.#entries.push({ fence, rank });
  }

  /** The pending fences that an access with this usage waits for (RV1). */
  fences(usage: ResvUsage): Fence[] {
    this.#entries = this.#entries.filter(({ fence }) => !fence.isSignaled);
    return this.#entries.filter(({ rank }) => rank <= ranks[usage]).map(({ fence }) => fence);
  }

  /** Whether nothing of this usage is pending. */
  testSignaled(usage: ResvUsage): boolean {
    return this.fences(usage).length === 0;
  }

  /** Resolves when all fences that are pending now have signaled. ETIME, EINTR. */
  async wait(usage: ResvUsage, options: WaitOptions = {}): Promise<void> {
    await Promise.all(this.fences(usage).map((fence) => fence.wait(options)));
  }
}
