/**
 * The system calls on sync files and on sw_sync timelines.
 *
 * Compare the kernel's drivers/dma-buf/sync_file.c and sw_sync.c.
 *
 * @module
 */

import { fail } from "../errors.ts";
import type { SwSync } from "../fence/sw-sync.ts";
import { SyncFile } from "../fence/sync-file.ts";
import { type FileOperations, type IoctlCall, plainFile, withoutBytes } from "./file-operations.ts";
import { readWord } from "./struct.ts";
import {
  SW_SYNC_IOC_CREATE_FENCE,
  SW_SYNC_IOC_INC,
  SYNC_IOC_FILE_INFO,
  SYNC_IOC_MERGE,
  swSyncCreateFenceData,
  syncFenceInfo,
  syncFileInfo,
  syncMergeData,
} from "./structs.ts";
import { UserPointer } from "./user-pointer.ts";

const U32_BYTES = 4;

/** The calls on a sync file. */
export function syncFileOperations(file: SyncFile): FileOperations {
  return {
    ...plainFile,
    link: "anon_inode:sync_file",
    pollable: file,
    ioctl: (call) => {
      if (call.command === SYNC_IOC_MERGE) return merge(file, call);
      if (call.command === SYNC_IOC_FILE_INFO) return info(file, call);
      return fail("ENOTTY", `control ${file.description}`, `it has no ioctl ${call.command}`);
    },
  };
}

function merge(file: SyncFile, { process, argument }: IoctlCall): number {
  const operation = `merge ${file.description}`;
  process.files.requireFree(operation);
  const data = argument.read(syncMergeData.sizeBytes);
  const request = syncMergeData.decode(data);
  if (request.flags !== 0 || request.pad !== 0)
    fail("EINVAL", operation, "flags and pad must be 0");
  const other = process.files.find(request.fd2);
  if (!(other instanceof SyncFile))
    return fail("ENOENT", operation, `descriptor ${request.fd2} is no sync file`);
  const fence = process.install(file.merge(other, request.name), { closeOnExec: true });
  syncMergeData.set(data, "fence", fence);
  argument.write(data);
  return 0;
}

function info(file: SyncFile, { process, argument }: IoctlCall): number {
  const operation = `describe ${file.description}`;
  const request = syncFileInfo.decode(argument.read(syncFileInfo.sizeBytes));
  if (request.flags !== 0 || request.pad !== 0)
    fail("EINVAL", operation, "flags and pad must be 0");
  const { name, fences, ...all } = file.info();
  const numFences = fences.length;
  if (request.numFences !== 0) {
    if (request.numFences < numFences)
      fail("EINVAL", operation, `it has ${numFences} fences, and there is room for fewer`);
    const list = new UserPointer(request.syncFenceInfo, process.memory);
    list.read(numFences * syncFenceInfo.sizeBytes); // EFAULT before anything is written
    for (const [i, { timelineName, driverName, status, timestampNs }] of fences.entries()) {
      const one = { objName: timelineName, driverName, status, timestampNs: BigInt(timestampNs) };
      list.write(syncFenceInfo.encode(one), i * syncFenceInfo.sizeBytes);
    }
  }
  const status = request.numFences === 0 ? file.status : all.status;
  argument.write(syncFileInfo.encode({ ...request, name, status, numFences }));
  return 0;
}

/** The calls on a sw_sync timeline. */
export function swSyncOperations(timeline: SwSync): FileOperations {
  return {
    ...plainFile,
    ...withoutBytes,
    link: "/sys/kernel/debug/sync/sw_sync",
    allocate: () => fail("EOPNOTSUPP", `allocate ${timeline.description}`, "it has no storage"),
    ioctl: (call) => {
      if (call.command === SW_SYNC_IOC_CREATE_FENCE) return createFence(timeline, call);
      if (call.command === SW_SYNC_IOC_INC) {
        timeline.inc(readWord(call.argument.read(U32_BYTES), 0));
        return 0;
      }
      return fail("ENOTTY", `control ${timeline.description}`, `it has no ioctl ${call.command}`);
    },
  };
}

function createFence(timeline: SwSync, { process, argument }: IoctlCall): number {
  process.files.requireFree(`create a fence on ${timeline.description}`);
  const data = argument.read(swSyncCreateFenceData.sizeBytes);
  const value = swSyncCreateFenceData.get(data, "value");
  const file = new SyncFile(timeline.createFence(value));
  const fence = process.install(file, { closeOnExec: true });
  swSyncCreateFenceData.set(data, "fence", fence);
  argument.write(data);
  return 0;
}
