/**
 * All devices on one thread: a queue for each, ordered by fences alone.
 *
 *     frame 0   camera ─► gpu ─► display
 *     frame 1            camera ─► gpu ─► display
 *     frame 2                     camera ─► gpu ─► display
 *     frame 3 in frame 0's buffers: its camera waits for frame 0's gpu, its gpu for frame 0's
 *     display
 *
 * - OT1  The program submits and hardly ever waits: it runs up to SUBMITTED_MAX frames ahead, twice
 *        the ring, so buffers come round while their last users are still at work.
 *
 * @module
 */

import { crc32 } from "node:zlib";
import type { DmaBuf, Fence, System } from "dmabuf";
import { DeviceQueue, type QueueContext } from "./device-queue.ts";
import type { Engine, EngineReport, Job } from "./engine.ts";
import { RING_LENGTH } from "./machine.ts";
import { type DmaSegments, describeBuffers, describeDevice, describeStage } from "./report.ts";
import { SharedBuffer, type User } from "./shared-buffer.ts";
import { capture, filter, type StageName, scanOut, stageNames } from "./stages.ts";
import { Witness } from "./witness.ts";

const SUBMITTED_MAX = 2 * RING_LENGTH;

type Queues = Readonly<Record<StageName, DeviceQueue>>;

/** Three queues, and a ring of buffers: frame n uses number n % RING_LENGTH of each kind. */
export class OneThread implements Engine {
  readonly #job: Job;
  readonly #queues: Queues;
  readonly #yuv: readonly SharedBuffer[];
  readonly #rgb: readonly SharedBuffer[];
  readonly #failures: unknown[] = [];
  #shownCount = 0;

  constructor(job: Job) {
    this.#job = job;
    const { system, sizes } = job;
    const context = this.#makeContext();
    const [camera, gpu, display] = [
      new DeviceQueue(context, "camera"),
      new DeviceQueue(context, "gpu"),
      new DeviceQueue(context, "display"),
    ];
    this.#queues = { camera, gpu, display };
    this.#yuv = makeRing(system, "yuv", sizes.yuvBytes, [
      { device: camera.device, direction: "from-device" },
      { device: gpu.device, direction: "to-device" },
    ]);
    this.#rgb = makeRing(system, "rgb", sizes.rgbBytes, [
      { device: gpu.device, direction: "from-device" },
      { device: display.device, direction: "to-device" },
    ]);
  }

  #makeContext(): QueueContext {
    const { system, hooks } = this.#job;
    return {
      system,
      witness: new Witness(),
      forgetsFence: hooks.forgetsFence ?? (() => false),
      pauseMs: hooks.pauseMs ?? (() => 0),
      onFailure: (error) => {
        this.#failures.push(error);
        this.#endQueues();
      },
    };
  }

  get #allQueues(): readonly DeviceQueue[] {
    return stageNames.map((name) => this.#queues[name]);
  }

  #endQueues(): void {
    for (const queue of this.#allQueues) queue.end();
  }

  #throwIfFailed(): void {
    if (this.#failures.length > 0) throw this.#failures[0];
  }

  async ready(): Promise<void> {}

  /** Submits three jobs a frame, and returns when all have run (OT1). */
  async run(): Promise<void> {
    const { clip, frameLimit, signal } = this.#job;
    const inFlight: Fence[] = [];
    let index = 0;
    for await (const picture of clip.pictures()) {
      if (signal.aborted) break;
      this.#throwIfFailed();
      inFlight.push(this.#submit(index, picture));
      if (inFlight.length === SUBMITTED_MAX) await inFlight.shift()?.wait();
      index += 1;
      if (index >= frameLimit) break;
    }
    for (const queue of this.#allQueues) await queue.idle();
    this.#throwIfFailed();
  }

  /** Submits camera, GPU and display in this order. The fence that says that it was shown. */
  #submit(index: number, picture: Uint8Array): Fence {
    const { camera, gpu, display } = this.#queues;
    const yuv = this.#yuv[index % RING_LENGTH] as SharedBuffer;
    const rgb = this.#rgb[index % RING_LENGTH] as SharedBuffer;
    const size = this.#job.clip;
    camera.submit(index, [{ buf: yuv.buf, isWrite: true }], () =>
      capture(camera.device, yuv.mappingOf(camera.device), picture),
    );
    const gpuAccesses = [
      { buf: yuv.buf, isWrite: false },
      { buf: rgb.buf, isWrite: true },
    ];
    gpu.submit(index, gpuAccesses, () =>
      filter(gpu.device, yuv.mappingOf(gpu.device), rgb.mappingOf(gpu.device), size),
    );
    const show = (crc: number): void => this.#shown(index, crc);
    return display.submit(index, [{ buf: rgb.buf, isWrite: false }], function* () {
      let crc = 0;
      yield* scanOut(display.device, rgb.mappingOf(display.device), size, (view) => {
        crc = crc32(view, crc);
      });
      show(crc);
    });
  }

  #shown(index: number, crc: number): void {
    this.#shownCount += 1;
    this.#job.onShown({ index, crc });
  }

  lastFrame(): DmaBuf {
    return (this.#rgb[(this.#shownCount - 1) % RING_LENGTH] as SharedBuffer).buf;
  }

  report(): EngineReport {
    const { bytesCopied, dmaBytes, faultCount } = this.#job.system.stats();
    return {
      buffers: [
        describeBuffers("yuv", this.#yuv.map(bufOf), dmaSegmentsOf(this.#yuv)),
        describeBuffers("rgb", this.#rgb.map(bufOf), dmaSegmentsOf(this.#rgb)),
      ],
      devices: this.#allQueues.map(({ device }) => describeDevice(device)),
      stages: this.#allQueues.map(({ device, jobMs }) => describeStage(device.name, jobMs)),
      bytesCopied,
      dmaBytes,
      faultCount,
      threads: null,
    };
  }

  async close(): Promise<void> {
    this.#endQueues();
    for (const buffer of [...this.#yuv, ...this.#rgb]) buffer.release();
  }
}

function makeRing(
  system: System,
  name: string,
  sizeBytes: number,
  users: readonly User[],
): SharedBuffer[] {
  const heap = system.heap("auto");
  return Array.from({ length: RING_LENGTH }, (_, i) => {
    return new SharedBuffer(heap.alloc(sizeBytes, { name: `${name} ${i}` }), users);
  });
}

function bufOf({ buf }: SharedBuffer): DmaBuf {
  return buf;
}

/** The largest numbers of all buffers of the ring. */
function dmaSegmentsOf(ring: readonly SharedBuffer[]): DmaSegments[] {
  const devices = ring[0]?.mappings.map(({ device }) => device) ?? [];
  return devices.map((device) => ({
    device: device.name,
    count: Math.max(...ring.map((buffer) => buffer.mappingOf(device).nents)),
  }));
}
