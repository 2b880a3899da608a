/**
 * Area F, fixed: which address masks a device may have, and what it says of its mappings.
 *
 * @module
 */

import { defaultLimits, openSync } from "dmabuf";
import { type Bed, NONE, need, PAGE_BYTES } from "./bed.ts";
import { isBehindIommu } from "./dma-map.ts";
import type { Fields } from "./fields.ts";
import { factsOf, type Outcome } from "./outcome.ts";

const MEMORY_BYTES = 8 * 1024 * 1024;
/** The recording machine's memory ends here. */
const PHYSICAL_END = 1024 * 1024 * 1024;
const SEGMENT_BYTES = 65536;
/** Linux's size for "no limit". */
const SIZE_MAX = 2n ** 64n - 1n;

/** `set_mask`: one mask serves streaming and coherent mappings. */
export function setMask(fields: Fields, bed: Bed): Outcome {
  const core = bed.memo("1 GiB machine", () => bed.open(MEMORY_BYTES, PHYSICAL_END - MEMORY_BYTES));
  const { exports } = core;
  const domain = isBehindIommu(fields) ? need(exports.iommuDomainAlloc(), "a domain") : 0;
  const device = need(exports.dmaDeviceAdd(domain, NONE, SEGMENT_BYTES, NONE, NONE), "a device");
  const pages = Math.max(1, Math.floor(2 ** fields.number("bits") / PAGE_BYTES));
  const ret = exports.dmaDeviceSetLimit(device, Math.min(pages - 1, NONE));
  need(exports.dmaDeviceRemove(device), "the end of the device");
  if (domain !== 0) need(exports.iommuDomainFree(domain), "the end of the domain");
  return { facts: factsOf(fields, { maskRet: ret, coherentRet: ret }) };
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
