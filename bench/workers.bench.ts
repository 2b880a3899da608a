/**
 * What does it cost to hand a frame to other threads and get it back, and to allocate on several?
 *
 *     workers/hand-off         8 MiB: acquire, publish to one Worker, which takes and releases it
 *     workers/fan-out/3        the same to three Workers at once
 *     workers/alloc/1          alloc + free of single frames on one Worker, from its own magazine
 *     workers/alloc/2, /4      the same on two, or four, at once: nanoseconds per pair of all
 *     workers/alloc-run/…      the same with runs of 4 frames, for which all take one lock
 *
 * Everybody sleeps in the call while there is nothing to do. The peers move an ArrayBuffer of 8 MiB
 * by message: transferred there and back; cloned for each Worker; one transferred, and copies for
 * the others. With fewer free processors than threads, it is the cost of changing between them; the
 * table says where alloc had not enough.
 *
 * @module
 */

import assert from "node:assert/strict";
import {
  MessageChannel,
  type MessagePort,
  receiveMessageOnPort,
  Worker,
} from "node:worker_threads";
import { MiB, openSync, type System } from "dmabuf";
import type { Family, Job, Suite } from "./suite.ts";
import {
  ANSWERED,
  ASKED,
  BATCH,
  COUNT,
  type HandData,
  READY,
  type Task,
  WORDS,
} from "./workers-hand.ts";

const FRAME_BYTES = 8 * MiB;

/** A Worker that waits for what it is for. */
interface Hand {
  readonly words: Int32Array<SharedArrayBuffer>;
}

function hire(index: number, task: Task): Hand {
  const words = new Int32Array(new SharedArrayBuffer(WORDS * 4));
  const data: HandData = { index, words, task };
  const transferList = task.kind === "answer" ? [task.port] : [];
  const worker = new Worker(new URL("./workers-hand.js", import.meta.url), {
    workerData: data,
    transferList,
  });
  worker.unref();
  assert.notEqual(Atomics.wait(words, READY, 0, 20_000), "timed-out");
  return { words };
}

function ask({ words }: Hand, count: number): void {
  Atomics.store(words, COUNT, count);
  Atomics.add(words, ASKED, 1);
  Atomics.notify(words, ASKED);
}

function awaitAnswer({ words }: Hand): void {
  const asked = Atomics.load(words, ASKED);
  for (;;) {
    const answered = Atomics.load(words, ANSWERED);
    if (answered === asked) return;
    Atomics.wait(words, ANSWERED, answered);
  }
}

function handOff(system: System, consumers: number): Job {
  const pool = system.pool({ name: "bench", count: 1, bytes: FRAME_BYTES });
  for (let i = 1; i <= consumers; i++)
    hire(i, { kind: "consume", share: system.share(), token: pool.token });
  return {
    run(count) {
      for (let i = 0; i < count; i++) {
        const frame = pool.acquireSync();
        (frame.views[0] as Uint8Array)[0] = i % 256;
        assert.equal(frame.publish(), consumers);
      }
      pool.acquireSync().abandon(); // the last one has come back
    },
    end() {
      assert(pool.report().consumers.every(({ taken }) => taken > 0));
      pool.release();
    },
  };
}

function allocate(system: System, threads: number, frames: number): Job {
  const hands = Array.from({ length: threads }, (_, i) =>
    hire(i, { kind: "allocate", share: system.share(), frames }),
  );
  return {
    opsPerRun: threads * BATCH,
    threads,
    run(count) {
      for (const hand of hands) ask(hand, count);
      for (const hand of hands) awaitAnswer(hand);
    },
    end() {
      for (const hand of hands) ask(hand, -1);
    },
  };
}

/** Sends what `make` makes of the buffer to each Worker; the first one's comes back to be used. */
function byMessage(
  workers: number,
  send: (port: MessagePort, buffer: ArrayBuffer, isLast: boolean) => void,
): Job {
  const ports: MessagePort[] = [];
  const hands = Array.from({ length: workers }, (_, i) => {
    const { port1, port2 } = new MessageChannel();
    ports.push(port1);
    return hire(i + 1, { kind: "answer", port: port2 });
  });
  let buffer = new ArrayBuffer(FRAME_BYTES);
  return {
    run(count) {
      for (let i = 0; i < count; i++) {
        new Uint8Array(buffer)[0] = i % 256;
        for (const [k, port] of ports.entries()) {
          send(port, buffer, k === ports.length - 1);
          ask(hands[k] as Hand, 1);
        }
        for (const [k, hand] of hands.entries()) {
          awaitAnswer(hand);
          buffer = (receiveMessageOnPort(ports[k] as MessagePort) as { message: ArrayBuffer })
            .message;
        }
        assert.equal(buffer.byteLength, FRAME_BYTES);
      }
    },
    end() {
      for (const hand of hands) ask(hand, -1);
    },
  };
}

/** Adds the rows. */
export const family: Family = (suite: Suite) => {
  const system = openSync({ memoryBytes: 64 * MiB, shared: true, threads: 16 });
  suite.row("workers/hand-off", "round trip", () => handOff(system, 1));
  suite.peer("workers/hand-off", "transfer", "round trip", () =>
    byMessage(1, (port, buffer) => port.postMessage(buffer, [buffer])),
  );
  suite.row("workers/fan-out/3", "round trip", () => handOff(system, 3));
  suite.peer("workers/fan-out/3", "clone", "round trip", () =>
    byMessage(3, (port, buffer) => port.postMessage(buffer)),
  );
  suite.peer("workers/fan-out/3", "transfer and copies", "round trip", () =>
    byMessage(3, (port, buffer, isLast) => {
      const sent = isLast ? buffer : buffer.slice(0);
      port.postMessage(sent, [sent]);
    }),
  );
  for (const threads of [1, 2, 4])
    suite.row(`workers/alloc/${threads}`, "pair", () => allocate(system, threads, 1));
  for (const threads of [1, 2, 4])
    suite.row(`workers/alloc-run/${threads}`, "pair", () => allocate(system, threads, 4));
};
