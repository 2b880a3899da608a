/**
 * Owner: who pays for buffers, and how much it may hold.
 *
 *     charge(bytes) ──► usedBytes + bytes   unless that passes quotaBytes: EDQUOT, nothing changed
 *     release of the buffer ──► usedBytes - bytes
 *
 * - OW1  usedBytes is the sum of the sizes of the live buffers that are charged to the owner, and
 *        never passes the quota that it was charged under.
 * - OW2  A buffer is charged before anything is allocated for it, and whole: when its storage is
 *        chosen does not matter.
 *
 * Linux charges heaps to nobody in 6.1. Compare mem_cgroup_charge() in its mm/memcontrol.c.
 *
 * @module
 */

import { requireObject } from "../arguments.ts";
import { fail, textOf } from "../errors.ts";
import { countOf, formatBytes } from "../units.ts";

/** What an owner is made with. */
export interface OwnerOptions {
  /** The most bytes that its buffers may have in all. Default: no limit. */
  readonly quotaBytes?: number | undefined;
}

/** Somebody to charge. Made by `system.owner(name)`. */
export class Owner {
  readonly name: string;
  #quotaBytes: number;
  #usedBytes = 0;
  #peakBytes = 0;
  #bufferCount = 0;
  #refusedCount = 0;
  #isRemoved = false;
  readonly #onRemoved: () => void;

  /** @internal */
  constructor(name: string, options: OwnerOptions, onRemoved: () => void) {
    const operation = `make owner ${textOf(name)}`;
    requireObject(options, "the options", operation);
    const { quotaBytes = Infinity } = options;
    if (typeof name !== "string" || name === "") fail("EINVAL", "make an owner", "it needs a name");
    requireQuota(quotaBytes, operation);
    this.name = name;
    this.#quotaBytes = quotaBytes;
    this.#onRemoved = onRemoved;
  }

  /** The most bytes that it may be charged; Infinity: no limit. */
  get quotaBytes(): number {
    return this.#quotaBytes;
  }

  /** Bytes that it is charged now (OW1). */
  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** The most bytes that it was charged at once. */
  get peakBytes(): number {
    return this.#peakBytes;
  }

  /** Live buffers that it is charged for. */
  get bufferCount(): number {
    return this.#bufferCount;
  }

  /** Allocations that its quota refused. */
  get refusedCount(): number {
    return this.#refusedCount;
  }

  get isRemoved(): boolean {
    return this.#isRemoved;
  }

  /**
   * Changes the quota. One below usedBytes takes nothing away: it refuses what is asked for next.
   * EINVAL: not a number of bytes.
   */
  setQuota(quotaBytes: number): void {
    requireQuota(quotaBytes, `change the quota of ${this.name}`);
    this.#quotaBytes = quotaBytes;
  }

  /** @internal Charges a buffer. EDQUOT: the quota would be passed; ENOENT: removed (OW2). */
  charge(bytes: number, operation: string): void {
    if (this.#isRemoved) fail("ENOENT", operation, `owner ${this.name} was removed`);
    if (this.#usedBytes + bytes > this.#quotaBytes) {
      this.#refusedCount += 1;
      const [limit, used, asked] = [this.#quotaBytes, this.#usedBytes, bytes].map(formatBytes);
      fail(
        "EDQUOT",
        operation,
        `owner ${this.name} may hold ${limit}, holds ${used}, and ${asked} are asked for`,
      );
    }
    this.#usedBytes += bytes;
    this.#bufferCount += 1;
    this.#peakBytes = Math.max(this.#peakBytes, this.#usedBytes);
  }

  /** @internal Takes a charge back. */
  uncharge(bytes: number): void {
    this.#usedBytes -= bytes;
    this.#bufferCount -= 1;
  }

  /** Removes the owner; its name is free again. EBUSY: buffers are charged to it; ESTALE. */
  remove(): void {
    const operation = `remove owner ${this.name}`;
    if (this.#isRemoved) fail("ESTALE", operation, "it was removed before");
    if (this.#bufferCount > 0)
      fail(
        "EBUSY",
        operation,
        `it pays for ${countOf(this.#bufferCount, "buffer")}; release first`,
      );
    this.#isRemoved = true;
    this.#onRemoved();
  }

  [Symbol.dispose](): void {
    if (!this.#isRemoved) this.remove();
  }
}

function requireQuota(quotaBytes: number, operation: string): void {
  if (typeof quotaBytes === "number" && quotaBytes >= 0) return;
  fail("EINVAL", operation, `quotaBytes must be 0 or more, and is ${textOf(quotaBytes)}`);
}
