/**
 * An exporter for tests: a few frames, and every callback written down with the state of the lock.
 *
 * @module
 */

import type {
  Attachment,
  AttachOps,
  DmaBuf,
  DmaBufOps,
  ExportInfo,
  SgTable,
  System,
} from "../../src/index.ts";
import { FRAME_BYTES } from "../../src/index.ts";

/** What a test exports. */
export interface WatchedOptions {
  /** Ops in addition to, or instead of, the watched ones. */
  readonly ops?: Partial<DmaBufOps>;
  /** Makes the exporter dynamic: pin and unpin are watched too. */
  readonly pins?: boolean;
  /** Frames, every second of a run: no two are neighbours. Default 1. */
  readonly frames?: number;
  readonly info?: Partial<ExportInfo>;
}

/** Whether the reservation is held, as a word. */
export function lockOf({ resv }: DmaBuf): string {
  return resv.isLocked ? "locked" : "unlocked";
}

/** An importer that does nothing when it is told of a move. */
export const deaf: AttachOps = { moveNotify: () => {} };

/** A buffer whose exporter's calls are written to `calls`. */
export function watched(
  system: System,
  calls: string[],
  { ops = {}, pins = false, frames = 1, info = {} }: WatchedOptions = {},
): DmaBuf {
  const range = system.frames.alloc(2 * frames - 1);
  const list = Array.from({ length: frames }, (_, i) => range.pfn + 2 * i);
  const table = system.sgTableFromFrames(list);
  const base = { ...attachOps(calls), ...mapOps(calls, table), ...cpuOps(calls, table) };
  const release = (buf: DmaBuf): void => {
    calls.push(`release ${lockOf(buf)}`);
    table.free();
    range.free();
  };
  return system.export({
    ops: { ...base, ...(pins && pinOps(calls)), release, ...ops },
    sizeBytes: frames * FRAME_BYTES,
    exporterName: "watched",
    ...info,
  });
}

const says =
  (calls: string[], verb: string) =>
  ({ buf, device }: Attachment): void =>
    void calls.push(`${verb} ${device.name} ${lockOf(buf)}`);

function attachOps(calls: string[]): Pick<DmaBufOps, "attach" | "detach"> {
  return {
    attach: (_, attachment) => says(calls, "attach")(attachment),
    detach: (_, attachment) => says(calls, "detach")(attachment),
  };
}

function pinOps(calls: string[]): Pick<DmaBufOps, "pin" | "unpin"> {
  return { pin: says(calls, "pin"), unpin: says(calls, "unpin") };
}

function mapOps(calls: string[], table: SgTable): Pick<DmaBufOps, "map" | "unmap"> {
  return {
    map: (attachment, direction) => {
      says(calls, "map")(attachment);
      return attachment.device.dma.mapSgtable(table, direction);
    },
    unmap: (attachment, mapping) => {
      says(calls, "unmap")(attachment);
      attachment.device.dma.unmapSgtable(mapping);
    },
  };
}

function cpuOps(calls: string[], table: SgTable): Partial<DmaBufOps> {
  return {
    beginCpuAccess: (buf, direction) => void calls.push(`begin ${direction} ${lockOf(buf)}`),
    endCpuAccess: (buf, direction) => void calls.push(`end ${direction} ${lockOf(buf)}`),
    mmap: (buf, { pageOffset, pageCount }) => {
      calls.push(`mmap ${pageOffset}+${pageCount} ${lockOf(buf)}`);
      return table;
    },
    vmap: (buf) => {
      calls.push(`vmap ${lockOf(buf)}`);
      return table;
    },
    vunmap: (buf) => void calls.push(`vunmap ${lockOf(buf)}`),
  };
}
