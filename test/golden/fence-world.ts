/**
 * FenceWorld: the fences of one record, what their ops and callbacks were heard to do, and errors
 * by number.
 *
 * @module
 */

import { DmaBufError, type ErrnoCode, errno, type Fence, type FenceOps } from "dmabuf";
import { type Bed, EINVAL } from "./bed.ts";

/** What a call on a signaled or a missing fence is in the records. */
export const ENOENT = -2;

/** The fences of one record. Ended by {@link FenceWorld.close}, so that none stays pending. */
export class FenceWorld {
  readonly bed: Bed;
  readonly #fences: Fence[] = [];
  #trace: string[] = [];

  constructor(bed: Bed) {
    this.bed = bed;
  }

  /** A fence that says when its ops are called. */
  fence(index: number, options: { context?: number; seqno?: number; ops?: FenceOps } = {}): Fence {
    const fence = this.bed.system.fence(`f${index}`, options);
    this.#fences.push(fence);
    return fence;
  }

  /** Ops that note `enable_signaling fN` and agree. */
  enableOps(index: number): FenceOps {
    return {
      enableSignaling: () => {
        this.note(`enable_signaling f${index}`);
        return true;
      },
    };
  }

  /** A callback that notes `cbN status=S signaledBit=B`. */
  callback(index: number): (fence: Fence) => void {
    return (fence) => {
      const bit = Number(fence.isMarkedSignaled);
      this.note(`cb${index} status=${fence.status} signaledBit=${bit}`);
    };
  }

  note(line: string): void {
    this.#trace.push(line);
  }

  /** What was noted since the last call. */
  heard(): string[] {
    const trace = this.#trace;
    this.#trace = [];
    return trace;
  }

  close(): void {
    for (const fence of this.#fences) fence.release();
  }
}

/** The name of a negative errno, as signal() takes it; null for 0. */
export function codeOf(error: number): ErrnoCode | null {
  if (error === 0) return null;
  const found = Object.entries(errno).find(([, number]) => number === -error);
  if (found === undefined) throw new RangeError(`the library has no name for errno ${-error}`);
  return found[0] as ErrnoCode;
}

/** What `call` returns, or the negative errno that it throws. */
export function errnoOr<T>(call: () => T): T | number {
  try {
    return call();
  } catch (error) {
    if (error instanceof DmaBufError) return -error.errno;
    throw error;
  }
}

/**
 * A call on no object. Where the kernel is given a null pointer, there is nothing here to call: the
 * language refuses, and that counts as EINVAL.
 */
export function onNone(call: () => unknown): number {
  try {
    call();
  } catch (error) {
    if (error instanceof TypeError) return EINVAL;
    throw error;
  }
  return 0;
}
