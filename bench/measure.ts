/**
 * How long one operation takes, down to a few nanoseconds.
 *
 *     run(1), run(8), … ─► warm: no batch got faster for a while ─► SAMPLES batches ─► median
 *
 * - M1  An operation runs in a loop inside the timed function: a clock call costs as much as ten of
 *       the calls measured here.
 * - M2  Nothing is timed before V8's optimising compilers have taken over: they work beside us on
 *       the same processor, so that takes time, not calls.
 *
 * tinybench keeps the samples and their statistics; sizing and warming the batches is done here.
 *
 * @module
 */

import assert from "node:assert/strict";
import { Bench } from "tinybench";

const SAMPLES = 101;
const SAMPLE_MS = 0.6; // below a time slice: most samples then have the processor alone
const WARM_MIN_MS = 200;
const WARM_MAX_MS = 1200;
/** Batches that are not this much faster than the best one are steady. */
const STEADY_RATIO = 0.98;
const STEADY_MS = 100;

/** What one operation took. */
export interface Timing {
  /** Median of the samples, in nanoseconds. */
  readonly nsPerOp: number;
  readonly lowNs: number;
  readonly highNs: number;
  readonly samples: number;
}

/** Times `run`, which does `opsPerRun` operations `count` times over. */
export function measure(run: (count: number) => void, opsPerRun: number): Timing {
  const count = warm(run);
  const bench = new Bench({ iterations: SAMPLES, time: 0, warmup: false, throws: true });
  bench.add("batch", () => run(count));
  const result = bench.runSync()[0]?.result;
  assert(result?.state === "completed");
  const scale = 1e6 / (count * opsPerRun); // milliseconds a batch to nanoseconds an operation
  const { p50, min, max, samplesCount } = result.latency;
  return {
    nsPerOp: p50 * scale,
    lowNs: min * scale,
    highNs: max * scale,
    samples: samplesCount,
  };
}

/** Runs batches until they are steady (M2); returns how large a batch of SAMPLE_MS is. */
function warm(run: (count: number) => void): number {
  const start = performance.now();
  let count = 1;
  let best = Number.POSITIVE_INFINITY; // milliseconds per run
  let bestAt = start;
  while (true) {
    const before = performance.now();
    run(count);
    const now = performance.now();
    const perRun = (now - before) / count;
    if (perRun < best * STEADY_RATIO) bestAt = now;
    best = Math.min(best, perRun);
    const isSteady = now - start > WARM_MIN_MS && now - bestAt > STEADY_MS;
    if (isSteady || now - start > WARM_MAX_MS) return Math.ceil(SAMPLE_MS / best);
    const wanted = Math.ceil(SAMPLE_MS / Math.max(perRun, 1e-7));
    count = Math.min(wanted, count * 8);
  }
}
