/**
 * Area F, fixed: which address masks a device may have, and what it says of its mappings.
 *
 * @module
 */

import { defaultLimits, isDmaMappingError, openSync } from "dmabuf";
import { type Bed, PAGE_BYTES } from "./bed.ts";
import { isBehindIommu } from "./dma-map.ts";
import type { Fields } from "./fields.ts";
import { factsOf, type Outcome, resultOf } from "./outcome.ts";

const MEMORY_BYTES = 8 * 1024 * 1024;
/** The recording machine's memory ends here. */
const PHYSICAL_END = 1024 * 1024 * 1024;
/** Linux's size for "no limit". */
const SIZE_MAX = 2n ** 64n - 1n;

/** `set_mask`: the mask for streaming mappings, and the one for coherent memory. */
export function setMask(fields: Fields, bed: Bed): Outcome {
  const system = bed.machine(MEMORY_BYTES, PHYSICAL_END - MEMORY_BYTES);
  const device = system.addDevice({ name: "recorded", iommu: isBehindIommu(fields) });
  const bits = fields.number("bits");
  const maskRet = resultOf(() => device.setDmaMask(bits));
  const coherentRet = resultOf(() => device.setCoherentDmaMask(bits));
  device.remove();
  return { facts: factsOf(fields, { maskRet, coherentRet }) };
}

/** `mapping_error`: which 64-bit words say "not mapped". */
export function mappingError(fields: Fields): Outcome {
  const value = fields.wide("value");
  const isError = (word: bigint) => (isDmaMappingError(word) ? 1 : 0);
  return {
    facts: factsOf(fields, {
      isError: isError(value),
      zeroIsError: isError(0n),
      allOnesMinus1IsError: isError(2n ** 64n - 2n),
    }),
  };
}

/** `sgtable_orig_nents_0`: no entry of a list of one is mapped, and the list stays as it is. */
export function sgtableOrigNents0(fields: Fields, bed: Bed): Outcome {
  const { system } = bed;
  const device = system.addDevice({ name: "recorded", iommu: isBehindIommu(fields) });
  const list = [{ pfn: bed.pagesPfn, offset: 0, lengthBytes: PAGE_BYTES }];
  const ret = resultOf(() => device.dma.mapSg(list.slice(0, 0), "bidirectional"));
  device.remove();
  return { facts: factsOf(fields, { ret, nents: list.length }) };
}

/** `limits`: "no limit" is Infinity here, and the merge boundary a size instead of a mask. */
export function limits(fields: Fields): Outcome {
  const system = openSync({ memoryBytes: MEMORY_BYTES });
  const device = system.addDevice({ name: "recorded", iommu: isBehindIommu(fields) });
  const { maxBytes, optimalBytes, mergeBytes } = device.mappingLimits;
  device.remove();
  system.close();
  return {
    facts: factsOf(fields, {
      maxMappingSize: sizeText(maxBytes),
      optMappingSize: sizeText(optimalBytes),
      mergeBoundary: Math.max(0, mergeBytes - 1),
      defaultMaxSegSizeOfADeviceWithoutParms: defaultLimits.maxSegmentBytes,
    }),
  };
}

function sizeText(bytes: number): string {
  return String(bytes === Number.POSITIVE_INFINITY ? SIZE_MAX : bytes);
}
