/**
 * Where tests look into the core's header, past its functions.
 *
 * @module
 */

/** Words of the header (assembly/layout.ts); layout.test.ts holds them against what they count. */
export const headerWords = {
  threadCount: 5,
  threadsAt: 6,
  wordsAt: 7,
  bounceAt: 13,
  reserveFrames: 14,
  freeFrames: 16,
  objectCount: 21,
} as const;

/** Where the directory of slabs begins. */
export const DIRECTORY_AT = 8192;

/** Where the frame begins whose bytes are 0 for ever. */
export const NOTHING_AT = 4096;

/** The word with the handle of the object of `kind` that was named last; where it lies follows. */
export function warmWord(kind: number): number {
  return 2048 / 4 + 2 * kind;
}
