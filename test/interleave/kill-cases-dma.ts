/**
 * What threads do when they die, second part: devices, domains, mappings and pools.
 *
 * @module
 */

import { tableFlags, tableFormatWord } from "../../src/core/index.ts";
import { type KillCase, type Made, NONE, ok } from "./kill-cases.ts";
import type { Exports } from "./yielding.ts";

const SIMULATED = 3; // not coherent, and the cache is simulated
const LAZY_FORMAT = tableFormatWord({
  stage: 1,
  granuleOrder: 0,
  inputBits: 44,
  outputBits: 44,
  flags: tableFlags.lazy,
});
/** The last frame that a device of limited reach sees: only bounce slots are below. */
export const BOUNCE_LIMIT = 127;

const device = (exports: Exports, domain: number, flags = 0, limitPfn = 0xfffff): number =>
  ok(exports.dmaDeviceAdd(domain, limitPfn, 65_536, NONE, NONE, flags, 0, 32));

const devices: KillCase[] = [
  { name: "make a domain", run: (d) => ok(d.iommuDomainAlloc()) },
  {
    name: "make a domain with an IOTLB and a device",
    run: (d) => {
      const domain = ok(d.iommuDomainAlloc());
      ok(d.iommuIotlbMake(domain, 4, 2, 1));
      device(d, domain);
    },
  },
  {
    name: "free a domain that maps something",
    doomed: (d, made) => {
      made.domain = ok(d.iommuDomainAlloc());
      ok(d.iommuMap(made.domain, 77, 100, 5, 3));
      for (const pages of [1, 1, 2, 40]) d.iommuIovaAlloc(made.domain, pages, 0xfffff, 1);
    },
    run: (d, made) => ok(d.iommuDomainFree(made.domain)),
  },
  {
    name: "map and unmap in a domain of its own",
    doomed: (d, made) => {
      made.domain = ok(d.iommuDomainAlloc());
    },
    run: (d, made) => {
      ok(d.iommuMap(made.domain, 512, 512, 600, 3));
      ok(d.iommuMap(made.domain, 0x40000, 100, 5, 3));
      ok(d.iommuUnmap(made.domain, 514, 20));
      ok(d.iommuUnmap(made.domain, 512, 600));
    },
  },
  {
    name: "take and give device pages of its own domain",
    doomed: (d, made) => {
      made.domain = ok(d.iommuDomainAlloc());
    },
    run: (d, made) => {
      for (const pages of [1, 4, 40]) {
        const pfn = d.iommuIovaAlloc(made.domain, pages, 0xfffff, 1);
        ok(d.iommuIovaFree(made.domain, pfn));
      }
    },
  },
  {
    name: "add and remove devices",
    doomed: (d, made) => {
      made.domain = ok(d.iommuDomainAlloc());
    },
    run: (d, made) => {
      ok(d.dmaDeviceRemove(device(d, made.domain as number)));
      ok(d.dmaDeviceRemove(device(d, 0)));
    },
  },
  {
    name: "attach a domain to another and back",
    doomed: (d, made) => {
      made.own = ok(d.iommuDomainAlloc());
      made.other = ok(d.iommuDomainAlloc());
    },
    run: (d, made) => {
      ok(d.iommuAttach(made.own, 0, made.other));
      ok(d.iommuAttach(made.own, made.other, 0));
    },
  },
  {
    name: "add a device to a domain of another thread",
    living: (l, made) => {
      made.domain = ok(l.iommuDomainAlloc());
      made.device = device(l, made.domain);
    },
    run: (d, made) => ok(d.dmaDeviceRemove(device(d, made.domain as number))),
    after: (l, made) => {
      ok(l.dmaDeviceRemove(made.device));
      ok(l.iommuDomainFree(made.domain));
    },
  },
  {
    name: "attach a domain to one of another thread and back",
    living: (l, made) => {
      made.other = ok(l.iommuDomainAlloc());
      made.own = ok(l.iommuDomainAlloc());
      ok(l.iommuAttach(made.own, 0, made.other));
    },
    doomed: (d, made) => {
      made.its = ok(d.iommuDomainAlloc());
    },
    run: (d, made) => {
      ok(d.iommuAttach(made.its, 0, made.other));
      ok(d.iommuAttach(made.its, made.other, 0));
    },
    after: (l, made) => {
      ok(l.iommuAttach(made.own, made.other, 0));
      ok(l.iommuDomainFree(made.own));
      ok(l.iommuDomainFree(made.other));
    },
  },
];

