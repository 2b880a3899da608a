import { describe, expect, test } from "vitest";
import { DmaBufError } from "../../src/index.ts";
import { badCalls } from "../support/bad-input.ts";
import { makeWorld } from "../support/public-calls.ts";
import { publicSurface } from "../support/public-surface.ts";
import { stateOf, type World } from "../support/public-world.ts";

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

/** What answers "no" or "nothing", or says something for people, where others refuse. */
const questions = new Set([
  "system.ownerOf()",
  "system.exporterStats()",
  "system.check()",
  "core.check()",
  "inlinedModule()",
  "buf.canAttach()",
  "symbols.visibleTo()",
  "isGplCompatible()",
  "hasLayout()",
  "isDmaMappingError()",
  "dirty.has()",
  "region.explain()",
  "user.page()",
  "usageFor()",
  "files.find()",
  "files.requireFree()",
  "fence.removeCallback()",
  "imported.removeCallback()",
  "both.matchesContext()",
  "queue.remove()",
]);

const isAsHostSays = "what it is given is the host's own, and so are its errors";
const isErrorItself = "it makes an error of whatever it is given";
const isMemory = "like the memory itself, it does not look at addresses";

/** What has no row, and why. */
const exempt = new Map([
  ["DmaBufError.constructor", isErrorItself],
  ["ConflictError.constructor", isErrorItself],
  ["DmaFaultError.constructor", isErrorItself],
  ["drawPicture", isAsHostSays],
  ["readCanvas", isAsHostSays],
  ["copyFromVideoFrame", isAsHostSays],
  ["videoFrameOf", isAsHostSays],
  ["Core.view", isMemory],
  ["Core.word", isMemory],
  ["Core.byteOffsetOf", isMemory],
]);

const others = makeWorld().objects;
const names = makeWorld().calls.map(({ name }, i) => [name, i] as const);

test("every public function and method that takes arguments has a row, or a reason", async () => {
  const surface = await publicSurface();
  const covered = new Set(makeWorld().calls.map(({ covers }) => covers));
  const asked = surface.filter(({ takesArguments }) => takesArguments).map(({ name }) => name);
  expect(asked.length).toBeGreaterThan(200);
  expect(asked.filter((name) => !covered.has(name) && !exempt.has(name))).toEqual([]);
  const known = new Set(surface.map(({ name }) => name));
  const gone = [...covered, ...exempt.keys()].filter((name) => !known.has(name));
  expect([gone, [...exempt.keys()].filter((name) => covered.has(name))]).toEqual([[], []]);
});

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
