/**
 * What one thread alone would see of the core: a few lines for each kind of thing that threads
 * share.
 *
 * @module
 */

import type { Model, Operation } from "./linearize.ts";

const [EPERM, ENOENT, EBADF, EAGAIN, ENOMEM, EBUSY, EEXIST, EINVAL, ESTALE] = [
  -1, -2, -9, -11, -12, -16, -17, -22, -116,
] as const;

const range = (first: number, count: number): number[] =>
  Array.from({ length: count }, (_, i) => first + i);

const keyOf = <V>(state: ReadonlyMap<number, V>): string =>
  JSON.stringify([...state].sort(([a], [b]) => a - b));

/** The state with a change, if the result is what it must be. */
function when<S>(isRight: boolean, state: S): S | null {
  return isRight ? state : null;
}

/** Pins by frame that is handed out. */
type Frames = ReadonlyMap<number, number>;

/** Frames: nobody gets one that is handed out, and a pinned one is not freed. */
export const frameModel: Model<Frames> = {
  initial: new Map(),
  key: keyOf,
  apply(state, { name, args: [first = 0, second = 0], result }) {
    if (name === "allocFrames") {
      const pfns = range(result, first);
      const isRight = result > 0 && !pfns.some((pfn) => state.has(pfn));
      return when(isRight, new Map([...state, ...pfns.map((pfn) => [pfn, 0] as const)]));
    }
    const pfns = range(first, second);
    const next = new Map(state);
    if (name === "freeFrames") {
      for (const pfn of pfns) next.delete(pfn);
      const expected = freeResult(state, pfns);
      return when(result === expected, expected === 0 ? next : state);
    }
    const isPin = name === "pinFrames";
    for (const pfn of pfns) {
      const pins = state.get(pfn);
      if (first < 0) return when(result === EINVAL, state);
      if (pins === undefined) return when(result === ENOENT, state);
      if (!isPin && pins === 0) return when(result === EINVAL, state);
      next.set(pfn, pins + (isPin ? 1 : -1));
    }
    return when(result === 0, next);
  },
};

function freeResult(state: Frames, pfns: readonly number[]): number {
  if ((pfns[0] ?? 0) < 0) return EINVAL;
  if (pfns.some((pfn) => !state.has(pfn))) return ENOENT;
  return pfns.some((pfn) => state.get(pfn) !== 0) ? EBUSY : 0;
}

/** A region of `frameCount` frames from `basePfn` on: the lowest place that fits, or none. */
export function regionModel(basePfn: number, frameCount: number): Model<bigint> {
  // A bit for each frame that is handed out.
  const bits = (pfn: number, count: number): bigint =>
    ((1n << BigInt(count)) - 1n) << BigInt(pfn - basePfn);
  const lowest = (state: bigint, count: number, order: number): number => {
    for (let pfn = basePfn; pfn + count <= basePfn + frameCount; pfn += 2 ** order)
      if ((state & bits(pfn, count)) === 0n) return pfn;
    return ENOMEM;
  };
  return {
    initial: 0n,
    key: (state) => state.toString(16),
    apply(state, { name, args: [, second = 0, third = 0], result }) {
      if (name === "allocRun") {
        const pfn = lowest(state, second, third);
        return when(result === pfn, pfn < 0 ? state : state | bits(pfn, second));
      }
      if (second < basePfn) return when(result === EINVAL, state);
      const run = bits(second, third);
      const isTaken = (state & run) === run;
      return when(result === (isTaken ? 0 : ENOENT), isTaken ? state ^ run : state);
    },
  };
}

interface Shared {
  readonly owner: number;
  readonly holders: readonly number[];
  /** Of a fence: 0 pending, 1 signaled. */
  readonly status: number;
}

/** Fences and buffers by number: who holds them, and that a number never comes back to life. */
type SharedState = ReadonlyMap<number, Shared>;

/** Importing and releasing; `release` is what the last but one and the last release give. */
function sharing(name: RegExp): (state: SharedState, operation: Operation) => SharedState | null {
  return (state, operation) => {
    const { thread, args, result } = operation;
    const handle = args[0] as number;
    const found = state.get(handle);
    const next = new Map(state);
    if (name.test(operation.name) && operation.name.startsWith("make")) {
      next.set(result, { owner: thread, holders: [thread], status: 0 });
      return when(result > 0 && !state.has(result), next);
    }
    if (found === undefined) return when(result === EBADF || result === ESTALE, state);
    next.set(handle, { ...found, holders: [...new Set([...found.holders, thread])] });
    return when(result === 0, next);
  };
}

const withoutHolder = (state: SharedState, handle: number, thread: number): SharedState => {
  const next = new Map(state);
  const { holders = [], ...rest } = state.get(handle) as Shared;
  const left = holders.filter((holder) => holder !== thread);
  if (left.length === 0) next.delete(handle);
  else next.set(handle, { ...rest, holders: left });
  return next;
};

const shareFence = sharing(/Fence$/);

