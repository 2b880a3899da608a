/**
 * Joining a core as whatever thread is free.
 *
 * @module
 */

import { DmaBufError, fail, requireInteger } from "../errors.ts";
import { type Core, type CoreShare, joinCore, type ThreadSlots } from "./core.ts";
import { requireShare } from "./require-share.ts";

/** The state of a slot that nobody has (assembly/thread.ts). */
const FREE_SLOT = 0;

/** Joins as whatever thread is free. ENOSPC: none is. */
export function joinAnyCore(share: CoreShare, slots: ThreadSlots, canBlock?: boolean): Core {
  requireShare(share);
  const words = new Uint32Array(share.memory.buffer);
  for (const [name, value] of Object.entries(slots))
    requireInteger(value, `slots.${name}`, 0, words.byteLength, "join a system");
  const end = slots.at + slots.count * slots.bytes;
  requireInteger(end, "the end of the slots", 0, words.byteLength, "join a system");
  for (let thread = 0; thread < slots.count; thread++) {
    if (Atomics.load(words, (slots.at + thread * slots.bytes) / 4) !== FREE_SLOT) continue;
    try {
      return joinCore(share, thread, canBlock);
    } catch (error) {
      if (!(error instanceof DmaBufError && error.code === "EBUSY")) throw error; // lost a race
    }
  }
  return fail(
    "ENOSPC",
    "join a system",
    `all ${slots.count} threads have joined; open it with more threads`,
  );
}
