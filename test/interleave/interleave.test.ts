import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Prng } from "../support/prng.ts";
import { type Family, families, type Prepared } from "./families.ts";
import { describeHistory, linearize } from "./linearize.ts";
import { eachSchedule, randomWalk } from "./schedules.ts";
import { type Choose, type Program, Stage } from "./stage.ts";
import type { Build, Exports } from "./yielding.ts";

// SEEDS=100000 npx vitest run test/interleave    more of them
// SEED=17 npx vitest run test/interleave         one of them again
const SEEDS = Number(process.env.SEEDS ?? 500);
const SEED = process.env.SEED;
const THREADS = 3;
const MOST_STEPS = 60;

const builds: readonly Build[] = ["debug", "release"];

/** Runs a program, and says what is wrong with what happened: "" for nothing. */
function judge(stage: Stage, family: Family, program: Program, choose: Choose): string {
  const { history, wrong } = stage.run(program, choose);
  if (wrong !== "") return `${wrong}\n${describeHistory(history)}`;
  if (linearize(family.model(history), history) !== null) return "";
  return `no order explains\n${describeHistory(history)}`;
}

function randomProgram(family: Family, rng: Prng, prepared: Prepared): Program {
  return Array.from({ length: THREADS }, (_, i) => family.calls(rng, i + 1, THREADS, prepared));
}

const seeds = SEED === undefined ? Array.from({ length: SEEDS }, (_, i) => i + 1) : [Number(SEED)];

describe.each(builds)("threads that take turns, %s core:", (build) => {
  describe.each(families)("$name", (family) => {
    let stage: Stage;
    let prepared: Prepared = {};
    beforeAll(async () => {
      const prepare = (exports: Exports): void => {
        prepared = family.prepare(exports);
      };
      const join = (exports: Exports): void => family.join?.(exports, prepared);
      stage = await Stage.open(build, THREADS, family.operations, prepare, join);
    });
    afterAll(() => stage.close());

    test("every history of a random program and schedule has an order that explains it", () => {
      for (const seed of seeds) {
        const rng = new Prng(seed);
        stage.stores = seed % 2 === 0;
        const program = randomProgram(family, rng, prepared);
        expect(judge(stage, family, program, randomWalk(rng)), `SEED=${seed}`).toBe("");
      }
    });

    test("so has every schedule of small programs with at most two preemptions", () => {
      stage.stores = false;
      for (const program of family.small(prepared))
        eachSchedule(MOST_STEPS, (schedule, label) => {
          expect(judge(stage, family, program, schedule.choose), label).toBe("");
        });
    });
  });
});

test("a seed gives the same run again", async () => {
  const family = families[0] as Family;
  const stage = await Stage.open(
    "release",
    THREADS,
    family.operations,
    () => {},
    () => {},
  );
  stage.stores = true;
  const [first, again] = [7, 7].map((seed) => {
    const rng = new Prng(seed);
    return stage.run(randomProgram(family, rng, {}), randomWalk(rng));
  });
  expect(first?.steps).toBeGreaterThan(100);
  expect(again).toEqual(first);
  await stage.close();
});

describe("the net has no holes:", () => {
  const found = async (
    name: string,
    build: Build,
    damage: (stage: Stage, prepared: Prepared) => void,
  ): Promise<string[]> => {
    const family = families.find((one) => one.name === name) as Family;
    let prepared: Prepared = {};
    const prepare = (exports: Exports): void => {
      prepared = family.prepare(exports);
    };
    const stage = await Stage.open(build, THREADS, family.operations, prepare, () => {});
    damage(stage, prepared);
    stage.stores = true;
    const wrong: string[] = [];
    for (let seed = 1; seed <= 300; seed++) {
      const rng = new Prng(seed);
      const program = randomProgram(family, rng, prepared);
      const said = judge(stage, family, program, randomWalk(rng));
      if (said !== "") wrong.push(said.split("\n")[0] as string);
    }
    await stage.close();
    return wrong;
  };

  const at = (stage: Stage, offset: number): number =>
    stage.memory.core.exports.HEADER_AT.value + offset;

  test.each([
    ["frames", "framesLock", (stage: Stage) => at(stage, 128)],
    ["owners", "framesLock", (stage: Stage) => at(stage, 128)],
    ["fences", "slabLock", (stage: Stage) => at(stage, 192)],
    ["buffers", "slabLock", (stage: Stage) => at(stage, 192)],
    [
      "regions",
      "a region's lock",
      (stage: Stage, { region = 0 }: Prepared) => stage.memory.core.exports.cmaRegionAt(region),
    ],
    [
      "domains",
      "a domain's lock",
      (stage: Stage, { domain = 0 }: Prepared) => stage.memory.core.exports.iommuDomainAt(domain),
    ],
  ])("%s: that %s is not held is found", async (name, _, lockAt) => {
    const wrong = await found(name, "release", (stage, prepared) => {
      stage.forgotten = lockAt(stage, prepared);
    });
    expect(wrong.length).toBeGreaterThan(0);
  });

  test("fences: that nobody is woken is found", async () => {
    const wrong = await found("fences", "release", (stage) => {
      stage.deaf = true;
    });
    expect(wrong.some((said) => said.startsWith("all sleep"))).toBe(true);
  });
});
