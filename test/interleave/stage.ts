/**
 * A stage: threads of which exactly one runs at a time, for as many steps as it is given.
 *
 *     stage ──grant(thread, steps)──► runs ─┬─ its steps are used up ──► READY
 *       ▲                                   ├─ it would sleep ────────► ASLEEP ──another wakes it──► READY
 *       └───────────────────────────────────┴─ its program is done ───► DONE
 *
 * Each thread is a Worker with an instance of the yielding core (yielding.ts). What happens is a
 * function of the grants alone, so the same grants give the same run.
 *
 * @module
 */

import { Worker } from "node:worker_threads";
import type { Operation } from "./linearize.ts";
import { type Build, type Exports, YieldingMemory, yieldingModule } from "./yielding.ts";

/** Words of the board, which the stage and its threads share (player.mjs has the same). */
export const board = {
  active: 0, // 1 while a thread runs
  clock: 1, // moments of calls and returns
  steps: 2, // steps of all threads
  stores: 3, // 1: plain stores are steps too
  forgotten: 4, // the byte address of a word that is 0 before each step; 0 = none
  deaf: 5, // 1: nobody is woken
  threads: 16, // where the first thread's words begin
  threadWords: 512,
  grant: 0, // steps that the thread may do; it waits while this is 0
  state: 1,
  asleepAt: 2, // byte address
  asleepSince: 3, // a moment
  count: 4, // operations of its program
  program: 16, // four words an operation: code and three arguments
  history: 144, // six words an operation: result, start, end, and the arguments as they were
  error: 400, // text: its bytes, then their characters
} as const;

/** States of a thread. */
export const READY = 0;
export const ASLEEP = 1;
export const DONE = 2;
export const FAILED = 3;

/** Frames of the memory: the first 256 have bytes. */
const FRAMES = 2048;
const MOST_OPERATIONS = 32;
const STUCK_MS = 20_000;
/** More than any run needs that ends. */
const MOST_STEPS = 200_000;

/** An operation to do: its name, and arguments. */
export type Call = readonly [name: string, ...args: (number | ResultOf)[]];

/** The result of an operation that a thread did before; -1 when it has not yet. */
export interface ResultOf {
  readonly thread: number;
  readonly call: number;
}

/** What each thread does, in turn. */
export type Program = readonly (readonly Call[])[];

/** Whom of the ready threads to run next and for how many steps; `steps` were done so far. */
export type Choose = (
  ready: readonly number[],
  steps: number,
) => readonly [thread: number, steps: number];

/** How a run ended: what was done, and "" or what went wrong. */
export interface Run {
  readonly history: readonly Operation[];
  readonly steps: number;
  readonly wrong: string;
}

/** Threads 1 to `threads` on one memory, which thread 0 has prepared. */
export class Stage {
  readonly memory: YieldingMemory;
  readonly names: readonly string[];
  readonly #board = new Int32Array(new SharedArrayBuffer(4 * (16 + 8 * 512)));
  readonly #owners = new Int32Array(new SharedArrayBuffer(4 * FRAMES));
  readonly #workers: Worker[] = [];

  private constructor(memory: YieldingMemory, names: readonly string[]) {
    this.memory = memory;
    this.names = names;
  }

  /** `names` are the operations that programs may use. */
  static async open(
    build: Build,
    threads: number,
    names: readonly string[],
    prepare: (exports: Exports) => void,
    join: (exports: Exports) => void,
  ): Promise<Stage> {
    const memory = new YieldingMemory(build, 256, FRAMES - 256, prepare);
    // All join here, so that each run begins with all of them there.
    for (let thread = 1; thread <= threads; thread++) join(memory.join(thread));
    memory.keep();
    const stage = new Stage(memory, names);
    await Promise.all(Array.from({ length: threads }, (_, i) => stage.#start(i + 1)));
    return stage;
  }

  /** A Worker for a thread; resolves when it waits for its first grant. */
  #start(thread: number): Promise<unknown> {
    const { memory: bytes } = this.memory.core;
    const module = yieldingModule(this.memory.build);
    const [words, names, owners] = [this.#board, this.names, this.#owners];
    const worker = new Worker(new URL("./player.mjs", import.meta.url), {
      workerData: { memory: bytes, module, thread, words, board, names, owners },
    });
    this.#workers[thread - 1] = worker;
    return new Promise((resolve, reject) => {
      worker.once("message", resolve);
      worker.once("error", reject);
    });
  }

  /**
   * Lets thread 1 do a program up to its step `steps` and terminates its Worker there. Whether it
   * came so far; a new Worker is there afterwards.
   */
  async killAt(steps: number, calls: readonly Call[]): Promise<boolean> {
    this.#prepare([calls]);
    this.#grant(1, steps);
    const state = this.#board[this.#at(1) + board.state];
    if (state === FAILED) throw new Error(this.#errorOf(1));
    if (state === DONE) return false;
    await this.#workers[0]?.terminate();
    this.#board.fill(0, this.#at(1), this.#at(1) + board.threadWords);
    await this.#start(1);
    return true;
  }

  async close(): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.terminate()));
  }

