/**
 * `array`: fence arrays, their callbacks and what they end with.
 *
 * @module
 */

import { type Fence, type FenceArray, matchesContext, startWait } from "dmabuf";
import type { Bed } from "./bed.ts";
import { codeOf, ENOENT, FenceWorld } from "./fence-world.ts";
import { cell, type Fields, MalformedRecord } from "./fields.ts";
import type { Fact, Outcome } from "./outcome.ts";

/** The callback that the records add to the array. */
const ARRAY_CALLBACK = 99;

/** Replays an `array` record. */
export function fenceArray(fields: Fields, bed: Bed): Outcome {
  const world = new FenceWorld(bed);
  const steps = fields.list("steps") as readonly (readonly unknown[])[];
  const replay = new ArrayReplay(fields, world, steps);
  const facts = steps.map((step, i): Fact => {
    const inputs = step[0] === "signal" ? 3 : 1;
    const actual = [...step.slice(0, inputs), ...replay.step(step), world.heard()];
    return { name: `step ${i} ${String(step[0])}`, actual, recorded: step };
  });
  world.close();
  return { facts };
}

class ArrayReplay {
  readonly #world: FenceWorld;
  readonly #mode: "all" | "any";
  readonly #parts: readonly Fence[];
  #made: FenceArray | undefined;

  constructor(fields: Fields, world: FenceWorld, steps: readonly (readonly unknown[])[]) {
    const system = world.bed.system;
    // Whether the children share a context is kept only as this answer.
    const created = steps.find(([what]) => what === "create")?.[1] as
      | { matchContextOfChild0: number }
      | undefined;
    const isShared = created?.matchContextOfChild0 === 1;
    const count = fields.number("n");
    const context = system.fenceContexts(count);
    const hasOp = fields.list("hasEnableOp");
    this.#world = world;
    this.#mode = fields.recorded("any") === true ? "any" : "all";
    this.#parts = Array.from({ length: count }, (_, i) =>
      world.fence(i, {
        context: isShared ? context : context + i,
        seqno: i + 1,
        ...(hasOp[i] === 1 ? { ops: world.enableOps(i) } : {}),
      }),
    );
  }

  get #array(): FenceArray {
    if (this.#made === undefined) throw new MalformedRecord("a step comes before its array");
    return this.#made;
  }

  /** The results of one step, without its trace. */
  step(step: readonly unknown[]): unknown[] {
    switch (step[0]) {
      case "create":
        return [this.#create()];
      case "signal":
        return [this.#signal(cell(step as number[], 1), cell(step as number[], 2))];
      case "enable_sw_signaling":
        this.#array.enableSignaling();
        return [{ signaledBit: Number(this.#array.isMarkedSignaled) }];
      case "add_callback":
        return [this.#array.addCallback(this.#world.callback(ARRAY_CALLBACK)) ? 0 : ENOENT];
      case "array":
        return [this.#look()];
      case "wait_timeout 10":
        return [this.#wait(10)];
      case "status":
        return [this.#array.status];
      default:
        throw new MalformedRecord(`the step "${String(step[0])}" is unknown`);
    }
  }

  #create(): unknown {
    this.#made = this.#world.bed.system.fenceArray(this.#parts, { mode: this.#mode, seqno: 9 });
    const context = this.#parts[0]?.context ?? 0;
    return {
      isSignaled: Number(this.#array.isMarkedSignaled), // the recorder read the bit
      matchContextOfChild0: Number(matchesContext(this.#array, context)),
      seqno: this.#array.seqno,
    };
  }

  #signal(child: number, error: number): number {
    return this.#parts[child]?.signal(codeOf(error)) ? 0 : -22;
  }

  /** The recorder's bit is the one after the question, which may signal the array. */
  #look(): unknown {
    const isSignaled = Number(this.#array.isSignaled);
    const signaledBit = Number(this.#array.isMarkedSignaled);
    return { signaledBit, isSignaled, status: this.#array.status };
  }

  #wait(timeoutMs: number): number {
    let left = Number.NaN;
    const clock = { now: () => 0, after: () => () => {} };
    startWait(this.#array, { timeoutMs, clock }, (result) => {
      left = result;
    });
    return left;
  }
}
