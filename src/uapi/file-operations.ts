/**
 * FileOperations: what the system calls do with a file of one kind. A call that a kind lacks fails
 * as the kernel's default does.
 *
 * Compare `struct file_operations` in the kernel's include/linux/fs.h.
 *
 * @module
 */

import { fail } from "../errors.ts";
import type { PollableFile } from "../files/poll.ts";
import type { Process } from "./process.ts";
import type { UserPointer } from "./user-pointer.ts";

/** An ioctl on its way. */
export interface IoctlCall {
  /** Who calls. */
  readonly process: Process;
  /** The ioctl's number. */
  readonly command: number;
  readonly argument: UserPointer;
  /** Interrupts a wait: EINTR. */
  readonly signal?: AbortSignal | undefined;
}

/** Pages to map, as the exporter or the memory sees them. */
export interface MapCall {
  readonly pageOffset: bigint;
  readonly pageCount: bigint;
  readonly isShared: boolean;
  readonly isWritten: boolean;
}

/** Bytes that are mapped. */
export interface MappedBytes {
  readonly views: readonly Uint8Array<ArrayBufferLike>[];
  unmap(): void;
}

/** The calls on one file. */
export interface FileOperations {
  /** What /proc/self/fd/N points to. */
  readonly link: string;
  /** The inode's number; null if it is not the file's own. */
  readonly ino: number | null;
  readonly sizeBytes: number;
  /** The inode's mode: type and permissions. */
  readonly mode: number;
  /** Where the next read begins, in bytes. */
  readonly position: number;
  /** The lines of fdinfo that this kind adds. */
  readonly info: readonly string[];
  /** Null: always ready. */
  readonly pollable: PollableFile | null;
  /** Else ENOTTY. */
  ioctl?(call: IoctlCall): number;
  /** For ioctls that wait; else the same as ioctl(). */
  ioctlAsync?(call: IoctlCall): Promise<number>;
  /** Else ESPIPE. */
  seek?(offset: number, whence: number): number;
  /** Else ENODEV. */
  mmap?(call: MapCall): MappedBytes;
  /** `offset` null: at the position. Else EINVAL, and ESPIPE with an offset. */
  read?(into: Uint8Array, offset: number | null): number;
  /** The same for writing. */
  write?(bytes: Uint8Array, offset: number | null): number;
  /** Else EINVAL. */
  truncate?(sizeBytes: number): void;
  /** Else ENODEV. */
  allocate?(): void;
  /** Else EINVAL. */
  sync?(): void;
  /** F_GET_SEALS; else EINVAL. */
  seals?(): number;
  /** F_ADD_SEALS; else EINVAL. */
  addSeals?(seals: number): void;
  /** open() of the link, as another file; else ENXIO. */
  reopen?(fileFlags: number): number;
}

/** The mode of an inode without a name: read and write for its owner, of no type. */
export const ANONYMOUS_MODE = 0o600;

/** What most kinds answer. */
export const plainFile: Pick<
  FileOperations,
  "ino" | "sizeBytes" | "mode" | "position" | "info" | "pollable"
> = { ino: null, sizeBytes: 0, mode: ANONYMOUS_MODE, position: 0, info: [], pollable: null };

/** What files answer that have offsets, because a path opens them, but no bytes. */
export const withoutBytes: Required<Pick<FileOperations, "read" | "write">> = {
  read: () => fail("EINVAL", "read a file", "it has no bytes"),
  write: () => fail("EINVAL", "write to a file", "it has no bytes"),
};
