/**
 * StageThread: a device on a thread of its own, between two pools.
 *
 *     camera   clip ─► [yuv]     gpu   [yuv] ─► [rgb]     display   [rgb] ─► who looks
 *
 *     publish({ fence }) ─┬─ the frame travels on ─► take() waits for the fence
 *                         └─ the device works ─────► advance(): the bytes are there
 *
 * - SG1  A frame is passed on before the device has worked on it, and a fence says when it has: on
 *        the way forth that its bytes may be read, on the way back that they may be overwritten. So
 *        frames are on their way while devices work, and nobody waits for a message.
 * - SG2  Whoever gets a frame whose fence ended with an error stops: its maker is gone.
 *
 * @module
 */

import type { Device, DeviceMapping, Direction, DmaBuf, Fence, System, Timeline } from "dmabuf";
import { deviceOptions } from "./machine.ts";
import type { DmaSegments, FrameUse } from "./report.ts";
import { Seats } from "./seats.ts";
import { runInSteps, type StageName, type Work } from "./stages.ts";

/** A frame in the hands of a device. */
export interface Use {
  readonly buf: DmaBuf;
  readonly access: FrameUse["access"];
}

/** A device's jobs, and the books about them. */
export class StageThread {
  readonly device: Device;
  /** Milliseconds of work, by job. */
  readonly jobMs: number[] = [];
  readonly #timeline: Timeline;
  readonly #pauseMs: number;
  readonly #forgotten: ReadonlySet<number>;
  readonly #seats: Seats;
  readonly #uses: Map<string, FrameUse> = new Map();

  /** `forgotten`: the jobs whose fences are not passed on, for tests. */
  constructor(system: System, name: StageName, pauseMs: number, forgotten: readonly number[]) {
    this.device = system.addDevice(deviceOptions[name]);
    this.#seats = new Seats(this.device);
    this.#timeline = system.timeline(name);
    this.#pauseMs = pauseMs;
    this.#forgotten = new Set(forgotten);
  }

  /** How the device sees a frame. */
  mappingOf(buf: DmaBuf, direction: Direction): DeviceMapping {
    return this.#seats.mappingOf(buf, direction);
  }

  /**
   * Does job `index`: `passOn` gives the frames away, with a fence for each, and then the work is
   * done that the fences stand for (SG1).
   */
  async run(
    index: number,
    uses: readonly Use[],
    passOn: (...fences: ({ fence: Fence } | undefined)[]) => void,
    work: Work,
  ): Promise<void> {
    const fences = uses.map(() => ({ fence: this.#timeline.fence() }));
    passOn(...(this.#forgotten.has(index) ? [] : fences));
    const pause = (): Promise<void> | null =>
      this.#pauseMs > 0 ? new Promise((resolve) => setTimeout(resolve, this.#pauseMs)) : null;
    const start = performance.now();
    this.jobMs.push(await runInSteps(work, pause));
    for (const use of uses) this.#note(use, performance.now() - start);
    this.#timeline.advance(uses.length);
  }

  #note({ buf, access }: Use, ms: number): void {
    const before = this.#uses.get(buf.name);
    this.#uses.set(buf.name, {
      frame: buf.name,
      device: this.device.name,
      access,
      count: (before?.count ?? 0) + 1,
      ms: (before?.ms ?? 0) + ms,
    });
  }

  /** Who had which frame for how long. */
  get uses(): readonly FrameUse[] {
    return [...this.#uses.values()];
  }

  /** The largest number of segments of the frames whose names begin so; null: it saw none. */
  dmaSegmentsOf(kind: string): DmaSegments | null {
    const counts = this.#seats.all
      .filter(({ buf }) => buf.name.startsWith(kind))
      .map((buffer) => buffer.mappingOf(this.device).nents);
    return counts.length === 0 ? null : { device: this.device.name, count: Math.max(...counts) };
  }

  /** Gives everything back. */
  close(): void {
    this.#timeline.close();
    this.#seats.release();
  }
}

/** Throws what a frame's fence ended with (SG2). */
export function requireWhole({ acquireFence }: { readonly acquireFence: Fence | null }): void {
  const error = acquireFence?.error ?? null;
  if (error !== null) throw error;
}
