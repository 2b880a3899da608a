import { describe, expect, test } from "vitest";
import { type KillCase, type Made, memoryCases, regionCases } from "./kill-cases.ts";
import { BOUNCE_LIMIT, deviceCases } from "./kill-cases-dma.ts";
import { alone, type Build, type Exports, type Steps, YieldingMemory } from "./yielding.ts";

const DOOMED = 1;
const ESRCH = -3;
const MOST_WRONG = 4; // one finding is enough, and a few tell more about it

/** What stops a thread: no code of the core runs behind it, as when a Worker is terminated. */
class Killed extends Error {}

/** Steps that end with the `last`-th. */
function until(last: number): Steps {
  let left = last;
  return {
    ...alone,
    yield() {
      if (--left === 0) throw new Killed();
    },
  };
}

/** Runs a case up to its step `step`, and whether it was killed there. */
function killAt(memory: YieldingMemory, one: KillCase, step: number): boolean {
  memory.reset();
  const made: Made = {};
  const living = memory.first();
  const before = memory.counters();
  one.living?.(living, made);
  let steps: Steps = alone;
  const doomed = memory.join(DOOMED, {
    ...alone,
    yield: (kind) => steps.yield(kind),
  });
  one.doomed?.(doomed, made);
  steps = until(step);
  const isKilled = dies(() => one.run(doomed, made));
  clean(memory, living, one, made);
  expect(memory.counters()).toEqual(before);
  return isKilled;
}

function dies(run: () => void): boolean {
  try {
    run();
  } catch (error) {
    if (error instanceof Killed) return true;
    throw error;
  }
  return false;
}

function clean(memory: YieldingMemory, living: Exports, one: KillCase, made: Made): void {
  const freed = living.threadReap(DOOMED);
  if (freed < 0 && freed !== ESRCH) throw new Error(`reap() gave ${freed}`); // it had left
  expect(memory.broken()).toBe("");
  one.after?.(living, made);
  living.magazineDrain();
  expect(memory.broken()).toBe("");
}

/** Kills a case at each of its steps in turn. How many there were, and what went wrong where. */
function killEverywhere(memory: YieldingMemory, one: KillCase): [number, string[]] {
  const wrong: string[] = [];
  for (let step = 1; ; step++) {
    try {
      if (!killAt(memory, one, step)) return [step - 1, wrong];
    } catch (error) {
      wrong.push(`step ${step}: ${(error as Error).message}`);
      if (wrong.length === MOST_WRONG) return [step, wrong];
    }
  }
}

const builds: readonly Build[] = ["debug", "release"];

describe.each(builds)("a thread that dies at a step of its own, %s core", (build) => {
  const small = new YieldingMemory(build, 512, 0, (exports) => {
    exports.bounceInit(1 << 18);
    while (exports.frameAlloc(1, 0, BOUNCE_LIMIT + 1) > 0);
  });
  test.each([...memoryCases, ...deviceCases])("$name", (one) => {
    const [steps, wrong] = killEverywhere(small, one);
    expect(wrong).toEqual([]);
    expect(steps).toBeGreaterThan(0);
  });

  const regions = { lending: 0, unbacked: 0 };
  const large = new YieldingMemory(build, 2048, 1024, (exports) => {
    regions.lending = exports.cmaDeclare(1024, 1024, 0);
    regions.unbacked = exports.cmaDeclare(2048, 1024, 0);
  });
  test.each(regionCases(regions))("$name", (one) => {
    const [steps, wrong] = killEverywhere(large, one);
    expect(wrong).toEqual([]);
    expect(steps).toBeGreaterThan(0);
  });
});
