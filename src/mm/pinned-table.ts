/**
 * PinnedTable: a pin on every frame of an sg table, and the bytes it keeps in place.
 *
 * - N3  The pins are on the frames that the table named when it was pinned, and exactly those are
 *       unpinned: what becomes of the table meanwhile does not matter.
 *
 * @module
 */

import type { Core } from "../core/core.ts";
import { checked, fail } from "../errors.ts";
import { addressOf, framesOf } from "../units.ts";

/** Bytes in consecutive frames. */
export interface Run {
  readonly pfn: number;
  readonly offset: number;
  readonly lengthBytes: number;
}

/** A pin on the frames of a table. Made by `table.pin()`. */
export class PinnedTable {
  readonly #core: Core;
  readonly #runs: readonly Run[];
  readonly #onUnpinned: () => void;
  #views: readonly Uint8Array<ArrayBufferLike>[] | null;

  /** @internal */
  constructor(core: Core, runs: readonly Run[], onUnpinned: () => void) {
    this.#core = core;
    this.#runs = runs;
    this.#onUnpinned = onUnpinned;
    for (const run of runs) this.#requireBytes(run);
    for (const [i, run] of runs.entries()) this.#pin(run, i);
    this.#views = runs.map((run) => core.view(addressOf(run.pfn, run.offset), run.lengthBytes));
  }

  #requireBytes({ pfn, offset, lengthBytes }: Run): void {
    if (addressOf(pfn, offset + lengthBytes) > this.#core.u8.length)
      fail("EINVAL", "pin an sg table", `a frame from ${pfn} on has no bytes`);
  }

  /** Pins run `i`; when that fails, those before it are unpinned. */
  #pin(run: Run, i: number): void {
    const { exports } = this.#core;
    const result = exports.pinRange(run.pfn, framesOf(run.offset + run.lengthBytes));
    if (result === 0) return;
    this.#unpin(i);
    checked(result, "pin an sg table", (code) =>
      code === "EOVERFLOW"
        ? "a frame has as many pins as can be counted"
        : "a frame is not handed out",
    );
  }

  #unpin(count: number): void {
    for (const { pfn, offset, lengthBytes } of this.#runs.slice(0, count))
      this.#core.exports.unpinRange(pfn, framesOf(offset + lengthBytes));
  }

  /**
   * The bytes in order, one view for each entry. A typed array cannot be revoked: do not keep it
   * beyond unpin(). ESTALE once unpinned.
   */
  get views(): readonly Uint8Array<ArrayBufferLike>[] {
    return this.#views ?? fail("ESTALE", "read a pinned table", "it was unpinned");
  }

  /** Whether unpin() has not been called yet. */
  get isPinned(): boolean {
    return this.#views !== null;
  }

  /** Takes the pins off. ESTALE when they were taken off before. */
  unpin(): void {
    if (this.#views === null) fail("ESTALE", "unpin a table", "it was unpinned before");
    this.#views = null;
    this.#unpin(this.#runs.length);
    this.#onUnpinned();
  }

  [Symbol.dispose](): void {
    if (this.#views !== null) this.unpin();
  }
}

/** Runs of consecutive frames in a list. */
export function runsOf(frames: Uint32Array): Run[] {
  const runs: Run[] = [];
  for (let first = 0, i = 1; i <= frames.length; i++) {
    const pfn = frames[first] ?? 0;
    if (i < frames.length && frames[i] === pfn + i - first) continue;
    runs.push({ pfn, offset: 0, lengthBytes: addressOf(i - first) });
    first = i;
  }
  return runs;
}

/**
 * Clears what earlier owners left in the frames, and pins them: a table that somebody has reads no
 * old bytes, and its frames are not freed before it. ENOENT: a frame is not handed out as a range.
 */
export function holdRuns(core: Core, runs: readonly Run[], operation: string): PinnedTable {
  for (const { pfn, offset, lengthBytes } of runs) {
    checked(core.exports.frameClearRun(pfn, framesOf(offset + lengthBytes)), operation, (code) =>
      code === "ENOENT"
        ? "a frame is not handed out as a range"
        : "a number is no frame with bytes",
    );
  }
  return new PinnedTable(core, runs, () => {});
}
