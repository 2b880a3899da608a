/**
 * `chain`: timelines of fence chain nodes, found, walked and signaled.
 *
 * @module
 */

import { type Fence, FenceChain, findSeqno, walkChain } from "dmabuf";
import type { Bed } from "./bed.ts";
import { codeOf, errnoOr, FenceWorld } from "./fence-world.ts";
import { cell, type Fields, MalformedRecord } from "./fields.ts";
import type { Fact, Outcome } from "./outcome.ts";

/** How the records write "everything up to there has signaled". */
const NOTHING = -2;

interface NodeRecord {
  readonly given: number;
}

/** Replays a `chain` record. */
export function fenceChain(fields: Fields, bed: Bed): Outcome {
  const world = new FenceWorld(bed);
  const recorded = fields.list("nodes") as readonly NodeRecord[];
  const fences = recorded.map((_, i) => world.fence(i));
  const nodes: FenceChain[] = [];
  const facts = recorded.map((node, i): Fact => {
    const before = nodes.at(-1) ?? null;
    const fence = fences[i] as Fence;
    const made = bed.system.fenceChain(before, fence, node.given);
    nodes.push(made);
    const sameContextAsPrev = before !== null && before.context === made.context;
    const { seqno, prevSeqno } = made;
    const actual = { given: node.given, seqno, prevSeqno, sameContextAsPrev };
    return { name: `node ${i}`, actual, recorded: node };
  });
  for (const [i, step] of fields.list("steps").entries()) {
    const row = step as readonly unknown[];
    const actual = replayStep(row, nodes, fences);
    facts.push({ name: `step ${i} ${String(row[0])}`, actual, recorded: row });
  }
  world.close();
  return { facts };
}

function replayStep(
  step: readonly unknown[],
  nodes: readonly FenceChain[],
  fences: readonly Fence[],
): readonly unknown[] {
  const head = nodes.at(-1) as FenceChain;
  const indexOf = (fence: Fence): number =>
    fence instanceof FenceChain ? nodes.indexOf(fence) : -1;
  switch (step[0]) {
    case "find":
      return [
        "find",
        (step[1] as readonly (readonly number[])[]).map((query) => {
          const found = errnoOr(() => findSeqno(head, cell(query, 0)));
          if (typeof found === "number") return [query[0], found, indexOf(head)];
          return [query[0], 0, found === null ? NOTHING : indexOf(found)];
        }),
      ];
    case "walk":
      return ["walk", [...walkChain(head)].map(indexOf)];
    case "isSignaled":
      return ["isSignaled", nodes.map((node) => Number(node.isSignaled))];
    case "status":
      return ["status", nodes.map((node) => node.status)];
    case "signal":
      fences[cell(step as number[], 1)]?.signal(codeOf(cell(step as number[], 2)));
      return step;
    default:
      throw new MalformedRecord(`the step "${String(step[0])}" is unknown`);
  }
}
