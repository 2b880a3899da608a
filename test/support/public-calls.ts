/**
 * A valid call of each public function that takes arguments.
 *
 * @module
 */

import * as dmabuf from "../../src/index.ts";
import { formatBufinfo, formatHolders, pageMap } from "../../src/inspect/index.ts";
import { coreCalls, fenceCalls, poolCalls } from "./public-fence-calls.ts";
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
      retry: [() => 7, LIMIT],
      check: [true],
    }),
  ];
}

function heapCalls(w: World): PublicCall[] {
  return [
    ...on("owner", w.owner, { setQuota: [4096] }),
    ...on("evicting heap", w.heap, {
      placeOf: [w.evictable],
      evict: [w.evictable],
      evictAsync: [w.evictable, LIMIT],
      validate: [w.evictable],
      validateAsync: [w.evictable, LIMIT],
    }),
    ...on("symbols", w.system.symbols, {
      visibleTo: ["GPL"],
      load: [{ name: "m", license: "GPL", uses: [] }],
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
  ];
}

function libraryCalls(w: World): PublicCall[] {
  return [
    fn("openSync", dmabuf.openSync, [
      {
        memoryBytes: 8 * MiB,
        cma: { a: 4 * MiB },
        carveout: { b: { bytes: 4096 } },
        physicalBase: 4096,
        bounceBytes: 65536,
      },
    ]),
    fn("open", dmabuf.open, [{ memoryBytes: MiB }]),
    fn("join", dmabuf.join, [w.shared.share(), { canBlock: true }]),
    fn("joinSync", dmabuf.joinSync, [w.shared.share(), { canBlock: true }]),
    fn("new SymbolTable", (...args: [never, never]) => new dmabuf.SymbolTable(...args), [
      w.system,
      {},
    ]),
    fn("markOf", dmabuf.markOf, ["dma_buf_export"]),
    fn("isGplCompatible", dmabuf.isGplCompatible, ["GPL"]),
    fn("formatBytes", dmabuf.formatBytes, [4096]),
    fn("hasLayout", dmabuf.hasLayout, [0n]),
    fn("isDmaMappingError", dmabuf.isDmaMappingError, [0n]),
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
      unmapFast: [0x100000, 4096, w.gather],
      setFaultHandler: [() => undefined],
    }),
  );
  return [
    ...on("iommu", w.system.iommu, { group: [group], domain: [{ ...format, ...IOTLB }] }),
    ...on("group", w.group, { attach: [w.domain], detach: [w.domain], claimDmaOwner: ["me"] }),
    ...domains,
    ...on("dirty", w.dirty, { has: [0] }),
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
    ...on("region", w.region, { alloc: [2, { alignOrder: 1 }], explain: ["ENOMEM"] }),
    ...on("movable", w.movable, {
      read: [w.bytes, 0],
      write: [w.bytes, 0],
      pin: [{ longterm: true }],
    }),
    ...on("table", w.table, {
      cpu: [0],
      pages: [0],
      spans: [0],
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
      reopen: [2],
      read: [w.bytes],
      write: [w.bytes],
      seek: [0, "set"],
      mmap: [{ offset: 0, lengthBytes: 4096 }],
    }),
    ...on("user", w.user, { page: [0], unmap: [0, 1] }),
    ...on("held", w.held, { release: [{ dirty: true }] }),
    ...on("locked", w.locked, { account: [1, { bypassLimit: true }], unaccount: [0] }),
    fn("new UserRange", (...args: [never]) => new dmabuf.UserRange(...args), [
      [w.system.movable(1)],
      { writable: true },
    ]),
    fn("new LockedVm", (...args: [never]) => new dmabuf.LockedVm(...args), [4]),
    fn("pinUserPages", dmabuf.pinUserPages, [w.user, { first: 0, pageCount: 1 }]),
    fn("getUserPages", dmabuf.getUserPages, [w.user, { first: 0, pageCount: 1 }]),
  ];
}

function bufferCalls(w: World): PublicCall[] {
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
    ...on("seen", w.seen, {
      dynamicAttachAsync: [w.camera, { moveNotify() {} }, null, LIMIT],
      endCpuAccessAsync: ["to-device", LIMIT],
      vmapAsync: [LIMIT],
      vunmap: [w.vmapping],
      vunmapAsync: [w.vmapping, LIMIT],
      seek: [0, "set"],
    }),
    ...on("window", w.window, { copyTo: [w.bytes], copyFrom: [w.bytes] }),
    ...on("dynamic", w.dynamic, {
      mapAsync: ["to-device", LIMIT],
      unmapAsync: [w.mapping, LIMIT],
      pinAsync: [LIMIT],
      unpinAsync: [LIMIT],
      detachAsync: [{}], // a timeout ends the wait, and the attachment all the same
    }),
    ...on("attachment", w.second, {
      map: ["to-device"],
      mapUnlocked: ["to-device"],
      unmap: [w.mapping, "to-device"],
      unmapUnlocked: [w.mapping, "to-device"],
    }),
  ];
}

function lockCalls(w: World): PublicCall[] {
  const usage = ["read"];
  return [
    ...on("resv", w.other.resv, {
      lock: [w.context],
      lockAsync: [w.context, { signal: LIMIT.signal }],
      reserveFences: [1],
      addFence: [w.fence, "read"],
      replaceFences: [1, w.fence2, "read"],
      copyFences: [w.buf.resv],
      fences: usage,
      getSingleton: usage,
      testSignaled: usage,
      wait: ["read", LIMIT],
      startWait: ["read", LIMIT, () => {}],
      setDeadline: ["read", 5],
    }),
    fn("new Resv", (...args: [never]) => new dmabuf.Resv(...args), [w.system.core]),
    fn("usageFor", dmabuf.usageFor, [true]),
    fn("new FdTable", (...args: [never]) => new dmabuf.FdTable(...args), [8]),
    ...on("files", w.system.files, {
      install: [w.other, { closeOnExec: true, min: 0 }],
      peek: [w.fd],
      find: [w.fd],
      stackOf: [w.fd],
      requireFree: ["do it"],
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

/** A new system with its calls, by area. */
export function makeWorld(): { readonly objects: World; readonly calls: readonly PublicCall[] } {
  const objects = makeObjects();
  const areas = [
    systemCalls,
    heapCalls,
    libraryCalls,
    deviceCalls,
    iommuCalls,
    memoryCalls,
    bufferCalls,
    lockCalls,
    fenceCalls,
    poolCalls,
    coreCalls,
  ];
  return { objects, calls: [...areas, uapiCalls].flatMap((area) => area(objects)) };
}
