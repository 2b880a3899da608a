/**
 * `resv`, `resv_wait`, `usage_rw`: the reservation object, its stored order and what it answers.
 *
 * @module
 */

import { type Fence, Resv, type ResvUsage, resvUsages, unwrapFence, usageFor } from "dmabuf";
import type { Bed } from "./bed.ts";
import { TickClock } from "./fence-clock.ts";
import { errnoOr, FenceWorld } from "./fence-world.ts";
import { type Fields, MalformedRecord } from "./fields.ts";
import { type Fact, factsOf, type Outcome } from "./outcome.ts";

type Step = Readonly<Record<string, unknown>>;

/** Replays a `resv` record. */
export function resv(fields: Fields, bed: Bed): Outcome {
  const replay = new ResvReplay(bed);
  const facts = fields.list("steps").map((step, i): Fact => {
    const recorded = step as Step;
    const actual = { ...recorded, ...replay.step(recorded), state: replay.state() };
    return { name: `step ${i} ${String(recorded.op)}`, actual, recorded };
  });
  replay.close();
  return { facts };
}

/** `resv_wait`: waiting for a usage while one writer is pending, or none. */
export function resvWait(fields: Fields, bed: Bed): Outcome {
  const world = new FenceWorld(bed);
  const list = new Resv();
  if (fields.recorded("pendingWriteFence") === true) list.addFence(world.fence(0), "write");
  const usage = usageNamed(fields.text("usage"));
  const ret = waitTicks(list, usage, fields.number("timeout"));
  world.close();
  return { facts: factsOf(fields, { ret }) };
}

/** `usage_rw`: the order of the usages, and which one a new access waits for. */
export function usageRw(fields: Fields): Outcome {
  const rank = (usage: ResvUsage): number => resvUsages.indexOf(usage);
  const ranks = resvUsages.map((usage) => [usage.toUpperCase(), rank(usage)]);
  const waits = { write: rank(usageFor(true)), read: rank(usageFor(false)) };
  return { facts: factsOf(fields, { ...waits, ...Object.fromEntries(ranks) }) };
}

class ResvReplay {
  readonly #world: FenceWorld;
  readonly #fences = new Map<number, Fence>();
  readonly #contexts = new Map<number, number>();
  readonly #list = new Resv();

  constructor(bed: Bed) {
    this.#world = new FenceWorld(bed);
  }

  /** The results of one step, apart from the state after it. */
  step(step: Step): Step {
    switch (step.op) {
      case "add":
        this.#make(numberOf(step, "f"), numberOf(step, "ctx"), numberOf(step, "seqno"));
        return this.#add(step);
      case "readd":
        return this.#add(step);
      case "replace":
        return this.#replace(step);
      case "signal":
        return { ret: this.#fence(numberOf(step, "f")).signal() ? 0 : -22 };
      case "copy_fences": {
        const copy = new Resv();
        copy.copyFences(this.#list);
        return { ret: 0, copy: this.#stored(copy) };
      }
      default:
        throw new MalformedRecord(`the step "${String(step.op)}" is unknown`);
    }
  }

  /** What the list answers for each usage. */
  state(): unknown[] {
    return resvUsages.map((usage) => ({
      usage: usage.toUpperCase(),
      list: this.#list.entries
        .filter(({ fence }) => this.#list.fences(usage).includes(fence))
        .filter((entry) => resvUsages.indexOf(entry.usage) <= resvUsages.indexOf(usage))
        .map((entry) => [this.#indexOf(entry.fence), entry.usage.toUpperCase()]),
      test: Number(this.#list.testSignaled(usage)),
      wait0: waitTicks(this.#list, usage, 0),
      singleton: this.#singleton(usage),
    }));
  }

  close(): void {
    this.#world.close();
  }

  #add(step: Step): Step {
    const reserve = errnoOr(() => this.#list.reserveFences(1)) ?? 0;
    this.#list.addFence(this.#fence(numberOf(step, "f")), usageNamed(step.usage));
    return { reserve, locked: this.#stored(this.#list) };
  }

  #replace(step: Step): Step {
    const by = numberOf(step, "by");
    this.#make(by, numberOf(step, "byCtx"), 1);
    if (step.bySignaled === 1) this.#fence(by).signal();
    const context = this.#context(numberOf(step, "ctx"));
    this.#list.replaceFences(context, this.#fence(by), usageNamed(step.usage));
    return { locked: this.#stored(this.#list) };
  }

  #stored(list: Resv): unknown[] {
    return list.entries.map(({ fence, usage }) => [
      this.#indexOf(fence),
      usage.toUpperCase(),
      Number(fence.isMarkedSignaled),
    ]);
  }

  #singleton(usage: ResvUsage): unknown {
    const one = this.#list.getSingleton(usage);
    if (one === null) return null;
    return one.isContainer
      ? [...unwrapFence(one)].map((fence) => this.#indexOf(fence))
      : this.#indexOf(one);
  }

  #make(index: number, ctx: number, seqno: number): void {
    this.#fences.set(index, this.#world.fence(index, { context: this.#context(ctx), seqno }));
  }

  #context(ctx: number): number {
    const known = this.#contexts.get(ctx) ?? this.#world.bed.system.fenceContexts(1);
    this.#contexts.set(ctx, known);
    return known;
  }

  #fence(index: number): Fence {
    const fence = this.#fences.get(index);
    if (fence === undefined) throw new MalformedRecord(`there is no fence ${index} yet`);
    return fence;
  }

  #indexOf(fence: Fence): number {
    for (const [index, other] of this.#fences) if (other === fence) return index;
    return -1;
  }
}

function waitTicks(list: Resv, usage: ResvUsage, timeoutMs: number): number {
  const clock = new TickClock();
  return clock.waitFor((done) => list.startWait(usage, { timeoutMs, clock }, done));
}

function usageNamed(name: unknown): ResvUsage {
  return String(name).toLowerCase() as ResvUsage;
}

function numberOf(step: Step, name: string): number {
  const value = step[name];
  if (typeof value === "number") return value;
  throw new MalformedRecord(`the step has no number "${name}"`);
}
