import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Fence } from "../../../src/fence/fence.ts";
import { FenceChain } from "../../../src/fence/fence-chain.ts";
import { mergeFences, unwrapFence } from "../../../src/fence/unwrap.ts";
import { openSync } from "../../../src/system.ts";

/** A composite by its definition: which leaves it is made of, and when it has signaled. */
interface Twin {
  readonly fence: Fence;
  readonly isSignaled: (signaled: ReadonlySet<Fence>) => boolean;
  calls: number;
}

const leafCount = 6;
const leafIndex = fc.nat(leafCount - 1);
const step = fc.oneof(
  fc.record({ op: fc.constant("signal" as const), leaf: leafIndex }),
  fc.record({
    op: fc.constant("array" as const),
    leaves: fc.array(leafIndex, { minLength: 1, maxLength: 4 }),
    isAny: fc.boolean(),
  }),
  fc.record({ op: fc.constant("chain" as const), of: fc.nat(20), after: fc.nat(20) }),
  fc.record({ op: fc.constant("listen" as const), to: fc.nat(20) }),
  fc.record({ op: fc.constant("merge" as const), of: fc.array(fc.nat(20), { maxLength: 4 }) }),
);

describe("composite fences agree with their definition", () => {
  test("whatever is built, listened to and signaled, in any order", () => {
    const system = openSync({ memoryBytes: 1 << 20 });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const signaled = new Set<Fence>();
        const leaves = Array.from({ length: leafCount }, (_, i) => system.fence(`f${i}`));
        const twins: Twin[] = leaves.map((fence) => ({
          fence,
          isSignaled: (done) => done.has(fence),
          calls: 0,
        }));
        const expected: Twin[] = []; // whose callback must run, once
        const pick = (index: number): Twin => twins[index % twins.length] as Twin;
        for (const one of steps) {
          if (one.op === "signal") {
            leaves[one.leaf]?.signal();
            signaled.add(leaves[one.leaf] as Fence);
          } else if (one.op === "array") {
            const parts = one.leaves.map((i) => leaves[i] as Fence);
            const fence = system.fenceArray(parts, { mode: one.isAny ? "any" : "all" });
            const isSignaled = (done: ReadonlySet<Fence>): boolean =>
              one.isAny ? parts.some((part) => done.has(part)) : parts.every((p) => done.has(p));
            twins.push({ fence, isSignaled, calls: 0 });
          } else if (one.op === "chain") {
            const [inside, before] = [pick(one.of), pick(one.after)];
            if (inside.fence instanceof FenceChain) continue;
            const fence = system.fenceChain(before.fence, inside.fence, twins.length);
            const isSignaled = (done: ReadonlySet<Fence>): boolean =>
              inside.isSignaled(done) && before.isSignaled(done);
            twins.push({ fence, isSignaled, calls: 0 });
          } else if (one.op === "listen") {
            const twin = pick(one.to);
            if (expected.includes(twin)) continue;
            const isAdded = twin.fence.addCallback(() => {
              twin.calls += 1;
            });
            expect(isAdded).toBe(!twin.isSignaled(signaled));
            if (isAdded) expected.push(twin);
          } else {
            const merged = mergeFences(...one.of.map((index) => pick(index).fence));
            const pending = [...unwrapFence(merged)].filter((leaf) => !leaf.isSignaled);
            expect(new Set(pending).size).toBe(pending.length);
            expect(merged.isSignaled).toBe(pending.length === 0);
          }
          for (const twin of expected) expect(twin.calls).toBe(Number(twin.isSignaled(signaled)));
        }
        for (const twin of twins) expect(twin.fence.isSignaled).toBe(twin.isSignaled(signaled));
        for (const leaf of leaves) leaf.signal();
        for (const twin of expected) expect(twin.calls).toBe(1);
        expect(twins.every(({ fence }) => fence.isSignaled)).toBe(true);
        expect(system.check()).toBeNull();
      }),
      { numRuns: 300 },
    );
  });
});
