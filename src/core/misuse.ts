/**
 * Misuse: writes into memory that nobody holds, as the core finds them, handed to whoever asked.
 *
 * - Q2  In a system with poison, the bytes of a frame that nobody holds do not change.
 *
 * @module
 */

import { DmaBufError, throwLater } from "../errors.ts";
import type { CoreExports } from "./exports.ts";

/** A rule that a user of the memory broke. */
export interface Misuse {
  /** The rule's id: "Q2", a write into a freed frame. */
  readonly rule: string;
  /** The frame. */
  readonly pfn: number;
  /** The same for a person; never thrown by the library. */
  readonly error: DmaBufError;
}

/** Called once the call that found a misuse has left the core; what it throws, no call catches. */
export type OnMisuse = (misuse: Misuse) => void;

const KEPT = 16;

/**
 * The exports with a look at the core's count of misuses behind each call. `onMisuse` runs outside
 * the core; of more than 16 misuses in one call it gets the last 16.
 */
export function watchMisuse(exports: CoreExports, onMisuse: OnMisuse): CoreExports {
  let seen = 0;
  const report = (): void => {
    const count = exports.misuseCount() >>> 0;
    const first = Math.max(seen, count - KEPT);
    seen = count; // before the callback, which may call in again
    for (let i = first; i < count; i++) deliver(onMisuse, exports.misusePfn(i) >>> 0);
  };
  const watched = Object.entries(exports).map(([name, value]) => {
    if (typeof value !== "function") return [name, value];
    const call = (...args: number[]): unknown => {
      const result: unknown = value(...args);
      report();
      return result;
    };
    return [name, call];
  });
  return Object.fromEntries(watched) as CoreExports;
}

function deliver(onMisuse: OnMisuse, pfn: number): void {
  const reason = "somebody wrote into it after it was freed (rule Q2)";
  const error = new DmaBufError("EFAULT", `trust free frame ${pfn}`, reason);
  try {
    onMisuse({ rule: "Q2", pfn, error });
  } catch (cause) {
    throwLater(cause);
  }
}
