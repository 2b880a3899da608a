/**
 * `fence_steps`: single calls on one fence, on stub fences and on no fence, with what its ops and
 * callbacks were heard to do; and one scene of acquire contexts.
 *
 * @module
 */

import { type Fence, type FenceOps, signaledFence, startWait } from "dmabuf";
import { type Bed, EINVAL } from "./bed.ts";
import { TickClock } from "./fence-clock.ts";
import { lockScene } from "./fence-locks.ts";
import { codeOf, ENOENT, errnoOr, FenceWorld, onNone } from "./fence-world.ts";
import { type Fields, MalformedRecord } from "./fields.ts";
import type { Fact, Outcome } from "./outcome.ts";

type Calls = Readonly<Record<string, () => boolean | number>>;
type Step = readonly [what: string, value: number, trace: readonly string[]];

/** Replays a `fence_steps` record. */
export function fenceSteps(fields: Fields, bed: Bed): Outcome {
  const world = new FenceWorld(bed);
  const name = fields.text("name");
  const call = callsOf(name, world);
  const facts = (fields.list("steps") as readonly Step[]).map(([what, value, trace], i): Fact => {
    const actual = [Number(call(what)), world.heard()];
    return { name: `step ${i} ${what}`, actual, recorded: [value, trace] };
  });
  world.close();
  return { facts };
}

/** What each step of a record does, by the record's name. */
function callsOf(name: string, world: FenceWorld): (what: string) => boolean | number {
  if (name.startsWith("ww_mutex")) return pick(lockScene(world.bed.system));
  if (name === "stub fences") return pick(stubs(world));
  if (name === "null arguments") return pick(nulls(world));
  const fence = world.fence(0, { ops: opsOf(name, world) });
  const callbacks = new Map<number, (fence: Fence) => void>();
  return (what) =>
    onFence(what, fence, (index) => {
      const callback = callbacks.get(index) ?? world.callback(index);
      callbacks.set(index, callback);
      return callback;
    });
}

function pick(calls: Calls): (what: string) => boolean | number {
  return (what) => (calls[what] ?? unknown(what))();
}

/** "Plain ops" only hear of the release. */
function opsOf(name: string, world: FenceWorld): FenceOps {
  const release = (): void => world.note("release f0");
  if (!name.startsWith("full ops")) return { release };
  return {
    release,
    enableSignaling: () => {
      world.note("enable_signaling f0");
      return !name.endsWith("enable_signaling returns false");
    },
    signaled: () => name.endsWith("signaled op returns true"),
  };
}

function onFence(
  what: string,
  fence: Fence,
  callback: (index: number) => (fence: Fence) => void,
): boolean | number {
  const [verb, text] = what.split(" ") as [string, string | undefined];
  const number = Number(text);
  const clock = new TickClock();
  switch (verb) {
    case "is_signaled":
      return fence.isSignaled;
    case "signaled": // "signaled bit before is_signaled"
      return fence.isMarkedSignaled;
    case "get_status":
      return fence.status;
    case "flags":
      return (fence.isMarkedSignaled ? 3 : 0) + (fence.isSignalingEnabled ? 4 : 0);
    case "add_callback":
      return fence.addCallback(callback(number)) ? 0 : ENOENT;
    case "remove_callback":
      return fence.removeCallback(callback(number));
    case "enable_sw_signaling":
      fence.enableSignaling();
      return 0;
    case "signal":
      return fence.signal() ? 0 : EINVAL;
    case "set_error":
      fence.setError(codeOf(number) ?? unknown(what));
      return 0;
    case "wait":
      return clock.waitFor((done) => startWait(fence, { clock }, done)) > 0 ? 0 : ENOENT;
    case "wait_timeout":
      return clock.waitFor((done) => startWait(fence, { clock, timeoutMs: number }, done));
    case "put":
      fence.release();
      return 0;
    default:
      return unknown(what);
  }
}

function stubs({ bed: { system } }: FenceWorld): Calls {
  const made = signaledFence();
  const [once, twice] = [system.stub, system.stub];
  return {
    "get_stub twice is the same": () => once === twice,
    "stub get_status": () => system.stub.status,
    "private stub get_status": () => made.status,
    "private stubs differ": () => made !== signaledFence(),
    "stub seqno": () => system.stub.seqno,
    "stub and private stub share context": () => system.stub.context === made.context,
    "signal stub": () => (system.stub.signal() ? 0 : EINVAL),
  };
}

function nulls(world: FenceWorld): Calls {
  const none = null as unknown as Fence;
  return {
    "signal NULL": () => onNone(() => none.signal()),
    "add_callback with NULL func": () => {
      const fence = world.fence(0);
      return Number(errnoOr(() => fence.addCallback(null as unknown as () => void)));
    },
    "add_callback on NULL fence": () => onNone(() => none.addCallback(() => {})),
  };
}

function unknown(what: string): never {
  throw new MalformedRecord(`the step "${what}" is unknown`);
}
