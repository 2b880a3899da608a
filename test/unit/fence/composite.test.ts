import { describe, expect, test, vi } from "vitest";
import { type Fence, signaledFence } from "../../../src/fence/fence.ts";
import { FenceArray, matchesContext } from "../../../src/fence/fence-array.ts";
import { type FenceChain, findSeqno, walkChain } from "../../../src/fence/fence-chain.ts";
import { isLater, isSeqnoLater, laterFence } from "../../../src/fence/order.ts";
import { latestOfEachContext, mergeFences, unwrapFence } from "../../../src/fence/unwrap.ts";
import { eachCore } from "../../support/cores.ts";
import { expectError } from "../../support/errors.ts";

describe.each(eachCore)("composite fences on the $name core", (build) => {
  const open = () => build.system({ memoryBytes: 1 << 20 });
  const fencesOf = (system: ReturnType<typeof open>, count: number): Fence[] =>
    Array.from({ length: count }, (_, i) => system.fence(`f${i}`));

  describe("fence array", () => {
    test("of all signals with the last part, after that part's callbacks", () => {
      const system = open();
      const [a, b] = fencesOf(system, 2) as [Fence, Fence];
      const array = system.fenceArray([a, b]);
      const order: string[] = [];
      array.addCallback(() => order.push("array"));
      b.addCallback(() => order.push("part"));
      a.signal();
      expect([array.isSignaled, order]).toEqual([false, []]);
      b.signal();
      expect([array.status, order]).toEqual([1, ["part", "array"]]);
    });

    test("of any signals with the first part and lets go of the others", () => {
      const system = open();
      const [a, b] = fencesOf(system, 2) as [Fence, Fence];
      const array = system.fenceArray([a, b], { mode: "any" });
      const callback = vi.fn();
      array.addCallback(callback);
      b.signal();
      a.signal("EIO");
      expect([array.status, callback.mock.calls.length]).toEqual([1, 1]);
    });

    test("ends with the first error of a part that it was hooked to", () => {
      const system = open();
      const [a, b, c] = fencesOf(system, 3) as [Fence, Fence, Fence];
      const array = system.fenceArray([a, b, c]);
      array.enableSignaling();
      b.signal("EIO");
      a.signal("ENOMEM");
      c.signal();
      expect(array.error?.code).toBe("EIO");
      const unhooked = system.fenceArray([a, b]);
      expect(unhooked.status).toBe(1);
    });

    test("of parts that have signaled is signaled when asked", () => {
      const system = open();
      const [a] = fencesOf(system, 1) as [Fence];
      a.signal();
      const array = system.fenceArray([a]);
      expect(array.isMarkedSignaled).toBe(false);
      expect(array.addCallback(() => {})).toBe(false);
      expect(array.isMarkedSignaled).toBe(true);
    });

    test("counts a part as often as it is given", () => {
      const system = open();
      const [a] = fencesOf(system, 1) as [Fence];
      const array = system.fenceArray([a, a]);
      array.enableSignaling();
      a.signal();
      expect(array.isMarkedSignaled).toBe(true);
    });

    test("refuses to be empty, and composites as parts", () => {
      const system = open();
      const [a] = fencesOf(system, 1) as [Fence];
      const array = system.fenceArray([a]);
      const chain = system.fenceChain(null, a, 1);
      expectError("EINVAL", () => system.fenceArray([]));
      expectError("EINVAL", () => system.fenceArray([array]));
      expectError("EINVAL", () => system.fenceArray([chain]));
      expectError("EINVAL", () => system.fenceArray([null as unknown as Fence]));
      expectError("EINVAL", () => open().fenceArray([a]));
      expectError("EINVAL", () => open().fenceChain(null, a, 1));
      expect(open().fenceArray([signaledFence()]).isSignaled).toBe(true);
    });

    test("matches a context when all parts do, and passes deadlines on", () => {
      const system = open();
      const setDeadline = vi.fn();
      const [a, b] = fencesOf(system, 2) as [Fence, Fence];
      const hinted = system.fence("hinted", { context: a.context, seqno: 2, ops: { setDeadline } });
      const array = system.fenceArray([a, hinted]);
      expect(matchesContext(array, a.context)).toBe(true);
      expect(matchesContext(system.fenceArray([a, b]), a.context)).toBe(false);
      expect(matchesContext(a, a.context)).toBe(true);
      array.setDeadline(5);
      system.fenceChain(null, array, 1).setDeadline(7);
      expect(setDeadline.mock.calls.map(([, at]) => at)).toEqual([5, 7]);
    });

    test("takes no record in the core", () => {
      const system = open();
      const [a] = fencesOf(system, 1) as [Fence];
      for (let i = 0; i < 10_000; i++) system.fenceArray([a]);
      expect(system.check(true)).toBeNull();
    });
  });

  describe("fence chain", () => {
    function chainOf(system: ReturnType<typeof open>, fences: readonly Fence[]): FenceChain[] {
      const nodes: FenceChain[] = [];
      for (const [i, fence] of fences.entries())
        nodes.push(system.fenceChain(nodes.at(-1) ?? null, fence, i + 1));
      return nodes;
    }

    test("finds the node that covers a point", () => {
      const system = open();
      const nodes = chainOf(system, fencesOf(system, 64));
      const head = nodes.at(-1) as FenceChain;
      expect(findSeqno(head, 0)).toBe(head);
      for (const [i, node] of nodes.entries()) {
        expect(findSeqno(head, i + 1)).toBe(node);
        expect(findSeqno(node, i + 1)).toBe(node);
        expectError("EINVAL", () => findSeqno(node, i + 2));
      }
      expectError("EINVAL", () => findSeqno(nodes[0]?.fence as Fence, 1));
    });

    test("finds nothing at a point that has signaled", () => {
      const system = open();
      const fences = fencesOf(system, 3);
      const head = chainOf(system, fences).at(-1) as FenceChain;
      fences[0]?.signal();
      expect([findSeqno(head, 1), findSeqno(head, 2)?.seqno]).toEqual([null, 2]);
      fences[1]?.signal();
      expect(findSeqno(head, 2)).toBeNull();
      fences[2]?.signal();
      expect(findSeqno(head, 3)).toBe(head); // the node it starts at stays
    });

    test("signaled forward, each node follows its fence", () => {
      const system = open();
      const fences = fencesOf(system, 16);
      const nodes = chainOf(system, fences);
      for (const [i, fence] of fences.entries()) {
        fence.signal();
        expect(nodes[i]?.isSignaled).toBe(true);
        expect(nodes[i + 1]?.isSignaled).not.toBe(true);
      }
    });

    test("signaled backward, no node is ahead of those before it", () => {
      const system = open();
      const fences = fencesOf(system, 16);
      const nodes = chainOf(system, fences);
      for (let i = 15; i > 0; i--) {
        fences[i]?.signal();
        expect(nodes.some((node) => node.isSignaled)).toBe(false);
      }
      fences[0]?.signal();
      expect(nodes.every((node) => node.isSignaled)).toBe(true);
    });

    test.each(["forward", "backward"])(
      "of 4096 nodes wakes who waits, signaled %s",
      async (way) => {
        const system = build.system({ memoryBytes: 4 << 20 });
        const fences = fencesOf(system, 4096);
        const waiting = (chainOf(system, fences).at(-1) as FenceChain).wait({ timeoutMs: 60_000 });
        for (const fence of way === "forward" ? fences : [...fences].reverse()) fence.signal();
        await waiting;
        expect(system.check(true)).toBeNull();
      },
    );

    test("forgets the nodes whose fences have signaled", () => {
      const system = open();
      const fences = fencesOf(system, 4);
      const nodes = chainOf(system, fences);
      fences[1]?.signal();
      fences[3]?.signal();
      expect([...walkChain(nodes[3] as FenceChain)]).toEqual([nodes[3], nodes[2], nodes[0]]);
    });

    test("a seqno that is not later begins a context, and is not below the one before", () => {
      const system = open();
      const [a, b, c] = fencesOf(system, 3) as [Fence, Fence, Fence];
      const one = system.fenceChain(null, a, 5);
      const two = system.fenceChain(one, b, 3);
      const three = system.fenceChain(two, c, 9);
      expect([two.seqno, two.prevSeqno, two.context === one.context]).toEqual([5, 0, false]);
      expect([three.seqno, three.prevSeqno, three.context === two.context]).toEqual([9, 5, true]);
    });

    test("refuses a chain inside, and what is no fence or seqno", () => {
      const system = open();
      const [a] = fencesOf(system, 1) as [Fence];
      expectError("EINVAL", () => system.fenceChain(null, system.fenceChain(null, a, 1), 2));
      expectError("EINVAL", () => system.fenceChain(null, null as unknown as Fence, 2));
      expectError("EINVAL", () => system.fenceChain(null, a, -1));
    });
  });

  describe("unwrap and merge", () => {
    test("visits chain nodes newest first, and arrays in their order", () => {
      const system = open();
      const [a, b, c] = fencesOf(system, 3) as [Fence, Fence, Fence];
      const array = system.fenceArray([b, c]);
      expect([...unwrapFence(a)]).toEqual([a]);
      expect([...unwrapFence(null)]).toEqual([]);
      expect([...unwrapFence(array)]).toEqual([b, c]);
      expect([...unwrapFence(system.fenceChain(a, array, 1))]).toEqual([b, c, a]);
    });

    test("a merge keeps the latest pending fence of each context, by rising context", () => {
      const system = open();
      const context = system.fenceContexts(2);
      const make = (add: number, seqno: number) =>
        system.fence("m", { context: context + add, seqno });
      const [early, late, other] = [make(0, 1), make(0, 2), make(1, 1)];
      const merged = mergeFences(other, early, null, late);
      expect(merged).toBeInstanceOf(FenceArray);
      expect([...unwrapFence(merged)]).toEqual([late, other]);
      expect(mergeFences(early, late)).toBe(late);
      expect(mergeFences(late, late)).toBe(late);
      other.signal();
      expect(mergeFences(other, early)).toBe(early);
      expect(latestOfEachContext([early, late])).toEqual([late]);
    });

    test("a merge without pending fences is signaled at the latest of their times", () => {
      const system = open();
      const [a, b] = fencesOf(system, 2) as [Fence, Fence];
      a.signal(null, 7);
      b.signal("EIO", 3);
      const merged = mergeFences(a, b);
      expect([merged.status, merged.timestampMs, merged.context]).toEqual([1, 7, 0]);
      expect(mergeFences().isSignaled).toBe(true);
    });
  });

  describe("order", () => {
    test.each([
      [1, 0, true, true],
      [0, 2 ** 31 + 1, true, false],
      [0, 2 ** 31, false, false],
      [2n ** 64n - 1n, 2n ** 31n, true, true],
      [0n, 2n ** 64n - 1n, true, false],
    ])("of %s and %s wraps at 32 bits only", (a, b, in32, in64) => {
      expect([isSeqnoLater(a, b), isSeqnoLater(a, b, 64)]).toEqual([in32, in64]);
    });

    test("of two contexts is EINVAL; the later one is null once it has signaled", () => {
      const system = open();
      const [a, b] = fencesOf(system, 2) as [Fence, Fence];
      const next = system.fence("next", { context: a.context, seqno: 2 });
      expectError("EINVAL", () => isLater(a, b));
      expect([isLater(next, a), laterFence(a, next)]).toEqual([true, next]);
      next.signal();
      expect(laterFence(a, next)).toBeNull();
    });
  });

  describe("ops", () => {
    test("enableSignaling is called once, before the first callback; false signals", () => {
      const system = open();
      const enableSignaling = vi.fn(() => true);
      const asked = system.fence("asked", { ops: { enableSignaling } });
      asked.addCallback(() => {});
      asked.addCallback(() => {});
      expect(enableSignaling).toHaveBeenCalledOnce();
      const done = system.fence("done", { ops: { enableSignaling: () => false } });
      expect([done.addCallback(() => {}), done.status]).toEqual([false, 1]);
    });

    test("signaled is asked while pending, and the callbacks run then", () => {
      const system = open();
      let isDone = false;
      const fence = system.fence("polled", { ops: { signaled: () => isDone } });
      const callback = vi.fn();
      fence.addCallback(callback);
      expect([fence.isSignaled, fence.status]).toEqual([false, 0]);
      isDone = true;
      expect([fence.isMarkedSignaled, fence.isSignaled]).toEqual([false, true]);
      expect(callback).toHaveBeenCalledOnce();
    });

    test("release() ends a pending fence with EDEADLK, once", () => {
      const system = open();
      const release = vi.fn();
      const fence = system.fence("given up", { ops: { release } });
      fence.release();
      fence[Symbol.dispose]();
      expect([fence.error?.code, release.mock.calls.length]).toEqual(["EDEADLK", 1]);
    });

    test("setError() hides until the fence signals; then it is refused", () => {
      const system = open();
      const fence = system.fence("failing");
      fence.setError("EIO");
      expect([fence.status, fence.error]).toEqual([0, null]);
      fence.setError("ENODEV");
      fence.signal();
      expect(fence.status).toBe(-19);
      expectError("EINVAL", () => fence.setError("EIO"));
      expectError("EINVAL", () => fence.addCallback(null as unknown as () => void));
    });

    test("a signaled fence needs no system", () => {
      expect([signaledFence(3).status, signaledFence(3).timestampMs]).toEqual([1, 3]);
    });

    test("fences of chosen contexts refuse a seqno that is none", () => {
      expectError("EINVAL", () => open().fence("f", { seqno: -1 }));
    });
  });
});
