/**
 * The map of memory: a square for each frame of 4 KiB, in its owner's colour. A buffer that nobody
 * has is pale, so that the map moves with the pictures.
 *
 * @module
 */

import { formatBytes, type Pool, type System } from "dmabuf";
import { type FrameInfo, pageMap } from "dmabuf/inspect";

const COLUMNS = 128;
const SQUARE = 8; // pixels of the canvas, which is shown smaller, two of them for the gap
const FRAME_BYTES = 4096;

interface Owner {
  readonly name: string;
  readonly colour: string;
  readonly owns: (frame: FrameInfo) => boolean;
}

/** Where the map is drawn, and what is said about it. */
export interface MapElements {
  readonly canvas: HTMLCanvasElement;
  readonly caption: HTMLElement;
  readonly legend: HTMLElement;
}

/** Draws the map of this moment. How many squares it has. */
export function showMap(elements: MapElements, system: System, pools: readonly Pool[]): number {
  const frames = pageMap(system);
  const owners = ownersOf(system, pools);
  const { canvas, caption, legend } = elements;
  const rows = Math.ceil(frames.length / COLUMNS);
  if (canvas.width !== COLUMNS * SQUARE || canvas.height !== rows * SQUARE)
    [canvas.width, canvas.height] = [COLUMNS * SQUARE, rows * SQUARE];
  const context = canvas.getContext("2d");
  context?.clearRect(0, 0, canvas.width, canvas.height);
  const counts = owners.map(() => 0);
  for (const frame of frames) {
    const at = owners.findIndex(({ owns }) => owns(frame));
    counts[at] = (counts[at] ?? 0) + 1;
    if (context === null) continue;
    context.fillStyle = owners[at]?.colour ?? "red";
    const [x, y] = [frame.pfn % COLUMNS, Math.floor(frame.pfn / COLUMNS)];
    context.fillRect(x * SQUARE, y * SQUARE, SQUARE - 2, SQUARE - 2);
  }
  caption.textContent =
    `${frames.length} frames of 4 KiB, ${formatBytes(frames.length * FRAME_BYTES)} in all, ` +
    `${COLUMNS} in a row`;
  legend.replaceChildren(...owners.map((owner, i) => legendItem(owner, counts[i] ?? 0)));
  return frames.length;
}

/** Disjoint, and the last one owns what is left. */
function ownersOf(system: System, pools: readonly Pool[]): Owner[] {
  const used = new Set<string>();
  for (const pool of pools)
    for (const { index, state } of pool.report().frames)
      if (state !== "free") used.add(`${pool.name} ${index}`);
  const isOf = (frame: FrameInfo, pool: string, isUsed: boolean): boolean =>
    frame.buf?.name.startsWith(pool) === true && used.has(frame.buf.name) === isUsed;
  const isFree = ({ use }: FrameInfo): boolean => use === "free" || use === "cached";
  const isInRegion = ({ pfn }: FrameInfo): boolean =>
    system.regions.some(({ basePfn, frameCount }) => pfn >= basePfn && pfn < basePfn + frameCount);
  const colours: Readonly<Record<string, readonly [used: string, free: string]>> = {
    video: ["#d9622b", "#e9b79d"],
    picture: ["#178a7e", "#96cbc5"],
  };
  return [
    ...Object.entries(colours).flatMap(([name, [inUse, idle]]): Owner[] => [
      { name: `${name}, in use`, colour: inUse, owns: (frame) => isOf(frame, name, true) },
      { name: `${name}, nobody's`, colour: idle, owns: (frame) => isOf(frame, name, false) },
    ]),
    {
      name: "free, in the CMA region",
      colour: "#8296c4",
      owns: (frame) => isFree(frame) && isInRegion(frame),
    },
    { name: "free", colour: "#9a9a9a", owns: isFree },
    { name: "the library's", colour: "#8d5bb5", owns: () => true },
  ];
}

function legendItem({ name, colour }: Owner, count: number): HTMLLIElement {
  const item = document.createElement("li");
  const swatch = document.createElement("span");
  swatch.style.background = colour;
  item.append(swatch, `${name}: ${count}`);
  return item;
}
