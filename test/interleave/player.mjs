/**
 * A thread of a stage (stage.ts): does its program, a step only when it was granted.
 *
 * @module
 */

import { parentPort, workerData } from "node:worker_threads";
import { operations } from "./operations.mjs";

const { memory, module, thread, words, board, names, owners } = workerData;
const bytes = new Int32Array(memory.buffer);
const at = board.threads + (thread - 1) * board.threadWords;
const threads = 8;
const [READY, ASLEEP, DONE, FAILED] = [0, 1, 2, 3];
const STORE = 1;
const MOST_OPERATIONS = 32;

let left = 0; // of the steps granted

/** Lets the stage go on, until it grants steps. */
function handOver(state) {
  words[at + board.state] = state;
  Atomics.store(words, board.active, 0);
  Atomics.notify(words, board.active);
  while (Atomics.load(words, at + board.grant) === 0) Atomics.wait(words, at + board.grant, 0);
  left = words[at + board.grant];
  words[at + board.grant] = 0;
}

/** Where the words of the threads are that sleep on a word, who has slept longest first. */
function sleepersOn(address) {
  return Array.from({ length: threads }, (_, i) => board.threads + i * board.threadWords)
    .filter((at) => words[at + board.state] === ASLEEP && words[at + board.asleepAt] === address)
    .sort((a, b) => words[a + board.asleepSince] - words[b + board.asleepSince]);
}

const moment = () => ++words[board.clock];

const steps = {
  yield(kind) {
    if (kind === STORE && words[board.stores] === 0) return;
    words[board.steps] += 1;
    if (--left <= 0) handOver(READY);
    if (words[board.forgotten] !== 0) bytes[words[board.forgotten] / 4] = 0;
  },
  wait(address, expected) {
    steps.yield(0);
    if (bytes[address / 4] !== expected) return;
    words[at + board.asleepAt] = address;
    words[at + board.asleepSince] = moment();
    handOver(ASLEEP);
  },
  /** Wakes those that have slept longest. */
  notify(address, count) {
    let woken = 0;
    if (words[board.deaf] === 1) return woken;
    for (; woken < count >>> 0; woken++) {
      const longest = sleepersOn(address)[0];
      if (longest === undefined) break;
      words[longest + board.state] = READY;
    }
    return woken;
  },
};

const { exports } = new WebAssembly.Instance(module, {
  env: {
    memory,
    thread,
    yield: steps.yield,
    wait: (address, expected) => {
      steps.wait(address, expected);
      return 0;
    },
    notify: steps.notify,
    panic: (invariant, detail) => {
      const name = String.fromCharCode(invariant / 100) + (invariant % 100);
      throw new Error(`broke ${name} (${detail >>> 0})`);
    },
  },
});

/** The arguments of an operation: numbers, and results of earlier operations. */
function argumentsOf(i) {
  const cell = at + board.program + 4 * i;
  return [...words.slice(cell + 1, cell + 4)].map((arg) => {
    if (arg >= 0) return arg;
    const [of, call] = [Math.floor((-1 - arg) / MOST_OPERATIONS), (-1 - arg) % MOST_OPERATIONS];
    const found = board.threads + (of - 1) * board.threadWords + board.history + 6 * call;
    return words[found + 2] === 0 ? -1 : words[found];
  });
}

const stage = { core: exports, steps, thread, owners };

function play() {
  for (let i = 0; i < words[at + board.count]; i++) {
    const args = argumentsOf(i);
    const cell = at + board.history + 6 * i;
    words[cell + 1] = moment();
    const result = operations[names[words[at + board.program + 4 * i]]](stage, ...args);
    words.set([result, words[cell + 1], moment(), ...args], cell);
  }
}

function playSafely() {
  try {
    play();
    return DONE;
  } catch (error) {
    const text = String(error.stack).slice(0, 100);
    words.set([text.length, ...[...text].map((c) => c.charCodeAt(0))], at + board.error);
    return FAILED;
  }
}

parentPort.postMessage("ready");
while (Atomics.load(words, at + board.grant) === 0) Atomics.wait(words, at + board.grant, 0);
left = words[at + board.grant];
words[at + board.grant] = 0;
while (true) handOver(playSafely());
