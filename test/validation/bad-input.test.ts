import { describe, expect, test } from "vitest";
import { DmaBufError } from "../../src/index.ts";
import { badCalls } from "../support/bad-input.ts";
import { makeWorld } from "../support/public-calls.ts";
import type { World } from "../support/public-world.ts";

/** What is held, and by whom; a device's faults are not counted: a refused access is one. */
function stateOf({ system, process }: World): unknown {
  const { faultCount: _, ...stats } = system.stats();
  const buffers = system.buffers.map((buf) => [buf.name, buf.stats(), buf.resv.isLocked]);
  return { stats, buffers, files: [system.files.fds, process.files.fds], check: system.check() };
}

/** What belongs to another system, for each object of this one. */
function twinsOf(objects: World, others: World): Map<unknown, unknown> {
  const names = Object.keys(objects) as (keyof World)[];
  const isObject = (name: keyof World) => typeof objects[name] === "object" && name !== "bytes";
  return new Map(names.filter(isObject).map((name) => [objects[name], others[name]]));
}

/** What a call throws, now or later; null: it takes the arguments. */
async function errorOf(call: () => unknown): Promise<unknown> {
  try {
    const result = call();
    if (result instanceof Promise) result.catch(() => {}); // also of who comes too late
    const later = new Promise((resolve) => setTimeout(resolve, 5));
    if (result instanceof Promise) await Promise.race([result, later]);
    return null;
  } catch (error) {
    return error;
  }
}

/** What answers "no" or "nothing" where others refuse. */
const questions = new Set(["system.ownerOf()", "system.exporterStats()", "buf.canAttach()"]);

const others = makeWorld().objects;
const names = makeWorld().calls.map(({ name }, i) => [name, i] as const);

describe("a bad argument is a typed error, and nothing has changed", () => {
  test.each(names)("%s", async (_, i) => {
    let world = makeWorld();
    const count = [...badCalls(world.calls[i]?.args ?? [], new Map())].length;
    let refused = 0;
    for (let k = 0; ; k++) {
      const { call, args } = world.calls[i] ?? { call: () => {}, args: [] };
      const bad = [...badCalls(args, twinsOf(world.objects, others))][k];
      if (bad === undefined) {
        expect(k).toBeGreaterThanOrEqual(count);
        break;
      }
      const before = stateOf(world.objects);
      const error = await errorOf(() => call(...(bad.args as never[])));
      if (error === null) {
        // It was not bad after all. Whether a fence has signaled is no part of the state.
        const isFence = world.calls[i]?.name.startsWith("fence.");
        if (isFence || JSON.stringify(stateOf(world.objects)) !== JSON.stringify(before))
          world = makeWorld();
        continue;
      }
      refused += 1;
      expect(error, bad.what).toBeInstanceOf(DmaBufError);
      expect((error as DmaBufError).message, bad.what).toMatch(/^Cannot .+: .+/s);
      expect(stateOf(world.objects), bad.what).toEqual(before);
    }
    expect(refused > 0).toBe(!questions.has(world.calls[i]?.name ?? ""));
  });
});
