/**
 * Sync files of a buffer: its implicit fences taken out as a file, and a file's fences put in.
 *
 * - SX1  An export is a snapshot: what is added later does not change it. For reading it holds the
 *        writers, for writing all readers and writers too.
 * - SX2  An import adds the leaves of the file's fence, for reading or for writing; all or none.
 *
 * Compare dma_buf_export_sync_file() and dma_buf_import_sync_file() in the kernel's
 * drivers/dma-buf/dma-buf.c.
 *
 * @module
 */

import { fail } from "../errors.ts";
import { signaledFence } from "../fence/fence.ts";
import { SyncFile } from "../fence/sync-file.ts";
import { unwrapFence } from "../fence/unwrap.ts";
import { type Resv, usageFor } from "./resv.ts";

/** What somebody does, or will do, with a buffer: `DMA_BUF_SYNC_READ` and `DMA_BUF_SYNC_WRITE`. */
export type SyncAccess = "read" | "write" | "read-write";

/** What an access that begins now must wait for, as a file (SX1). EINVAL: the access. */
export function exportSyncFile(resv: Resv, access: SyncAccess, name: string): SyncFile {
  const writes = isWrite(access, `export a sync file of ${name}`);
  return new SyncFile(resv.getSingleton(usageFor(writes)) ?? signaledFence());
}

/**
 * Adds a file's fences as accesses that are under way (SX2). EINVAL: the access, or it is no sync
 * file; EAGAIN: the reservation is locked.
 */
export function importSyncFile(resv: Resv, file: SyncFile, access: SyncAccess, name: string): void {
  const operation = `import a sync file into ${name}`;
  const usage = isWrite(access, operation) ? "write" : "read";
  if (!(file instanceof SyncFile)) fail("EINVAL", operation, "it is no sync file");
  const leaves = [...unwrapFence(file.fence)];
  if (leaves.length === 0) return;
  resv.lock();
  try {
    resv.reserveFences(leaves.length);
    for (const leaf of leaves) resv.addFence(leaf, usage);
  } finally {
    resv.unlock();
  }
}

function isWrite(access: SyncAccess, operation: string): boolean {
  if (access === "read") return false;
  if (access === "write" || access === "read-write") return true;
  return fail("EINVAL", operation, `the access must be "read", "write" or "read-write"`);
}
