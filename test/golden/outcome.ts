/**
 * What a handler hands to the judge: facts, each our result beside the recorded one.
 *
 * @module
 */

import { DmaBufError } from "dmabuf";
import type { Bed } from "./bed.ts";
import type { Fields } from "./fields.ts";

/** One compared result. `name` is what a difference class refers to. */
export interface Fact {
  readonly name: string;
  readonly actual: unknown;
  readonly recorded: unknown;
}

/** The replay of one record. */
export interface Outcome {
  readonly facts: readonly Fact[];
  /** Why the record is not replayed yet; there are no facts then. */
  readonly pending?: string;
  /** Numbers worth printing, summed over all records of the area. */
  readonly notes?: Readonly<Record<string, number>>;
}

/** Replays one record of a kind. Records of one file share a bed and come in order. */
export type Handler = (fields: Fields, bed: Bed) => Outcome;

/** The facts whose recorded side is the field of the same name. */
export function factsOf(fields: Fields, actual: Readonly<Record<string, unknown>>): Fact[] {
  return Object.entries(actual).map(([name, value]) => ({
    name,
    actual: value,
    recorded: fields.recorded(name),
  }));
}

/** A record that the library cannot replay yet. */
export function notYet(reason: string): Outcome {
  return { facts: [], pending: reason };
}

/** The number that a call returns (0: it returns none), or its errno as Linux gives it. */
export function resultOf(call: () => unknown): number {
  try {
    const result = call();
    return typeof result === "number" ? result : 0;
  } catch (error) {
    if (error instanceof DmaBufError) return -error.errno;
    throw error;
  }
}
