/**
 * What the threads of a stage do together: for each kind of thing that they share, programs, and
 * the model that their results must agree with.
 *
 * @module
 */

import type { Prng } from "../support/prng.ts";
import type { Model, Operation } from "./linearize.ts";
import {
  bufferModel,
  domainModel,
  fenceModel,
  frameModel,
  poolModel,
  regionModel,
} from "./models.ts";
import type { Call, Program, ResultOf } from "./stage.ts";
import type { Exports } from "./yielding.ts";

/** What thread 0 prepared, by name. */
export type Prepared = Record<string, number>;

/** One kind of thing that threads share. */
export interface Family {
  readonly name: string;
  readonly operations: readonly string[];
  prepare(exports: Exports): Prepared;
  /** What each thread does beforehand. */
  join?(exports: Exports, prepared: Prepared): void;
  /** The model for a history. */
  model(history: readonly Operation[]): Model<unknown>;
  /** What one thread does in a random program. */
  calls(rng: Prng, thread: number, threads: number, prepared: Prepared): Call[];
  /** Two-thread programs whose schedules are all tried. */
  small(prepared: Prepared): readonly Program[];
}

const of = (thread: number, call: number): ResultOf => ({ thread, call });

/** The result of an earlier operation of this thread, or any of another one. */
function earlier(rng: Prng, thread: number, threads: number, call: number, every = 1): ResultOf {
  if (call > 0 && rng.below(3) > 0) return of(thread, Math.floor(rng.below(call) / every) * every);
  return of(1 + rng.below(threads), Math.floor(rng.below(6) / every) * every);
}

const frames: Family = {
  name: "frames",
  operations: ["allocFrames", "freeFrames", "pinFrames", "unpinFrames"],
  prepare: () => ({}),
  model: () => frameModel as Model<unknown>,
  calls: (rng, thread, threads) =>
    // Sizes go with the place in the program, so that a free meets an allocation of its size.
    Array.from({ length: 6 }, (_, i): Call => {
      if (i % 2 === 0) return ["allocFrames", 1 + (i % 3)];
      const from = earlier(rng, thread, threads, i, 2);
      const name = rng.pick(["freeFrames", "freeFrames", "pinFrames", "unpinFrames"]);
      return [name, from, 1 + (from.call % 3)];
    }),
  small: () => [
    [
      [
        ["allocFrames", 1],
        ["freeFrames", of(1, 0), 1],
      ],
      [
        ["allocFrames", 1],
        ["freeFrames", of(2, 0), 1],
      ],
    ],
    [
      [
        ["allocFrames", 3],
        ["freeFrames", of(1, 0), 3],
      ],
      [
        ["pinFrames", of(1, 0), 3],
        ["freeFrames", of(1, 0), 3],
        ["unpinFrames", of(1, 0), 3],
      ],
    ],
    [
      [
        ["allocFrames", 1],
        ["freeFrames", of(1, 0), 1],
      ],
      [
        ["freeFrames", of(1, 0), 1],
        ["allocFrames", 1],
      ],
    ],
  ],
};

const BASE_PFN = 1024;

const regions: Family = {
  name: "regions",
  operations: ["allocRun", "releaseRun"],
  prepare: (exports) => ({ region: exports.cmaDeclare(BASE_PFN, 1024, 0) }),
  model: () => regionModel(BASE_PFN, 1024) as Model<unknown>,
  calls: (rng, thread, threads, { region = 0 }) =>
    Array.from({ length: 6 }, (_, i): Call => {
      if (i % 2 === 0) return ["allocRun", region, rng.pick([1, 3, 700]), rng.below(3)];
      return ["releaseRun", region, earlier(rng, thread, threads, i, 2), rng.pick([1, 3])];
    }),
  small: ({ region = 0 }) => [
    [
      [
        ["allocRun", region, 5, 0],
        ["releaseRun", region, of(1, 0), 5],
      ],
      [
        ["allocRun", region, 5, 0],
        ["releaseRun", region, of(1, 0), 5],
      ],
    ],
    [
      [
        ["allocRun", region, 600, 0],
        ["releaseRun", region, of(1, 0), 600],
      ],
      [
        ["allocRun", region, 600, 0],
        ["allocRun", region, 3, 1],
      ],
    ],
  ],
};

/** Each frame has an owner beside the core's books: nobody is given one that has. */
const owners: Family = {
  name: "owners",
  operations: ["useFrames", "useRun"],
  prepare: (exports) => ({ region: exports.cmaDeclare(BASE_PFN, 1024, 0) }),
  model: () => ({ initial: 0, apply: (_, { result }) => (result === 0 ? 0 : null), key: String }),
  calls: (rng, _, __, { region = 0 }) =>
    Array.from({ length: 8 }, (): Call => {
      const count = rng.pick([1, 1, 2, 7, 16]);
      return rng.below(2) === 0 ? ["useFrames", count] : ["useRun", region, count];
    }),
  small: ({ region = 0 }) => [
    [
      [
        ["useFrames", 1],
        ["useFrames", 2],
      ],
      [
        ["useFrames", 1],
        ["useRun", region, 2],
      ],
    ],
  ],
};

