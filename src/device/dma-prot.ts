/**
 * What a mapping lets a device do, as protection bits of an IOMMU.
 *
 * Compare dma_info_to_prot() in the kernel's drivers/iommu/dma-iommu.c.
 *
 * @module
 */

import { iommuProt } from "../iommu/domain-ops.ts";
import { attrBits } from "./map-attrs.ts";

const { read, write, cache, mmio, priv } = iommuProt;

/** By the number of the direction. */
const accesses: readonly number[] = [read + write, read, write];

/** @internal A sum of {@link iommuProt}; `attrs` as the core has them. */
export function protOf(direction: number, attrs: number, isCoherent: boolean): number {
  const isMmio = hasBit(attrs, attrBits.mmio);
  const kind = isMmio ? mmio : isCoherent ? cache : 0;
  return (accesses[direction] ?? 0) + kind + (hasBit(attrs, attrBits.privileged) ? priv : 0);
}

function hasBit(bits: number, bit: number): boolean {
  return Math.floor(bits / bit) % 2 === 1;
}
