/**
 * Engine: what carries frames through the three devices, and the job that it is given.
 *
 *     one-thread.ts   three queues on one thread, ordered by the fences of the reservations
 *     threads.ts      three Workers, frames in pools between them, ordered by the pools' fences
 *
 * @module
 */

import type { Worker } from "node:worker_threads";
import type { DmaBuf, System } from "dmabuf";
import type { Clip } from "./clip.ts";
import type { PictureSizes } from "./machine.ts";
import type { Report, ShownFrame } from "./report.ts";
import type { StageName } from "./stages.ts";

/** What tests do to a run. */
export interface RunHooks {
  /** Called when the system is open. */
  readonly onOpen?: (system: System) => void;
  /** Called before it is closed, however the run went. */
  readonly onClose?: (system: System) => void;
  /** Leaves memory in one piece. */
  readonly keepsMemoryWhole?: boolean;
  /** Whether this job's fence is kept from its buffers. */
  readonly forgetsFence?: (device: StageName, frameIndex: number) => boolean;
  /** Milliseconds that a device pauses between the steps of its jobs. */
  readonly pauseMs?: (device: StageName) => number;
  /** Starts a stage's Worker. */
  readonly startWorker?: (device: StageName) => Worker;
}

/** A clip's way through the devices. */
export interface Job {
  readonly system: System;
  readonly clip: Clip;
  readonly sizes: PictureSizes;
  /** How many frames will be shown, as far as the file's size tells. */
  readonly expectedCount: number;
  /** Frames to process, if the clip has so many. */
  readonly frameLimit: number;
  /** Aborted: no new frame is begun. */
  readonly signal: AbortSignal;
  /** Called for each frame that the display has shown. */
  readonly onShown: (frame: ShownFrame) => void;
  readonly hooks: RunHooks;
}

/** What an engine has to tell when the clip is through. */
export type EngineReport = Pick<
  Report,
  "buffers" | "devices" | "stages" | "bytesCopied" | "dmaBytes" | "faultCount" | "threads"
>;

/** Carries frames. */
export interface Engine {
  /** Resolves when everybody is in place. Rejects if somebody cannot come. */
  ready(): Promise<void>;
  /** Resolves when every frame that was begun has been shown. Rejects with the first failure. */
  run(): Promise<void>;
  /** The buffer that the last frame is in. It stays there until close(). */
  lastFrame(): DmaBuf;
  report(): EngineReport;
  /** Gives everything back, also in the middle of a run that failed. */
  close(): Promise<void>;
}
