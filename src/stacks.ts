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
  | "fence";

/** @internal What is counted by get() and put(), and where those were called if that is tracked. */
export interface TrackedFile {
  readonly stacks?: Stacks | null | undefined;
  get(): void;
  put(): void;
}

/** What a stack begins with before the caller's frames: a head in some hosts, and this file. */
const OWN_LINE = /^Error|\bstacks\.[jt]s\b/;

/** @internal The stacks of a system that tracks holders. */
export class Stacks {
  readonly #lists: Map<HolderKind, WeakMap<object, string[]>> = new Map();

  /** The stack of the caller. */
  here(): string {
    const lines = (new Error().stack ?? "").split("\n");
    const frames = lines.filter((line) => !OWN_LINE.test(line));
    return frames.map((line) => line.trim()).join("\n");
  }

  /** Notes a hold of `kind` on `token`. */
  add(kind: HolderKind, token: object, stack: string = this.here()): void {
    const lists = this.#lists.get(kind) ?? new WeakMap<object, string[]>();
    this.#lists.set(kind, lists);
    const list = lists.get(token);
    if (list === undefined) lists.set(token, [stack]);
    else list.push(stack);
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
