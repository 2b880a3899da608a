import { describe, expect, test } from "vitest";
import { openSync } from "../../src/system.ts";
import { eachCore } from "../support/cores.ts";
import { hire } from "./crew.ts";

// STRESS_PAIRS=50000000 npx vitest run test/workers/stress.test.ts   the same as long as wanted
const MiB = 1 << 20;
const NONE = 0xffffffff;
const release = eachCore.filter(({ name }) => name === "release, shared");
const pairs = Number(process.env.STRESS_PAIRS ?? 12_000_000);

describe.each(release)("stress on the $name core", ({ wasm }) => {
  test.each([2, 4])(
    "%i Workers, an owner count for each frame: none is given twice, none is lost",
    async (workers) => {
      const system = openSync({ wasm, shared: true, memoryBytes: 16 * MiB, threads: workers + 1 });
      const { exports } = system.core;
      const counters = exports.frameAlloc(4, 2, NONE); // a word for each of 4096 frames
      system.core.u32.fill(0, counters * 1024, (counters + 4) * 1024);
      const before = system.stats().freeFrames;
      const hands = await Promise.all(
        Array.from({ length: workers }, (_, i) =>
          hire(system, "churnFrames", {
            pairs: pairs / workers,
            ownersAt: counters * 4096,
            seed: 7 * i + 1,
          }),
        ),
      );
      const done = await Promise.all(hands.map((hand) => hand.done()));
      expect(done).toEqual(Array.from({ length: workers }, () => pairs / workers));
      expect(system.check(true)).toBeNull();
      exports.magazineDrain();
      expect(system.stats().freeFrames).toBe(before);
      system.close();
    },
    3_600_000,
  );

  test.each(["buddy", "region"])(
    "a frame of the %s is freed or pinned, never both (A3, C4, P3)",
    async (source) => {
      const cma = { default: 4 * MiB };
      const system = openSync({ wasm, shared: true, memoryBytes: 16 * MiB, threads: 3, cma });
      const { exports } = system.core;
      const region = source === "region" ? system.region("default").handle : 0;
      const runAt = exports.frameAlloc(1, 0, NONE) * 4096;
      system.core.u32.fill(0, runAt / 4, runAt / 4 + 2);
      const before = system.stats();
      const rounds = Math.floor(pairs / 40);
      const [owner, pinner] = await Promise.all([
        hire(system, "freeAgainstPins", { rounds, runAt, region }),
        hire(system, "pinRuns", { runAt }),
      ]);
      expect(await owner.done()).toBeGreaterThan(0); // they met
      expect(await pinner.done()).toBeGreaterThan(0);
      expect(system.check(true)).toBeNull();
      expect(system.stats().freeFrames).toBe(before.freeFrames);
      expect(system.stats().pinnedFrames).toBe(0);
      system.close();
    },
    3_600_000,
  );

  test("4 Workers map, pin, attach and import one buffer: mapCount and pins are exact", async () => {
    const system = openSync({ wasm, shared: true, memoryBytes: 16 * MiB, threads: 6 });
    const buf = system.heap("system").alloc(300_000);
    const { token } = buf;
    const rounds = Math.max(1, Math.floor(pairs / 3000));
    const hands = await Promise.all(
      Array.from({ length: 4 }, () => hire(system, "useTogether", { token, rounds })),
    );
    expect(await Promise.all(hands.map((hand) => hand.done()))).toEqual([
      rounds,
      rounds,
      rounds,
      rounds,
    ]);
    expect(system.stats().pinnedFrames).toBe(0);
    expect(buf.storage?.mapCount).toBe(0);
    expect(system.check(true)).toBeNull();
    buf.put();
    system.close();
  }, 3_600_000);
});
