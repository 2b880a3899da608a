/**
 * Cores that call a test before every step (scripts/yields.mjs), and what they cost nothing to ask:
 * counters and words of the memory.
 *
 * @module
 */

import { readFileSync } from "node:fs";
import { type Core, openCoreSync } from "../../src/core/core.ts";
import type { CoreExports } from "../../src/core/exports.ts";
import { invariantName } from "../../src/core/instantiate.ts";
import { withMemoryKind } from "../../src/core/memory-kind.ts";
import { addressOf } from "../../src/units.ts";
import { headerWords } from "../support/header.ts";

/** A step that other threads can see: a CAS, a lock, an atomic load or store. */
export const ATOMIC = 0;
/** Any other store. */
export const STORE = 1;

/** Which compiled core. */
export type Build = "debug" | "release";
/** Every export of the core, listed or not. */
// biome-ignore lint/suspicious/noExplicitAny: tests of the core reach every export
export type Exports = any;

/** What a core asks its test. */
export interface Steps {
  /** Before a step of a kind. */
  yield(kind: number): void;
  /** Instead of sleeping while the word at `at` is `expected`. */
  wait(at: number, expected: number): void;
  /** Instead of waking at most `count` threads that sleep on the word at `at`; how many. */
  notify(at: number, count: number): number;
}

/** Steps of a thread that is alone: nobody else would ever wake it. */
export const alone: Steps = {
  yield() {},
  wait(at) {
    throw new Error(`a thread waits for nobody at byte ${at}`);
  },
  notify: () => 0,
};

const modules = new Map<Build, WebAssembly.Module>();

/** The yielding core of a build, for shared memory. */
export function yieldingModule(build: Build): WebAssembly.Module {
  const known = modules.get(build);
  if (known !== undefined) return known;
  const file = new URL(`../../build/core.${build}.yields.wasm`, import.meta.url);
  const module = new WebAssembly.Module(withMemoryKind(readFileSync(file), true));
  modules.set(build, module);
  return module;
}

/** An instance of a yielding core, which has not joined yet. */
export function instance(
  module: WebAssembly.Module,
  memory: WebAssembly.Memory,
  thread: number,
  steps: Steps,
): Exports {
  const env = {
    memory,
    thread,
    yield: (kind: number) => steps.yield(kind),
    wait: (at: number, expected: number) => {
      steps.wait(at, expected);
      return 0;
    },
    notify: (at: number, count: number) => steps.notify(at, count),
    panic(invariant: number, detail: number) {
      throw new Error(`broke ${invariantName(invariant >>> 0)} (${detail >>> 0})`);
    },
  };
  return { ...new WebAssembly.Instance(module, { env }).exports, memoryOf: () => memory };
}

/** A memory whose threads yield, one after the other in this thread of the host. */
export class YieldingMemory {
  readonly build: Build;
  readonly core: Core;
  #before: Uint8Array;

  /**
   * `backed` frames with bytes and `unbacked` without, on shared memory. `prepare` is done once;
   * reset() leads back to what it left.
   */
  constructor(build: Build, backed: number, unbacked: number, prepare: (exports: Exports) => void) {
    this.build = build;
    const file = new URL(`../../build/core.${build}.wasm`, import.meta.url);
    const wasm = new WebAssembly.Module(withMemoryKind(readFileSync(file), true));
    const memoryBytes = addressOf(backed);
    this.core = openCoreSync({ wasm, shared: true, memoryBytes, unbackedFrames: unbacked });
    prepare(this.core.exports);
    this.core.exports.magazineDrain();
    this.#before = this.core.u8.slice();
  }

  /** Makes what is there now what reset() leads back to. */
  keep(): void {
    this.#before = this.core.u8.slice();
  }

  /** Everything as it was when this was made, or kept. */
  reset(): void {
    this.core.u8.set(this.#before);
  }

  /** A further thread. */
  join(thread: number, steps: Steps = alone): Exports {
    const exports = instance(yieldingModule(this.build), this.core.memory, thread, steps);
    exports.coreJoin(1);
    return exports;
  }

  /** Thread 0, in the yielding core. */
  first(steps: Steps = alone): Exports {
    return instance(yieldingModule(this.build), this.core.memory, 0, steps);
  }

  /** What must be as before when everything was given back. */
  counters(): Record<string, number> {
    const exports = this.core.exports as CoreExports & Exports;
    return {
      free: exports.frameCountIn(0) + exports.frameCountIn(1) + exports.frameCountIn(9),
      objects: this.core.word(exports.HEADER_AT.value, headerWords.objectCount),
      pinned: exports.pinnedFrameCount(),
      bounced: exports.bounceUsedSlots(),
    };
  }

  /** The invariant that the memory breaks, "" for none. */
  broken(): string {
    return this.core.check() ?? "";
  }
}
