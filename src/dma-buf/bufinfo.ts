/**
 * Bufinfo: what the kernel tells about every buffer, in its order.
 *
 * Compare dma_buf_debug_show() in the kernel's drivers/dma-buf/dma-buf.c and dma_resv_describe().
 *
 * @module
 */

import { O_ACCMODE } from "../files/open-file.ts";
import type { DmaBuf } from "./dma-buf.ts";
import type { ResvUsage } from "./resv.ts";

/** FMODE_LSEEK and FMODE_OPENED, which every dma-buf's file has. */
const FMODE_OPEN_SEEKABLE = 0x80004;

/** A fence on a buffer. */
export interface BufferFence {
  readonly usage: ResvUsage;
  readonly driverName: string;
  readonly timelineName: string;
  readonly seqno: number;
  readonly isSignaled: boolean;
}

/** A buffer in the kernel's columns. */
export interface BufferInfo {
  readonly sizeBytes: number;
  /** Its file's open flags. */
  readonly flags: number;
  /** Its file's mode bits (FMODE_…). */
  readonly mode: number;
  /** References to its file. */
  readonly count: number;
  readonly exporterName: string;
  readonly ino: number;
  /** Its own name; null if it has none. */
  readonly name: string | null;
  /** All but bookkeeping fences, in stored order. */
  readonly fences: readonly BufferFence[];
  /** Attached devices, the latest first. */
  readonly devices: readonly string[];
}

/** @internal One buffer's row. */
export function bufferInfo(buf: DmaBuf): BufferInfo {
  const { sizeBytes, fileFlags: flags, refCount: count, exporterName, ino, label: name } = buf;
  const accessMode = (flags + 1) & O_ACCMODE; // OPEN_FMODE()
  return {
    sizeBytes,
    flags,
    mode: FMODE_OPEN_SEEKABLE + accessMode,
    count,
    exporterName,
    ino,
    name,
    fences: buf.resv.entries
      .filter(({ usage }) => usage !== "bookkeep")
      .map(({ fence, usage }) => ({
        usage,
        driverName: fence.driverName,
        timelineName: fence.timelineName,
        seqno: fence.seqno,
        isSignaled: fence.isSignaled,
      })),
    devices: buf.attachments.map(({ device }) => device.name).reverse(),
  };
}
