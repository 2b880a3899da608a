import { describe, expect } from "vitest";
import type { Fence, System } from "../../src/index.ts";
import { joinSync, MiB, SyncFile, signaledFence, waitAny } from "../../src/index.ts";
import { eachCore } from "../support/cores.ts";
import { matrix } from "../support/matrix.ts";

/**
 * fresh: pending, nobody asked. hooked: a callback waits. doomed: setError() was called. polled:
 * pending, and its ops say that it is done. done, failed: signaled, with and without an error.
 * released: given up while pending. stub: signaled from the start, of no system.
 */
const plain = `
  method          |fresh  |hooked |doomed |polled |done  |failed|released|stub
  isSignaled      |false  |false  |false  |true   |true  |true  |true    |true
  isMarked        |false  |false  |false  |false  |true  |true  |true    |true
  status          |0      |0      |0      |1      |1     |-5    |-35     |1
  error           |null   |null   |null   |null   |null  |EIO   |EDEADLK |null
  isTimed         |false  |false  |false  |false  |true  |true  |true    |true
  enableSignaling |true   |true   |true   |true   |false |false |false   |false
  addCallback     |true   |true   |true   |true   |false |false |false   |false
  addCallback null|EINVAL |EINVAL |EINVAL |EINVAL |EINVAL|EINVAL|EINVAL  |EINVAL
  removeCallback  |false  |true   |false  |false  |false |false |false   |false
  setError        |ok     |ok     |ok     |ok     |EINVAL|EINVAL|EINVAL  |EINVAL
  signal          |true 1 |true 1 |true -5|true 1 |false |false |false   |false
  signal EIO      |true -5|true -5|true -5|true -5|false |false |false   |false
  signal nonsense |EINVAL |EINVAL |EINVAL |EINVAL |false |false |false   |false
  setDeadline     |ok     |ok     |ok     |ok     |ok    |ok    |ok      |ok
  wait            |ETIME  |ETIME  |ETIME  |ok     |ok    |ok    |ok      |ok
  wait aborted    |EINTR  |EINTR  |EINTR  |ok     |ok    |ok    |ok      |ok
  wait negative   |EINVAL |EINVAL |EINVAL |EINVAL |EINVAL|EINVAL|EINVAL  |EINVAL
  waitAny         |ETIME  |ETIME  |ETIME  |0      |0     |0     |0       |0
  waitSync        |EDEADLK|EDEADLK|EDEADLK|ok     |ok    |ok    |ok      |ok
  token           |number |number |number |number |number|number|ESTALE  |EOPNOTSUPP
  syncFile        |0      |0      |0      |1      |1     |-5    |-35     |1
  release         |ok -35 |ok -35 |ok -35 |ok 1   |ok 1  |ok -5 |ok -35  |ok 1
`;

/**
 * array, anyArray, chain: pending, of two fences. full: an array whose parts have signaled, one of
 * them with EIO, and nobody asked. hookedFull: the same, hooked before. ended: a chain whose fences
 * have signaled. shared: a plain fence with a token. onTimeline: the first of a timeline.
 */
