/**
 * Linearizability: whether operations of several threads, each with the moments of its call and its
 * return, could have happened one after the other.
 *
 *     thread 1   ├── alloc ─► 7 ──┤      ├── free 7 ─► 0 ──┤
 *     thread 2        ├── alloc ─► 7 ────────────────────────────┤     only after the free: yes
 *
 * An order is searched that a model allows, in which nothing comes before what had returned when
 * it was called. After Wing and Gong, and Lowe: depth first, and no set of operations is tried
 * twice in the same state of the model.
 *
 * @module
 */

/** One operation of a history. */
export interface Operation {
  readonly thread: number;
  readonly name: string;
  readonly args: readonly number[];
  readonly result: number;
  /** Moments of its call and its return; all moments of a history differ. */
  readonly start: number;
  readonly end: number;
}

/** What one thread alone would see. States are values: apply() changes none. */
export interface Model<State> {
  readonly initial: State;
  /** The state after an operation, or null when it could not have this result there. */
  apply(state: State, operation: Operation): State | null;
  /** Equal exactly for equal states. */
  key(state: State): string;
}

/** An order that the model allows, or null when there is none. */
export function linearize<State>(
  model: Model<State>,
  history: readonly Operation[],
): readonly Operation[] | null {
  const operations = [...history].sort((a, b) => a.start - b.start);
  const seen = new Set<string>();
  const order: Operation[] = [];
  const done = new Array<boolean>(operations.length).fill(false);

  const search = (state: State): boolean => {
    if (order.length === operations.length) return true;
    const place = `${done.map(Number).join("")} ${model.key(state)}`;
    if (seen.has(place)) return false;
    seen.add(place);
    // What is called after another one's return cannot come before it.
    let firstEnd = Number.POSITIVE_INFINITY;
    for (const [i, operation] of operations.entries())
      if (!done[i]) firstEnd = Math.min(firstEnd, operation.end);
    for (const [i, operation] of operations.entries()) {
      if (done[i]) continue;
      if (operation.start > firstEnd) break;
      const next = model.apply(state, operation);
      if (next === null) continue;
      done[i] = true;
      order.push(operation);
      if (search(next)) return true;
      done[i] = false;
      order.pop();
    }
    return false;
  };

  return search(model.initial) ? order : null;
}

/** A history for people, one line an operation. */
export function describeHistory(history: readonly Operation[]): string {
  return [...history]
    .sort((a, b) => a.start - b.start)
    .map(
      ({ thread, name, args, result, start, end }) =>
        `${start}..${end}  thread ${thread}: ${name}(${args.join(", ")}) = ${result}`,
    )
    .join("\n");
}
