/**
 * Progress: a bar on a terminal, nothing in a pipe.
 *
 * @module
 */

import { Presets, SingleBar } from "cli-progress";

/** A bar that is told how far a run has come. */
export interface Progress {
  update(doneCount: number, expectedCount: number): void;
  stop(): void;
}

/** A bar if someone watches: both streams are a terminal. */
export function createProgress(): Progress {
  if (!process.stdout.isTTY || !process.stderr.isTTY) return { update: () => {}, stop: () => {} };
  const format = "{bar} {value} of {total} frames";
  const bar = new SingleBar({ format, clearOnComplete: true }, Presets.shades_classic);
  return {
    update: (doneCount, expectedCount) => {
      if (!bar.isActive) bar.start(expectedCount, 0);
      bar.setTotal(Math.max(expectedCount, doneCount));
      bar.update(doneCount);
    },
    stop: () => bar.stop(),
  };
}
