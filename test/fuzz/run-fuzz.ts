/**
 * One run of a fuzz: so many events of a seed, and everything compared now and then.
 *
 * @module
 */

import { openSync } from "dmabuf";
import { type Core, openCoreSync } from "dmabuf/core";
import { Prng } from "../support/prng.ts";
import { DMA_FUZZ_OPTIONS, DmaFuzz } from "./dma-fuzz.ts";
import { DOMAIN_FUZZ_OPTIONS, DomainFuzz } from "./domain-fuzz.ts";
import { IommuFuzz } from "./iommu-fuzz.ts";
import { FUZZ_MEMORY_BYTES, MemoryFuzz } from "./memory-fuzz.ts";
import { SgFuzz } from "./sg-fuzz.ts";

/**
 * What the events are about: frames, regions and pins; domains; scatterlists; what devices map; or
 * drivers of domains.
 */
export type FuzzSubject = "memory" | "iommu" | "sg" | "dma" | "domain";

/** One run on a core. */
interface Fuzz {
  /** One random event. */
  step(): void;
  /** Compares core and model. */
  verify(): void;
  /** Gives everything back, and expects that nothing is held. */
  finish?(): void;
  /** Closes what it opened; the core says nothing any more. */
  close?(): void;
  /** How many events of each kind had an effect. */
  readonly counts?: Readonly<Record<string, number>>;
}

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
  /** Events between two comparisons of everything. Default 1000, for "dma" 1. */
  readonly every?: number;
  readonly onProgress?: (done: number) => void;
}

/**
 * Runs the events; throws with the seed and the event at which core and model part. How many events
 * of each kind had an effect, if the subject counts them.
 */
export function runFuzz(options: FuzzOptions): Readonly<Record<string, number>> {
  const { operations, seed, subject = "memory" } = options;
  const { every = subject === "dma" ? 1 : 1000 } = options;
  const { core, fuzz } = start(subject, new Prng(seed), options);
  let event = 0;
  try {
    for (; event < operations; event++) {
      fuzz.step();
      if (event % every !== every - 1 && event !== operations - 1) continue;
      fuzz.verify();
      options.onProgress?.(event + 1);
    }
    fuzz.finish?.();
    if (core.exports.misuseCount() !== 0) throw new Error("the core found a misuse");
    fuzz.close?.();
  } catch (cause) {
    const again = `npm run fuzz -- --subject ${subject} --seed ${seed} --operations ${event + 1}`;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new Error(`event ${event} of seed ${seed}: ${reason} (again: ${again})`, { cause });
  }
  return fuzz.counts ?? {};
}

function start(
  subject: FuzzSubject,
  random: Prng,
  { strict = false, shared = false, wasm }: FuzzOptions,
): { readonly core: Core; readonly fuzz: Fuzz } {
  const choice = { strict, shared, ...(wasm === undefined ? {} : { wasm }) };
  if (subject === "dma") {
    const system = openSync({ ...DMA_FUZZ_OPTIONS, ...choice });
    return { core: system.core, fuzz: new DmaFuzz(system, random) };
  }
  if (subject === "domain") {
    const system = openSync({ ...DOMAIN_FUZZ_OPTIONS, ...choice });
    return { core: system.core, fuzz: new DomainFuzz(system, random) };
  }
  const core = openCoreSync({ memoryBytes: FUZZ_MEMORY_BYTES, ...choice });
  const fuzzes = { memory: MemoryFuzz, iommu: IommuFuzz, sg: SgFuzz };
  return { core, fuzz: new fuzzes[subject](core, random) };
}
