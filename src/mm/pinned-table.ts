/**
 * PinnedTable: a pin on every frame of an sg table, and the bytes it keeps in place.
 *
 * - N3  The pins are on the frames that the table named when it was pinned, and exactly those are
 *       unpinned: what becomes of the table meanwhile does not matter.
 * - N5  Pins of a table that owns its frames are a record in the core, so that they can be taken
 *       off when this thread has died.
 *
 * @module
 */

import type { Core } from "../core/core.ts";
import { checked, type ErrnoCode, fail } from "../errors.ts";
import { addressOf, framesOf } from "../units.ts";

/** Bytes in consecutive frames. */
export interface Run {
  readonly pfn: number;
  readonly offset: number;
  readonly lengthBytes: number;
}

const operation = "pin an sg table";

function pinReason(code: ErrnoCode): string {
  if (code === "EOVERFLOW") return "a frame has as many pins as can be counted";
  return code === "ENOMEM" ? "no memory is left for its record" : "a frame is not handed out";
}

/** A pin on the frames of a table. Made by `table.pin()`. */
export class PinnedTable {
  readonly #core: Core;
  readonly #runs: readonly Run[];
  readonly #onUnpinned: () => void;
  /** The core's record (N5); 0: the runs are pinned one by one. */
  readonly #pin: number;
  #views: readonly Uint8Array<ArrayBufferLike>[] | null;

  /** @internal `owner`: the table that owns the runs' frames, if one does. */
  constructor(core: Core, runs: readonly Run[], onUnpinned: () => void, owner: number = 0) {
    this.#core = core;
    this.#runs = runs;
    this.#onUnpinned = onUnpinned;
    for (const run of runs) this.#requireBytes(run);
    this.#pin = owner === 0 ? 0 : checked(core.exports.pinAdd(owner), operation, pinReason);
    if (owner === 0) for (const [i, run] of runs.entries()) this.#pinRun(run, i);
    this.#views = runs.map((run) => core.view(addressOf(run.pfn, run.offset), run.lengthBytes));
  }

  #requireBytes({ pfn, offset, lengthBytes }: Run): void {
    if (addressOf(pfn, offset + lengthBytes) > this.#core.u8.length)
      fail("EINVAL", operation, `a frame from ${pfn} on has no bytes`);
  }

  /** Pins run `i`; when that fails, those before it are unpinned. */
  #pinRun(run: Run, i: number): void {
    const { exports } = this.#core;
    if (run.lengthBytes === 0) return; // it touches no frame
    const result = exports.pinRange(run.pfn, framesOf(run.offset + run.lengthBytes));
    if (result === 0) return;
    this.#unpin(i);
    checked(result, operation, pinReason);
  }

  #unpin(count: number): void {
    for (const { pfn, offset, lengthBytes } of this.#runs.slice(0, count))
      if (lengthBytes > 0) this.#core.exports.unpinRange(pfn, framesOf(offset + lengthBytes));
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
    this.#core.requireJoined("unpin a table");
    this.#views = null;
    if (this.#pin === 0) this.#unpin(this.#runs.length);
    else this.#core.exports.pinRemove(this.#pin);
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
    const count = framesOf(offset + lengthBytes);
    checked(core.exports.frameClearRun(pfn, count), operation, (code) =>
      clearReason(code, pfn, count),
    );
  }
  return new PinnedTable(core, runs, () => {});
}

function clearReason(code: ErrnoCode, pfn: number, frameCount: number): string {
  if (frameCount === 0) return "a segment is empty";
  const which =
    frameCount === 1 ? `frame ${pfn}` : `one of frames ${pfn} to ${pfn + frameCount - 1}`;
  return code === "ENOENT"
    ? `${which} is not handed out as a range (movable memory has a handle of its own)`
    : `${which} is no frame with bytes`;
}