/** Which device: what a map and an unmap differ in. */
interface MapKind {
  readonly name: string;
  /** A domain for the device; none: it has none. */
  domain?(exports: Exports): number;
  readonly flags?: number;
  readonly limitPfn?: number;
}

const kinds: readonly MapKind[] = [
  { name: "directly" },
  { name: "behind an IOMMU", domain: (exports) => exports.iommuDomainAlloc() },
  {
    name: "behind a lazy IOMMU",
    domain: (exports) => exports.iommuDomainAllocAs(LAZY_FORMAT),
  },
  { name: "for a simulated cache", flags: SIMULATED },
  { name: "bounced", limitPfn: BOUNCE_LIMIT },
];

const make = (exports: Exports, { domain, flags, limitPfn }: MapKind, made: Made): void => {
  made.domain = domain === undefined ? 0 : ok(domain(exports));
  made.device = device(exports, made.domain, flags, limitPfn);
};

const remove = (exports: Exports, made: Made): void => {
  ok(exports.dmaDeviceRemove(made.device));
  if (made.domain !== 0) ok(exports.iommuDomainFree(made.domain));
};

const mapAndUnmap = (exports: Exports, { device, table }: Made): void => {
  ok(exports.dmaUnmap(ok(exports.dmaMapTable(device, table, 0, 0)), 0));
};

/** The mapping of the living reaches its frames as before. */
const translates = (l: Exports, { mapping, domain, table }: Made): void => {
  if (domain === 0) return;
  const words = new Uint32Array(l.memoryOf().buffer);
  const iovaPfn = words[ok(l.dmaMappingAt(mapping)) / 4 + 5] as number;
  const entriesAt = words[ok(l.sgTableAt(table)) / 4] as number;
  if (l.iommuIovaToPhys(domain, iovaPfn) !== words[entriesAt / 4])
    throw new Error("the mapping of the living translates no more");
};

/** Mapping `count` frames: its own, those of another thread, and on a device of that. */
const mappingCases = (kind: MapKind, count: number): KillCase[] => {
  const table = (exports: Exports, made: Made): void => {
    made.table = ok(exports.storageAllocBlocks(count, NONE, 0));
  };
  const others = {
    living(l: Exports, made: Made): void {
      table(l, made);
      make(l, kind, made);
      made.mapping = ok(l.dmaMapTable(made.device, made.table, 0, 0));
    },
    after(l: Exports, made: Made): void {
      translates(l, made);
      ok(l.dmaUnmap(made.mapping, 0));
      mapAndUnmap(l, made);
      remove(l, made);
      ok(l.storageFree(made.table));
    },
  };
  return [
    {
      name: `map and unmap ${count} frames ${kind.name}`,
      doomed(d, made) {
        table(d, made);
        make(d, kind, made);
      },
      run: mapAndUnmap,
    },
    {
      name: `map and unmap ${count} frames of another thread ${kind.name}`,
      ...others,
      doomed(d, made) {
        const its: Made = {};
        make(d, kind, its);
        made.its = its.device as number;
      },
      run: (d, made) => mapAndUnmap(d, { ...made, device: made.its as number }),
    },
    {
      name: `map and unmap ${count} frames on a device of another thread ${kind.name}`,
      ...others,
      run: mapAndUnmap,
    },
  ];
};

const mappings: KillCase[] = kinds.flatMap((kind) =>
  [1, 18].flatMap((count) => mappingCases(kind, count)),
);

const whole: KillCase[] = [
  {
    name: "map and unmap a run of its own",
    doomed(d, made) {
      made.pfn = ok(d.frameAlloc(3, 0, NONE));
      made.device = device(d, 0);
    },
    run: (d, made) => ok(d.dmaUnmap(ok(d.dmaMapRun(made.device, made.pfn, 9, 9000, 0, 0)), 0)),
  },
  {
    name: "leave",
    doomed(d, made) {
      made.fence = ok(d.fenceAlloc(1, 1));
      ok(d.bufferAlloc(ok(d.storageAllocBlocks(3, NONE, 0)), 4096));
    },
    run: (d) => d.coreLeave(),
  },
];

/** Gives back `count` ranges of device pages, all of which must still be there. */
const rangesFree = (l: Exports, made: Made, count: number): void => {
  for (let i = 0; i < count; i++) {
    const pages = ok(l.iommuIovaFree(made.domain, made[`range${i}`]));
    if (pages === 0) throw new Error(`range ${i} of the living is gone`);
  }
  ok(l.iommuDomainFree(made.domain));
};

