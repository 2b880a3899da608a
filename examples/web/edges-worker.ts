/**
 * The Worker of the stage: joins the page's system, finds the pools by their numbers, and works.
 *
 *     EdgesBrief ─► { thread } ─► { ms } for each picture, or { failed }
 *
 * @module
 */

import { join, type SystemShare } from "dmabuf";
import { type Picture, runEdges } from "./edges.ts";

/** What the page posts first. */
export interface EdgesBrief {
  readonly share: SystemShare;
  /** The pools' tokens. */
  readonly video: number;
  readonly pictures: number;
  readonly picture: Picture;
}

/** What the page posts later. */
export interface EdgesOrder {
  /** Milliseconds to waste on each picture. */
  readonly delayMs: number;
}

/** What the Worker posts. */
export type EdgesSaid =
  | { readonly thread: number }
  | { readonly ms: number }
  | { readonly failed: string };

const STEPS = 4; // of the filter
let delayMs = 0;

function pause(): Promise<void> | null {
  return delayMs === 0 ? null : new Promise((resolve) => setTimeout(resolve, delayMs / STEPS));
}

function say(said: EdgesSaid): void {
  self.postMessage(said);
}

async function work({ share, video, pictures, picture }: EdgesBrief): Promise<void> {
  const system = await join(share);
  const pools = { video: system.importPool(video), pictures: system.importPool(pictures) };
  const onPicture = (ms: number): void => say({ ms });
  const running = runEdges({ system, ...pools, picture, pause, onPicture });
  say({ thread: system.thread }); // it takes part in the pool by now
  await running;
  for (const pool of Object.values(pools)) pool.release();
  system.close();
}

self.onmessage = ({ data }: MessageEvent<EdgesBrief | EdgesOrder>) => {
  if ("delayMs" in data) delayMs = data.delayMs;
  else work(data).catch((error) => say({ failed: String(error?.stack ?? error) }));
};
