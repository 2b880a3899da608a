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
  directoryAt: 10,
  bounceAt: 14,
  reserveFrames: 15,
  freeFrames: 16,
  objectCount: 21,
} as const;
