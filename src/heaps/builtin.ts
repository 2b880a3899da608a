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
import type { CmaRegion } from "../mm/cma-region.ts";
import type { HeapInfo, HeapRequest } from "./heap.ts";
import { HeapBuffer, type Place } from "./heap-buffer.ts";
import { type Places, placeForAttached, placeInRegion, placeScattered } from "./place.ts";

/** What heaps need from their system. */
export interface HeapContext extends Places {
  /** CMA regions and carve-outs: each is a heap. */
  readonly areas: readonly CmaRegion[];
  export(info: ExportInfo): DmaBuf;
}

/** The built-in heaps. */
export function builtinHeaps(context: HeapContext): HeapInfo[] {
  const early = (name: string, place: Place): HeapInfo => ({
    name,
    alloc: (request) => allocPlaced(context, request, place),
  });
  return [
    early("system", (buf) => placeScattered(context, buf)),
    {
      name: "auto",
      alloc: (request) => exported(context, request, (buf) => placeForAttached(context, buf)).buf,
    },
    ...context.areas.map((area) => early(area.name, (buf) => placeInRegion(context, buf, area))),
  ];
}

/** A buffer whose storage is there. */
function allocPlaced(context: HeapContext, request: HeapRequest, place: Place): DmaBuf {
  const { buf, ops } = exported(context, request, place);
  try {
    ops.decide(buf);
  } catch (error) {
    buf.put();
    throw error;
  }
  return buf;
}

/** A buffer without storage, and the ops that will place it. */
function exported(
  context: HeapContext,
  { heapName, sizeBytes, name, flags }: HeapRequest,
  place: Place,
): { readonly buf: DmaBuf; readonly ops: HeapBuffer } {
  const ops = new HeapBuffer(context.core, context.physicalBase, place);
  const label = name === undefined ? {} : { name };
  return { buf: context.export({ ops, sizeBytes, exporterName: heapName, flags, ...label }), ops };
}
