/**
 * FNV-1a with 32 bits: how the records carry the bytes of a buffer or a bitmap.
 *
 * @module
 */

const BASIS = 0x811c9dc5;
const PRIME = 0x01000193;

/** The hash of the parts, read one after the other. */
export function fnv1a(...parts: readonly Uint8Array[]): number {
  let hash = BASIS;
  for (const part of parts) {
    for (const byte of part) hash = Math.imul(hash ^ byte, PRIME);
  }
  return hash >>> 0;
}
