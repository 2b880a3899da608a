/**
 * A stage's Worker: joins the system, runs one device until its frames end, and says how it went.
 *
 *     Brief ─► "ready" ─► "begin" ─► { shown } … ─► { ended } or { failed }
 *
 * - SW1  It takes part in its pools before it says that it is ready: no frame is published to
 *        nobody.
 *
 * @module
 */

import { once } from "node:events";
import { type MessagePort, parentPort } from "node:worker_threads";
import { crc32 } from "node:zlib";
import {
  type ConsumerReport,
  DmaBufError,
  joinSync,
  type Pool,
  type System,
  type SystemShare,
} from "dmabuf";
import { Clip } from "./clip.ts";
import {
  type DeviceReport,
  type DmaSegments,
  describeDevice,
  describeStage,
  type FrameUse,
  type ShownFrame,
  type StageReport,
} from "./report.ts";
import { requireWhole, StageThread } from "./stage-thread.ts";
import { capture, filter, type PictureSize, type StageName, scanOut } from "./stages.ts";
import { isForUser } from "./user-error.ts";

/** What a stage's Worker is told. */
export interface Brief {
  readonly share: SystemShare;
  readonly stage: StageName;
  /** The pools' tokens. */
  readonly yuv: number;
  readonly rgb: number;
  readonly clipPath: string;
  readonly size: PictureSize;
  /** Null: all. */
  readonly frameLimit: number | null;
  readonly pauseMs: number;
  /** The frames whose fences are not passed on. */
  readonly forgotten: readonly number[];
}

/** What a stage did, once its frames have ended. */
export interface StageEnd {
  readonly device: DeviceReport;
  readonly stage: StageReport;
  readonly thread: number;
  readonly segments: { readonly yuv: DmaSegments | null; readonly rgb: DmaSegments | null };
  readonly uses: readonly FrameUse[];
  /** Itself, if it takes frames. */
  readonly consumers: readonly ConsumerReport[];
  readonly bytesCopied: number;
}

/** What a stage's Worker says. */
export type Said =
  | { readonly ready: true }
  | { readonly shown: ShownFrame }
  | { readonly ended: StageEnd }
  | { readonly failed: { message: string; stack: string; isForUser: boolean } };

/** A stage that has taken its place: runs until its frames end. */
type Run = () => Promise<void>;

interface Place {
  readonly brief: Brief;
  readonly thread: StageThread;
  readonly yuv: Pool;
  readonly rgb: Pool;
  readonly say: (said: Said) => void;
}

const takePlace: Readonly<Record<StageName, (place: Place) => Run>> = { camera, gpu, display };

/** The camera fills YUV frames from the clip, as they become free. */
function camera({ brief, thread, yuv }: Place): Run {
  return async () => {
    const clip = await Clip.open(brief.clipPath);
    const { frameLimit } = brief;
    let index = 0;
    try {
      const pictures = clip.pictures();
      for await (const frame of yuv.frames()) {
        if (index === frameLimit) break;
        const { value: picture } = await pictures.next();
        if (picture === undefined) break;
        const mapping = thread.mappingOf(frame.buf, "from-device");
        await thread.run(
          index++,
          [{ buf: frame.buf, access: "write" }],
          (written) => frame.publish(written), // to nobody, once the run was stopped
          () => capture(thread.device, mapping, picture),
        );
      }
    } finally {
      await clip.close();
    }
  };
}

/** The GPU takes YUV and gives RGB. */
function gpu({ brief, thread, yuv, rgb }: Place): Run {
  const input = yuv.consumer({ name: "gpu" });
  return async () => {
    let index = 0;
    for await (const from of input.frames()) {
      requireWhole(from);
      const to = await rgb.acquire();
      const [source, target] = [
        thread.mappingOf(from.buf, "to-device"),
        thread.mappingOf(to.buf, "from-device"),
      ];
      await thread.run(
        index++,
        [
          { buf: from.buf, access: "read" },
          { buf: to.buf, access: "write" },
        ],
        (read, written) => {
          to.publish(written);
          from.release(read);
        },
        () => filter(thread.device, source, target, brief.size),
      );
    }
  };
}

/** The display shows RGB frames, and tells the CRC-32 of each. */
function display({ brief, thread, rgb, say }: Place): Run {
  const input = rgb.consumer({ name: "display" });
  return async () => {
    for await (const frame of input.frames()) {
      requireWhole(frame);
      const index = frame.seqno - 1;
      const mapping = thread.mappingOf(frame.buf, "to-device");
      let crc = 0;
      const look = (view: Uint8Array<ArrayBufferLike>): void => {
        crc = crc32(view, crc);
      };
      await thread.run(
        index,
        [{ buf: frame.buf, access: "read" }],
        (read) => frame.release(read),
        () => scanOut(thread.device, mapping, brief.size, look),
      );
      say({ shown: { index, crc } });
    }
  };
}

async function work(brief: Brief, system: System, port: MessagePort): Promise<StageEnd> {
  const { stage } = brief;
  const thread = new StageThread(system, stage, brief.pauseMs, brief.forgotten);
  const [yuv, rgb] = [system.importPool(brief.yuv), system.importPool(brief.rgb)];
  const say = (said: Said): void => port.postMessage(said);
  const run = takePlace[stage]({ brief, thread, yuv, rgb, say });
  const begin = once(port, "message");
  say({ ready: true }); // SW1
  await begin;
  await run().catch(ignoreEnd);
  const end = {
    device: describeDevice(thread.device),
    stage: describeStage(stage, thread.jobMs),
    thread: system.thread,
    segments: { yuv: thread.dmaSegmentsOf("yuv"), rgb: thread.dmaSegmentsOf("rgb") },
    uses: thread.uses,
    consumers: [yuv, rgb].flatMap((pool) =>
      pool.report().consumers.filter((consumer) => consumer.thread === system.thread),
    ),
    bytesCopied: system.core.bytesCopied,
  };
  thread.close();
  for (const pool of [yuv, rgb]) pool.release();
  return end;
}

/** A pool that was closed while a stage waited for a frame to write ends the stage, too. */
function ignoreEnd(error: unknown): void {
  if (!(error instanceof DmaBufError && error.code === "EPIPE")) throw error;
}

async function main(port: MessagePort): Promise<void> {
  const [brief] = (await once(port, "message")) as [Brief];
  try {
    const system = joinSync(brief.share);
    const ended = await work(brief, system, port);
    system.close();
    port.postMessage({ ended } satisfies Said);
  } catch (error) {
    const { message, stack = message } = error as Error;
    port.postMessage({ failed: { message, stack, isForUser: isForUser(error) } } satisfies Said);
  }
  port.close();
}

if (parentPort !== null) await main(parentPort);
