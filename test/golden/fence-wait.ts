/**
 * `wait`, `wait_any`, `is_later`, `later`: waits on the injected clock, and the order of fences.
 *
 * @module
 */

import { isSeqnoLater, laterFence, startWait, startWaitAny, type WaitOptions } from "dmabuf";
import type { Bed } from "./bed.ts";
import { TickClock } from "./fence-clock.ts";
import { errnoOr, FenceWorld } from "./fence-world.ts";
import { type Fields, MalformedRecord } from "./fields.ts";
import { factsOf, type Outcome } from "./outcome.ts";

/** When "signaled after about 2 ticks" happens. */
const SIGNAL_TICKS = 2;

/** `wait`: dma_fence_wait_timeout() of one fence, and dma_fence_wait(). */
export function wait(fields: Fields, bed: Bed): Outcome {
  const world = new FenceWorld(bed);
  const clock = new TickClock();
  const fence = world.fence(0);
  const how = fields.text("fence");
  if (how === "signaled") fence.signal();
  else if (how !== "unsignaled") clock.after(SIGNAL_TICKS, () => fence.signal());
  const timeout = fields.recorded("timeout");
  const isLimited = timeout !== "MAX" && timeout !== "dma_fence_wait";
  const options: WaitOptions = { clock, ...(isLimited ? { timeoutMs: Number(timeout) } : {}) };
  const left = errnoOr(() => clock.waitFor((done) => startWait(fence, options, done)));
  const actual = {
    ret: timeout === "dma_fence_wait" && left > 0 ? 0 : left, // no limit, nothing of it left
    retPositive: left > 0,
    retIsTimeout: left === (options.timeoutMs ?? Number.POSITIVE_INFINITY),
  };
  world.close();
  const asked = Object.entries(actual).filter(([name]) => fields.has(name));
  return { facts: factsOf(fields, Object.fromEntries(asked)) };
}

/** `wait_any`: dma_fence_wait_any_timeout() of several fences, some signaled. */
export function waitAny(fields: Fields, bed: Bed): Outcome {
  const world = new FenceWorld(bed);
  const clock = new TickClock();
  const mask = fields.number("signaledMask");
  const fences = Array.from({ length: fields.number("count") }, (_, i) => world.fence(i));
  for (const [i, fence] of fences.entries()) if ((mask & (1 << i)) !== 0) fence.signal();
  let idx = -1;
  const options = { clock, timeoutMs: fields.number("timeout") };
  const ret = errnoOr(() =>
    clock.waitFor((done) =>
      startWaitAny(fences, options, (left, index) => {
        idx = index;
        done(left);
      }),
    ),
  );
  world.close();
  return { facts: factsOf(fields, { ret, idx }) };
}

/** `is_later`: the order of two seqnos of 32 and of 64 bits. */
export function isLater(fields: Fields): Outcome {
  const a = fields.wide("a");
  const name = "b_later32_later64";
  const rows = fields.list(name) as readonly (readonly [string, number, number])[];
  const actual = rows.map(([text]) => {
    const b = BigInt(text);
    return [text, Number(isSeqnoLater(a, b, 32)), Number(isSeqnoLater(a, b, 64))];
  });
  return { facts: factsOf(fields, { [name]: actual }) };
}

/** `later`: dma_fence_later() of two fences of one context. */
export function later(fields: Fields, bed: Bed): Outcome {
  const world = new FenceWorld(bed);
  const context = bed.system.fenceContexts(1);
  const [a, b] = ["A", "B"].map((side, i) => {
    const fence = world.fence(i, { context, seqno: fields.number(`seq${side}`) });
    if (fields.number(`signaled${side}`) === 1) fence.signal();
    return fence;
  });
  if (a === undefined || b === undefined) throw new MalformedRecord("two fences are compared");
  const found = laterFence(a, b);
  world.close();
  return { facts: factsOf(fields, { later: found === null ? "null" : found === a ? "a" : "b" }) };
}
