// Forged numbers for every export of the core: handles of nobody and what is no number of anything,
// then handles of every kind among them. Nothing traps, and all invariants hold. Forged numbers
// alone get an errno or "nothing", and what is refused has changed nothing.

import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { type CoreVariant, eachCore, type TestCore } from "../support/cores.ts";
import { fuzzSeed, Prng } from "../support/prng.ts";
import { expectSound, freeCount } from "../support/sound.ts";

const NONE = 0xffffffff;

/** Numbers that name nothing and count nothing. */
const forged = [Number.NaN, -1, 0, 0.5, 2 ** 31, 2 ** 31 - 1, NONE - 1, 2 ** 53, -(2 ** 31)];

function busy(build: CoreVariant): { core: TestCore; handles: number[] } {
  const core = build.open(4096);
  const { exports } = core;
  const domain = exports.iommuDomainAlloc();
  const device = exports.dmaDeviceAdd(domain, NONE, 65536, NONE, NONE, 0, 0, 32);
  const table = exports.storageAllocBlocks(16, NONE, 0);
  const mapping = exports.dmaMapTable(device, table, 0, 0);
  const pin = exports.pinAdd(table);
  const buffer = exports.bufferAlloc(exports.storageAllocBlocks(4, NONE, 0), 16384);
  const fence = exports.fenceAlloc(exports.fenceContextAlloc(1), 1);
  const pool = exports.poolAlloc(2);
  const movable = exports.movableAlloc(3);
  const handles = [domain, device, table, mapping, pin, buffer, fence, pool, movable];
  for (const handle of handles) expect(handle).toBeGreaterThan(0);
  return { core, handles };
}

/** Frames by state, and pins: what every object and holder shows in. */
const stateOf = ({ exports }: TestCore): unknown => [
  freeCount({ exports }),
  [2, 3, 4, 5, 6, 7, 8].map((state) => exports.frameCountIn(state)),
  exports.pinnedFrameCount(),
];

const declarations = readFileSync(new URL("../../src/core/exports.ts", import.meta.url), "utf8");

/** The names of an export's parameters. */
function parametersOf(name: string): string[] {
  const [, list = ""] = new RegExp(`^ {2}${name}\\(([^)]*)\\)`, "m").exec(declarations) ?? [];
  return [...list.matchAll(/(\w+): number/g)].map(([, parameter = ""]) => parameter);
}

/** They work on a record of the caller's own, at the address that they are given. */
const takesAddress = /^(bitmap|iova|pgt)[A-Z]/;
/** They begin or end a thread's use of the memory, or put all of it in order. */
const whole = ["coreOpen", "coreJoin", "coreLeave", "magazineDrain", "compact"];
/** They count or tell, or make what takes no argument, or a 0 that means something. */
const answers = new Set([
  "scratchAt",
  "threadReserve",
  "threadState",
  "frameWord",
  "frameCountIn",
  "largestFreeRun",
  "pinnedFrameCount",
  "iommuDomainAlloc",
  "iommuDomainAllocFixed",
  "dmaDeviceAdd",
  "fenceContextAlloc",
  "fenceAlloc",
  "bufferServe",
]);

const isErrno = (result: number): boolean => result < 0 && result > -4096;

describe.each(eachCore)("forged numbers on the $name core", (build) => {
  const all = build.open(1024).exports;
  const names = Object.keys(all).filter((name) => typeof all[name] === "function");
  const asked = names.filter((name) => !takesAddress.test(name) && !whole.includes(name));
  const seed = fuzzSeed(20_261_121);

  test("are tried on most exports", () => {
    expect(asked.length).toBeGreaterThan(120);
    expect([...whole, ...answers].filter((name) => !names.includes(name))).toEqual([]);
  });

  test.each(asked)("%s()", (name) => {
    const random = new Prng(seed);
    const { core, handles } = busy(build);
    const call = core.exports[name];
    const parameters = parametersOf(name);
    expect(parameters).toHaveLength(call.length);
    const hasList = parameters.some((one) => one.endsWith("At"));
    /** A list is read where it is said to be, as long as it is said to be. */
    const numberFor = (parameter: string, numbers: readonly number[]): number => {
      if (numbers === forged || !hasList) return random.pick(numbers);
      if (parameter.endsWith("At")) return core.scratchAt;
      return random.pick(/^(count|length)$/.test(parameter) ? [...forged, 1, 8] : numbers);
    };
    const tryWith = (numbers: readonly number[]): { what: string; result: number } => {
      const args = parameters.map((parameter) => numberFor(parameter, numbers));
      const result = call(...args) ?? 0;
      return { what: `seed ${seed}: ${name}(${args.join(", ")}) = ${result}`, result };
    };
    const before = stateOf(core);
    for (let i = 0; i < 60 && !answers.has(name); i++) {
      const { what, result } = tryWith(forged);
      expect(result, what).toBeLessThanOrEqual(0);
      expect(stateOf(core), what).toEqual(before);
    }
    for (let i = 0; i < 60; i++) {
      const state = stateOf(core);
      const { what, result } = tryWith([...forged, 1, ...handles]);
      if (isErrno(result)) expect(stateOf(core), what).toEqual(state);
    }
    expectSound(core, `seed ${seed}`);
  });
});
