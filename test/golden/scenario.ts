/**
 * `scenario`: the life of one buffer, step by step, with every callback that each step makes.
 *
 * @module
 */

import type { Bed } from "./bed.ts";
import { errnoOr } from "./fence-world.ts";
import { type Fields, MalformedRecord } from "./fields.ts";
import type { Fact, Outcome } from "./outcome.ts";
import { directionOf, injectedOr, ScenarioWorld } from "./scenario-world.ts";

/** A step as it is recorded; which members are there depends on `op`. */
export interface Step {
  readonly op: string;
  readonly a: number;
  readonly importer: string;
  readonly dir: string;
  readonly how: string;
  readonly sgt: string;
  readonly pgoff: string;
  readonly pages: number;
  readonly what: string;
  readonly value: number;
  readonly last: boolean;
}

const EBUSY = -16;
/** What the record says of a step, beside its input. */
const RESULTS = ["ret", "trace", "fileCount", "vmapCount"];

/** Replays a `scenario` record. */
export function scenario(fields: Fields, bed: Bed): Outcome {
  const ops = fields.list("ops") as readonly string[];
  const world = new ScenarioWorld(bed.system, ops, fields.number("size"));
  const facts: Fact[] = [
    {
      name: "fileCountAfterExport",
      actual: world.buf.refCount,
      recorded: fields.recorded("fileCountAfterExport"),
    },
  ];
  try {
    for (const [i, step] of stepsOf(fields).entries()) {
      const name = factName(step, i);
      if (step.op === "inject") world.injected.set(subjectOf(step), step.value);
      else facts.push({ name, actual: take(world, step), recorded: resultOf(step) });
    }
  } finally {
    world.close();
  }
  return { facts };
}

function stepsOf(fields: Fields): readonly Step[] {
  return fields.list("steps") as readonly Step[];
}

function factName({ op }: Step, i: number): string {
  return `step ${i} ${op}`;
}

/** "map (1 means return NULL)": the callback that fails from now on. */
function subjectOf({ what }: Step): string {
  return what.split(" ")[0] ?? what;
}

function resultOf(step: Step): Record<string, unknown> {
  return Object.fromEntries(Object.entries(step).filter(([name]) => RESULTS.includes(name)));
}

function take(world: ScenarioWorld, step: Step): Record<string, unknown> {
  const { buf } = world;
  const ret = errnoOr(() => injectedOr(() => call(world, step)));
  const result = { ret, trace: world.heard() };
  if (buf.refCount === 0) return result;
  const counts = { fileCount: buf.refCount, vmapCount: buf.vmapCount };
  if (ret === EBUSY) letGo(world, step);
  return { ...result, ...counts };
}

/** After a refusal, does what Linux did: the steps that follow in the record build on it. */
function letGo(world: ScenarioWorld, { op, a }: Step): void {
  if (op === "detach") world.drop(a);
  else if (op === "dma_buf_put") world.dropAll();
  world.heard(); // Linux makes other callbacks
}

/** Makes the call of a step. */
function call(world: ScenarioWorld, step: Step): number | string | null {
  const { buf } = world;
  switch (step.op) {
    case "attach":
      world.attach(step.a, step.importer);
      return 0;
    case "map":
      return map(world, step);
    case "unmap":
      return unmap(world, step);
    case "detach":
      world.attachment(step.a).detach();
      world.attachments.delete(step.a);
      return null;
    case "pin":
      world.held(() => world.attachment(step.a).pin());
      return 0;
    case "unpin":
      world.held(() => world.attachment(step.a).unpin());
      return null;
    case "move_notify":
      world.held(() => buf.moveNotify());
      return null;
    case "begin_cpu_access":
      return buf.beginCpuAccess(directionOf(step.dir));
    case "end_cpu_access":
      return buf.endCpuAccess(directionOf(step.dir));
    case "mmap":
      return mmap(world, step);
    case "vmap":
      world.vmappings.push(buf.vmap());
      return 0;
    case "vunmap":
      buf.vunmap(world.vmappings.at(-1) as never);
      world.vmappings.pop();
      return null;
    case "get_dma_buf":
      buf.get();
      return null;
    case "dma_buf_put":
      buf.put();
      return null;
    default:
      throw new MalformedRecord(`the step "${step.op}" is unknown`);
  }
}

function map(world: ScenarioWorld, { a, dir, how }: Step): string {
  const attachment = world.attachment(a);
  const direction = directionOf(dir);
  const calls: Record<string, () => string> = {
    plain: () => world.sgtOf(attachment.map(direction)),
    resv_held: () => world.held(() => world.sgtOf(attachment.map(direction))),
    unlocked_variant: () => world.sgtOf(attachment.mapUnlocked(direction)),
  };
  return pick(calls, how)();
}

