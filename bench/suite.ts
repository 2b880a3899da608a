/**
 * Suite: the rows of one family, measured one after the other.
 *
 * - SU1  What is not measured here is not set up either: rows that the filter leaves out, and
 *        peers.
 * - SU2  Setting up asserts what the operation returns; only then it is timed.
 * - SU3  A peer is measured in a process of its own: sharing a loop with us would make its calls,
 *        or ours, slower.
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

/** Measures rows, or one peer. */
export class Suite {
  readonly rows: Row[] = [];
  /** Peers that the filter chose and that were not measured (SU3). */
  readonly peers: string[] = [];
  readonly #filter: RegExp;
  readonly #onlyPeer: string | null;

  constructor(filter: RegExp, onlyPeer: string | null) {
    this.#filter = filter;
    this.#onlyPeer = onlyPeer;
  }

  /** Sets a workload up, times it, ends it. */
  row(name: string, unit: string, setUp: () => Job): void {
    if (this.#onlyPeer === null && this.#filter.test(name)) this.#add({ name, unit }, setUp);
  }

  /** The job of row `peerOf`, done by somebody else. */
  peer(peerOf: string, by: string, unit: string, setUp: () => Job): void {
    const name = `${peerOf} (${by})`;
    if (name === this.#onlyPeer) this.#add({ name, unit, peerOf }, setUp);
    else if (this.#onlyPeer === null && this.#filter.test(name)) this.peers.push(name);
  }

  #add(title: Omit<Row, keyof Timing>, setUp: () => Job): void {
    const job = setUp();
    const freeProcessors = watchProcessors();
    const timing = measure((count) => job.run(count), job.opsPerRun ?? 1);
    const free = freeProcessors();
    job.end?.();
    const { threads: needed = 1 } = job;
    const processors = needed === 1 ? {} : { processors: { needed, free } };
    this.rows.push({ ...title, ...timing, ...processors });
  }
}

/** What a bench file exports: it adds its rows to the suite. */
export type Family = (suite: Suite) => void;

/** What a family's process sends back. */
export type FamilyResult = Pick<Suite, "rows" | "peers">;
