// Devices of a core, their mappings and what they reach, for the tests of the core.

import type { TestCore } from "./cores.ts";
import type { Prng } from "./prng.ts";
import type { Segment } from "./segments.ts";

const PS = 4096;
const NONE = 0xffffffff;
const [READ, WRITE] = [1, 2] as const;

/** What a device of a test can do. */
export interface Limits {
  readonly iommu?: boolean;
  readonly limitPfn?: number;
  readonly maxBytes?: number;
  readonly maxSegments?: number;
  readonly boundaryMask?: number;
}

/** A device behind an IOMMU of its own unless told; its handle, or an errno. */
export function addDevice(core: TestCore, limits: Limits = {}): number {
  const { iommu = true, limitPfn = 0xfffff, maxBytes = 65_536, maxSegments = NONE } = limits;
  const { boundaryMask = NONE } = limits;
  const domain = iommu ? core.exports.iommuDomainAlloc() : 0;
  return core.exports.dmaDeviceAdd(domain, limitPfn, maxBytes, maxSegments, boundaryMask);
}

/** The device segments of a mapping. */
export function segmentsOf(core: TestCore, mapping: number): Segment[] {
  const words = new Uint32Array(core.memory.buffer);
  const at = core.exports.dmaMappingAt(mapping) / 4;
  const [nents, segmentsAt] = [words[at + 3] as number, (words[at + 4] as number) / 4];
  return Array.from({ length: nents }, (_, i): Segment => {
    const [pfn = 0, offset = 0, length = 0] = words.subarray(segmentsAt + 4 * i);
    return [pfn, offset % PS, length]; // ranks lie above (assembly/dma-order.ts)
  });
}

/** [byte address, length] pairs, or the errno. */
export function spans(
  core: TestCore,
  device: number,
  pfn: number,
  offset: number,
  length: number,
  access: number,
): number[][] | number {
  const count = core.exports.dmaSpans(device, pfn, offset, length, access);
  if (count < 0) return count;
  const words = new Uint32Array(core.memory.buffer, core.exports.scratchAt(), 2 * count);
  return Array.from({ length: count }, (_, i) => [
    words[2 * i] as number,
    words[2 * i + 1] as number,
  ]);
}

/** Every byte address that the list covers, in order: what the device must see. */
export function bytesOf(list: readonly Segment[]): number[] {
  return list.flatMap(([pfn, offset, length]) =>
    Array.from({ length }, (_, i) => pfn * PS + offset + i),
  );
}

/** Up to five short segments, some of them inside a page. */
export function randomList(random: Prng): Segment[] {
  return Array.from({ length: 1 + random.below(5) }, () => {
    const isWhole = random.below(2) === 0;
    const offset = isWhole ? 0 : random.below(PS);
    return [
      random.below(4000),
      offset,
      isWhole ? PS * (1 + random.below(3)) : 1 + random.below(3000),
    ];
  });
}

/** Every byte address that the device reaches through the segments, in order. */
export function translated(core: TestCore, device: number, segments: Segment[]): number[] {
  return segments.flatMap(([pfn, offset, length]) => {
    const found = spans(core, device, pfn, offset, length, READ | WRITE);
    if (typeof found === "number") return [found];
    return found.flatMap(([at = 0, bytes = 0]) => Array.from({ length: bytes }, (_, i) => at + i));
  });
}
