/**
 * A thread for each device: three Workers on one shared memory, and two pools of frames between
 * them. Not a byte is posted; messages say "begin" and what was shown.
 *
 *     clip ─► camera ─► [yuv 0 1 2] ─► gpu ─► [rgb 0 1 2] ─┬► display   every frame, in order
 *             thread 1                 thread 2            │  thread 3
 *                                                          └► viewer    the latest, at the end
 *                                                             thread 0: this one
 *
 * - TH1  The clip's end travels with the frames: the camera ends, the YUV pool is closed, the GPU
 *        takes what is left and ends, the RGB pool is closed, the display ends. A run that is
 *        stopped begins with closing the YUV pool.
 * - TH2  A Worker that dies is reaped: nobody waits for it, what it held is free, the run fails.
 *
 * @module
 */

import { Worker } from "node:worker_threads";
import type { DmaBuf, Pool, ReadableFrame } from "dmabuf";
import type { Engine, EngineReport, Job } from "./engine.ts";
import { CMA_REGION, RING_LENGTH } from "./machine.ts";
import { type DmaSegments, describeBuffers } from "./report.ts";
import type { Brief, Said, StageEnd } from "./stage-worker.ts";
import { type StageName, stageNames } from "./stages.ts";
import { StageError } from "./user-error.ts";

/** A Worker and what is known of it. */
interface Stage {
  readonly name: StageName;
  readonly worker: Worker;
  readonly ready: Promise<void>;
  readonly ended: Promise<StageEnd>;
}

type Pools = Readonly<Record<"yuv" | "rgb", Pool>>;

/** Three Workers, and the pools between them. */
export class Threads implements Engine {
  readonly #job: Job;
  readonly #pools: Pools;
  readonly #stages: readonly Stage[];
  readonly #buffers: Readonly<Record<"yuv" | "rgb", readonly DmaBuf[]>>;
  #last: ReadableFrame | null = null;
  #ends: readonly StageEnd[] = [];
  #heldAtEnd: readonly string[] = [];

