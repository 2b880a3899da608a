/**
 * Area H: references on user pages.
 *
 * A record's name and each step's `what` say which memory the call meets. All steps of a record see
 * one address range; it begins with page 0 of the range unless the step starts elsewhere.
 *
 * @module
 */

import { getUserPages, type HeldPages, LockedVm, Movable, pinUserPages, UserRange } from "dmabuf";
import type { Bed } from "./bed.ts";
import { type Fields, Fields as StepFields } from "./fields.ts";
import type { Fact, Outcome } from "./outcome.ts";

const ORDINALS = "first second third fourth fifth sixth seventh eighth".split(" ");
const PIN_REFS = 1024;
const SHOWN_PAGES = 4;

/** `gup`: steps of pinning, releasing and accounting. */
export function gup(fields: Fields, bed: Bed): Outcome {
  const steps = stepsOf(fields);
  if (steps.every((step) => step.text("op") === "account_locked_vm"))
    return { facts: accountSteps(fields, steps) };
  const memory = new Memory(fields, steps, bed);
  const facts = steps.flatMap((step, i) => memory.replay(step, `step ${i}`));
  memory.close();
  return { facts };
}

/** The steps of a record. */
function stepsOf(fields: Fields): StepFields[] {
  const steps = fields.recorded("steps");
  if (!Array.isArray(steps)) throw new TypeError('the field "steps" must be a list');
  return steps.map((step) => new StepFields({ k: "gup step", ...step }));
}

function accountSteps(fields: Fields, steps: readonly StepFields[]): Fact[] {
  const limit = /RLIMIT_MEMLOCK of (\d+) pages/.exec(fields.text("name"))?.[1];
  if (limit === undefined) throw new TypeError("the name must say the limit");
  const locked = new LockedVm(Number(limit));
  return steps.flatMap((step, i) => {
    const pages = step.number("pages");
    const bypassLimit = step.number("bypassRlimit") === 1;
    const ret = resultOf(() =>
      step.number("inc") === 1 ? locked.account(pages, { bypassLimit }) : locked.unaccount(pages),
    );
    return [
      { name: `step ${i} ret`, actual: ret ?? 0, recorded: step.number("ret") },
      { name: `step ${i} lockedVm`, actual: locked.lockedPages, recorded: step.number("lockedVm") },
    ];
  });
}

/** The memory of one record. */
class Memory {
  readonly #range: UserRange;
  readonly #held = new Map<number, HeldPages>();
  readonly #cache: HeldPages | null;
  #isUnmappedSoon: boolean;

