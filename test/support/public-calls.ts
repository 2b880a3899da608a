/**
 * A valid call of each public function that takes arguments.
 *
 * @module
 */

import * as dmabuf from "../../src/index.ts";
import { formatBufinfo, formatHolders, pageMap } from "../../src/inspect/index.ts";
import { uapiCalls } from "./public-uapi-calls.ts";
import {
  fn,
  IOTLB,
  LIMIT,
  makeObjects,
  noRead,
  noWrite,
  on,
  type PublicCall,
  type World,
} from "./public-world.ts";

const { MiB } = dmabuf;

const deviceOptions = {
  name: "n",
  iommu: true,
  dmaMaskBits: 32,
  maxSegmentBytes: 65536,
  maxSegments: 4,
  segmentBoundaryBytes: 65536,
  minAlignMask: 4095,
  contiguousOnly: false,
  coherentDmaMaskBits: 32,
  coherent: true,
  simulatedCache: false,
  untrusted: false,
  pixels: { formats: { XRGB8888: [0n] }, strideAlignBytes: 64 },
};

function systemCalls(w: World): PublicCall[] {
  const { pfn } = w.range;
  const ops = { map: () => null, unmap() {}, release() {} };
  return [
    ...on("system", w.system, {
      addDevice: [deviceOptions],
      heap: ["system"],
      addHeap: [{ name: "h", alloc: () => w.buf }],
      addEvictingHeap: [{ name: "e", near: "default", far: "system" }],
      owner: ["q", { quotaBytes: 4096 }],
      ownerOf: [w.buf],
      exporterStats: ["system"],
      region: ["default"],
      loadModule: [{ name: "m", license: "GPL", uses: [] }],
      export: [{ ops, sizeBytes: 4096, exporterName: "x", flags: 2 }],
      timeline: ["a"],
      swSync: ["a"],
      fence: ["a", { context: 5, seqno: 3, ops: {} }],
      fenceContexts: [3],
      fenceArray: [[w.fence], { mode: "all" }],
      fenceChain: [null, w.fence, 4],
      sgTableFromRange: [pfn, 2, 65536],
      sgTableFromFrames: [[pfn], { offset: 0, lengthBytes: 4096, maxSegmentBytes: 65536 }],
      sgTableFromList: [[{ pfn, offset: 0, lengthBytes: 10 }]],
      movable: [2],
      import: [w.buf.token],
      importFence: [w.fence.token],
      importPool: [1],
      pool: [{ name: "p", count: 2, bytes: 4096, heap: "system" }],
      share: [{}],
      reap: [77],
    }),
    ...on("heap", w.system.heap("auto"), {
      alloc: [
        4096,
        {
          name: "x",
          owner: w.owner,
          fdFlags: 2,
          heapFlags: 0,
          pixels: { width: 16, height: 16, format: "XRGB8888" },
        },
      ],
    }),
    fn("openSync", dmabuf.openSync, [
      {
        memoryBytes: 8 * MiB,
        cma: { a: 4 * MiB },
        carveout: { b: { bytes: 4096 } },
        physicalBase: 4096,
        bounceBytes: 65536,
      },
    ]),
    fn("negotiate", dmabuf.negotiate, [
      [w.gpu, w.camera],
      { sizeBytes: 4096, pixels: { width: 16, height: 16 } },
    ]),
    fn("describeLimits", dmabuf.describeLimits, [w.gpu.limits]),
    fn("createUdmabuf", dmabuf.createUdmabuf, [
      w.system,
      [{ memfd: w.mem, offset: 0, sizeBytes: 4096 }],
    ]),
    fn("memfdCreate", dmabuf.memfdCreate, [w.system, "n", {}]),
    fn("fourccOf", dmabuf.fourccOf, ["XRGB8888"]),
    fn("modifierName", dmabuf.modifierName, [0n]),
  ];
}

