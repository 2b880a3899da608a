/**
 * The four cores that every suite runs on: debug and release code, unshared and shared memory.
 *
 * @module
 */

import { readFileSync } from "node:fs";
import { type Core, openCoreSync } from "../../src/core/core.ts";
import { withMemoryKind } from "../../src/core/memory-kind.ts";
import { openSync, type System } from "../../src/system.ts";
import type { OpenOptions } from "../../src/system-options.ts";
import { addressOf, FRAME_BYTES, KiB } from "../../src/units.ts";

/**
 * A core opened for a test. `scratchAt` is the address of `scratchBytes` bytes that belong to the
 * test.
 */
export interface TestCore {
  readonly core: Core;
  // biome-ignore lint/suspicious/noExplicitAny: tests of the core reach every export, listed or not
  readonly exports: any;
  readonly memory: WebAssembly.Memory;
  readonly scratchAt: number;
}

/** One of the four cores. */
export interface CoreVariant {
  readonly name: string;
  readonly wasm: WebAssembly.Module;
  readonly shared: boolean;
  /** A core with `frames` frames of memory, of which at most 4 MiB are the test's own. */
  open(frames: number): TestCore;
  /** A core of `backed` frames of memory and `unbacked` descriptors more. */
  openUnbacked(backed: number, unbacked: number): Omit<TestCore, "scratchAt">;
  /** A system on this core. */
  system(options?: OpenOptions): System;
}

const SCRATCH_FRAMES = 1024;

function compile(build: "debug" | "release", shared: boolean): WebAssembly.Module {
  const file = new URL(`../../build/core.${build}.wasm`, import.meta.url);
  return new WebAssembly.Module(withMemoryKind(readFileSync(file), shared));
}

function variant(build: "debug" | "release", shared: boolean): CoreVariant {
  const wasm = compile(build, shared);
  return {
    name: `${build}, ${shared ? "shared" : "unshared"}`,
    wasm,
    shared,
    open(frames) {
      const wasmPageFrames = (64 * KiB) / FRAME_BYTES;
      const memoryBytes = addressOf(
        Math.max(256, Math.ceil(frames / wasmPageFrames) * wasmPageFrames),
      );
      const core = openCoreSync({ wasm, shared, memoryBytes });
      let scratchFrames = SCRATCH_FRAMES;
      let pfn = -1;
      while (pfn < 0) {
        pfn = core.exports.frameAlloc(scratchFrames, 0, 0xffffffff);
        scratchFrames /= 2;
      }
      return { core, exports: core.exports, memory: core.memory, scratchAt: addressOf(pfn) };
    },
    openUnbacked(backed, unbacked) {
      const memoryBytes = addressOf(backed);
      const core = openCoreSync({ wasm, shared, memoryBytes, unbackedFrames: unbacked });
      return { core, exports: core.exports, memory: core.memory };
    },
    system(options = {}) {
      return openSync({ wasm, shared, ...options });
    },
  };
}

/** Debug and release, unshared and shared. */
export const eachCore: readonly CoreVariant[] = [
  variant("debug", false),
  variant("debug", true),
  variant("release", false),
  variant("release", true),
];
