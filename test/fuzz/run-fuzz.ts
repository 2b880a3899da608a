/**
 * One run of a fuzz: so many events of a seed, and everything compared now and then.
 *
 * @module
 */

import { openCoreSync } from "dmabuf/core";
import { Prng } from "../support/prng.ts";
import { IommuFuzz } from "./iommu-fuzz.ts";
import { FUZZ_MEMORY_BYTES, MemoryFuzz } from "./memory-fuzz.ts";

/** What the events are about: frames, regions and pins, or domains and their devices. */
export type FuzzSubject = "memory" | "iommu";

/** What to run. */
export interface FuzzOptions {
  readonly operations: number;
  readonly seed: number;
  /** Default "memory". */
  readonly subject?: FuzzSubject;
  /** Freed frames are poisoned and wait: nobody must be found to write there. Default false. */
  readonly strict?: boolean;
  readonly shared?: boolean;
  /** The core's bytes; without them, the release core inside the package. */
  readonly wasm?: Uint8Array;
  /** Events between two comparisons of all of memory. Default 1000. */
  readonly every?: number;
  readonly onProgress?: (done: number) => void;
}

/** Runs the events; throws with the seed and the event at which core and model part. */
export function runFuzz(options: FuzzOptions): void {
  const { operations, seed, strict = false, shared = false, every = 1000 } = options;
  const { wasm, subject = "memory" } = options;
  const memory = { memoryBytes: FUZZ_MEMORY_BYTES, strict, shared };
  const core = openCoreSync({ ...memory, ...(wasm === undefined ? {} : { wasm }) });
  const random = new Prng(seed);
  const fuzz = subject === "memory" ? new MemoryFuzz(core, random) : new IommuFuzz(core, random);
  let event = 0;
  try {
    for (; event < operations; event++) {
      fuzz.step();
      if (event % every !== every - 1 && event !== operations - 1) continue;
      fuzz.verify();
      options.onProgress?.(event + 1);
    }
    if (core.exports.misuseCount() !== 0) throw new Error("the core found a misuse");
  } catch (cause) {
    const again = `npm run fuzz -- --subject ${subject} --seed ${seed} --operations ${event + 1}`;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new Error(`event ${event} of seed ${seed}: ${reason} (again: ${again})`, { cause });
  }
}