function deviceCalls(w: World): PublicCall[] {
  const { pfn } = w.range;
  const { address } = w.mapping;
  const list = [{ pfn, offset: 0, lengthBytes: 10 }];
  const part = { offset: 0, lengthBytes: 5, direction: "to-device" };
  return [
    ...on("device", w.camera, { setDmaMask: [40], setCoherentDmaMask: [40] }),
    ...on("dma", w.gpu.dma, {
      mapPage: [pfn, 0, 100, "to-device", { noWarn: true }],
      mapSingle: [w.pinned.bytes.subarray(0, 100), "to-device", {}],
      mapSg: [list, "to-device", {}],
      mapSgtable: [w.table, "to-device", {}],
      mapResource: [2 ** 33, 4096, "to-device", {}],
      unmapPage: [w.page, { skipCpuSync: true }],
      unmapSingle: [w.page],
      unmapSg: [w.page],
      unmapSgtable: [w.page],
      unmapResource: [w.page],
      needSync: [w.page],
      syncForCpu: [w.page, part],
      syncForDevice: [w.page, part],
      allocCoherent: [4096, { noWarn: true }],
      allocNoncontiguous: [4096, "to-device"],
      iovaTryAlloc: [4096, 0],
      spans: [address, 100, "read"],
      write: [address, w.bytes],
      read: [address, w.bytes],
      copy: [address, address + 64, 8],
    }),
    ...on("mapping", w.mapping, { dma: [0], at: [5], split: [[10], 0] }),
    ...on("iova", w.iova, {
      link: [0, pfn, 0, 4096, "to-device"],
      sync: [0, 0],
      unlink: [0, 0],
      destroy: [0],
    }),
    fn("splitSegments", dmabuf.splitSegments, [[{ address: 0, lengthBytes: 100 }], [10], 0]),
  ];
}

function iommuCalls(w: World): PublicCall[] {
  const reserved = [{ start: 4096, lengthBytes: 4096, type: "direct", prot: 3 }];
  const group = { name: "z", invalidation: "lazy", reserved, ...IOTLB };
  const format = { type: "paging", granuleBytes: 4096, stage: 1, addressBits: 40, outputBits: 40 };
  const domains = [w.domain, w.driver].flatMap((domain, i) =>
    on(`domain ${i}`, domain, {
      map: [0x100000, 0, 8192, 3],
      mapSg: [0x100000, [{ address: 0, lengthBytes: 4096 }], 3],
      unmap: [0x100000, 4096],
      iovaToPhys: [0x1000],
      attachDevice: [w.gpu],
      detachDevice: [w.gpu],
      readAndClearDirty: [0, 4096, { noClear: true }],
    }),
  );
  return [
    ...on("iommu", w.system.iommu, { group: [group], domain: [{ ...format, ...IOTLB }] }),
    ...on("group", w.group, { attach: [w.domain], detach: [w.domain], claimDmaOwner: ["me"] }),
    ...domains,
    fn("new IommuDomain", (...args: [never]) => new dmabuf.IommuDomain(...args), [
      { pgsizeBitmap: 0x1000n },
      "paging",
    ]),
  ];
}

function memoryCalls(w: World): PublicCall[] {
  return [
    ...on("frames", w.system.frames, {
      alloc: [2, { alignOrder: 1, maskBits: 32, type: "unmovable" }],
      allocAt: [900, 1],
    }),
    ...on("region", w.region, { alloc: [2, { alignOrder: 1 }] }),
    ...on("movable", w.movable, {
      read: [w.bytes, 0],
      write: [w.bytes, 0],
      pin: [{ longterm: true }],
    }),
    ...on("table", w.table, {
      cpu: [0],
      nentsForLen: [100],
      readFrom: [{ readv: noRead }, { position: 0 }],
      writeTo: [{ writev: noWrite }, { position: 0 }],
      split: [[100], 0],
      append: [[w.spare.pfn], { lengthBytes: 4096, maxSegmentBytes: 65536 }],
      zero: [0, 10],
      pcopyToBuffer: [w.pinned, 0],
      pcopyFromBuffer: [w.pinned, 0],
    }),
    ...on("memfd", w.mem, {
      pread: [w.bytes, 0],
      pwrite: [w.bytes, 0],
      truncate: [4096],
      addSeals: [1],
      mmap: [{ offset: 0, lengthBytes: 4096 }],
    }),
    fn("pinUserPages", dmabuf.pinUserPages, [w.user, { first: 0, pageCount: 1 }]),
    fn("getUserPages", dmabuf.getUserPages, [w.user, { first: 0, pageCount: 1 }]),
  ];
}

