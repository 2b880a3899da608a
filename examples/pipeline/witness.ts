/**
 * Witness: watches every job of every device, and objects when one runs on luck instead of fences.
 *
 *     submitted ──begin()──► running ──end()──► finished
 *
 * - WT1  A job begins only when every job it depends on has finished: a reader on the buffer's last
 *        writer, a writer on the last writer and all readers since.
 * - WT2  For each of those that was unfinished when the job was submitted, a fence that the job
 *        waited for says so. Being late by chance is not being ordered.
 *
 * It keeps books of its own, in the order of submission, and never looks at reservations.
 *
 * @module
 */

import type { DmaBuf, Fence } from "dmabuf";

/** A job's use of a buffer. */
export interface Access {
  readonly buf: DmaBuf;
  readonly isWrite: boolean;
}

/** What a device does with one picture. */
export interface Job {
  readonly device: string;
  readonly pictureIndex: number;
  readonly accesses: readonly Access[];
  /** Signals when the job has finished. */
  readonly fence: Fence;
  /** The fences that the job waits for before it begins. */
  readonly waitsFor: ReadonlySet<Fence>;
}

/** Users of a buffer since its last writer, that writer included. */
interface Users {
  readonly writer: Job | null;
  readonly readers: readonly Job[];
}

const NOBODY: Users = { writer: null, readers: [] };

/** Thrown by the witness. */
export class OrderError extends Error {
  override readonly name = "OrderError";
}

export class Witness {
  readonly #usersOf: Map<DmaBuf, Users> = new Map();
  /** What each unfinished job must come after, as far as that was unfinished at its submission. */
  readonly #unfinished: Map<Job, readonly Job[]> = new Map();

  /** Notes a job in the order of submission. */
  submit(job: Job): void {
    const earlier = job.accesses.flatMap((access) => this.#noteAccess(job, access));
    this.#unfinished.set(
      job,
      earlier.filter((other) => this.#unfinished.has(other)),
    );
  }

  #noteAccess(job: Job, { buf, isWrite }: Access): readonly Job[] {
    const { writer, readers } = this.#usersOf.get(buf) ?? NOBODY;
    this.#usersOf.set(
      buf,
      isWrite ? { writer: job, readers: [] } : { writer, readers: [...readers, job] },
    );
    const writers = writer === null ? [] : [writer];
    return isWrite ? [...writers, ...readers] : writers;
  }

  /** A device begins. OrderError (WT1, WT2). */
  begin(job: Job): void {
    for (const other of this.#unfinished.get(job) ?? []) {
      if (this.#unfinished.has(other)) {
        throw new OrderError(`${name(job)} began before ${name(other)} had finished`);
      }
      if (!job.waitsFor.has(other.fence)) {
        throw new OrderError(`${name(job)} passed without the fence of ${name(other)}`);
      }
    }
  }

  /** A device has finished. */
  end(job: Job): void {
    this.#unfinished.delete(job);
  }
}

function name({ device, pictureIndex }: Job): string {
  return `frame ${pictureIndex} on the ${device}`;
}