/** Fences: one way, by their owner only; a number is good while somebody holds the fence. */
export const fenceModel: Model<SharedState> = {
  initial: new Map(),
  key: keyOf,
  apply(state, operation) {
    const { name, thread, args, result } = operation;
    if (name === "makeFence" || name === "importFence") return shareFence(state, operation);
    const handle = args[0] as number;
    const found = state.get(handle);
    if (found === undefined) return when(result === ESTALE, state);
    const isPending = found.status === 0;
    if (name === "fenceStatus") return when(result === found.status, state);
    if (name === "awaitFence") return when(!isPending && result === found.status, state);
    if (name === "signalFence") {
      if (!isPending) return when(result === 0, state);
      if (found.owner !== thread) return when(result === EPERM, state);
      return when(result === 1, new Map(state).set(handle, { ...found, status: 1 }));
    }
    if (!found.holders.includes(thread)) return when(result === ESTALE, state);
    if (isPending && found.owner === thread) return when(result === EBUSY, state);
    return when(result === 0, withoutHolder(state, handle, thread));
  },
};

const shareBuffer = sharing(/Buffer$/);

/** Buffers: free with the last holder. */
export const bufferModel: Model<SharedState> = {
  initial: new Map(),
  key: keyOf,
  apply(state, operation) {
    const { name, thread, args, result } = operation;
    if (name !== "freeBuffer") return shareBuffer(state, operation);
    const found = state.get(args[0] as number);
    if (found === undefined) return when(result === ESTALE, state);
    if (!found.holders.includes(thread)) return when(result === EBADF, state);
    const isLast = found.holders.length === 1;
    return when(result === (isLast ? 0 : 1), withoutHolder(state, args[0] as number, thread));
  },
};

/** A domain's translations: a map is whole or not at all, an unmap ends at a hole. */
export const domainModel: Model<Frames> = {
  initial: new Map(),
  key: keyOf,
  apply(state, { name, args: [, page = 0, count = 1], result }) {
    if (name === "translate") return when(result === (state.get(page) ?? -1), state);
    const pages = range(page, count);
    const next = new Map(state);
    if (name === "map") {
      const isFree = !pages.some((at) => state.has(at));
      for (const at of pages) next.set(at, 1000 + at);
      return when(result === (isFree ? 0 : EEXIST), isFree ? next : state);
    }
    const hole = pages.findIndex((at) => !state.has(at));
    const unmapped = hole < 0 ? count : hole;
    for (const at of pages.slice(0, unmapped)) next.delete(at);
    return when(result === unmapped, next);
  },
};

/** A pool's frame: free, being written, or with consumers. */
interface PoolFrame {
  readonly writer: number;
  /** The moments of its publication's call and return; of two at once neither is the older. */
  readonly published: readonly [start: number, end: number];
  readonly pending: readonly number[];
  readonly held: readonly number[];
}

const FREE: PoolFrame = { writer: 0, published: [0, 0], pending: [], held: [] };
const isFree = ({ writer, pending, held }: PoolFrame): boolean =>
  writer === 0 && pending.length === 0 && held.length === 0;

/**
 * A pool of `count` frames with consumers 0 to `consumers` - 1 that want every frame and only read.
 * Whoever finds nothing while others are at work may be told so though there was something: it
 * waits for the next event and looks again (pool.ts, J4).
 */
export function poolModel(
  count: number,
  consumers: number,
  overlaps: (operation: Operation) => boolean,
): Model<readonly PoolFrame[]> {
  return {
    initial: Array<PoolFrame>(count).fill(FREE),
    key: (state) => JSON.stringify(state),
    apply(state, operation) {
      const { name, thread, args, result, start, end } = operation;
      const set = (i: number, frame: PoolFrame): readonly PoolFrame[] =>
        state.map((was, at) => (at !== i ? was : isFree(frame) ? FREE : frame));
      const at = (i: number): PoolFrame => state[i] ?? FREE;
      if (name === "acquire") {
        const isNone = !state.some(isFree) || overlaps(operation);
        if (result === EAGAIN) return when(isNone, state);
        return isFree(at(result)) ? set(result, { ...FREE, writer: thread }) : null;
      }
      if (name === "publish") {
        const [, i = 0, targets = 0] = args;
        if (at(i).writer !== thread) return when(result === EPERM, state);
        const pending = range(0, consumers).filter((c) => (targets >> c) & 1);
        return when(
          result === pending.length,
          set(i, { ...FREE, published: [start, end], pending }),
        );
      }
      const [, c = 0, f = 0] = args;
      if (name === "take") {
        const mine = state.filter(({ pending }) => pending.includes(c));
        if (result === EAGAIN) return when(mine.length === 0 || overlaps(operation), state);
        const frame = at(result);
        const isOldest = mine.every(({ published: [, end] }) => end > frame.published[0]);
        if (!frame.pending.includes(c) || !isOldest) return null;
        const pending = frame.pending.filter((other) => other !== c);
        return set(result, { ...frame, pending, held: [...frame.held, c].sort() });
      }
      const frame = at(f);
      if (f < 0 || !frame.held.includes(c)) return when(result === EPERM, state);
      return when(result === 0, set(f, { ...frame, held: frame.held.filter((o) => o !== c) }));
    },
  };
}
