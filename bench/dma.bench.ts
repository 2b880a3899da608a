/**
 * What do single mappings, copies through the bounce pool and syncs cost?
 *
 *     map-page/…        mapPage + unmapPage of 4 KiB through the public API
 *     bounce/…          map + unmap above the mask, through the core: copied in, and copied back
 *     bounce-sync/…     one sync for the CPU of a mapping that stays
 *     cache-sync/…      one sync for the device of a simulated cache: finds what the CPU wrote
 *
 * Nanoseconds per cycle, of 4 KiB and of 256 KiB, the longest run that is bounced. The peers copy
 * the same bytes with memory.copy in Wasm (TypedArray.set), as often as the row does: so "x ours"
 * is the share of the row that copying alone would take.
 *
 * @module
 */

import assert from "node:assert/strict";
import { FRAME_BYTES, GiB, KiB, MiB, openSync, type System } from "dmabuf";
import type { Family, Job, Suite } from "./suite.ts";

const SIZES = { "4KiB": 4 * KiB, "256KiB": 256 * KiB };
const NO_LIMIT = 0xffffffff;
const [BIDIRECTIONAL, FOR_CPU, FOR_DEVICE] = [0, 0, 1];
const LIMIT_32BIT = 0xfffff;
const [PLAIN, SIMULATED] = [0, 3]; // flags of assembly/dma-device.ts

/** Adds the rows. */
export const family: Family = (suite: Suite) => {
  const system = openSync({
    memoryBytes: 32 * MiB,
    physicalBase: 4 * GiB - 16 * MiB, // the upper half is out of reach for 32 bits
    bounceBytes: 4 * MiB,
  });
  const pfn = (24 * MiB) / FRAME_BYTES;
  system.frames.allocAt(pfn, 256).pin();
  for (const iommu of [false, true]) {
    const row = `map-page/4KiB/${iommu ? "iommu" : "direct"}`;
    suite.row(row, "cycle", () => mapPageJob(system, iommu));
  }
  for (const [size, bytes] of Object.entries(SIZES)) {
    suite.row(`bounce/${size}`, "cycle", () => bounceJob(system, pfn, bytes));
    suite.peer(`bounce/${size}`, "memory.copy, twice", "cycle", () => copyJob(system, bytes, 2));
    suite.row(`bounce-sync/${size}`, "sync", () => syncJob(system, pfn, bytes, PLAIN, FOR_CPU));
    suite.peer(`bounce-sync/${size}`, "memory.copy", "sync", () => copyJob(system, bytes, 1));
    suite.row(`cache-sync/${size}`, "sync", () =>
      syncJob(system, pfn, bytes, SIMULATED, FOR_DEVICE),
    );
    suite.peer(`cache-sync/${size}`, "memory.copy", "sync", () => copyJob(system, bytes, 1));
  }
  assert.equal(system.check(), null);
};

function mapPageJob(system: System, iommu: boolean): Job {
  const { dma } = system.addDevice({ name: "device", iommu });
  const { pfn } = system.frames.alloc(1, { maskBits: 32 });
  return {
    run(count) {
      for (let i = 0; i < count; i++)
        dma.unmapPage(dma.mapPage(pfn, 0, FRAME_BYTES, "bidirectional"));
    },
  };
}

function addDevice({ core }: System, flags: number): number {
  const limitPfn = flags === PLAIN ? LIMIT_32BIT : NO_LIMIT;
  return core.exports.dmaDeviceAdd(0, limitPfn, MiB, NO_LIMIT, NO_LIMIT, flags, 0, 64);
}

function bounceJob(system: System, pfn: number, bytes: number): Job {
  const device = addDevice(system, PLAIN);
  const table = system.core.exports.sgTableFromRange(pfn, bytes / FRAME_BYTES, bytes);
  const { dmaMapTable, dmaUnmap, bouncedBytes } = system.core.exports;
  const before = bouncedBytes();
  assert.equal(dmaUnmap(dmaMapTable(device, table, BIDIRECTIONAL, 0), 0), 0);
  assert.equal(bouncedBytes() - before, 2 * bytes);
  return {
    run(count) {
      let seen = 0;
      for (let i = 0; i < count; i++)
        seen |= dmaUnmap(dmaMapTable(device, table, BIDIRECTIONAL, 0), 0);
      assert.equal(seen, 0);
    },
  };
}

function syncJob(
  system: System,
  pfn: number,
  bytes: number,
  flags: number,
  isForDevice: number,
): Job {
  const { exports } = system.core;
  const device = addDevice(system, flags);
  const table = exports.sgTableFromRange(pfn, bytes / FRAME_BYTES, bytes);
  const mapping = exports.dmaMapTable(device, table, BIDIRECTIONAL, 0);
  assert(mapping > 0);
  assert.equal(exports.dmaNeedsSync(mapping), 1);
  const { dmaSync } = exports;
  return {
    run(count) {
      let seen = 0;
      for (let i = 0; i < count; i++)
        seen |= dmaSync(mapping, 0, bytes, BIDIRECTIONAL, isForDevice);
      assert.equal(seen, 0);
    },
    end: () => assert.equal(exports.dmaUnmap(mapping, 0), 0),
  };
}

/** The same bytes between two places of the same memory. */
function copyJob(system: System, bytes: number, times: number): Job {
  const from = system.frames.alloc(bytes / FRAME_BYTES).pin().bytes;
  const to = system.frames.alloc(bytes / FRAME_BYTES).pin().bytes;
  return {
    run(count) {
      for (let i = 0; i < count * times; i++) to.set(from);
      assert.equal(to.length, bytes);
    },
  };
}
