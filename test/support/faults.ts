/**
 * Sweeps over injected faults: the n-th allocation of a call fails, for every n.
 *
 * @module
 */

import { expect } from "vitest";
import type { Core } from "../../src/core/core.ts";
import { type CoreVariant, eachCore } from "./cores.ts";
import { headerWords } from "./header.ts";
import { expectSound } from "./sound.ts";

/** The cores that inject faults. */
export const faultyCores: readonly CoreVariant[] = eachCore.filter(({ name }) =>
  name.startsWith("debug"),
);

/** A failure that goes on: every allocation from the n-th on. */
export const FOR_EVER = 0xffffffff;

const STATES = 10;

/** What is held: frames by state, objects, pins. */
export function holdings(core: Core): Record<string, number> {
  const { exports } = core;
  exports.magazineDrain();
  const states = Array.from({ length: STATES }, (_, state) => exports.frameCountIn(state));
  const objects = core.word(exports.HEADER_AT.value, headerWords.objectCount);
  return { objects, pinned: exports.pinnedFrameCount(), ...Object.fromEntries(states.entries()) };
}

/**
 * Calls `attempt` with its first, second, … allocation failing `times` times, until a call leaves
 * the fault unused. `attempt` undoes what it did and says whether it succeeded; whatever it says,
 * nothing may be held that was not held before. How many attempts failed.
 */
export function sweepFaults(core: Core, times: number, attempt: () => boolean): number {
  const { exports } = core;
  expect(attempt(), "the call without a fault").toBe(true);
  const before = holdings(core);
  let failed = 0;
  for (let nth = 1; ; nth++) {
    exports.faultArm(nth, times);
    const isDone = attempt();
    const isUsed = exports.faultDisarm() >>> 0 !== times;
    expectSound({ exports }, `allocation ${nth} failed`);
    expect(holdings(core), `allocation ${nth} failed`).toEqual(before);
    if (!isDone) failed += 1;
    if (isUsed) continue;
    expect(isDone, "a call without a fault").toBe(true);
    return failed;
  }
}
