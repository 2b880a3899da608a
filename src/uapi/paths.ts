/**
 * What a process can open, and the system calls that each kind of file knows.
 *
 * @module
 */

import { DmaBuf } from "../dma-buf/dma-buf.ts";
import { fail, textOf } from "../errors.ts";
import { SwSync } from "../fence/sw-sync.ts";
import { SyncFile } from "../fence/sync-file.ts";
import type { OpenFile } from "../files/open-file.ts";
import { Memfd } from "../mm/memfd.ts";
import { HeapDevice, heapOperations, UdmabufDevice, udmabufOperations } from "./device-files.ts";
import { dmaBufOperations } from "./dma-buf-operations.ts";
import type { FileOperations } from "./file-operations.ts";
import { memfdOperations } from "./memfd-operations.ts";
import type { Process } from "./process.ts";
import { swSyncOperations, syncFileOperations } from "./sync-operations.ts";

const HEAPS = "/dev/dma_heap";
const SW_SYNC = "/sys/kernel/debug/sync/sw_sync";
const OWN_FDS = "/proc/self/fd/";

/** The file at a path; the caller owns its reference. ENOENT, EBADF, ENXIO. */
export function openPath(process: Process, path: string, fileFlags: number): OpenFile {
  const { system, name } = process;
  if (path === "/dev/udmabuf") return new UdmabufDevice(fileFlags);
  if (path.startsWith(`${HEAPS}/`))
    return new HeapDevice(system.heap(path.slice(HEAPS.length + 1)), fileFlags);
  if (path === SW_SYNC || path === "sw_sync") {
    const timeline = system.swSync(name);
    timeline.fileFlags = fileFlags;
    return timeline;
  }
  if (path.startsWith(OWN_FDS)) {
    const file = process.files.find(Number(path.slice(OWN_FDS.length)));
    if (file === null) return fail("ENOENT", `open ${path}`, "the descriptor is not open");
    return reopen(process, file, path, fileFlags);
  }
  return fail("ENOENT", `open ${path}`, "there is no such file");
}

function reopen(process: Process, file: OpenFile, path: string, fileFlags: number): OpenFile {
  if (file instanceof Memfd) return file.reopen(fileFlags);
  if (file instanceof DmaBuf || file instanceof SyncFile)
    return fail("ENXIO", `open ${path}`, `${file.description} cannot be opened again`);
  return openPath(process, operationsOf(file).link, fileFlags);
}

/** The names in a folder, sorted. ENOENT: only /dev/dma_heap is known. */
export function listDirectory({ system }: Process, path: string): string[] {
  if (path !== HEAPS) fail("ENOENT", `list ${textOf(path)}`, `only ${HEAPS} is a folder`);
  return system.heaps.map(({ name }) => name).sort();
}

/** The calls on a file. ENOTTY: it is of no kind that a process can use. */
export function operationsOf(file: OpenFile): FileOperations {
  if (file instanceof DmaBuf) return dmaBufOperations(file);
  if (file instanceof SyncFile) return syncFileOperations(file);
  if (file instanceof SwSync) return swSyncOperations(file);
  if (file instanceof Memfd) return memfdOperations(file);
  if (file instanceof HeapDevice) return heapOperations(file);
  if (file instanceof UdmabufDevice) return udmabufOperations(file);
  return fail("ENOTTY", `use ${file.description}`, "no system call knows it");
}