function unmap(world: ScenarioWorld, { a, dir, how, sgt }: Step): null {
  const [attachment, mapping] = [world.attachment(a), world.mapping(sgt)];
  const direction = directionOf(dir);
  const calls: Record<string, () => void> = {
    plain: () => attachment.unmap(mapping, direction),
    resv_held: () => world.held(() => attachment.unmap(mapping, direction)),
    unlocked_variant: () => attachment.unmapUnlocked(mapping, direction),
  };
  pick(calls, how)();
  return null;
}

function pick<T>(calls: Record<string, () => T>, how: string): () => T {
  const chosen = calls[how];
  if (chosen === undefined) throw new MalformedRecord(`the way "${how}" is unknown`);
  return chosen;
}

/** Linux's mapping holds no reference here: the records' vma is none of a process. */
function mmap(world: ScenarioWorld, { pgoff, pages }: Step): number {
  world.buf.mmap({ pageOffset: BigInt(pgoff), pageCount: pages }).unmap();
  return 0;
}

/** What an importer holds of the buffer. */
interface Holding {
  /** Whether each of its maps is a mapping of its own. */
  readonly isPlain: boolean;
  maps: number;
  pins: number;
}

/** What is left to the importers, as the inputs say: which steps would pull it from under them. */
class Uses {
  readonly refused: Map<string, Record<string, unknown>> = new Map();
  readonly #attached: Map<number, Holding> = new Map();
  readonly #injected: Map<string, number> = new Map();
  readonly #ops: readonly string[];
  #references = 1;
  #vmaps = 0;

  constructor(ops: readonly string[]) {
    this.#ops = ops;
  }

  step(step: Step, name: string): void {
    const own = this.#attached.get(step.a);
    if (step.op === "inject") this.#injected.set(subjectOf(step), step.value);
    else if (step.op === "attach") this.#attach(step);
    else if (step.op === "detach") this.#detach(step.a, own, name);
    else if (step.op === "get_dma_buf") this.#references += 1;
    else if (step.op === "dma_buf_put") this.#put(name);
    else if (step.op === "vmap") this.#vmap();
    else if (step.op === "vunmap") this.#vmaps -= 1;
    else if (own !== undefined) this.#use(step.op, own);
  }

  #use(op: string, own: Holding): void {
    if (op === "map" && own.isPlain && !this.#fails("map")) own.maps += 1;
    else if (op === "unmap" && own.isPlain) own.maps -= 1;
    else if (op === "pin" && !(this.#ops.includes("pin+unpin") && this.#fails("pin")))
      own.pins += 1;
    else if (op === "unpin") own.pins -= 1;
  }

  #fails(what: string): boolean {
    return (this.#injected.get(what) ?? 0) !== 0;
  }

  #attach({ a, importer }: Step): void {
    const isDynamic = importer.startsWith("dynamic") && importer !== "dynamic_attach_null_ops";
    const isMixed = isDynamic !== this.#ops.includes("pin+unpin");
    const isPinned = isMixed && !isDynamic;
    if (importer === "ops_without_move_notify") return;
    if (this.#ops.includes("attach") && this.#fails("attach")) return;
    if ((isPinned && this.#fails("pin")) || (isMixed && this.#fails("map"))) return;
    const isPlain = !isMixed && !this.#ops.includes("cache_sgt_mapping");
    this.#attached.set(a, { isPlain, maps: 0, pins: 0 });
  }

  #detach(a: number, own: Holding | undefined, name: string): void {
    if (own !== undefined && own.maps + own.pins > 0) this.#refuse(name);
    this.#attached.delete(a);
  }

  #put(name: string): void {
    if (this.#references === 1 && this.#attached.size > 0) this.#refuse(name);
    else this.#references -= 1;
  }

  /** Only the first user asks the exporter. */
  #vmap(): void {
    const isMade = this.#ops.includes("vmap") && !this.#fails("vmap");
    if (this.#vmaps > 0 || isMade) this.#vmaps += 1;
  }

  #refuse(name: string): void {
    const counts = { fileCount: this.#references, vmapCount: this.#vmaps };
    this.refused.set(name, { ret: EBUSY, trace: [], ...counts });
  }
}

/** Steps that free what somebody still uses, and what we answer instead: EBUSY, and no callback. */
export function refusedSteps(fields: Fields): Map<string, Record<string, unknown>> {
  const uses = new Uses(fields.list("ops") as readonly string[]);
  for (const [i, step] of stepsOf(fields).entries()) uses.step(step, factName(step, i));
  return uses.refused;
}
