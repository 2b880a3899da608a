/**
 * The system calls on a dma-buf.
 *
 * Compare dma_buf_fops in the kernel's drivers/dma-buf/dma-buf.c.
 *
 * @module
 */

import type { Direction } from "../direction.ts";
import type { DmaBuf } from "../dma-buf/dma-buf.ts";
import type { SyncAccess } from "../dma-buf/sync-files.ts";
import { DmaBufError, fail } from "../errors.ts";
import { SyncFile } from "../fence/sync-file.ts";
import { DMA_BUF_SYNC_END, DMA_BUF_SYNC_RW, SEEK_END, SEEK_SET } from "./constants.ts";
import { ANONYMOUS_MODE, type FileOperations, type IoctlCall } from "./file-operations.ts";
import {
  DMA_BUF_IOCTL_EXPORT_SYNC_FILE,
  DMA_BUF_IOCTL_IMPORT_SYNC_FILE,
  DMA_BUF_IOCTL_SYNC,
  DMA_BUF_SET_NAME_A,
  DMA_BUF_SET_NAME_B,
  dmaBufSync,
  dmaBufSyncFile,
} from "./structs.ts";

/** A name and its NUL: DMA_BUF_NAME_LEN. */
const NAME_LEN = 32;
const SYNC_FLAGS = BigInt(DMA_BUF_SYNC_RW + DMA_BUF_SYNC_END);

/** What the bits DMA_BUF_SYNC_READ and DMA_BUF_SYNC_WRITE mean for the CPU, and for a sync file. */
const directions: readonly (Direction | null)[] = [
  null,
  "from-device",
  "to-device",
  "bidirectional",
];
const accesses: readonly (SyncAccess | null)[] = [null, "read", "write", "read-write"];

/** The calls on a buffer. */
export function dmaBufOperations(buf: DmaBuf): FileOperations {
  return {
    link: `/dmabuf:${buf.label ?? ""}`,
    ino: buf.ino,
    sizeBytes: buf.sizeBytes,
    mode: ANONYMOUS_MODE,
    position: 0,
    info: [
      `size:\t${buf.sizeBytes}`,
      `count:\t${buf.refCount}`,
      `exp_name:\t${buf.exporterName}`,
      ...(buf.label === null ? [] : [`name:\t${buf.label}`]),
    ],
    pollable: buf,
    ioctl: (call) => ioctl(buf, call),
    ioctlAsync: (call) => ioctlAsync(buf, call),
    seek: (offset, whence) => seek(buf, offset, whence),
    mmap: ({ pageOffset, pageCount, isShared }) =>
      buf.mmap({ pageOffset, pageCount, shared: isShared }),
  };
}

function seek(buf: DmaBuf, offset: number, whence: number): number {
  if (whence === SEEK_SET) return buf.seek(offset, "set");
  if (whence === SEEK_END) return buf.seek(offset, "end");
  return fail("EINVAL", `seek ${buf.name}`, "only its start and its end are known");
}

function ioctl(buf: DmaBuf, call: IoctlCall): number {
  switch (call.command) {
    case DMA_BUF_IOCTL_SYNC:
      return sync(buf, call);
    case DMA_BUF_SET_NAME_A:
    case DMA_BUF_SET_NAME_B:
      buf.setName(call.argument.text(NAME_LEN));
      return 0;
    case DMA_BUF_IOCTL_EXPORT_SYNC_FILE:
      return exportSyncFile(buf, call);
    case DMA_BUF_IOCTL_IMPORT_SYNC_FILE:
      return importSyncFile(buf, call);
    default:
      return fail("ENOTTY", `control ${buf.name}`, `a dma-buf has no ioctl ${call.command}`);
  }
}

async function ioctlAsync(buf: DmaBuf, call: IoctlCall): Promise<number> {
  if (call.command !== DMA_BUF_IOCTL_SYNC) return ioctl(buf, call);
  const { direction, isEnd } = decodeSync(call);
  if (isEnd) return buf.endCpuAccessAsync(direction);
  return buf.beginCpuAccessAsync(
    direction,
    call.signal === undefined ? {} : { signal: call.signal },
  );
}

function sync(buf: DmaBuf, call: IoctlCall): number {
  const { direction, isEnd } = decodeSync(call);
  if (isEnd) return buf.endCpuAccess(direction);
  try {
    return buf.beginCpuAccess(direction);
  } catch (error) {
    const wouldWait = error instanceof DmaBufError && error.code === "EAGAIN";
    if (wouldWait && call.signal?.aborted)
      fail("EINTR", error.operation, "the wait was interrupted");
    throw error;
  }
}

function decodeSync({ argument }: IoctlCall): {
  readonly direction: Direction;
  readonly isEnd: boolean;
} {
  const flags = dmaBufSync.get(argument.read(dmaBufSync.sizeBytes), "flags");
  const direction = directions[Number(flags & BigInt(DMA_BUF_SYNC_RW))] ?? null;
  if ((flags & ~SYNC_FLAGS) !== 0n || direction === null)
    return fail("EINVAL", "sync a dma-buf", `the flags ${flags} are not READ or WRITE, and END`);
  return { direction, isEnd: (flags & BigInt(DMA_BUF_SYNC_END)) !== 0n };
}

function exportSyncFile(buf: DmaBuf, { process, argument }: IoctlCall): number {
  const data = argument.read(dmaBufSyncFile.sizeBytes);
  const access = decodeAccess(dmaBufSyncFile.get(data, "flags"));
  process.files.requireFree(`export a sync file of ${buf.name}`);
  const fd = process.install(buf.exportSyncFile(access), { closeOnExec: true });
  dmaBufSyncFile.set(data, "fd", fd);
  argument.write(data);
  return 0;
}

function importSyncFile(buf: DmaBuf, { process, argument }: IoctlCall): number {
  const { flags, fd } = dmaBufSyncFile.decode(argument.read(dmaBufSyncFile.sizeBytes));
  const access = decodeAccess(flags);
  const file = process.files.find(fd);
  if (!(file instanceof SyncFile))
    return fail("EINVAL", `import a sync file into ${buf.name}`, `descriptor ${fd} is none`);
  buf.importSyncFile(file, access);
  return 0;
}

function decodeAccess(flags: number): SyncAccess {
  return (
    accesses[flags] ?? fail("EINVAL", "use a sync file", `the flags ${flags} are not READ or WRITE`)
  );
}