  /** Lets plain stores be steps too, or not. */
  set stores(isOn: boolean) {
    this.#board[board.stores] = isOn ? 1 : 0;
  }

  /** A mutation: the word at this address is 0 before each step, as if nobody had written it. */
  set forgotten(at: number) {
    this.#board[board.forgotten] = at;
  }

  /** A mutation: nobody is woken. */
  set deaf(isOn: boolean) {
    this.#board[board.deaf] = isOn ? 1 : 0;
  }

  #at(thread: number): number {
    return board.threads + (thread - 1) * board.threadWords;
  }

  /** Does a program from the prepared memory on. */
  run(program: Program, choose: Choose): Run {
    this.#prepare(program);
    const words = this.#board;
    let wrong = "";
    while (wrong === "") {
      const threads = program.map((_, i) => i + 1);
      const states = threads.map((thread) => words[this.#at(thread) + board.state]);
      const failed = threads.find((_, i) => states[i] === FAILED);
      if (failed !== undefined) wrong = `thread ${failed}: ${this.#errorOf(failed)}`;
      if (failed !== undefined || states.every((state) => state === DONE)) break;
      const ready = threads.filter((_, i) => states[i] === READY);
      if (ready.length === 0) wrong = `all sleep: ${this.#sleepers(threads)}`;
      else if ((words[board.steps] ?? 0) > MOST_STEPS) wrong = "it does not end";
      else this.#grant(...choose(ready, words[board.steps] ?? 0));
    }
    return {
      history: program.flatMap((calls, i) => this.#read(i + 1, calls)),
      steps: words[board.steps] ?? 0,
      wrong: wrong === "" ? this.memory.broken() : wrong,
    };
  }

  #prepare(program: Program): void {
    this.memory.reset();
    this.#owners.fill(0);
    this.#board[board.clock] = 0;
    this.#board[board.steps] = 0;
    for (const [i, calls] of program.entries()) this.#write(i + 1, calls);
  }

  #grant(thread: number, steps: number): void {
    const words = this.#board;
    Atomics.store(words, board.active, 1);
    Atomics.store(words, this.#at(thread) + board.grant, steps);
    Atomics.notify(words, this.#at(thread) + board.grant);
    while (Atomics.load(words, board.active) === 1) {
      if (Atomics.wait(words, board.active, 1, STUCK_MS) === "timed-out")
        throw new Error(`thread ${thread} runs on without a step`);
    }
  }

  #write(thread: number, calls: readonly Call[]): void {
    if (calls.length > MOST_OPERATIONS) throw new Error("the program is too long");
    const words = this.#board;
    const at = this.#at(thread);
    words.fill(0, at, at + board.threadWords);
    words[at + board.count] = calls.length;
    for (const [i, [name, ...args]] of calls.entries()) {
      const code = this.names.indexOf(name);
      if (code < 0) throw new Error(`no operation is called ${name}`);
      const cells = args.map((arg) =>
        typeof arg === "number" ? arg : -1 - (arg.thread * MOST_OPERATIONS + arg.call),
      );
      words.set([code, ...cells], at + board.program + 4 * i);
    }
  }

  #read(thread: number, calls: readonly Call[]): Operation[] {
    const at = this.#at(thread);
    return calls.flatMap(([name, ...args], i) => {
      const cells = this.#board.slice(at + board.history + 6 * i, at + board.history + 6 * i + 6);
      const [result, start, end, ...values] = cells as unknown as [number, number, number];
      if (end === 0) return []; // it never returned
      return [
        { thread, name, args: (values as number[]).slice(0, args.length), result, start, end },
      ];
    });
  }

  #errorOf(thread: number): string {
    const at = this.#at(thread) + board.error;
    const length = this.#board[at] ?? 0;
    return String.fromCharCode(...this.#board.slice(at + 1, at + 1 + length));
  }

  #sleepers(threads: readonly number[]): string {
    return threads
      .filter((thread) => this.#board[this.#at(thread) + board.state] === ASLEEP)
      .map((thread) => `thread ${thread} on byte ${this.#board[this.#at(thread) + board.asleepAt]}`)
      .join(", ");
  }
}
