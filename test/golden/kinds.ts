/**
 * Every kind of record, by area: what replays it, or null while nothing does.
 *
 * @module
 */

import * as cma from "./cma.ts";
import * as odd from "./cma-odd.ts";
import * as buffer from "./dma-buf.ts";
import { limits, mappingError, setMask, sgtableOrigNents0 } from "./dma-limits.ts";
import { dmaMapSgtable } from "./dma-map.ts";
import * as dmaPage from "./dma-page.ts";
import { fenceArray } from "./fence-array.ts";
import { fenceChain } from "./fence-chain.ts";
import * as resv from "./fence-resv.ts";
import { fenceSteps } from "./fence-steps.ts";
import { fenceUnwrap } from "./fence-unwrap.ts";
import * as fenceWait from "./fence-wait.ts";
import { gup } from "./gup.ts";
import { coreCalls, domainError } from "./iommu-core.ts";
import * as iommuDomains from "./iommu-domains.ts";
import * as iova from "./iova.ts";
import type { Handler } from "./outcome.ts";
import * as pageTable from "./page-table.ts";
import * as parts from "./scatter-parts.ts";
import * as scatterlist from "./scatterlist.ts";
import { scenario } from "./scenario.ts";
import { fdop } from "./uapi-fdop.ts";
import * as uapiFile from "./uapi-file.ts";
import * as uapiHeap from "./uapi-heap.ts";
import * as swSync from "./uapi-sw-sync.ts";
import * as uapiSync from "./uapi-sync.ts";
import * as udmabuf from "./uapi-udmabuf.ts";

type Kinds = Readonly<Record<string, Handler | null>>;

const userSpace: Kinds = {
  heaps: uapiHeap.heaps,
  heap_open: uapiHeap.heapOpen,
  heap_alloc: uapiHeap.heapAlloc,
  heap_multi: uapiHeap.heapMulti,
  heap_ioctl: uapiHeap.heapIoctl,
  udmabuf_create: udmabuf.udmabufCreate,
  udmabuf_list: udmabuf.udmabufList,
  udmabuf_content: udmabuf.udmabufContent,
  lseek: uapiFile.lseek,
  fdop,
  mmap: uapiFile.mmap,
  mmap_facts: uapiFile.mmapFacts,
  sync: uapiFile.syncOnce,
  sync_rdonly_fd: uapiFile.syncOnce,
  sync_sequence: uapiFile.syncSequence,
  set_name: uapiFile.setName,
  lifetime: uapiFile.lifetime,
  stat: uapiFile.stat,
  stat2: uapiFile.stat,
  export_sync_file: uapiSync.exportSyncFile,
  import_sync_file: uapiSync.importSyncFile,
  import_sync_file_badfd: uapiSync.importBadFd,
  poll: uapiSync.poll,
  sync_waits: uapiSync.syncWaits,
  import_repeat: uapiSync.importRepeat,
  sw_value: swSync.swValue,
  sw_inc: swSync.swInc,
  sw_close: swSync.swClose,
  sw_merge_error: swSync.swMergeError,
  sw_names: swSync.swNames,
  sw_poll: swSync.swPoll,
  merge_args: swSync.mergeArgs,
  info_args: swSync.infoArgs,
  merge_script: swSync.mergeScript,
};

const dmaBuf: Kinds = {
  export: buffer.exportBuffer,
  export_flags: buffer.exportFlags,
  null_args: buffer.nullArgs,
  refcount: buffer.refcount,
  scenario,
};

const scatterlists: Kinds = {
  from_pages: scatterlist.fromPages,
  odd_size: scatterlist.fromPages,
  nents_for_len: scatterlist.nentsForLen,
  alloc_table: scatterlist.allocTable,
  pcopy_to: scatterlist.copy,
  pcopy_from: scatterlist.copy,
  copy_to: scatterlist.copy,
  zero: scatterlist.zero,
  append: parts.append,
  split: parts.split,
  iter: parts.iterate,
};

const placement: Kinds = {
  zero_area: cma.zeroArea,
  script: cma.script,
  real: cma.real,
  odd_env: odd.oddEnv,
  odd: odd.odd,
  odd_env2: odd.oddEnv2,
  dma_alloc_from_contiguous: odd.dmaAllocFromContiguous,
  area: odd.area,
  declare: odd.declare,
};

const deviceAddresses: Kinds = {
  plain: iova.iovaScript,
  fast: iova.iovaScript,
  init: iova.init,
};

const iommu: Kinds = {
  pt: pageTable.pageTable,
  arm_map_pages: pageTable.armMapPages,
  arm_unmap_pages: pageTable.armUnmapPages,
  dma_map_sgtable: dmaMapSgtable,
  dma_map_page: dmaPage.dmaMapPage,
  dma_map_small_mask: dmaPage.dmaMapSmallMask,
  dma_exhaust: dmaPage.dmaExhaust,
  core_map: coreCalls,
  core_unmap: coreCalls,
  core_map_sg: coreCalls,
  domain_error: domainError,
  set_mask: setMask,
  limits,
  mapping_error: mappingError,
  sgtable_orig_nents_0: sgtableOrigNents0,
  default_domain: iommuDomains.defaultDomain,
  vtd_domain: iommuDomains.vtdDomain,
  vtd_err: iommuDomains.vtdError,
};

const fences: Kinds = {
  array: fenceArray,
  chain: fenceChain,
  unwrap: fenceUnwrap,
  resv: resv.resv,
  usage_rw: resv.usageRw,
  resv_wait: resv.resvWait,
  fence_steps: fenceSteps,
  is_later: fenceWait.isLater,
  later: fenceWait.later,
  wait: fenceWait.wait,
  wait_any: fenceWait.waitAny,
};

const pinning: Kinds = { gup };

/** The kinds of each area. */
export const kindsByArea: ReadonlyMap<string, Kinds> = new Map([
  ["A", userSpace],
  ["B", dmaBuf],
  ["C", scatterlists],
  ["D", placement],
  ["E", deviceAddresses],
  ["F", iommu],
  ["G", fences],
  ["H", pinning],
]);

/** The area whose files list names instead of records. */
export const NAMES_AREA = "selftests";
