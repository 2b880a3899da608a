/**
 * The system calls on a memfd.
 *
 * Compare shmem_file_operations in the kernel's mm/shmem.c.
 *
 * @module
 */

import { fail } from "../errors.ts";
import type { Memfd } from "../mm/memfd.ts";
import { addressOf } from "../units.ts";
import { SEEK_CUR, SEEK_END, SEEK_SET } from "./constants.ts";
import { type FileOperations, plainFile } from "./file-operations.ts";

/** A regular file that everybody may use. */
const MEMFD_MODE = 0o100777;

/** The calls on a memfd. */
export function memfdOperations(memfd: Memfd): FileOperations {
  return {
    ...plainFile,
    link: `/memfd:${memfd.name} (deleted)`,
    sizeBytes: memfd.sizeBytes,
    mode: MEMFD_MODE,
    position: memfd.position,
    seek: (offset, whence) => seek(memfd, offset, whence),
    read: (into, offset) => (offset === null ? memfd.read(into) : memfd.pread(into, offset)),
    write: (bytes, offset) => (offset === null ? memfd.write(bytes) : memfd.pwrite(bytes, offset)),
    truncate: (sizeBytes) => memfd.truncate(sizeBytes),
    allocate: () => fail("EOPNOTSUPP", `allocate ${memfd.description}`, "write to it instead"),
    sync: () => {},
    seals: () => memfd.seals,
    addSeals: (seals) => memfd.addSeals(seals),
    mmap: ({ pageOffset, pageCount, isShared, isWritten }) =>
      memfd.mmap({
        offset: addressOf(Number(pageOffset)),
        lengthBytes: addressOf(Number(pageCount)),
        writable: isShared && isWritten,
      }),
  };
}

function seek(memfd: Memfd, offset: number, whence: number): number {
  if (whence === SEEK_SET) return memfd.seek(offset, "set");
  if (whence === SEEK_CUR) return memfd.seek(offset, "current");
  if (whence === SEEK_END) return memfd.seek(offset, "end");
  return fail("EINVAL", `seek in ${memfd.description}`, `${whence} is no place to start from`);
}
