/**
 * Page map: what every frame of memory is used for, for people: as a PNG file and as text.
 *
 *     tttttt.........aaaaaaaaaaaaaaaabbbbbbbb....:::AAAA:::::    a character or square = n frames
 *
 * - PM1  A cell shows the first owner of the legend that has a frame in it.
 * - PM2  The owners of the legend are disjoint, and every frame has one.
 *
 * @module
 */

import type { FrameRange, System } from "dmabuf";
import { type FrameInfo, pageMap } from "dmabuf/inspect";
import { PNG } from "pngjs";
import { type Colour, fillRectangle } from "./canvas.ts";
import { savePng } from "./picture.ts";
import { drawText, TEXT_HEIGHT } from "./pixel-font.ts";

/** Who can own a frame. */
export interface Owner {
  readonly name: string;
  /** Stands for the owner in text. */
  readonly symbol: string;
  readonly colour: Colour;
  readonly colourName: string;
  readonly frameCount: number;
}

/** A map: the legend, and the legend's index for every frame. */
export interface PageMap {
  readonly owners: readonly Owner[];
  readonly ownerOfFrame: readonly number[];
}

type OwnerKind = Omit<Owner, "frameCount"> & { readonly owns: (frame: FrameInfo) => boolean };

const BUFFER_STYLES: readonly (readonly [symbol: string, colourName: string, colour: Colour])[] = [
  ["A", "red", [214, 39, 40]],
  ["B", "orange", [255, 127, 14]],
  ["C", "yellow", [240, 200, 30]],
  ["a", "green", [44, 160, 44]],
  ["b", "blue", [31, 119, 220]],
  ["c", "violet", [148, 90, 210]],
];

const TEXT_COLUMNS = 64;
const TEXT_ROWS_MAX = 16;
const PNG_CELLS_MAX = 65536;
const BACKGROUND: Colour = [24, 24, 28];
const TEXT_COLOUR: Colour = [235, 235, 235];
const MARGIN = 8;

/** The map of a system at this moment. `held` are the frames that fragment it. */
export function makePageMap(system: System, held: readonly FrameRange[]): PageMap {
  const frames = pageMap(system);
  const kinds = ownerKinds(system, new Set(held.map(({ pfn }) => pfn)));
  const ownerOfFrame = frames.map((frame) => kinds.findIndex(({ owns }) => owns(frame)));
  const counts = kinds.map(() => 0);
  for (const owner of ownerOfFrame) counts[owner] = (counts[owner] ?? 0) + 1;
  const owners = kinds.map(({ owns: _, ...kind }, i) => ({ ...kind, frameCount: counts[i] ?? 0 }));
  return { owners, ownerOfFrame };
}

/** All owners, in the order of the legend; the last takes what is left (PM2). */
function ownerKinds(system: System, held: ReadonlySet<number>): OwnerKind[] {
  const isFree = ({ use }: FrameInfo): boolean => use === "free" || use === "cached";
  const isInRegion = ({ pfn }: FrameInfo): boolean =>
    system.regions.some(({ basePfn, frameCount }) => pfn >= basePfn && pfn < basePfn + frameCount);
  const buffers = system.buffers.map((buf, i): OwnerKind => {
    const [symbol, colourName, colour] = BUFFER_STYLES[i % BUFFER_STYLES.length] ?? [
      "?",
      "white",
      TEXT_COLOUR,
    ];
    return { name: buf.name, symbol, colourName, colour, owns: (frame) => frame.buf === buf };
  });
  return [
    ...buffers,
    {
      name: "held, to fragment memory",
      symbol: "#",
      colourName: "light grey",
      colour: [190, 190, 190],
      owns: ({ pfn }) => held.has(pfn),
    },
    {
      name: "free, in the CMA region",
      symbol: ":",
      colourName: "dark blue",
      colour: [44, 50, 84],
      owns: (frame) => isFree(frame) && isInRegion(frame),
    },
    { name: "free", symbol: ".", colourName: "dark grey", colour: [58, 58, 62], owns: isFree },
    {
      name: "the library: tables and records",
      symbol: "t",
      colourName: "cyan",
      colour: [23, 190, 207],
      owns: () => true,
    },
  ];
}

/** The map as lines of text, one character for so many frames (PM1). */
export function pageMapText(map: PageMap): { readonly lines: string[]; readonly scale: number } {
  const { cells, scale } = toCells(map, TEXT_COLUMNS * TEXT_ROWS_MAX);
  const text = cells.map((owner) => map.owners[owner]?.symbol ?? "?").join("");
  const lines: string[] = [];
  for (let at = 0; at < text.length; at += TEXT_COLUMNS)
    lines.push(text.slice(at, at + TEXT_COLUMNS));
  return { lines, scale };
}

/**
 * Saves the map with its legend as a PNG file, one square for each frame if they are not too many.
 */
export async function savePageMap(path: string, map: PageMap): Promise<void> {
  const { cells, scale } = toCells(map, PNG_CELLS_MAX);
  const columns = 2 ** Math.ceil(Math.log2(Math.sqrt(cells.length)));
  const cellPixels = Math.max(3, Math.floor(512 / columns));
  const mapHeight = Math.ceil(cells.length / columns) * cellPixels;
  const legendHeight = (map.owners.length + 1) * (TEXT_HEIGHT + MARGIN) + MARGIN;
  const width = columns * cellPixels + 2 * MARGIN;
  const png = new PNG({ width: Math.max(width, 400), height: MARGIN + mapHeight + legendHeight });
  fillRectangle(png, { x: 0, y: 0, width: png.width, height: png.height }, BACKGROUND);
  cells.forEach((owner, i) => {
    const x = MARGIN + (i % columns) * cellPixels;
    const y = MARGIN + Math.floor(i / columns) * cellPixels;
    const side = cellPixels - 1;
    fillRectangle(
      png,
      { x, y, width: side, height: side },
      map.owners[owner]?.colour ?? BACKGROUND,
    );
  });
  drawLegend(png, map, MARGIN + mapHeight + MARGIN, scale);
  await savePng(path, png);
}

function drawLegend(png: PNG, { owners }: PageMap, top: number, scale: number): void {
  const lineHeight = TEXT_HEIGHT + MARGIN;
  const unit = scale === 1 ? "1 frame" : `${scale} frames`;
  drawText(png, `a square is ${unit} of 4 KiB; rows from address 0`, MARGIN, top, TEXT_COLOUR);
  owners.forEach(({ name, colour, frameCount }, i) => {
    const y = top + (i + 1) * lineHeight;
    fillRectangle(png, { x: MARGIN, y, width: TEXT_HEIGHT, height: TEXT_HEIGHT }, colour);
    drawText(png, `${name}: ${frameCount}`, 2 * MARGIN + TEXT_HEIGHT, y, TEXT_COLOUR);
  });
}

/** At most `cellCount` cells of `scale` frames each, by owner (PM1). */
function toCells({ ownerOfFrame }: PageMap, cellCount: number): { cells: number[]; scale: number } {
  const scale = Math.max(1, Math.ceil(ownerOfFrame.length / cellCount));
  const cells: number[] = [];
  for (let pfn = 0; pfn < ownerOfFrame.length; pfn += scale) {
    cells.push(Math.min(...ownerOfFrame.slice(pfn, pfn + scale)));
  }
  return { cells, scale };
}
