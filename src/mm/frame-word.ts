/**
 * What the core's word of a frame says, as far as messages tell it, and frames in words.
 *
 *     ├── pins: 18 ──┼ … ┼ state: 4 ┤        assembly/page.ts
 *
 * @module
 */

import { nameOf } from "../errors.ts";

const STATES = 16;
const FREE = 0;
const MOVABLE = 4;
const PIN: number = 2 ** 14;

/** Whether nobody has the frame. */
export function isFree(word: number): boolean {
  return word % STATES === FREE;
}

/** Whether the frame is movable memory, and pinned. */
export function isPinnedMovable(word: number): boolean {
  return word % STATES === MOVABLE && word >= PIN;
}

/** Whether the frame can be had: nobody has it, or what has it can move away. */
export function canBeEmptied(word: number): boolean {
  return isFree(word) || (word % STATES === MOVABLE && word < PIN);
}

/** "1 frame", "2 frames"; what is no number by its name. */
export function framesText(frameCount: unknown): string {
  return frameCount === 1 ? "1 frame" : `${nameOf(frameCount)} frames`;
}

/** Rising numbers for people, neighbours as one: "3, 5 to 9 and 20 more". At most `shown` runs. */
export function formatRuns(numbers: readonly number[], shown: number): string {
  const runs: { first: number; last: number }[] = [];
  for (const number of numbers) {
    const run = runs.at(-1);
    if (run?.last === number - 1) run.last = number;
    else runs.push({ first: number, last: number });
  }
  const told = runs.slice(0, shown);
  const left = told.reduce((left, { first, last }) => left - (last - first + 1), numbers.length);
  const text = told.map(({ first, last }) => (first === last ? `${first}` : `${first} to ${last}`));
  return text.join(", ") + (left > 0 ? ` and ${left} more` : "");
}