const fences: Family = {
  name: "fences",
  operations: ["makeFence", "signalFence", "fenceStatus", "importFence", "freeFence", "awaitFence"],
  prepare: () => ({}),
  model: () => fenceModel as Model<unknown>,
  calls: (rng, thread, threads) => {
    const calls: Call[] = [["makeFence"]];
    for (let i = 1; i < 7; i++) {
      const fence = of(1 + rng.below(threads), 0);
      calls.push([
        rng.pick(["importFence", "fenceStatus", "freeFence", "signalFence", "importFence"]),
        rng.below(3) === 0 ? of(thread, 0) : fence,
      ]);
    }
    // Each ends its own, so that whoever waits for it goes on; then it waits for another's.
    calls.push(["signalFence", of(thread, 0)], ["awaitFence", of(1 + rng.below(threads), 0)]);
    return calls;
  },
  small: () => [
    [
      [["makeFence"], ["signalFence", of(1, 0)], ["freeFence", of(1, 0)]],
      [
        ["importFence", of(1, 0)],
        ["awaitFence", of(1, 0)],
        ["freeFence", of(1, 0)],
      ],
    ],
    [
      [["makeFence"], ["signalFence", of(1, 0)], ["freeFence", of(1, 0)], ["makeFence"]],
      [
        ["importFence", of(1, 0)],
        ["signalFence", of(1, 0)],
        ["fenceStatus", of(1, 0)],
      ],
    ],
  ],
};

const buffers: Family = {
  name: "buffers",
  operations: ["makeBuffer", "importBuffer", "freeBuffer"],
  prepare: () => ({}),
  model: () => bufferModel as Model<unknown>,
  calls: (rng, thread, threads) => [
    ["makeBuffer", rng.pick([1, 3, 20])],
    ...Array.from(
      { length: 6 },
      (): Call => [
        rng.pick(["importBuffer", "freeBuffer"]),
        of(rng.below(2) === 0 ? thread : 1 + rng.below(threads), 0),
      ],
    ),
  ],
  small: () => [
    [
      [
        ["makeBuffer", 1],
        ["freeBuffer", of(1, 0)],
      ],
      [
        ["importBuffer", of(1, 0)],
        ["freeBuffer", of(1, 0)],
      ],
    ],
    [
      [
        ["makeBuffer", 3],
        ["freeBuffer", of(1, 0)],
        ["makeBuffer", 3],
      ],
      [
        ["importBuffer", of(1, 0)],
        ["importBuffer", of(1, 0)],
        ["freeBuffer", of(1, 0)],
      ],
    ],
  ],
};

const domains: Family = {
  name: "domains",
  operations: ["map", "unmap", "translate"],
  prepare: (exports) => ({ domain: exports.iommuDomainAlloc() }),
  model: () => domainModel as Model<unknown>,
  calls: (rng, _, __, { domain = 0 }) =>
    Array.from({ length: 5 }, (): Call => {
      const page = 510 + rng.below(4); // over the border of two tables
      const name = rng.pick(["map", "unmap", "translate"]);
      return name === "translate" ? [name, domain, page] : [name, domain, page, 1 + rng.below(3)];
    }),
  small: ({ domain = 0 }) => [
    [
      [
        ["map", domain, 510, 4],
        ["unmap", domain, 510, 4],
      ],
      [
        ["translate", domain, 511],
        ["map", domain, 512, 1],
        ["translate", domain, 512],
      ],
    ],
  ],
};

const POOL_FRAMES = 3;

const pools: Family = {
  name: "pools",
  operations: ["acquire", "publish", "take", "release"],
  prepare: (exports) => ({ pool: exports.poolAlloc(POOL_FRAMES) }),
  join(exports, { pool }) {
    exports.shareImport(pool, exports.KIND_POOL.value);
    exports.poolConsumerAdd(pool, 0); // thread 1 gets consumer 0
  },
  model: (history) => {
    const overlaps = ({ start, end }: Operation): boolean =>
      history.some((other) => other.start < end && other.end > start && other.start !== start);
    return poolModel(POOL_FRAMES, 8, overlaps) as Model<unknown>;
  },
  calls: (rng, thread, threads, { pool = 0 }) =>
    Array.from({ length: 4 }, (_, round): Call[] => {
      const [first, consumer] = [2 * round, thread - 1];
      if (rng.below(2) === 0)
        return [
          ["acquire", pool],
          ["publish", pool, of(thread, first), rng.below(2 ** threads)],
        ];
      return [
        ["take", pool, consumer],
        ["release", pool, consumer, of(thread, first)],
      ];
    }).flat(),
  small: ({ pool = 0 }) => [
    [
      [
        ["acquire", pool],
        ["publish", pool, of(1, 0), 2],
      ],
      [
        ["take", pool, 1],
        ["release", pool, 1, of(2, 0)],
      ],
    ],
    [
      [
        ["acquire", pool],
        ["publish", pool, of(1, 0), 3],
        ["take", pool, 0],
      ],
      [
        ["acquire", pool],
        ["publish", pool, of(2, 0), 3],
        ["take", pool, 1],
      ],
    ],
  ],
};

/** All kinds. */
export const families: readonly Family[] = [
  frames,
  regions,
  owners,
  fences,
  buffers,
  domains,
  pools,
];