const composite = `
  method          |array  |anyArray|chain  |full   |hookedFull|ended  |shared |onTimeline
  isSignaled      |false  |false   |false  |true   |true      |true   |false  |false
  isMarked        |false  |false   |false  |false  |true      |false  |false  |false
  status          |0      |0       |0      |1      |-5        |1      |0      |0
  error           |null   |null    |null   |null   |EIO       |null   |null   |null
  isTimed         |false  |false   |false  |false  |true      |false  |false  |false
  enableSignaling |true   |true    |true   |false  |false     |false  |true   |true
  addCallback     |true   |true    |true   |false  |false     |false  |true   |true
  addCallback null|EINVAL |EINVAL  |EINVAL |EINVAL |EINVAL    |EINVAL |EINVAL |EINVAL
  removeCallback  |false  |false   |false  |false  |false     |false  |false  |false
  setError        |ok     |ok      |ok     |ok     |EINVAL    |ok     |ok     |ok
  signal          |true 1 |true 1  |true 1 |true 1 |false     |true 1 |true 1 |true 1
  signal EIO      |true -5|true -5 |true -5|true -5|false     |true -5|true -5|true -5
  signal nonsense |EINVAL |EINVAL  |EINVAL |EINVAL |false     |EINVAL |EINVAL |EINVAL
  setDeadline     |ok     |ok      |ok     |ok     |ok        |ok     |ok     |ok
  wait            |ETIME  |ETIME   |ETIME  |ok     |ok        |ok     |ETIME  |ETIME
  wait aborted    |EINTR  |EINTR   |EINTR  |ok     |ok        |ok     |EINTR  |EINTR
  wait negative   |EINVAL |EINVAL  |EINVAL |EINVAL |EINVAL    |EINVAL |EINVAL |EINVAL
  waitAny         |ETIME  |ETIME   |ETIME  |0      |0         |0      |ETIME  |ETIME
  waitSync        |EDEADLK|EDEADLK |EDEADLK|ok     |ok        |ok     |EDEADLK|EDEADLK
  token           |number |number  |number |number |number    |number |number |number
  syncFile        |0      |0       |0      |-5     |-5        |1      |0      |0
  release         |ok -35 |ok -35  |ok -35 |ok 1   |ok -5     |ok 1   |ok -35 |ok -35
`;

/**
 * Fences of another thread: pending; with a callback here; signaled there, and nobody has looked;
 * failed there; given up here; of a thread that is gone.
 */
const imported = `
  method          |pending|hooked|done  |failed|released|orphaned
  isSignaled      |false  |false |true  |true  |true    |true
  isMarked        |false  |false |false |false |true    |false
  status          |0      |0     |1     |-5    |-35     |-130
  error           |null   |null  |null  |null  |EDEADLK |null
  isTimed         |false  |false |false |false |true    |false
  enableSignaling |true   |true  |true  |true  |false   |true
  addCallback     |true   |true  |true  |true  |false   |true
  addCallback null|EINVAL |EINVAL|EINVAL|EINVAL|EINVAL  |EINVAL
  removeCallback  |false  |true  |false |false |false   |false
  setError        |EPERM  |EPERM |EPERM |EPERM |EINVAL  |EPERM
  signal          |EPERM  |EPERM |false |false |false   |false
  signal EIO      |EPERM  |EPERM |false |false |false   |false
  signal nonsense |EPERM  |EPERM |false |false |false   |false
  setDeadline     |ok     |ok    |ok    |ok    |ok      |ok
  wait            |ETIME  |ETIME |ok    |ok    |ok      |ok
  wait aborted    |EINTR  |EINTR |ok    |ok    |ok      |ok
  wait negative   |EINVAL |EINVAL|EINVAL|EINVAL|EINVAL  |EINVAL
  waitAny         |ETIME  |ETIME |0     |0     |0       |0
  waitSync        |ETIME  |ETIME |ok    |ok    |ok      |ok
  token           |number |number|number|number|ESTALE  |number
  syncFile        |0      |0     |1     |-5    |-35     |-130
  release         |ok -35 |ok -35|ok 1  |ok -5 |ok -35  |ok -130
`;

const soon = { timeoutMs: 1 };

/** A fence in a state. */
class Bench {
  readonly system: System;
  readonly fence: Fence;
  readonly #callback = (): void => {};

  constructor(system: System, state: string) {
    this.system = system;
    this.fence = this.#enter(state);
  }

  #enter(state: string): Fence {
    const { system } = this;
    const fence = system.fence("one");
    const parts = [system.fence("a"), system.fence("b")] as [Fence, Fence];
    const chain = () => system.fenceChain(system.fenceChain(null, parts[0], 1), parts[1], 2);
    const end = (error: "EIO" | null = null): void => {
      parts[0].signal(error);
      parts[1].signal();
    };
    const states: Record<string, () => Fence | undefined> = {
      hooked: () => void fence.addCallback(this.#callback),
      doomed: () => void fence.setError("EIO"),
      polled: () => system.fence("polled", { ops: { signaled: () => true } }),
      done: () => void fence.signal(),
      failed: () => void fence.signal("EIO"),
      released: () => void fence.release(),
      stub: () => signaledFence(),
      array: () => system.fenceArray(parts),
      anyArray: () => system.fenceArray(parts, { mode: "any" }),
      chain,
      full: () => {
        const array = system.fenceArray(parts);
        end("EIO");
        return array;
      },
      hookedFull: () => {
        const array = system.fenceArray(parts);
        array.addCallback(() => {});
        end("EIO");
        return array;
      },
      ended: () => {
        const head = chain();
        end();
        return head;
      },
      shared: () => void fence.token,
      onTimeline: () => system.timeline("queue").fence(),
    };
    return states[state]?.() ?? fence;
  }