const rangesTake = (l: Exports, made: Made, sizes: readonly number[]): void => {
  made.domain = ok(l.iommuDomainAlloc());
  for (const [i, pages] of sizes.entries())
    made[`range${i}`] = l.iommuIovaAlloc(made.domain, pages, 0xfffff, 1);
};

const CROWD: readonly number[] = Array.from({ length: 40 }, (_, i) => (i % 4 === 0 ? 1 : 3));
const SMALL: readonly number[] = Array.from({ length: 6 }, () => 1);

const foreign: KillCase[] = [
  {
    name: "take and give device pages in a crowded domain of another thread",
    living: (l, made) => rangesTake(l, made, CROWD),
    run(d, made) {
      const pfns = Array.from({ length: 16 }, () => d.iommuIovaAlloc(made.domain, 3, 0xfffff, 1));
      for (const pfn of pfns) ok(d.iommuIovaFree(made.domain, pfn));
    },
    after: (l, made) => rangesFree(l, made, CROWD.length),
  },
  {
    name: "reserve device pages around those of another thread",
    living: (l, made) => rangesTake(l, made, SMALL),
    run: (d, made) => ok(d.iommuIovaReserve(made.domain, 0xffc00, 1024)),
    after: (l, made) => rangesFree(l, made, SMALL.length),
  },
  {
    name: "map pages beside those of another thread, and unmap a part of its block",
    living(l, made) {
      made.domain = ok(l.iommuDomainAlloc());
      ok(l.iommuMap(made.domain, 1024, 512, 512, 3));
    },
    run(d, made) {
      ok(d.iommuMap(made.domain, 512, 100, 5, 3));
      ok(d.iommuUnmap(made.domain, 1024, 7));
      ok(d.iommuUnmap(made.domain, 512, 5));
    },
    after(l, made) {
      for (let page = 1024 + 7; page < 1024 + 512; page++)
        if (l.iommuIovaToPhys(made.domain, page) !== page - 512)
          throw new Error(`page ${page} of the living translates no more`);
      ok(l.iommuDomainFree(made.domain));
    },
  },
];

const pools: KillCase[] = [
  {
    name: "make a pool and a consumer",
    run: (d) => ok(d.poolConsumerAdd(ok(d.poolAlloc(3)), 0)),
  },
  {
    name: "send a frame through a pool of its own",
    doomed: (d, made) => {
      made.pool = ok(d.poolAlloc(3));
      made.consumer = ok(d.poolConsumerAdd(made.pool, 0));
    },
    run: (d, made) => {
      const frame = ok(d.poolAcquire(made.pool, 1));
      ok(d.poolPublish(made.pool, frame, 1, 0, 2));
      ok(d.poolRelease(made.pool, made.consumer, ok(d.poolTake(made.pool, made.consumer, 3)), 0));
      ok(d.poolFree(made.pool));
    },
  },
  {
    name: "send a frame through a pool of another thread",
    living: (l, made) => {
      made.pool = ok(l.poolAlloc(2));
      made.consumer = ok(l.poolConsumerAdd(made.pool, 2));
    },
    doomed: (d, made) => ok(d.shareImport(made.pool, d.KIND_POOL.value)),
    run: (d, made) => {
      const consumer = ok(d.poolConsumerAdd(made.pool, 0));
      for (let i = 0; i < 2; i++) {
        const frame = ok(d.poolAcquire(made.pool, 1));
        ok(d.poolPublish(made.pool, frame, 3, 0, 2));
        ok(d.poolRelease(made.pool, consumer, ok(d.poolTake(made.pool, consumer, 3)), 0));
      }
      ok(d.poolConsumerRemove(made.pool, consumer));
      ok(d.poolFree(made.pool));
    },
    after: (l, made) => {
      for (let taken = 0; taken >= 0; ) {
        taken = l.poolTake(made.pool, made.consumer, 4);
        if (taken >= 0) ok(l.poolRelease(made.pool, made.consumer, taken, 0));
      }
      // Both frames are free again, whatever the dead thread did with them.
      const got = [ok(l.poolAcquire(made.pool, 5)), ok(l.poolAcquire(made.pool, 5))];
      if (got.sort().join() !== "0,1") throw new Error(`frames ${got} of the pool are free`);
      ok(l.poolFree(made.pool));
    },
  },
];

/** The cases with devices and pools. */
export const deviceCases: readonly KillCase[] = [
  ...devices,
  ...mappings,
  ...foreign,
  ...whole,
  ...pools,
];
