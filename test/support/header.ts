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
