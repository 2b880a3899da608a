import { describe, expect, test } from "vitest";
import { type KillCase, type Made, memoryCases, regionCases } from "./kill-cases.ts";
import { BOUNCE_LIMIT, deviceCases } from "./kill-cases-dma.ts";
import { servedCases } from "./kill-cases-served.ts";
import { alone, type Build, type Exports, YieldingMemory } from "./yielding.ts";

const DOOMED = 1;
const ESRCH = -3;
/** The debug core is slower, and does the same steps. DEBUG_STRIDE=1 for all of them. */
const DEBUG_STRIDE = Number(process.env.DEBUG_STRIDE ?? 3);
const MOST_WRONG = 4; // one finding is enough, and a few tell more about it

/** What stops a thread: no code of the core runs behind it, as when a Worker is terminated. */
class Killed extends Error {}

/** A memory with a thread that is to die, and one that lives. */
class Deathbed {
  readonly memory: YieldingMemory;
  readonly living: Exports;
  readonly doomed: Exports;
  /** The doomed thread is killed before its step `last`, counted from here on; 0: not at all. */
  last = 0;

  constructor(build: Build, backed: number, unbacked: number, prepare: (e: Exports) => void) {
    this.memory = new YieldingMemory(build, backed, unbacked, prepare);
    this.living = this.memory.first();
    this.doomed = this.memory.join(DOOMED, {
      ...alone,
      yield: () => {
        if (this.last > 0 && --this.last === 0) throw new Killed();
      },
    });
    this.memory.keep();
  }
}

/** Runs a case up to its step `step`, and whether it was killed there. */
function killAt(bed: Deathbed, one: KillCase, step: number): boolean {
  const { memory, living, doomed } = bed;
  memory.reset();
  bed.last = 0;
  const made: Made = {};
  const before = memory.counters();
  one.living?.(living, made);
  one.doomed?.(doomed, made);
  bed.last = step;
  const isKilled = dies(() => one.run(doomed, made));
  clean(bed, one, made);
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

function clean({ memory, living }: Deathbed, one: KillCase, made: Made): void {
  const freed = living.threadReap(DOOMED);
  if (freed < 0 && freed !== ESRCH) throw new Error(`reap() gave ${freed}`); // it had left
  expect(memory.broken()).toBe("");
  one.after?.(living, made);
  living.magazineDrain();
  expect(memory.broken()).toBe("");
}

/** Kills a case at every `stride`-th of its steps. How many it tried, and what went wrong where. */
function killEverywhere(bed: Deathbed, one: KillCase): [number, string[]] {
  const stride = bed.memory.build === "debug" ? DEBUG_STRIDE : 1;
  const wrong: string[] = [];
  for (let step = 1; ; step += stride) {
    try {
      if (!killAt(bed, one, step)) return [step - 1, wrong];
    } catch (error) {
      wrong.push(`step ${step}: ${(error as Error).message}`);
      if (wrong.length === MOST_WRONG) return [step, wrong];
    }
  }
}

const builds: readonly Build[] = ["debug", "release"];

describe.each(builds)("a thread that dies at a step of its own, %s core", (build) => {
  const small = new Deathbed(build, 512, 0, (exports) => {
    exports.bounceInit(1 << 18);
    while (exports.frameAlloc(1, 0, BOUNCE_LIMIT + 1) > 0);
  });
  test.each([...memoryCases, ...deviceCases, ...servedCases])("$name", (one) => {
    const [steps, wrong] = killEverywhere(small, one);
    expect(wrong).toEqual([]);
    expect(steps).toBeGreaterThan(0);
  });

  const regions = { lending: 0, unbacked: 0 };
  const large = new Deathbed(build, 2048, 1024, (exports) => {
    regions.lending = exports.cmaDeclare(1024, 1024, 0);
    regions.unbacked = exports.cmaDeclare(2048, 1024, 0);
  });
  test.each(regionCases(regions))("$name", (one) => {
    const [steps, wrong] = killEverywhere(large, one);
    expect(wrong).toEqual([]);
    expect(steps).toBeGreaterThan(0);
  });
});
