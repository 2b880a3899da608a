/**
 * DeviceQueue: the jobs of one device, which run one after the other and as soon as fences let
 * them.
 *
 *     submit() ─► waits for the fences found on its buffers ─► runs in steps ─► signals its own fence
 *
 * - Q1  At submission, a job takes note of the fences it must wait for, then leaves its own on the
 *        same buffers: whoever is submitted later finds it there.
 * - Q2  Other queues run between the steps of a job: a device takes its time, and only fences keep
 *        the others off.
 * - Q3  A job that throws ends the queue: `onFailure` is told, and its jobs do nothing any more.
 *
 * Compare the kernel's drivers/gpu/drm/scheduler.
 *
 * @module
 */

import { type Device, type Fence, type System, type Timeline, usageFor } from "dmabuf";
import { deviceOptions } from "./machine.ts";
import { runInSteps, type StageName, type Work } from "./stages.ts";
import type { Access, Job, Witness } from "./witness.ts";

/** What queues share. */
export interface QueueContext {
  readonly system: System;
  readonly witness: Witness;
  /** Whether a job's fence is kept from its buffers: for tests of the witness. */
  readonly forgetsFence: (device: StageName, pictureIndex: number) => boolean;
  /** Milliseconds that a device pauses between steps; 0: for as long as the others have work. */
  readonly pauseMs: (device: StageName) => number;
  readonly onFailure: (error: unknown) => void;
}

/** A device with its queue. */
export class DeviceQueue {
  readonly device: Device;
  /** Milliseconds of work, by job. */
  readonly jobMs: number[] = [];
  readonly #context: QueueContext;
  readonly #name: StageName;
  readonly #timeline: Timeline;
  #tail: Promise<void> = Promise.resolve();
  #isEnded = false;

  constructor(context: QueueContext, name: StageName) {
    this.#context = context;
    this.#name = name;
    this.device = context.system.addDevice(deviceOptions[name]);
    this.#timeline = context.system.timeline(name);
  }

  /** Queues a job. The fence that signals when it has finished (Q1). */
  submit(pictureIndex: number, accesses: readonly Access[], work: Work): Fence {
    const waitsFor = new Set<Fence>();
    const ready: Promise<void>[] = [];
    for (const { buf, isWrite } of accesses) {
      for (const fence of buf.resv.fences(usageFor(isWrite))) waitsFor.add(fence);
      ready.push(buf.resv.wait(usageFor(isWrite)));
    }
    const fence = this.#timeline.fence();
    const device = this.#name;
    if (!this.#context.forgetsFence(device, pictureIndex)) {
      for (const { buf, isWrite } of accesses) buf.resv.addFence(fence, isWrite ? "write" : "read");
    }
    const job: Job = { device, pictureIndex, accesses, fence, waitsFor };
    this.#context.witness.submit(job);
    this.#tail = Promise.all([this.#tail, ...ready]).then(() => this.#run(job, work));
    return fence;
  }

  async #run(job: Job, work: Work): Promise<void> {
    if (this.#isEnded) return;
    try {
      this.#context.witness.begin(job);
      const pauseMs = this.#context.pauseMs(this.#name);
      this.jobMs.push(await runInSteps(work, () => pause(pauseMs)));
      this.#context.witness.end(job);
      if (!this.#isEnded) this.#timeline.advance();
    } catch (error) {
      this.#context.onFailure(error); // Q3
    }
  }

  /** Resolves when every job submitted so far has run. */
  idle(): Promise<void> {
    return this.#tail;
  }

  /** Ends the queue: pending fences signal with an error. */
  end(): void {
    this.#isEnded = true;
    this.#timeline.close();
  }
}

/** Lets other queues run (Q2). */
function pause(pauseMs: number): Promise<void> {
  return new Promise((resolve) => {
    if (pauseMs > 0) setTimeout(resolve, pauseMs);
    else setImmediate(resolve);
  });
}
