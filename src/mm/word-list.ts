/**
 * Lists of words for the core: in the scratch words while they fit, else in frames of their own.
 *
 * @module
 */

import { requireList } from "../arguments.ts";
import type { Core } from "../core/core.ts";
import { checked, requireInteger } from "../errors.ts";
import { addressOf, framesOf } from "../units.ts";

const WORD_BYTES = 4;
const ANYWHERE = 2 ** 32 - 1;

/**
 * What `call` returns. It gets the address of the words, and a view of them to read results from;
 * both end with the call. ENOMEM: there is no run of frames for the list.
 */
export function withWords<T>(
  core: Core,
  words: Uint32Array,
  operation: string,
  call: (at: number, list: Uint32Array) => T,
): T {
  if (words.length <= core.scratch.length) {
    core.scratch.set(words);
    return call(core.scratch.byteOffset, core.scratch.subarray(0, words.length));
  }
  const frameCount = framesOf(words.length * WORD_BYTES);
  const pfn = checked(
    core.exports.frameAlloc(frameCount, 0, ANYWHERE),
    operation,
    () => `no run of ${frameCount} frames is free for its list`,
  );
  try {
    const at = addressOf(pfn);
    const list = core.u32.subarray(at / WORD_BYTES, at / WORD_BYTES + words.length);
    list.set(words);
    return call(at, list);
  } finally {
    core.exports.frameFree(pfn, frameCount);
  }
}

/** Numbers as words. EINVAL: one of them is none. */
export function wordsOf(numbers: ArrayLike<number>, name: string, operation: string): Uint32Array {
  if (numbers instanceof Uint32Array) return numbers;
  requireList(numbers, "the list", operation);
  const words = new Uint32Array(numbers.length);
  for (let i = 0; i < words.length; i++) {
    const number = numbers[i] as number;
    words[i] = typeof number === "number" ? number : 0;
    if (words[i] !== number) requireInteger(number, name, 0, ANYWHERE, operation);
  }
  return words;
}
