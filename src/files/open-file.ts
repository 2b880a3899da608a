/**
 * OpenFile: what a descriptor refers to, counted.
 *
 *     opened ─► refCount 1 ──get(): dup, fork, pass──► + 1 ──put(): close──► … ──last put()──► released
 *
 * - OF1  Descriptors share the file they refer to: its flags and its position are the same for all.
 * - OF2  What was released is refused from then on (ESTALE).
 *
 * Compare `struct file` in the kernel's include/linux/fs.h.
 *
 * @module
 */

import { requireObject } from "../arguments.ts";
import { fail, requireInteger } from "../errors.ts";
import type { TrackedFile } from "../stacks.ts";
import { hasFreeReference } from "./references.ts";

/** Open for reading only. */
export const O_RDONLY = 0;
/** Open for writing only. */
export const O_WRONLY = 1;
/** Open for both. */
export const O_RDWR = 2;
/** The bits that are the access mode. */
export const O_ACCMODE = 3;
/** Writes go to the end. */
export const O_APPEND = 0o2000;
/** Calls do not wait. */
export const O_NONBLOCK = 0o4000;
/** Reads and writes go past all caches. */
export const O_DIRECT = 0o40000;
/** Reads do not change the time of the last access. */
export const O_NOATIME = 0o1000000;
/** The descriptor is closed when its process starts another program. */
export const O_CLOEXEC = 0o2000000;

/** Something counted that a descriptor can hold. */
export interface CountedFile extends TrackedFile {
  /** For messages: "dma-buf frame 0". */
  readonly description: string;
}

/** An open file. */
export interface OpenFile extends CountedFile {
  /** Access mode and status flags (`O_…`), as F_GETFL tells them. */
  fileFlags: number;
  /** References held: descriptors, and who else keeps it. */
  readonly refCount: number;
}

/** The kernel keeps them in 32 bits. */
const FILE_FLAGS_MAX = 2 ** 31 - 1;

/** Throws EINVAL for what is no access mode with status flags. */
export function requireFileFlags(fileFlags: number, operation: string): void {
  requireInteger(fileFlags, "the file flags", 0, FILE_FLAGS_MAX, operation);
}

/** Whether a file was opened for reading. */
export function isReadable(file: OpenFile): boolean {
  requireObject(file, "the file", "look at a file's mode");
  const mode = file.fileFlags & O_ACCMODE;
  return mode === O_RDONLY || mode === O_RDWR;
}

/** Whether a file was opened for writing. */
export function isWritable(file: OpenFile): boolean {
  requireObject(file, "the file", "look at a file's mode");
  const mode = file.fileFlags & O_ACCMODE;
  return mode === O_WRONLY || mode === O_RDWR;
}

/** A file that ends with its last reference. */
export abstract class ReferencedFile implements OpenFile {
  fileFlags: number;
  abstract readonly description: string;
  #refCount = 1;

  constructor(fileFlags: number) {
    requireFileFlags(fileFlags, "open a file");
    this.fileFlags = fileFlags;
  }

  get refCount(): number {
    return this.#refCount;
  }

  /** Takes a reference. ESTALE (OF2). */
  get(): this {
    this.requireLive("get");
    this.#refCount += 1;
    return this;
  }

  /** Gives a reference back; the last one releases the file. ESTALE (OF2). */
  put(): void {
    this.requireLive("put");
    this.#refCount -= 1;
    if (this.#refCount === 0) this.release();
  }

  /** Puts the caller's reference, if one is left that is in no table of descriptors. */
  [Symbol.dispose](): void {
    if (hasFreeReference(this)) this.put();
  }

  /** Called once, with the last reference. */
  protected abstract release(): void;

  /** Throws ESTALE once the file was released (OF2). */
  protected requireLive(verb: string): void {
    if (this.#refCount === 0) fail("ESTALE", `${verb} ${this.description}`, "it was released");
  }
}
