/**
 * The stage between decoder and screen: draws edges on pictures, in place on both sides. The same
 * code runs in a Worker, or on the page where there is no shared memory.
 *
 *     [video 0 1 2] ─► edges ─► [picture 0 1 2]
 *
 * - ED1  It takes the latest picture only: what comes while it works is skipped, and counted.
 *
 * @module
 */

import type { Pool, System } from "dmabuf";
import { deviceOptions } from "../pipeline/machine.ts";
import { Seats } from "../pipeline/seats.ts";
import { filter, type PictureSize, runInSteps } from "../pipeline/stages.ts";

/** What a picture looks like in memory. */
export interface Picture extends PictureSize {
  /** NV12 instead of I420. */
  readonly isInterleaved: boolean;
}

/** The stage's work, and how it goes. */
export interface EdgesJob {
  readonly system: System;
  readonly video: Pool;
  readonly pictures: Pool;
  readonly picture: Picture;
  /** Waits after each step of a picture; null: goes on at once. */
  readonly pause: () => Promise<void> | null;
  /** Told how long a picture took, without the pauses. */
  readonly onPicture: (ms: number) => void;
}

/** Runs until one of the pools is closed. */
export async function runEdges(job: EdgesJob): Promise<void> {
  const { system, video, pictures, picture, pause, onPicture } = job;
  const device = system.addDevice(deviceOptions.gpu);
  const seats = new Seats(device);
  const input = video.consumer({ name: "edges", policy: "latest" }); // ED1
  try {
    for await (const from of input.frames()) {
      const to = await pictures.acquire();
      const source = seats.mappingOf(from.buf, "to-device");
      const target = seats.mappingOf(to.buf, "from-device");
      onPicture(await runInSteps(() => filter(device, source, target, picture), pause));
      to.publish();
    }
  } finally {
    seats.release();
    input.close();
  }
}