  constructor(fields: Fields, steps: readonly StepFields[], bed: Bed) {
    const takes = steps.filter((step) => step.has("what"));
    const hole = holeOf(takes);
    const pageCount = Math.max(1, ...takes.map((step) => step.number("pages")));
    this.#range = new UserRange(
      Array.from({ length: pageCount }, (_, i) => (i === hole ? null : new Movable(bed.core, 1))),
    );
    // Shared memory: the page cache holds each page too.
    this.#cache = isShared(fields) ? getUserPages(this.#range) : null;
    this.#isUnmappedSoon = /\bmapping removed while pinned\b/.test(fields.text("name"));
  }

  /** The facts of one step. */
  replay(step: StepFields, name: string): Fact[] {
    const op = step.text("op");
    if (op === "release") return this.#release(step, name);
    if (op === "fork") return []; // one process: see the class no-process-memory
    if (!/^(pin|get)_user_pages/.test(op)) throw new TypeError(`unknown step "${op}"`);
    const ret = resultOf(() => {
      const held = this.#take(step);
      this.#held.set(step.number("slot"), held);
      return held.pageCount;
    });
    const pages =
      ret !== undefined && ret > 0 ? (this.#held.get(step.number("slot"))?.pages ?? []) : [];
    const zeroPage = shown(pages).map(() => 0);
    return [
      { name: `${name} ret`, actual: ret, recorded: step.number("ret") },
      ...factsOf(name, step, countsOf(pages)),
      { name: `${name} zeroPage`, actual: zeroPage, recorded: step.recorded("zeroPage") },
    ];
  }

  #take(step: StepFields): HeldPages {
    const options = {
      first: this.#firstOf(step.text("what")),
      pageCount: step.number("pages"),
      write: step.number("write") === 1,
    };
    return step.text("op").startsWith("pin")
      ? pinUserPages(this.#range, { ...options, longterm: step.number("longterm") === 1 })
      : getUserPages(this.#range, options);
  }

  /** Where a step's address lies: what is no user memory lies behind the range. */
  #firstOf(what: string): number {
    if (/kernel address|end of user space|address 0/.test(what)) return this.#range.pageCount;
    if (!/starts in the hole/.test(what)) return 0;
    for (let i = 0; i < this.#range.pageCount; i++) if (this.#range.page(i) === null) return i;
    throw new TypeError("no step says where the hole is");
  }

  #release(step: StepFields, name: string): Fact[] {
    const slot = step.number("slot");
    const held = this.#held.get(slot);
    if (held === undefined) throw new TypeError(`nothing is held in slot ${slot}`);
    if (this.#isUnmappedSoon) this.#range.unmap();
    this.#isUnmappedSoon = false;
    const pages = held.pages;
    held.release({ dirty: step.text("dirtyMode").endsWith("true") });
    this.#held.delete(slot);
    return factsOf(name, step, countsOf(pages));
  }

  /** Gives everything back, so that the core can be checked. */
  close(): void {
    for (const held of this.#held.values()) held.release();
    this.#cache?.release();
    this.#range.unmap();
  }
}

type Counts = Readonly<Record<"refs" | "maybeDmaPinned" | "dirty", readonly number[]>>;
type Counted = {
  readonly refs: number;
  readonly maybeDmaPinned: boolean;
  readonly isDirty: boolean;
};

function shown<T>(pages: readonly T[]): readonly T[] {
  return pages.slice(0, SHOWN_PAGES);
}

function countsOf(pages: readonly Counted[]): Counts {
  return {
    refs: shown(pages).map(({ refs }) => refs),
    maybeDmaPinned: shown(pages).map(({ maybeDmaPinned }) => Number(maybeDmaPinned)),
    dirty: shown(pages).map(({ isDirty }) => Number(isDirty)),
  };
}

function factsOf(name: string, step: StepFields, counts: Counts): Fact[] {
  return Object.entries(counts).map(([field, actual]) => ({
    name: `${name} ${field}`,
    actual,
    recorded: step.recorded(field),
  }));
}

/** What `call` returned, or the negative errno of what it threw. */
function resultOf<T>(call: () => T): T | number {
  try {
    return call();
  } catch (error) {
    const number = (error as { errno?: unknown }).errno;
    if (typeof number !== "number") throw error;
    return -number;
  }
}

/** The page that some step calls unmapped; -1 when none does. */
function holeOf(steps: readonly StepFields[]): number {
  for (const step of steps) {
    const ordinal = /\bthe (\w+) is unmapped\b/.exec(step.text("what"))?.[1];
    if (ordinal !== undefined) return ORDINALS.indexOf(ordinal);
  }
  return -1;
}

/** Whether the pages have a second owner from the start. */
function isShared(fields: Fields): boolean {
  return /\bshared\b/.test(fields.text("name"));
}

// ---- the class no-process-memory

/** Whether a record is about what only a process with page tables has. */
export function needsProcess(fields: Fields): boolean {
  const name = fields.text("name");
  return (
    /\bfork\b|\bnever touched\b|zero page|read-only mapping|PROT_\w+|\btmpfs\b|\bmmap\b/.test(
      name,
    ) || stepsOf(fields).some((step) => step.has("force") && step.number("force") === 1)
  );
}

/** What the steps of such a record give on ordinary memory, all of it there, by plain counting. */
export function ordinaryCounts(fields: Fields): Record<string, unknown> {
  const base = isShared(fields) ? 2 : 1;
  const refs: number[] = [];
  const isDirty: boolean[] = [];
  const taken = new Map<number, { readonly weight: number; readonly count: number }>();
  const facts: Record<string, unknown> = {};
  for (const [i, step] of stepsOf(fields).entries()) {
    if (!step.has("slot")) continue;
    const slot = step.number("slot");
    const isTake = step.text("op") !== "release";
    if (isTake) {
      const weight = step.text("op").startsWith("pin") ? PIN_REFS : 1;
      taken.set(slot, { weight, count: step.number("pages") });
    }
    const { weight, count } = taken.get(slot) ?? { weight: 0, count: 0 };
    const pages = Array.from({ length: count }, (_, page) => {
      refs[page] = (refs[page] ?? base) + (isTake ? weight : -weight);
      isDirty[page] ||= !isTake && step.text("dirtyMode").endsWith("true");
      const now = refs[page];
      return { refs: now, maybeDmaPinned: now >= PIN_REFS, isDirty: isDirty[page] };
    });
    for (const [field, value] of Object.entries(countsOf(pages)))
      facts[`step ${i} ${field}`] = value;
    if (isTake) facts[`step ${i} ret`] = count;
    if (isTake) facts[`step ${i} zeroPage`] = shown(pages).map(() => 0);
  }
  return facts;
}
