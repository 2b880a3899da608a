/**
 * Which threads hold a buffer, as the core knows it: a bit for each (assembly/share.ts).
 *
 * @module
 */

import type { Core } from "../core/core.ts";

/** Of a buffer, the two words that have a bit for each holder (assembly/share.ts). */
const HOLDERS = 10;

/** @internal A bit for each thread that holds the buffer whose payload is at `at`. */
export function holderMasks(core: Core, at: number): readonly [number, number] {
  return [core.word(at, HOLDERS), core.word(at, HOLDERS + 1)];
}

/** The other threads that hold a buffer that this one holds; none if that is gone. */
function otherThreads(core: Core, token: number): number[] {
  const at = core.exports.bufferAt(token);
  if (at < 0) return [];
  const masks = holderMasks(core, at);
  const isHolder = (thread: number): boolean =>
    Math.floor((masks[Math.floor(thread / 32)] ?? 0) / 2 ** (thread % 32)) % 2 === 1;
  const threads = Array.from({ length: core.threadSlots.count }, (_, thread) => thread);
  return threads.filter((thread) => thread !== core.thread && isHolder(thread));
}

/** @internal The other threads that hold a buffer. Cost: O(objects that are shared). */
export function otherThreadsOf(core: Core, buf: object): number[] {
  if (!core.isShared || core.hasLeft) return [];
  for (const [token, one] of core.tokens) if (one === buf) return otherThreads(core, token);
  return [];
}
