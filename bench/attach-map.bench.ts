/**
 * What does it cost to show a buffer to a device, and to take it away again?
 *
 *     attach-map/…            attach + map + unmap + detach, through the public API
 *     attach-map/…/standing   map + unmap on an attachment that stays
 *     dmaMapTable/…           dmaMapTable + dmaUnmap of 1 MiB in single frames, through the core
 *
 * Buffers of 8 MiB: contiguous (one entry) and scattered (2048 entries of one frame); the devices
 * are one without and one behind an IOMMU. Nanoseconds per cycle, or per page of the table. The
 * peers copy the same bytes, or hand over an ArrayBuffer without copying: then the sender has lost
 * it; or they take an object from a list, and nobody learns who has it.
 *
 * @module
 */

import assert from "node:assert/strict";
import { type Device, type DmaBuf, FRAME_BYTES, GiB, MiB, openSync, type System } from "dmabuf";
import type { Family, Job, Suite } from "./suite.ts";

const BUFFER_BYTES = 8 * MiB;
const BUFFER_FRAMES = BUFFER_BYTES / FRAME_BYTES;
const TABLE_FRAMES = 256;
const BIDIRECTIONAL = 0;
const NO_LIMIT = 0xffffffff;

/** Adds the rows. */
export const family: Family = (suite: Suite) => {
  const system = openSync({ memoryBytes: 64 * MiB, cma: { video: 16 * MiB } });
  const direct = system.addDevice({ name: "direct", maxSegmentBytes: GiB });
  const behindIommu = system.addDevice({ name: "behind", iommu: true, maxSegmentBytes: GiB });
  addMapTable(suite, system);
  const buffers = { contiguous: contiguousBuffer, scattered: scatteredBuffer };
  for (const [kind, alloc] of Object.entries(buffers)) {
    for (const [place, device] of Object.entries({ direct, iommu: behindIommu })) {
      const name = `attach-map/${kind}/8MiB/${place}`;
      suite.row(name, "cycle", () => cycleJob(alloc(system), device));
      suite.row(`${name}/standing`, "cycle", () => standingJob(alloc(system), device));
    }
  }
  const row = "attach-map/scattered/8MiB/iommu";
  suite.peer(row, "structuredClone: copies", "cycle", cloneJob);
  suite.peer(row, "structuredClone: transfers", "cycle", transferJob);
  suite.peer(row, "plain object pool: no limits, no holders", "cycle", poolJob);
  assert.equal(system.check(), null);
};

function contiguousBuffer(system: System): DmaBuf {
  const buf = system.heap("video").alloc(BUFFER_BYTES);
  assert.equal(buf.storage?.origNents, 1);
  return buf;
}

/** A buffer in single frames: while it is allocated, no run of 16 frames is free. */
function scatteredBuffer(system: System): DmaBuf {
  const { exports } = system.core;
  exports.magazineDrain();
  const runs: number[] = [];
  for (let pfn = exports.frameAlloc(16, 4, NO_LIMIT); pfn > 0; ) {
    runs.push(pfn);
    pfn = exports.frameAlloc(16, 4, NO_LIMIT);
  }
  for (const pfn of runs) assert.equal(exports.frameFree(pfn, 8), 0);
  const buf = system.heap("system").alloc(BUFFER_BYTES);
  for (const pfn of runs) assert.equal(exports.frameFree(pfn + 8, 8), 0);
  assert.equal(buf.storage?.origNents, BUFFER_FRAMES);
  return buf;
}

function cycleJob(buf: DmaBuf, device: Device): Job {
  return {
    run(count) {
      let nents = 0;
      for (let i = 0; i < count; i++) {
        const attachment = buf.attach(device);
        const mapping = attachment.map("bidirectional");
        nents += mapping.nents;
        attachment.unmap(mapping);
        attachment.detach();
      }
      assert(nents >= count);
    },
    end: () => buf.put(),
  };
}

function standingJob(buf: DmaBuf, device: Device): Job {
  const attachment = buf.attach(device);
  return {
    run(count) {
      for (let i = 0; i < count; i++) attachment.unmap(attachment.map("bidirectional"));
    },
    end() {
      attachment.detach();
      buf.put();
    },
  };
}

/** The whole of dma_map_sgtable and its opposite, on frames that are no neighbours. */
function addMapTable(suite: Suite, { core }: System): void {
  const { exports, scratch } = core;
  suite.row(`dmaMapTable/scatter/${TABLE_FRAMES}`, "page", () => {
    const run = exports.frameAlloc(2 * TABLE_FRAMES, 0, NO_LIMIT);
    for (let i = 0; i < TABLE_FRAMES; i++) scratch[i] = run + 2 * i;
    const bytes = TABLE_FRAMES * FRAME_BYTES;
    const table = exports.sgTableFromPages(scratch.byteOffset, TABLE_FRAMES, 0, bytes, bytes);
    const domain = exports.iommuDomainAlloc();
    const device = exports.dmaDeviceAdd(domain, 0xfffff, bytes, TABLE_FRAMES, NO_LIMIT, 0, 0, 64);
    const { dmaMapTable, dmaUnmap } = exports;
    const mapping = dmaMapTable(device, table, BIDIRECTIONAL, 0);
    assert(mapping > 0);
    assert.equal(dmaUnmap(mapping, 0), 0);
    return {
      opsPerRun: TABLE_FRAMES,
      run(count) {
        let seen = 0;
        for (let i = 0; i < count; i++)
          seen |= dmaUnmap(dmaMapTable(device, table, BIDIRECTIONAL, 0), 0);
        assert.equal(seen, 0);
      },
      end() {
        assert.equal(exports.sgTableFree(table), 0);
        assert.equal(exports.dmaDeviceRemove(device), 0);
        assert.equal(exports.iommuDomainFree(domain), 0);
        assert.equal(exports.frameFree(run, 2 * TABLE_FRAMES), 0);
      },
    };
  });
}

function cloneJob(): Job {
  const bytes = new Uint8Array(BUFFER_BYTES).fill(1);
  return {
    run(count) {
      for (let i = 0; i < count; i++) assert.equal(structuredClone(bytes)[BUFFER_BYTES - 1], 1);
    },
  };
}

function transferJob(): Job {
  let buffer = new ArrayBuffer(BUFFER_BYTES);
  return {
    run(count) {
      for (let i = 0; i < count; i++) buffer = structuredClone(buffer, { transfer: [buffer] });
      assert.equal(buffer.byteLength, BUFFER_BYTES);
    },
  };
}

/** Takes an object that names a buffer from a list, looks at it, and puts it back. */
function poolJob(): Job {
  const bytes = new Uint8Array(BUFFER_BYTES);
  const free = Array.from({ length: 8 }, (_, i) => ({ bytes, index: i, users: 0 }));
  return {
    run(count) {
      let seen = 0;
      for (let i = 0; i < count; i++) {
        const one = free.pop();
        assert(one !== undefined);
        one.users += 1;
        seen += one.bytes.length;
        one.users -= 1;
        free.push(one);
      }
      assert.equal(seen, count * BUFFER_BYTES);
    },
  };
}
