/**
 * What stands in for the exports of a core that has left its memory: its thread slot may be another
 * thread's by now, so nothing of it may run there again.
 *
 * - W3  A core that has left writes no byte of its memory: each function returns {@link LEFT}.
 *
 * @module
 */

import { LEFT } from "../errors.ts";
import type { CoreExports } from "./exports.ts";

const refuse = (): number => LEFT;

/** The constants of the exports, and functions that refuse. */
export function closedExports(exports: CoreExports): CoreExports {
  const closed = Object.entries(exports).map(([name, value]) => [
    name,
    typeof value === "function" ? refuse : value,
  ]);
  return Object.fromEntries(closed) as CoreExports;
}
