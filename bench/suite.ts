/**
 * Suite: the rows of one family and their peers, of which a process measures one.
 *
 * - SU1  What is not measured here is not set up either.
 * - SU2  Setting up asserts what the operation returns; only then it is timed.
 * - SU3  A row is measured in a process of its own: what V8 learned from another row that shares a
 *        loop with it would make its calls slower, by up to a third.
 *
 * @module
 */

import { measure, type Timing } from "./measure.ts";
import { watchProcessors } from "./processors.ts";

/** One line of the table. */
export interface Row extends Timing {
  /** "family/workload"; for a peer the name of the row it does the same job as, and its own. */
  readonly name: string;
  /** What one operation is: "pair", "page". */
  readonly unit: string;
  /** The row that a peer is compared with. */
  readonly peerOf?: string;
  /** Of each visit, in nanoseconds, in their order. */
  readonly medians: readonly number[];
  /** How many processors it needs at once, and had, where that is more than one. */
  readonly processors?: { readonly needed: number; readonly free: number };
}

/** A workload that is ready to run. */
export interface Job {
  /** Does the operation `count` times. */
  run(count: number): void;
  /** Operations in each; default 1. */
  readonly opsPerRun?: number;
  /** How many threads work at once; default 1. */
  readonly threads?: number;
  /** Gives back what the workload holds. */
  end?(): void;
}

/** Measures the row `only`; without one, lists what there is. */
export class Suite {
  /** The names of all rows and peers. */
  readonly names: string[] = [];
  /** What was measured: null when there is no `only`. */
  measured: Row | null = null;
  readonly #only: string | null;

  constructor(only: string | null) {
    this.#only = only;
  }

  /** Sets a workload up, times it, ends it. */
  row(name: string, unit: string, setUp: () => Job): void {
    this.#add({ name, unit }, setUp);
  }

  /** The job of row `peerOf`, done by somebody else. */
  peer(peerOf: string, by: string, unit: string, setUp: () => Job): void {
    this.#add({ name: `${peerOf} (${by})`, unit, peerOf }, setUp);
  }

  #add(title: Pick<Row, "name" | "unit" | "peerOf">, setUp: () => Job): void {
    this.names.push(title.name);
    if (title.name !== this.#only) return;
    const job = setUp();
    const freeProcessors = watchProcessors();
    const timing = measure((count) => job.run(count), job.opsPerRun ?? 1);
    const free = freeProcessors();
    job.end?.();
    const { threads: needed = 1 } = job;
    const processors = needed === 1 ? {} : { processors: { needed, free } };
    this.measured = { ...title, ...timing, medians: [timing.nsPerOp], ...processors };
  }
}

/** What a bench file exports: it adds its rows to the suite. */
export type Family = (suite: Suite) => void;

/** What a family's process sends back. */
export type FamilyResult = Pick<Suite, "names" | "measured">;
