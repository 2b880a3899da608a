/**
 * What does a fence cost from its making to its callback?
 *
 *     fence/signal        fenceAlloc + fenceSignal + fenceFree, three calls
 *     fence/signal/api    system.fence() + addCallback() + signal(), one callback
 *     fence/timeline/api  timeline.fence() + addCallback() + advance(), one callback
 *
 * Nanoseconds per fence. The peers are what JavaScript has for "tell me once when it is done".
 *
 * @module
 */

import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import { MiB, openSync } from "dmabuf";
import type { Family, Suite } from "./suite.ts";

/** Adds the rows. */
export const family: Family = (suite: Suite) => {
  const system = openSync({ memoryBytes: 16 * MiB });
  const { fenceContextAlloc, fenceAlloc, fenceSignal, fenceFree } = system.core.exports;
  const context = fenceContextAlloc(1);
  let calls = 0;
  const onDone = (): void => {
    calls++;
  };

  suite.row("fence/signal", "fence", () => ({
    run(count) {
      let signaled = 0;
      for (let i = 0; i < count; i++) {
        const fence = fenceAlloc(context, 1);
        signaled += fenceSignal(fence, 0, 1);
        fenceFree(fence);
      }
      assert.equal(signaled, count);
    },
  }));
  suite.row("fence/signal/api", "fence", () => ({
    run(count) {
      calls = 0;
      for (let i = 0; i < count; i++) {
        const fence = system.fence("bench");
        fence.addCallback(onDone);
        fence.signal();
      }
      assert.equal(calls, count);
    },
  }));
  const timeline = system.timeline("bench");
  suite.row("fence/timeline/api", "fence", () => ({
    run(count) {
      calls = 0;
      for (let i = 0; i < count; i++) {
        timeline.fence().addCallback(onDone);
        timeline.advance();
      }
      assert.equal(calls, count);
    },
  }));
  suite.peer("fence/signal/api", "AbortController", "fence", () => ({
    run(count) {
      calls = 0;
      for (let i = 0; i < count; i++) {
        const controller = new AbortController();
        controller.signal.addEventListener("abort", onDone, { once: true });
        controller.abort();
      }
      assert.equal(calls, count);
    },
  }));
  suite.peer("fence/signal/api", "EventEmitter", "fence", () => ({
    run(count) {
      calls = 0;
      for (let i = 0; i < count; i++) {
        const emitter = new EventEmitter();
        emitter.once("done", onDone);
        emitter.emit("done");
      }
      assert.equal(calls, count);
    },
  }));
  assert.equal(system.check(), null);
};
