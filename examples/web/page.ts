/**
 * The page: opens a system, starts the stage, and shows what happens.
 *
 *     <video> ─► camera ─► [video 0 1 2] ─► edges ─► [picture 0 1 2] ─► screen ─► <canvas>
 *                page                       Worker                      page
 *
 * - PG1  The page's thread never sleeps: whatever it waits for, it awaits.
 * - PG2  Without shared memory the stage runs here, in steps, and the page says so.
 *
 * @module
 */

import { MiB, open, type Pool, type System } from "dmabuf";
import { describePictures, runCamera } from "./camera.ts";
import { type Picture, runEdges } from "./edges.ts";
import type { EdgesBrief, EdgesOrder, EdgesSaid } from "./edges-worker.ts";
import { showHolders } from "./holders-view.ts";
import { type MapElements, showMap } from "./map-view.ts";
import { runScreen } from "./screen.ts";

const FRAMES = 3;
const REFRESH_MS = 200;
const RUN_ALIGN_BYTES: number = MiB; // of the CMA region

interface Stage {
  /** The index of the thread that it runs on. */
  readonly thread: number;
  slowDown(delayMs: number): void;
}

interface Pools {
  readonly video: Pool;
  readonly pictures: Pool;
}

/** What the page counts. */
interface Counts {
  shown: number;
  edgesMs: number;
}

const find = <E extends HTMLElement>(id: string): E => document.getElementById(id) as E;

const elements = {
  mode: find("mode"),
  video: find<HTMLVideoElement>("video"),
  screen: find<HTMLCanvasElement>("screen"),
  play: find<HTMLButtonElement>("play"),
  delay: find<HTMLInputElement>("delay"),
  delayText: find<HTMLOutputElement>("delay-text"),
  numbers: find("numbers"),
  holders: find("holders").getElementsByTagName("tbody")[0] as HTMLTableSectionElement,
};
const map: MapElements = {
  canvas: find<HTMLCanvasElement>("map"),
  caption: find("map-text"),
  legend: find("legend"),
};

function say(text: string, isWarning = false): void {
  elements.mode.textContent = text;
  elements.mode.classList.toggle("warning", isWarning);
}

function openSystem({ width, height }: Picture): Promise<System> {
  const roundUp = (bytes: number): number => Math.ceil(bytes / RUN_ALIGN_BYTES) * RUN_ALIGN_BYTES;
  const [videoBytes, pictureBytes] = [(width * height * 3) / 2, width * height * 4];
  const cmaBytes = FRAMES * (roundUp(videoBytes) + roundUp(pictureBytes));
  const memoryBytes = cmaBytes + 8 * MiB;
  return open({ memoryBytes, cma: { default: cmaBytes }, shared: crossOriginIsolated });
}

/** Frames in one run each: what the browser copies from and to. */
function makePools(system: System, { width, height }: Picture): Pools {
  const options = { count: FRAMES, heap: "default" };
  return {
    video: system.pool({ ...options, name: "video", bytes: (width * height * 3) / 2 }),
    pictures: system.pool({ ...options, name: "picture", bytes: width * height * 4 }),
  };
}

/** Starts the stage in a Worker; resolves when it is ready for pictures. */
function startWorker(
  system: System,
  { video, pictures }: Pools,
  picture: Picture,
  counts: Counts,
): Promise<Stage> {
  const worker = new Worker(new URL("./edges-worker.ts", import.meta.url), { type: "module" });
  const brief: EdgesBrief = {
    share: system.share(),
    video: video.token,
    pictures: pictures.token,
    picture,
  };
  worker.postMessage(brief);
  const slowDown = (delayMs: number): void => worker.postMessage({ delayMs } satisfies EdgesOrder);
  return new Promise((resolve, reject) => {
    worker.onerror = ({ message }) => reject(new Error(message ?? "The Worker does not load."));
    worker.onmessage = ({ data }: MessageEvent<EdgesSaid>) => {
      if ("thread" in data) resolve({ slowDown, thread: data.thread });
      else if ("ms" in data) counts.edgesMs = data.ms;
      else fail(new Error(`In the Worker: ${data.failed}`));
    };
  });
}

/** Runs the stage on this thread (PG2). */
function startHere(system: System, pools: Pools, picture: Picture, counts: Counts): Stage {
  let stepMs = 0;
  const pause = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, stepMs));
  const onPicture = (ms: number): void => {
    counts.edgesMs = ms;
  };
  runEdges({ system, ...pools, picture, pause, onPicture }).catch(fail);
  const slowDown = (delayMs: number): void => {
    stepMs = delayMs / 4;
  };
  return { slowDown, thread: system.thread };
}

function wireControls({ slowDown }: Stage): void {
  const { video, play, delay, delayText } = elements;
  const toggle = (): void => {
    if (video.paused) video.play().catch(fail);
    else video.pause();
  };
  play.onclick = toggle;
  const showState = (): void => {
    play.textContent = video.paused ? "Play" : "Pause";
  };
  video.onplay = showState;
  video.onpause = showState;
  delay.oninput = () => {
    delayText.textContent = `${delay.value} ms`;
    slowDown(Number(delay.value));
  };
  showState();
}

/** Numbers that the page shows, refreshed with the table and the map. */
function refresh(system: System, { video, pictures }: Pools, counts: Counts, since: number): void {
  const skipped = [video, pictures].flatMap((pool) =>
    pool.report().consumers.map(({ name, dropped }) => `${name} ${dropped}`),
  );
  const seconds = (performance.now() - since) / 1000;
  const rows: readonly [string, string][] = [
    ["Shown", `${counts.shown}, ${(counts.shown / seconds).toFixed(1)} a second`],
    ["Filter", `${counts.edgesMs.toFixed(1)} ms a picture`],
    ["Skipped", skipped.join(", ")],
    ["bytesCopied", `${system.stats().bytesCopied}`],
    ["Host copies", "2 a picture: in, out"],
  ];
  elements.numbers.replaceChildren(
    ...rows.flatMap(([name, value]) => {
      const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
      [dt.textContent, dd.textContent] = [name, value];
      return [dt, dd];
    }),
  );
  showHolders(elements.holders, [video, pictures]);
  showMap(map, system, [video, pictures]);
}

function fail(error: unknown): void {
  say(error instanceof Error ? error.message : String(error), true);
  throw error;
}

async function main(): Promise<void> {
  const { video, screen } = elements;
  const picture = await describePictures(video);
  const system = await openSystem(picture);
  const pools = makePools(system, picture);
  const counts: Counts = { shown: 0, edgesMs: 0 };
  const stage = crossOriginIsolated
    ? await startWorker(system, pools, picture, counts)
    : startHere(system, pools, picture, counts);
  wireControls(stage);
  if (crossOriginIsolated)
    say(`Shared memory: the page is thread ${system.thread}, the Worker thread ${stage.thread}.`);
  else
    say(
      "No shared memory: the page is not cross-origin isolated (the server must send " +
        "Cross-Origin-Opener-Policy and Cross-Origin-Embedder-Policy). All runs on one thread.",
      true,
    );
  runScreen(screen, pools.pictures, picture, () => counts.shown++).catch(fail);
  runCamera(video, pools.video).catch(fail);
  const since = performance.now();
  setInterval(() => refresh(system, pools, counts, since), REFRESH_MS);
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) await video.play();
}

main().catch(fail);
