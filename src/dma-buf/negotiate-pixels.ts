/**
 * Which picture a set of devices can share: the formats and modifiers that all of them have, and
 * strides, offsets and heights that are multiples of what each asks for.
 *
 * A device that states no pictures takes bytes as bytes, and is not asked.
 *
 * Compare the kernel's Documentation/userspace-api/dma-buf-alloc-exchange.rst.
 *
 * @module
 */

import type { PixelLimits } from "../device/pixel-limits.ts";
import { fail, requireInteger, textOf } from "../errors.ts";
import type { Conflict } from "./conflict.ts";
import {
  hasLayout,
  isPixelFormat,
  layOut,
  lcm,
  modifierName,
  modifiers,
  type PixelFormat,
  type PixelLayout,
  type PlaneAlignment,
  pixelFormats,
} from "./formats.ts";
import type { Participant } from "./negotiate.ts";

/** A picture to be stored. */
export interface PixelRequest {
  /** Pixels, from 1 to 65536. */
  readonly width: number;
  readonly height: number;
  /** Formats that will do, best first. Default: any that all devices have. */
  readonly formats?: readonly PixelFormat[] | undefined;
}

/** A layout, or why there is none. */
interface PixelNegotiation {
  readonly pixels: PixelLayout | null;
  readonly conflicts: readonly Conflict[];
}

interface Viewer {
  readonly name: string;
  readonly pixels: PixelLimits;
}

const MAX_PIXELS = 65536;

/** The picture of at most `maxBytes` bytes that all devices can use. */
export function negotiatePixels(
  participants: readonly Participant[],
  request: PixelRequest,
  maxBytes: number,
): PixelNegotiation {
  const viewers = viewersOf(participants);
  const wanted = wantedFormats(request, viewers.length > 0);
  const shared = wanted.filter((format) =>
    viewers.every(({ pixels }) => pixels.formats[format] !== undefined),
  );
  if (shared.length === 0) return { pixels: null, conflicts: [formatConflict(viewers, wanted)] };
  const alignment = alignmentOf(viewers);
  const layouts = shared.flatMap((format) =>
    sharedModifiers(viewers, format)
      .map((modifier) => layOut(format, modifier, request.width, request.height, alignment))
      .sort((a, b) => a.sizeBytes - b.sizeBytes || (a.modifier < b.modifier ? -1 : 1)),
  );
  if (layouts.length === 0)
    return { pixels: null, conflicts: shared.map((format) => modifierConflict(viewers, format)) };
  const pixels = layouts.find(({ sizeBytes }) => sizeBytes <= maxBytes);
  if (pixels !== undefined) return { pixels, conflicts: [] };
  const needed = Math.min(...layouts.map(({ sizeBytes }) => sizeBytes));
  const devices = viewers.map(({ name }) => name);
  return {
    pixels: null,
    conflicts: [{ field: "sizeBytes", devices, allowed: maxBytes, needed }],
  };
}

/** What keeps a device from using a picture that is laid out already. */
export function pixelConflicts({ name, limits }: Participant, picture: PixelLayout): Conflict[] {
  if (limits.pixels === null) return [];
  const viewer = { name, pixels: limits.pixels };
  const { format, modifier, planes } = picture;
  const list = limits.pixels.formats[format];
  if (list === undefined) return [formatConflict([viewer], [format])];
  if (!list.includes(modifier))
    return [{ ...modifierConflict([viewer], format), needed: modifierName(modifier) }];
  const alignment = alignmentOf([viewer]);
  const own = layOut(format, modifier, picture.width, picture.height, alignment);
  const fits = planes.every(
    ({ offset, stride, sizeBytes }, i) =>
      offset % alignment.offsetAlignBytes === 0 &&
      stride % alignment.strideAlignBytes === 0 &&
      sizeBytes / stride >= (own.planes[i]?.sizeBytes ?? 0) / (own.planes[i]?.stride ?? 1),
  );
  if (fits) return [];
  const allowed = alignmentText(alignment);
  const needed = planes.map(
    ({ offset, stride, sizeBytes }) => `${offset}:${stride}:${sizeBytes / stride}`,
  );
  return [{ field: "pixels", devices: [name], allowed, needed: needed.join(" ") }];
}

function alignmentText({
  offsetAlignBytes,
  strideAlignBytes,
  heightAlign,
}: PlaneAlignment): string {
  return `offset:stride:rows multiples of ${offsetAlignBytes}:${strideAlignBytes}:${heightAlign}`;
}

function viewersOf(participants: readonly Participant[]): Viewer[] {
  const viewers: Viewer[] = [];
  for (const { name, limits } of participants)
    if (limits.pixels !== null) viewers.push({ name, pixels: limits.pixels });
  return viewers.sort((a, b) => (a.name < b.name ? -1 : 1));
}

function wantedFormats(request: PixelRequest, hasViewers: boolean): readonly PixelFormat[] {
  const operation = "negotiate a picture";
  requireInteger(request.width, "width", 1, MAX_PIXELS, operation);
  requireInteger(request.height, "height", 1, MAX_PIXELS, operation);
  const { formats } = request;
  if (formats === undefined && hasViewers) return Object.keys(pixelFormats).filter(isPixelFormat);
  if (formats === undefined || formats.length === 0)
    return fail("EINVAL", operation, "neither the request nor a device names a format");
  for (const format of formats)
    if (!isPixelFormat(format)) fail("EINVAL", operation, `${textOf(format)} is no pixel format`);
  return formats;
}

/** The modifiers that all viewers have for a format, and that have a layout; LINEAR for nobody. */
function sharedModifiers(viewers: readonly Viewer[], format: PixelFormat): bigint[] {
  const lists = viewers.map(({ pixels }) => pixels.formats[format] ?? []);
  const [first = [modifiers.LINEAR], ...others] = lists;
  return [...new Set(first)].filter(
    (modifier) => hasLayout(modifier) && others.every((list) => list.includes(modifier)),
  );
}

function alignmentOf(viewers: readonly Viewer[]): PlaneAlignment {
  const common = (of: (pixels: PixelLimits) => number | undefined): number =>
    viewers.reduce((multiple, { pixels }) => lcm(multiple, of(pixels) ?? 1), 1);
  return {
    strideAlignBytes: common(({ strideAlignBytes }) => strideAlignBytes),
    offsetAlignBytes: common(({ offsetAlignBytes }) => offsetAlignBytes),
    heightAlign: common(({ heightAlign }) => heightAlign),
  };
}

function formatConflict(viewers: readonly Viewer[], wanted: readonly PixelFormat[]): Conflict {
  const lists = viewers.map(
    ({ name, pixels }) => `${name}: ${Object.keys(pixels.formats).sort().join(", ") || "none"}`,
  );
  const isAny = wanted.length === Object.keys(pixelFormats).length;
  return {
    field: "formats",
    devices: viewers.map(({ name }) => name),
    allowed: lists.sort().join("; "),
    needed: isAny ? "one in common" : wanted.join(" or "),
  };
}

function modifierConflict(viewers: readonly Viewer[], format: PixelFormat): Conflict {
  const lists = viewers.map(({ name, pixels }) => {
    const names = (pixels.formats[format] ?? []).map(modifierName).sort();
    return `${name}: ${names.join(", ")}`;
  });
  return {
    field: "modifiers",
    devices: viewers.map(({ name }) => name),
    allowed: `${format} ${lists.sort().join("; ")}`,
    needed: "one in common that has a layout",
  };
}
