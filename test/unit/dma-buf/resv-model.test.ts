import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Fence, ResvUsage, Timeline } from "../../../src/index.ts";
import { MiB, Resv, resvUsages } from "../../../src/index.ts";
import { eachCore } from "../../support/cores.ts";

const TIMELINES = 3;

const usage = fc.constantFrom<ResvUsage>("kernel", "write", "read", "bookkeep");
const step = fc.oneof(
  { weight: 4, arbitrary: fc.record({ op: fc.constant("add" as const), at: fc.nat(9), usage }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant("advance" as const), at: fc.nat(9) }) },
  fc.record({ op: fc.constant("reserve" as const), count: fc.nat(9) }),
  fc.record({ op: fc.constant("copy" as const) }),
);

/** An operation that somebody said is under way. */
interface Said {
  readonly fence: Fence;
  readonly rank: number;
}

/** What a list means, whatever its places are: who waits for it waits for all that was added. */
function expectMeaning(resv: Resv, said: readonly Said[]): void {
  const pending = said.filter(({ fence }) => !fence.isSignaled);
  for (const [rank, name] of resvUsages.entries()) {
    const found = resv.fences(name);
    const wanted = pending.filter((one) => one.rank <= rank);
    const isCovered = ({ fence }: Said): boolean =>
      found.some(({ context, seqno }) => context === fence.context && seqno >= fence.seqno);
    expect(wanted.filter((one) => !isCovered(one))).toEqual([]); // nothing is lost
    const isWanted = (fence: Fence): boolean => wanted.some((one) => one.fence === fence);
    expect(found.filter((fence) => !isWanted(fence))).toEqual([]); // nobody waits for more
    expect(resv.testSignaled(name)).toBe(found.length === 0);
    const single = resv.getSingleton(name);
    expect(single === null ? 0 : single.isContainer ? 2 : 1).toBe(Math.min(found.length, 2));
  }
  expect(resv.entries.length).toBeLessThanOrEqual(resv.capacity); // RV4
}

describe.each(eachCore)("what a reservation means on the $name core", (build) => {
  test("does not depend on how fences replace each other, move and are forgotten", () => {
    const system = build.system({ memoryBytes: MiB });
    const property = fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const timelines = Array.from({ length: TIMELINES }, (_, i) => system.timeline(`t${i}`));
      const fences: Fence[] = timelines.flatMap((one) => [one.fence(), one.fence(), one.fence()]);
      let resv = new Resv(system.core);
      const said: Said[] = [];
      for (const one of steps) {
        if (one.op === "add") {
          const fence = fences[one.at] ?? (timelines[one.at % TIMELINES] as Timeline).fence();
          if (!fences.includes(fence)) fences.push(fence);
          resv.addFence(fence, one.usage);
          said.push({ fence, rank: resvUsages.indexOf(one.usage) });
        } else if (one.op === "advance") timelines[one.at % TIMELINES]?.advance();
        else if (one.op === "reserve") {
          resv.reserveFences(one.count);
          const { capacity, entries } = resv;
          expect(capacity).toBeGreaterThanOrEqual(entries.length + one.count);
        } else {
          const copy = new Resv(system.core);
          copy.copyFences(resv);
          resv = copy;
        }
        expectMeaning(resv, said);
      }
      for (const one of timelines) one.close();
      expectMeaning(resv, said);
      expect(system.check()).toBeNull();
    });
    fc.assert(property, { numRuns: 150 });
  });
});
