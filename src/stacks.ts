/**
 * Stacks: where holders were made, for systems that track them; in others nobody looks at a stack.
 *
 *     add("pin", attachment)       ─► [first pin's stack, second pin's]
 *     remove("pin", attachment)    ─► [first pin's stack]
 *
 * - ST1  Holds of one kind on one thing that nothing tells apart (references, pins, users of one
 *        mapping) share a list. The one that ends is taken for the latest, as brackets nest.
 * - ST2  A reference that belongs to somebody, a descriptor or a CPU mapping, is moved to that list
 *        with {@link Stacks.own}, and back before it is put: it is never mixed up with others.
 * - ST3  The first line of a stack is the caller's of the package: the package's own frames before
 *        it are left out, and do not count for the host's limit (`Error.stackTraceLimit`).
 *
 * @module
 */

/** Who keeps a buffer from going away, from moving, or from being used next. */
export type HolderKind =
  | "reference"
  | "fd"
  | "attachment"
  | "mapping"
  | "pin"
  | "vmap"
  | "cpu-mapping"
  | "fence"
  | "thread";

/** @internal What is counted by get() and put(), and where those were called if that is tracked. */
export interface TrackedFile {
  readonly stacks?: Stacks | null | undefined;
  get(): void;
  put(): void;
}

/** What a stack begins with in some hosts. */
const HEAD = /^Error$/;
/** The frame of this file, with the package's folder; a bundle has neither (ST3). */
const OWN_FRAME = /^(?:\s*at [^(]*\(|[^@]*@)(.*[/\\])stacks\.[jt]s\b/;
/** A function of the host between two frames, as Array.map(). */
const HOST_FRAME = /\(<anonymous>\)$|\[native code\]$/;
/** More frames than the package ever has between its caller and the stack. */
const OWN_DEPTH = 32;

/** The stack of here, of up to `deeper` lines more than the host's limit, and that limit. */
function capture(deeper: number): { readonly lines: string[]; readonly limit: number } {
  const host = Error as { readonly stackTraceLimit?: unknown };
  const { stackTraceLimit: limit } = host;
  if (typeof limit !== "number") return { lines: linesOf(new Error()), limit: Infinity };
  Reflect.set(host, "stackTraceLimit", limit + deeper); // refused without a throw if it is frozen
  try {
    return { lines: linesOf(new Error()), limit };
  } finally {
    Reflect.set(host, "stackTraceLimit", limit);
  }
}

function linesOf({ stack }: Error): string[] {
  return String(stack ?? "")
    .split("\n")
    .filter((line) => !HEAD.test(line));
}

/** A stack from the frame on that called the package (ST3); all of it, if there is none. */
function fromCaller(lines: readonly string[]): readonly string[] {
  const own = lines.findIndex((line) => OWN_FRAME.test(line));
  const folder = OWN_FRAME.exec(lines[own] ?? "")?.[1];
  if (folder === undefined) return lines;
  const isOwn = (line: string): boolean => line.includes(folder) || HOST_FRAME.test(line);
  const caller = lines.findIndex((line, i) => i > own && !isOwn(line));
  return caller < 0 ? lines : lines.slice(caller);
}

/** The call that made a file, and its stack. */
interface Origin {
  readonly call: string;
  readonly stack: string;
}

/** @internal The stacks of a system that tracks holders. */
export class Stacks {
  readonly #lists: Map<HolderKind, WeakMap<object, string[]>> = new Map();
  readonly #origins: WeakMap<object, Origin> = new WeakMap();

  /** The stack of the package's caller (ST3). */
  here(): string {
    const { lines, limit } = capture(OWN_DEPTH);
    const frames = fromCaller(lines);
    const shown = frames === lines ? lines : frames.slice(0, limit);
    return shown.map((line) => line.trim()).join("\n");
  }

  /** Notes a hold of `kind` on `token`. */
  add(kind: HolderKind, token: object, stack: string = this.here()): void {
    const lists = this.#lists.get(kind) ?? new WeakMap<object, string[]>();
    this.#lists.set(kind, lists);
    const list = lists.get(token);
    if (list === undefined) lists.set(token, [stack]);
    else list.push(stack);
  }

  /** Notes the first reference to a `file`, which `call` has just made. */
  addFirst(file: object, call: string): void {
    const stack = this.here();
    this.#origins.set(file, { call, stack });
    this.add("reference", file, stack);
  }

  /** The first reference to `file` is given out by `call`, which had it made. */
  madeBy(file: object, call: string): void {
    const origin = this.#origins.get(file);
    if (origin !== undefined) this.#origins.set(file, { ...origin, call });
  }

  /** The call that made the reference to `file` with that stack. */
  callOf(file: object, stack: string | null): string {
    const origin = this.#origins.get(file);
    return origin?.stack === stack ? (origin?.call ?? "get()") : "get()";
  }

  /** Forgets the latest hold (ST1); its stack. */
  remove(kind: HolderKind, token: object): string | undefined {
    return this.#lists.get(kind)?.get(token)?.pop();
  }

  /** Forgets all holds. */
  clear(kind: HolderKind, token: object): void {
    this.#lists.get(kind)?.delete(token);
  }

  /** The stacks of all holds, oldest first. */
  of(kind: HolderKind, token: object): readonly string[] {
    return this.#lists.get(kind)?.get(token) ?? [];
  }

  /** The latest reference to `file` becomes `holder`'s (ST2). */
  own(file: object, kind: HolderKind, holder: object): void {
    this.remove("reference", file);
    this.add(kind, holder);
  }

  /** The reference that `holder` has becomes the latest of `file` again (ST2). */
  disown(file: object, kind: HolderKind, holder: object): void {
    const stack = this.remove(kind, holder);
    if (stack !== undefined) this.add("reference", file, stack);
  }
}

/** @internal Puts the reference to `file` that `holder` has; if that is refused, it stays (ST2). */
export function putFor(file: TrackedFile, kind: HolderKind, holder: object): void {
  const { stacks } = file;
  stacks?.disown(file, kind, holder);
  try {
    file.put();
  } catch (error) {
    const stack = stacks?.remove("reference", file);
    if (stack !== undefined) stacks?.add(kind, holder, stack);
    throw error;
  }
}

/** @internal Takes a reference for the time of a wait; what it returns puts just that (ST1). */
export function getForWait(file: TrackedFile): () => void {
  const holder = {};
  file.get();
  file.stacks?.own(file, "reference", holder);
  return () => putFor(file, "reference", holder);
}