  /** A fence of `owner`, imported here. */
  static imported(system: System, state: string): Bench {
    const owner = joinSync(system.share());
    const theirs = owner.fence("theirs");
    const bench = new Bench(system, "fresh");
    const here = system.importFence(theirs.token);
    if (state === "hooked") here.addCallback(bench.#callback);
    if (state === "done") theirs.signal();
    if (state === "failed") theirs.signal("EIO");
    if (state === "released") here.release();
    if (state === "orphaned") system.reap(owner.thread);
    (bench as { fence: Fence }).fence = here;
    return bench;
  }

  call(method: string): unknown {
    const { fence } = this;
    const methods: Record<string, () => unknown> = {
      isSignaled: () => fence.isSignaled,
      isMarked: () => fence.isMarkedSignaled,
      status: () => fence.status,
      error: () => fence.error?.code ?? null,
      isTimed: () => fence.timestampMs > 0,
      enableSignaling: () => fence.enableSignaling(),
      addCallback: () => fence.addCallback(() => {}),
      "addCallback null": () => fence.addCallback(null as never),
      removeCallback: () => fence.removeCallback(this.#callback),
      setError: () => fence.setError("EIO"),
      signal: () => this.#signal(null),
      "signal EIO": () => this.#signal("EIO"),
      "signal nonsense": () => this.#signal("nonsense" as "EIO"),
      setDeadline: () => fence.setDeadline(1),
      wait: () => fence.wait(soon),
      "wait aborted": () => fence.wait({ signal: AbortSignal.abort() }),
      "wait negative": () => fence.wait({ timeoutMs: -1 }),
      waitAny: () => waitAny([fence], soon),
      waitSync: () => fence.waitSync(soon),
      token: () => typeof fence.token,
      syncFile: () => new SyncFile(fence).info().status,
      release: () => this.#release(),
    };
    const call = methods[method];
    if (call === undefined) throw new Error(`no method ${method}`);
    return call();
  }

  #signal(error: "EIO" | null): string {
    const { fence } = this;
    return fence.signal(error) ? `true ${fence.status}` : "false";
  }

  #release(): string {
    const { fence } = this;
    fence.release();
    fence.release();
    return `ok ${fence.status}`;
  }
}

/** What must not change by a call that is refused, and never after the signal (F1). */
function stateOf({ fence }: Bench): string {
  return JSON.stringify([fence.isMarkedSignaled, fence.error?.code ?? null, fence.timestampMs]);
}

describe.each(eachCore)("a fence on the $name core", (build) => {
  const open = () => build.system({ memoryBytes: 2 * MiB });
  const scene = (bench: Bench, method: string) => {
    const before = stateOf(bench);
    const wasSignaled = bench.fence.isMarkedSignaled;
    return {
      call: () => bench.call(method),
      answer: (result: unknown) => (result === undefined ? "ok" : String(result)),
      after: (outcome: string) => {
        const isRefused = /^E[A-Z]/.test(outcome) && method !== "error";
        if (wasSignaled || isRefused) expect(stateOf(bench)).toBe(before);
        expect(bench.system.check()).toBeNull();
      },
    };
  };
  for (const table of [plain, composite]) {
    matrix("method by state", table, ({ state, method }) =>
      scene(new Bench(open(), state), method),
    );
  }
  if (build.shared) {
    matrix("of another thread: method by state", imported, ({ state, method }) =>
      scene(Bench.imported(open(), state), method),
    );
  }
});
