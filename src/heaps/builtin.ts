/**
 * The heaps that every system has.
 *
 *     system   scattered frames, chosen at alloc
 *     auto     nothing at alloc; at the first use, what the devices attached then can all address
 *     <area>   one run of a CMA region or carve-out, chosen at alloc, under the area's name
 *
 * @module
 */

import type { DmaBuf } from "../dma-buf/dma-buf.ts";
import type { ExportInfo } from "../dma-buf/ops.ts";
import { fail } from "../errors.ts";
import type { CmaRegion } from "../mm/cma-region.ts";
import type { HeapInfo, HeapRequest } from "./heap.ts";
import { HeapBuffer, type Place } from "./heap-buffer.ts";
import { type Places, placeAnywhere, placeInRegion, placeScattered } from "./place.ts";

/** What heaps need from their system. */
export interface HeapContext extends Places {
  /** CMA regions and carve-outs: each is a heap. */
  readonly areas: readonly CmaRegion[];
  export(info: ExportInfo): DmaBuf;
}

/** The built-in heaps. */
export function builtinHeaps(context: HeapContext): HeapInfo[] {
  const early = (name: string, place: Place, isRemapped = false): HeapInfo => ({
    name,
    alloc: (request) => allocPlaced(context, request, place, isRemapped),
  });
  return [
    early("system", (buf, layout) => placeScattered(context, buf, layout), true),
    { name: "auto", alloc: (request) => allocLate(context, request) },
    ...context.areas.map((area) =>
      early(area.name, (buf, layout) => placeInRegion(context, buf, area, layout)),
    ),
  ];
}

/** A buffer whose storage is there, and stays where it is. */
function allocPlaced(
  context: HeapContext,
  request: HeapRequest,
  place: Place,
  isRemapped: boolean,
): DmaBuf {
  const { heapName, pixels, layout = null } = request;
  if (pixels !== undefined)
    fail(
      "EINVAL",
      `allocate a picture from heap ${heapName}`,
      "its storage is chosen before a device attaches; use heap auto, or give it the layout that " +
        "negotiate() found",
    );
  const ops = new HeapBuffer(context.core, context.physicalBase, place, {
    mayMove: false,
    isRemapped,
    request: {},
    picture: layout,
  });
  const buf = exportAs(context, request, ops);
  try {
    ops.decide(buf);
  } catch (error) {
    buf.put();
    throw error;
  }
  return buf;
}

/** A buffer whose storage is chosen at the first use. */
function allocLate(context: HeapContext, request: HeapRequest): DmaBuf {
  const place: Place = (buf, layout) => placeAnywhere(context, buf, layout);
  const { pixels, layout: picture = null } = request;
  const rules = {
    mayMove: true,
    isRemapped: true,
    request: pixels === undefined ? {} : { pixels },
    picture,
  };
  const ops = new HeapBuffer(context.core, context.physicalBase, place, rules);
  return exportAs(context, request, ops);
}

function exportAs(context: HeapContext, request: HeapRequest, ops: HeapBuffer): DmaBuf {
  const { heapName, sizeBytes, name, flags } = request;
  const label = name === undefined ? {} : { name };
  return context.export({ ops, sizeBytes, exporterName: heapName, flags, ...label });
}