  constructor(job: Job) {
    const { system, sizes } = job;
    this.#job = job;
    const known = new Set(system.buffers);
    const count = RING_LENGTH;
    this.#pools = {
      yuv: system.pool({ name: "yuv", count, bytes: sizes.yuvBytes, heap: CMA_REGION }),
      rgb: system.pool({ name: "rgb", count, bytes: sizes.rgbBytes }),
    };
    const made = system.buffers.filter((buf) => !known.has(buf));
    this.#buffers = { yuv: made.slice(0, count), rgb: made.slice(count) };
    this.#stages = stageNames.map((name) => this.#start(name));
  }

  #start(name: StageName): Stage {
    const { hooks, system } = this.#job;
    const worker =
      hooks.startWorker?.(name) ?? new Worker(new URL("./stage-worker.js", import.meta.url));
    const share = system.share({ worker }); // TH2
    worker.postMessage(this.#brief(name, share));
    const ready = deferred<void>();
    const ended = deferred<StageEnd>();
    const fail = (error: Error): void => {
      ready.reject(error);
      ended.reject(error);
    };
    worker.on("message", (said: Said) => {
      if ("ready" in said) ready.resolve();
      else if ("shown" in said) this.#job.onShown(said.shown);
      else if ("ended" in said) ended.resolve(said.ended);
      else fail(errorOf(said.failed));
    });
    worker.once("error", fail);
    worker.once("exit", () => fail(new StageError(`The ${name}'s Worker is gone`)));
    return { name, worker, ready: ready.promise, ended: ended.promise };
  }

  #brief(stage: StageName, share: Brief["share"]): Brief {
    const { clip, frameLimit, expectedCount, hooks } = this.#job;
    const indexes = Array.from({ length: expectedCount }, (_, i) => i);
    return {
      share,
      stage,
      yuv: this.#pools.yuv.token,
      rgb: this.#pools.rgb.token,
      clipPath: clip.path,
      size: { width: clip.width, height: clip.height },
      frameLimit: Number.isFinite(frameLimit) ? frameLimit : null,
      pauseMs: hooks.pauseMs?.(stage) ?? 0,
      forgotten: indexes.filter((index) => hooks.forgetsFence?.(stage, index)),
    };
  }

  async ready(): Promise<void> {
    await Promise.all(this.#stages.map(({ ready }) => ready));
  }

  /** TH1. */
  async run(): Promise<void> {
    const { signal } = this.#job;
    const { yuv, rgb } = this.#pools;
    const viewer = rgb.consumer({ name: "viewer", policy: "latest" });
    for (const { worker } of this.#stages) worker.postMessage("begin");
    const stop = (): void => yuv.close();
    if (signal.aborted) stop();
    else signal.addEventListener("abort", stop, { once: true });
    const [camera, gpu, display] = this.#stages.map(({ ended }) => ended);
    const inOrder = async (): Promise<void> => {
      await camera;
      yuv.close();
      await gpu;
      rgb.close();
      await display;
    };
    await Promise.race([inOrder(), this.#firstFailure()]);
    signal.removeEventListener("abort", stop);
    this.#ends = await Promise.all(this.#stages.map(({ ended }) => ended));
    const isShown = rgb.report().frames.some(({ pending }) => pending.includes("viewer"));
    if (isShown) this.#last = viewer.tryTake();
    this.#heldAtEnd = this.#stillHeld();
  }

  /** Rejects as soon as a stage fails; never resolves before all have ended. */
  async #firstFailure(): Promise<void> {
    await Promise.all(this.#stages.map(({ ended }) => ended));
  }

  /** What the stages did not give back. */
  #stillHeld(): string[] {
    return [this.#pools.yuv, this.#pools.rgb].flatMap((pool) =>
      pool.report().frames.flatMap(({ index, holders, pending }) => {
        const names = [...holders.map(({ name }) => name), ...pending];
        const others = names.filter((name) => name !== "viewer");
        return others.map((name) => `${pool.name} ${index}: ${name}`);
      }),
    );
  }

  lastFrame(): DmaBuf {
    if (this.#last === null) throw new Error("Cannot look at the last frame: none was shown");
    return this.#last.buf;
  }

  report(): EngineReport {
    const ends = this.#ends;
    const stats = this.#job.system.stats();
    const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
    const segments = (kind: "yuv" | "rgb"): DmaSegments[] =>
      ends.map((end) => end.segments[kind]).filter((count) => count !== null);
    return {
      buffers: [
        describeBuffers("yuv", this.#buffers.yuv, segments("yuv")),
        describeBuffers("rgb", this.#buffers.rgb, segments("rgb")),
      ],
      devices: ends.map(({ device }) => device),
      stages: ends.map(({ stage }) => stage),
      bytesCopied: stats.bytesCopied + sum(ends.map(({ bytesCopied }) => bytesCopied)),
      dmaBytes: sum(ends.map(({ device }) => device.dmaBytes)),
      faultCount: sum(ends.map(({ device }) => device.faultCount)),
      threads: {
        threads: ends.map(({ device, thread }) => ({ device: device.name, thread })),
        uses: ends.flatMap(({ uses }) => uses),
        consumers: [
          ...ends.flatMap(({ consumers }) => consumers),
          ...this.#pools.rgb.report().consumers,
        ],
        heldAtEnd: this.#heldAtEnd,
      },
    };
  }

  /** Ends what still runs; what its threads held is free then (TH2). */
  async close(): Promise<void> {
    await Promise.all(this.#stages.map(({ worker }) => worker.terminate()));
    this.#last?.release();
    for (const pool of [this.#pools.yuv, this.#pools.rgb]) pool.release();
  }
}

function errorOf({ message, stack, isForUser }: Failure): Error {
  if (isForUser) return new StageError(message);
  return Object.assign(new Error(message), { stack });
}

type Failure = Extract<Said, { readonly failed: unknown }>["failed"];

interface Deferred<T> {
  readonly promise: Promise<T>;
  readonly resolve: (value: T) => void;
  readonly reject: (error: Error) => void;
}

/** Its rejection is somebody's business only while somebody waits. */
function deferred<T>(): Deferred<T> {
  let [resolve, reject]: [Deferred<T>["resolve"], Deferred<T>["reject"]] = [() => {}, () => {}];
  const promise = new Promise<T>((yes, no) => {
    [resolve, reject] = [yes, no];
  });
  promise.catch(() => {});
  return { promise, resolve, reject };
}
