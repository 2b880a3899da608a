import { describe, expect, test } from "vitest";
import { operations } from "./operations.mjs";
import { type Call, Stage } from "./stage.ts";
import type { Build, Exports } from "./yielding.ts";

const builds: readonly Build[] = ["debug", "release"];
const own = (call: number) => ({ thread: 1, call });

/** What a Worker does when it is terminated: `region` and `domain` are thread 0's. */
const programs = (region: number, domain: number): Record<string, readonly Call[]> => ({
  frames: [
    ["useFrames", 1],
    ["useFrames", 16],
  ],
  "a run of a region": [["useRun", region, 3]],
  pins: [
    ["allocFrames", 3],
    ["pinFrames", own(0), 3],
    ["unpinFrames", own(0), 3],
  ],
  "a fence": [["makeFence"], ["signalFence", own(0)], ["freeFence", own(0)]],
  "a buffer": [
    ["makeBuffer", 3],
    ["freeBuffer", own(0)],
  ],
  "another thread's domain": [
    ["map", domain, 512, 3],
    ["unmap", domain, 512, 3],
  ],
});

// kill.test.ts does the same without Workers, at every store too, for many more operations.
describe.each(builds)("a Worker that is terminated at a step, %s core", (build) => {
  test("at each lock and atomic access in turn: nothing leaks, and nobody hangs", async () => {
    let [region, domain] = [0, 0];
    const prepare = (exports: Exports): void => {
      region = exports.cmaDeclare(1024, 1024, 0);
      domain = exports.iommuDomainAlloc();
      exports.iommuMap(domain, 512, 1, 1, 3); // so that the table is there already
      exports.iommuUnmap(domain, 512, 1);
    };
    const stage = await Stage.open(build, 1, Object.keys(operations), prepare, () => {});
    const { memory } = stage;
    const living = memory.first();
    memory.reset();
    const before = memory.counters();
    let killed = 0;
    for (const [name, calls] of Object.entries(programs(region, domain))) {
      for (let step = 1; await stage.killAt(step, calls); step++) {
        killed += 1;
        expect(living.threadReap(1), `${name}, step ${step}`).toBeGreaterThanOrEqual(0);
        expect(memory.broken(), `${name}, step ${step}`).toBe("");
        living.iommuUnmap(domain, 512, 3); // what was mapped page by page stays
        living.magazineDrain();
        expect(memory.counters(), `${name}, step ${step}`).toEqual(before);
      }
    }
    expect(killed).toBeGreaterThan(30);
    await stage.close();
  });
});
