/**
 * A Worker of `workers.bench.ts`: does its one thing until it is told to end, asleep in between.
 *
 * @module
 */

import { type MessagePort, receiveMessageOnPort, workerData } from "node:worker_threads";
import { DmaBufError, joinSync, type SystemShare } from "dmabuf";

/** What a Worker of the bench is for, and what it needs for that. */
export type Task =
  | { readonly kind: "consume"; readonly share: SystemShare; readonly token: number }
  | { readonly kind: "allocate"; readonly share: SystemShare; readonly frames: number }
  | { readonly kind: "answer"; readonly port: MessagePort };

/** Words that the bench and a Worker signal each other with. */
export const READY = 0;
export const ASKED = 1;
export const ANSWERED = 2;
export const COUNT = 3;
export const WORDS = 4;

/** `workerData` of a Worker. */
export interface HandData {
  readonly index: number;
  readonly words: Int32Array<SharedArrayBuffer>;
  readonly task: Task;
}

/** Pairs that a Worker makes each time it is woken: waking costs as much as thousands. */
export const BATCH = 100_000;

const ANYWHERE = 0xffffffff;
const END = -1;

function tell(words: Int32Array, word: number): void {
  Atomics.add(words, word, 1);
  Atomics.notify(words, word);
}

/** Calls `work` for each question, until the count is negative. */
function answerQuestions(words: Int32Array, work: (count: number) => void): void {
  for (let asked = 0; ; asked++) {
    Atomics.wait(words, ASKED, asked);
    const count = Atomics.load(words, COUNT);
    if (count === END) return;
    work(count);
    tell(words, ANSWERED);
  }
}

function consume(words: Int32Array, index: number, share: SystemShare, token: number): void {
  const system = joinSync(share);
  const pool = system.importPool(token);
  const consumer = pool.consumer({ name: `consumer ${index}` });
  tell(words, READY);
  try {
    for (;;) {
      const frame = consumer.takeSync();
      const [view] = frame.views;
      if (view !== undefined) view[index] = (view[0] ?? 0) + 1; // it has seen the frame
      frame.release();
    }
  } catch (error) {
    if (!(error instanceof DmaBufError && error.code === "EPIPE")) throw error;
  }
  pool.release();
  system.close();
}

function allocate(words: Int32Array, share: SystemShare, frames: number): void {
  const system = joinSync(share);
  const { frameAlloc, frameFree } = system.core.exports;
  tell(words, READY);
  answerQuestions(words, (count) => {
    for (let i = 0; i < count * BATCH; i++) frameFree(frameAlloc(frames, 0, ANYWHERE), frames);
  });
  system.close();
}

function answer(words: Int32Array, index: number, port: MessagePort): void {
  tell(words, READY);
  answerQuestions(words, () => {
    const { message } = receiveMessageOnPort(port) as { message: ArrayBuffer };
    const bytes = new Uint8Array(message);
    bytes[index] = (bytes[0] ?? 0) + 1;
    port.postMessage(message, [message]);
  });
  port.close();
}

if (workerData !== null) {
  const { index, words, task } = workerData as HandData;
  if (task.kind === "consume") consume(words, index, task.share, task.token);
  else if (task.kind === "allocate") allocate(words, task.share, task.frames);
  else answer(words, index, task.port);
}
