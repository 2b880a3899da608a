/**
 * The structs and numbers of the ioctls, as in the kernel's include/uapi/linux/{dma-heap,dma-buf,
 * udmabuf,sync_file}.h and drivers/dma-buf/sw_sync.c.
 *
 * @module
 */

import { IOC_READ, IOC_WRITE, ioctlNumber } from "./ioctl-number.ts";
import { type FieldTypes, Struct } from "./struct.ts";

const IOC_BOTH = IOC_READ + IOC_WRITE;
const U32_BYTES = 4;
const U64_BYTES = 8;

/** Declares a struct without repeating its type. */
function struct<const F extends FieldTypes>(name: string, fields: F): Struct<F> {
  return new Struct(name, fields);
}

/** The argument of DMA_HEAP_IOCTL_ALLOC. */
export const dmaHeapAllocationData: Struct<{
  readonly len: "u64";
  readonly fd: "u32";
  readonly fdFlags: "u32";
  readonly heapFlags: "u64";
}> = struct("dma_heap_allocation_data", {
  len: "u64",
  fd: "u32",
  fdFlags: "u32",
  heapFlags: "u64",
});

/** The argument of DMA_BUF_IOCTL_SYNC. */
export const dmaBufSync: Struct<{ readonly flags: "u64" }> = struct("dma_buf_sync", {
  flags: "u64",
});

/** The argument of DMA_BUF_IOCTL_EXPORT_SYNC_FILE and of DMA_BUF_IOCTL_IMPORT_SYNC_FILE. */
export const dmaBufSyncFile: Struct<{ readonly flags: "u32"; readonly fd: "s32" }> = struct(
  "dma_buf_export_sync_file",
  { flags: "u32", fd: "s32" },
);

/** The argument of UDMABUF_CREATE. */
export const udmabufCreate: Struct<{
  readonly memfd: "u32";
  readonly flags: "u32";
  readonly offset: "u64";
  readonly size: "u64";
}> = struct("udmabuf_create", { memfd: "u32", flags: "u32", offset: "u64", size: "u64" });

/** The head of the argument of UDMABUF_CREATE_LIST; `count` items follow it. */
export const udmabufCreateList: Struct<{ readonly flags: "u32"; readonly count: "u32" }> = struct(
  "udmabuf_create_list",
  { flags: "u32", count: "u32" },
);

/** An item of a list. */
export const udmabufCreateItem: Struct<{
  readonly memfd: "u32";
  readonly pad: "u32";
  readonly offset: "u64";
  readonly size: "u64";
}> = struct("udmabuf_create_item", { memfd: "u32", pad: "u32", offset: "u64", size: "u64" });

/** The argument of SYNC_IOC_MERGE. */
export const syncMergeData: Struct<{
  readonly name: "char32";
  readonly fd2: "s32";
  readonly fence: "s32";
  readonly flags: "u32";
  readonly pad: "u32";
}> = struct("sync_merge_data", {
  name: "char32",
  fd2: "s32",
  fence: "s32",
  flags: "u32",
  pad: "u32",
});

/** One leaf in the answer of SYNC_IOC_FILE_INFO. */
export const syncFenceInfo: Struct<{
  readonly objName: "char32";
  readonly driverName: "char32";
  readonly status: "s32";
  readonly flags: "u32";
  readonly timestampNs: "u64";
}> = struct("sync_fence_info", {
  objName: "char32",
  driverName: "char32",
  status: "s32",
  flags: "u32",
  timestampNs: "u64",
});

/** The argument of SYNC_IOC_FILE_INFO. `syncFenceInfo` is the address of `numFences` leaves. */
export const syncFileInfo: Struct<{
  readonly name: "char32";
  readonly status: "s32";
  readonly flags: "u32";
  readonly numFences: "u32";
  readonly pad: "u32";
  readonly syncFenceInfo: "u64";
}> = struct("sync_file_info", {
  name: "char32",
  status: "s32",
  flags: "u32",
  numFences: "u32",
  pad: "u32",
  syncFenceInfo: "u64",
});

/** The argument of SW_SYNC_IOC_CREATE_FENCE. */
export const swSyncCreateFenceData: Struct<{
  readonly value: "u32";
  readonly name: "char32";
  readonly fence: "s32";
}> = struct("sw_sync_create_fence_data", { value: "u32", name: "char32", fence: "s32" });

/** Allocates a buffer from a heap. */
export const DMA_HEAP_IOCTL_ALLOC: number = ioctlNumber(
  IOC_BOTH,
  "H",
  0,
  dmaHeapAllocationData.sizeBytes,
);

/** Opens or closes a bracket of CPU access. */
export const DMA_BUF_IOCTL_SYNC: number = ioctlNumber(IOC_WRITE, "b", 0, dmaBufSync.sizeBytes);
/** Names a buffer; the argument is the name's address. */
export const DMA_BUF_SET_NAME_A: number = ioctlNumber(IOC_WRITE, "b", 1, U32_BYTES);
/** The same, as 64-bit programs number it. */
export const DMA_BUF_SET_NAME_B: number = ioctlNumber(IOC_WRITE, "b", 1, U64_BYTES);
/** Makes a sync file of a buffer's implicit fences. */
export const DMA_BUF_IOCTL_EXPORT_SYNC_FILE: number = ioctlNumber(
  IOC_BOTH,
  "b",
  2,
  dmaBufSyncFile.sizeBytes,
);
/** Adds a sync file's fences to a buffer. */
export const DMA_BUF_IOCTL_IMPORT_SYNC_FILE: number = ioctlNumber(
  IOC_WRITE,
  "b",
  3,
  dmaBufSyncFile.sizeBytes,
);

/** Makes a buffer of a part of a memfd. */
export const UDMABUF_CREATE: number = ioctlNumber(IOC_WRITE, "u", 0x42, udmabufCreate.sizeBytes);
/** Makes a buffer of parts of memfds. */
export const UDMABUF_CREATE_LIST: number = ioctlNumber(
  IOC_WRITE,
  "u",
  0x43,
  udmabufCreateList.sizeBytes,
);

/** Merges two sync files. */
export const SYNC_IOC_MERGE: number = ioctlNumber(IOC_BOTH, ">", 3, syncMergeData.sizeBytes);
/** Tells what a sync file waits for. */
export const SYNC_IOC_FILE_INFO: number = ioctlNumber(IOC_BOTH, ">", 4, syncFileInfo.sizeBytes);

/** Makes a fence on a sw_sync timeline. */
export const SW_SYNC_IOC_CREATE_FENCE: number = ioctlNumber(
  IOC_BOTH,
  "W",
  0,
  swSyncCreateFenceData.sizeBytes,
);
/** Moves a sw_sync timeline on. */
export const SW_SYNC_IOC_INC: number = ioctlNumber(IOC_WRITE, "W", 1, U32_BYTES);
