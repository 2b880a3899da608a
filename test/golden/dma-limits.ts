/**
 * Area F, fixed: which address masks a device may have.
 *
 * @module
 */

import { type Bed, NONE, need, PAGE_BYTES } from "./bed.ts";
import { isBehindIommu } from "./dma-map.ts";
import type { Fields } from "./fields.ts";
import { factsOf, type Outcome } from "./outcome.ts";

const MEMORY_BYTES = 8 * 1024 * 1024;
/** The recording machine's memory ends here. */
const PHYSICAL_END = 1024 * 1024 * 1024;
const SEGMENT_BYTES = 65536;

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
