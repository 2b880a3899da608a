/**
 * Processors: how many of them the others left free while something was measured.
 *
 *     all of them, minus what all processes used, plus what this one used
 *
 * - PR1  It is an upper limit: whoever waited for a processor that we had counts as idle.
 *
 * @module
 */

import { cpus } from "node:os";

/** Starts to watch. What it returns tells how many were free since. */
export function watchProcessors(): () => number {
  const [before, own, start] = [busyMs(), process.cpuUsage(), performance.now()];
  return () => {
    const elapsed = performance.now() - start;
    const { user, system } = process.cpuUsage(own); // microseconds, all threads
    const others = Math.max(0, busyMs() - before - (user + system) / 1000);
    return Math.max(0, cpus().length - others / elapsed);
  };
}

/** Milliseconds that all processors have worked since the machine was started. */
function busyMs(): number {
  const used = cpus().map(({ times }) => times.user + times.nice + times.sys + times.irq);
  return used.reduce((sum, ms) => sum + ms, 0);
}
