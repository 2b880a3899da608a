/**
 * `unwrap`: the leaves of composite fences, and what a merge of them is.
 *
 * @module
 */

import { type Fence, FenceArray, mergeFences, unwrapFence } from "dmabuf";
import type { Bed } from "./bed.ts";
import { FenceWorld } from "./fence-world.ts";
import { cell, type Fields, MalformedRecord } from "./fields.ts";
import type { Outcome } from "./outcome.ts";

type Tree = number | { readonly array: readonly number[] } | { readonly chain: readonly Tree[] };

/** Replays an `unwrap` record. */
export function fenceUnwrap(fields: Fields, bed: Bed): Outcome {
  const world = new FenceWorld(bed);
  const rows = fields.rows("leaves");
  const base = bed.system.fenceContexts(1 + Math.max(...rows.map((row) => cell(row, 0))));
  const leaves = rows.map((row, i) =>
    world.fence(i, { context: base + cell(row, 0), seqno: cell(row, 1) }),
  );
  for (const [i, row] of rows.entries()) if (cell(row, 2) === 1) leaves[i]?.signal();

  const inputs = fields.list("inputs").map((tree) => build(tree as Tree, leaves, bed));
  const indexOf = (fence: Fence): number => leaves.indexOf(fence);
  const unwrapped = inputs.map((input) => [...unwrapFence(input)].map(indexOf));
  const merged = mergeFences(...inputs);
  const merge = [...unwrapFence(merged)].map(indexOf);
  const facts = [
    { name: "unwrapped", actual: unwrapped, recorded: fields.recorded("unwrapped") },
    {
      name: "mergeIsArray",
      actual: merged instanceof FenceArray,
      recorded: fields.recorded("mergeIsArray"),
    },
    {
      name: "mergeSignaled",
      actual: Number(merged.isSignaled),
      recorded: fields.recorded("mergeSignaled"),
    },
    // Of two leaves of equal context and seqno either may be kept.
    {
      name: "merge",
      actual: merge.map((index) => rows[index]?.slice(0, 2) ?? index),
      recorded: (fields.list("merge") as number[]).map((i) => rows[i]?.slice(0, 2) ?? i),
    },
  ];
  world.close();
  return { facts };
}

function build(tree: Tree, leaves: readonly Fence[], bed: Bed): Fence {
  const leaf = (index: number): Fence => {
    const fence = leaves[index];
    if (fence === undefined) throw new MalformedRecord(`there is no leaf ${index}`);
    return fence;
  };
  if (typeof tree === "number") return leaf(tree);
  if ("array" in tree) return bed.system.fenceArray(tree.array.map(leaf));
  let head: Fence | null = null;
  for (const [i, part] of tree.chain.entries()) {
    head = bed.system.fenceChain(head, build(part, leaves, bed), i + 1);
  }
  if (head === null) throw new MalformedRecord("a chain of the record is empty");
  return head;
}