function bufferCalls(w: World): PublicCall[] {
  const usage = ["read"];
  return [
    ...on("buf", w.other, {
      attach: [w.camera],
      dynamicAttach: [w.camera, { moveNotify() {} }],
      attachAsync: [w.camera, LIMIT],
      revoke: [LIMIT],
      canAttach: [w.camera],
      beginCpuAccess: ["to-device"],
      beginCpuAccessAsync: ["to-device", LIMIT],
      endCpuAccess: ["to-device"],
      mmap: [{ pageOffset: 0, pageCount: 1 }],
      setName: ["q"],
      poll: [1],
      pollAsync: [1, LIMIT],
      exportSyncFile: ["read"],
      importSyncFile: [w.file, "read"],
    }),
    ...on("attachment", w.second, {
      map: ["to-device"],
      mapUnlocked: ["to-device"],
      unmap: [w.mapping, "to-device"],
      unmapUnlocked: [w.mapping, "to-device"],
    }),
    ...on("resv", w.other.resv, {
      lock: [w.context],
      lockAsync: [w.context, {}],
      reserveFences: [1],
      addFence: [w.fence, "read"],
      replaceFences: [1, w.fence2, "read"],
      copyFences: [w.buf.resv],
      fences: usage,
      getSingleton: usage,
      testSignaled: usage,
      wait: ["read", LIMIT],
    }),
    ...on("files", w.system.files, {
      install: [w.other, { closeOnExec: true, min: 0 }],
      peek: [w.fd],
      get: [w.fd],
      dup: [w.fd, { closeOnExec: true, min: 0 }],
      dupTo: [w.fd, 9, { closeOnExec: true }],
      pass: [w.fd, w.system.files, { min: 0 }],
      isCloseOnExec: [w.fd],
      setCloseOnExec: [w.fd, true],
      close: [w.fd],
    }),
    fn("getDmaBuf", dmabuf.getDmaBuf, [w.system.files, w.fd]),
    fn("formatBufinfo", formatBufinfo, [w.system]),
    fn("formatHolders", formatHolders, [w.buf]),
    fn("pageMap", pageMap, [w.system]),
  ];
}

function fenceCalls(w: World): PublicCall[] {
  return [
    ...on("fence", w.fence, { setError: ["EIO"], signal: ["EIO", 5], wait: [LIMIT] }),
    ...on("timeline", w.timeline, { advance: [1] }),
    ...on("swSync", w.sw, { createFence: [3], inc: [1] }),
    ...on("syncFile", w.file, { merge: [w.file2, "n"], poll: [1] }),
    fn("new SyncFile", (...args: [never]) => new dmabuf.SyncFile(...args), [w.fence]),
    fn("mergeFences", dmabuf.mergeFences, [w.fence, w.fence2]),
    fn("findSeqno", dmabuf.findSeqno, [w.chain, 1]),
    fn("laterFence", dmabuf.laterFence, [w.fence, w.fence2]),
    fn("latestOfEachContext", dmabuf.latestOfEachContext, [[w.fence]]),
    fn("matchesContext", dmabuf.matchesContext, [w.fence, 1]),
    fn("waitAny", dmabuf.waitAny, [[w.fence], LIMIT]),
    fn("pollNow", dmabuf.pollNow, [[{ file: w.file, events: 1 }]]),
  ];
}

/** A new system with its calls, by area. */
export function makeWorld(): { readonly objects: World; readonly calls: readonly PublicCall[] } {
  const objects = makeObjects();
  const areas = [systemCalls, deviceCalls, iommuCalls, memoryCalls, bufferCalls, fenceCalls];
  return { objects, calls: [...areas, uapiCalls].flatMap((area) => area(objects)) };
}
