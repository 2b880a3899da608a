/**
 * Attributes of a mapping: what its maker asks for beyond the direction.
 *
 * The bits are the kernel's DMA_ATTR_* (include/linux/dma-mapping.h); the upper ones are the
 * core's own (assembly/dma-device.ts).
 *
 * @module
 */

import { requireObject } from "../arguments.ts";
import { fail } from "../errors.ts";

/** What a mapping may be asked for. Each is off unless it is true. */
export interface MapAttrs {
  /**
   * DMA_ATTR_SKIP_CPU_SYNC: the caller syncs. Map and unmap do not touch a simulated cache, and
   * unmap does not copy bounced bytes back.
   */
  readonly skipCpuSync?: boolean | undefined;
  /** DMA_ATTR_PRIVILEGED: the page table lets only privileged accesses through. */
  readonly privileged?: boolean | undefined;
  /**
   * DMA_ATTR_FORCE_CONTIGUOUS: coherent memory in one run of frames, behind an IOMMU too. Without
   * one it always is.
   */
  readonly forceContiguous?: boolean | undefined;
  /** DMA_ATTR_NO_WARN: kept, without effect: no call of this library prints a warning. */
  readonly noWarn?: boolean | undefined;
  /** DMA_ATTR_WEAK_ORDERING: kept, without effect: accesses are never reordered. */
  readonly weakOrdering?: boolean | undefined;
}

const bits: Record<keyof MapAttrs, number> = {
  weakOrdering: 2,
  skipCpuSync: 32,
  forceContiguous: 64,
  noWarn: 256,
  privileged: 512,
};

/** @internal The attributes by their bits, and what the core adds to those of a mapping. */
export const attrBits: Record<keyof MapAttrs | "mmio" | "oneSegment" | "coherent", number> = {
  ...bits,
  mmio: 0x400,
  oneSegment: 0x10000,
  coherent: 0x20000,
};

/** None of them: what a call without attributes has. */
export const noAttrs: MapAttrs = Object.freeze({});

/** The attributes as bits. EINVAL: one is not known. */
export function attrsNumber(attrs: MapAttrs, operation: string): number {
  if (attrs === noAttrs) return 0;
  requireObject(attrs, "the attributes", operation);
  let number = 0;
  for (const [name, isSet] of Object.entries(attrs)) {
    const bit = Object.hasOwn(bits, name) ? bits[name as keyof MapAttrs] : undefined;
    if (bit === undefined) {
      const names = Object.keys(bits).join(", ");
      return fail("EINVAL", operation, `the attributes are ${names}; ${name} is none of them`);
    }
    if (isSet) number += bit;
  }
  return number;
}
