/**
 * File descriptors: small numbers that hold references, lowest free number first.
 *
 *     parent  0 ──► camera frame        fork()   the same numbers, one reference more each
 *             1 ──► log, close-on-exec  exec()   closes what is marked
 *             2 ──► sync file           pass()   another table gets the file under its own number
 *
 * - FD1  A slot holds one reference; install() moves the caller's into it, close() puts it. If
 *        somebody has put that one too, and the file is gone, close() just frees the number, and
 *        nothing makes another descriptor of it. Who has no reference of his own cannot move one.
 * - FD2  The number handed out is the lowest that is free: bits say which are taken, and every word
 *        of bits before the first one to look at is full.
 * - FD3  Close-on-exec belongs to the number, not to the file.
 *
 * Compare fs/file.c, dma_buf_fd() in drivers/dma-buf/dma-buf.c and receive_fd() in the kernel.
 *
 * @module
 */

import { requireInstance, requireObject } from "../arguments.ts";
import { fail, nameOf, reportError, requireInteger, textOf } from "../errors.ts";
import { putFor } from "../stacks.ts";
import type { CountedFile } from "./open-file.ts";
import { type DescriptorCount, descriptorCount, isReleased, requireMovable } from "./references.ts";

const WORD_BITS = 32;
const FDS_MAX = 2 ** 20;

/** How a descriptor is made. */
export interface FdOptions {
  /** Closed by exec() (FD3). Default false. */
  readonly closeOnExec?: boolean | undefined;
  /** The lowest number that will do. Default 0. */
  readonly min?: number | undefined;
}

interface Slot<File> {
  readonly file: File;
  /** The file's, of which this is one. */
  readonly count: DescriptorCount;
  isCloseOnExec: boolean;
}

/** A table of descriptors, as a process has one. */
export class FdTable<File extends CountedFile = CountedFile> {
  /** How many descriptors may be open at once: RLIMIT_NOFILE. */
  readonly limit: number;
  /** Whose it is, for people; empty if nobody said. */
  name = "";
  readonly #slots: (Slot<File> | null)[] = [];
  /** Which numbers are taken (FD2). */
  readonly #taken: number[] = [];
  /** The first word that may not be full (FD2). */
  #firstWord = 0;
  #openCount = 0;
  /** Whether its process has exited. */
  #isRetired = false;

  /** A table of at most `limit` descriptors. */
  constructor(limit = 1024) {
    requireInteger(limit, "limit", 1, FDS_MAX, "create a file table");
    this.limit = limit;
  }

  /** How many descriptors are open. */
  get openCount(): number {
    return this.#openCount;
  }

  /** The open descriptors, lowest first. */
  get fds(): number[] {
    return [...this.#slots.keys()].filter((fd) => this.#slots[fd] != null);
  }

  /**
   * Moves the caller's reference into the table (FD1): after it, the caller has none to put. With
   * `using`, or to go on with the file, `install(file.get())`. EINVAL: all references are in tables
   * or CPU mappings', or the file is not for this table; ESTALE: it was released; EMFILE: the table
   * is full; ESRCH: its process has exited; the caller still owns it then.
   */
  install(file: File, options: FdOptions = {}): number {
    requireMovable(file);
    return this.#install(file, options);
  }

  /** @internal install(), but a reference that the table does not take is put. */
  installOrPut(file: File, options?: FdOptions): number {
    requireMovable(file);
    return this.#installOrPut(file, options);
  }

  #installOrPut(file: File, options: FdOptions | undefined, count?: DescriptorCount): number {
    try {
      return this.#install(file, options, count);
    } catch (error) {
      file.put();
      throw error;
    }
  }

  /** Throws EINVAL for a file that the table is not for. */
  protected requireAccepted(_file: File, _operation: string): void {}

  #install(file: File, options: FdOptions = {}, count = descriptorCount(file)): number {
    const operation = `install ${file.description}`;
    requireObject(options, "the options", operation);
    const { closeOnExec = false, min = 0 } = options;
    this.#requireUsed(operation);
    this.requireAccepted(file, operation);
    requireInteger(min, "min", 0, this.limit - 1, operation);
    const fd = this.#lowestFree(min);
    if (fd >= this.limit) fail("EMFILE", operation, `all ${this.limit - min} descriptors are open`);
    this.#put(fd, { file, count, isCloseOnExec: closeOnExec });
    return fd;
  }

  /** The open file of `fd`, without a reference; EBADF; EINVAL: it is no number, as everywhere. */
  peek(fd: number): File {
    return this.#slot(fd).file;
  }

  /** The open file of `fd`, without a reference, or null. */
  find(fd: number): File | null {
    return typeof fd === "number" ? (this.#slots[fd]?.file ?? null) : null;
  }

  /** Throws EMFILE if install() would: for calls that must know before they do anything. */
  requireFree(operation: string): void {
    this.#requireUsed(operation);
    if (this.#lowestFree(0) >= this.limit)
      fail("EMFILE", operation, `all ${this.limit} descriptors are open`);
  }

  /** Where `fd` was made, if the system of its file tracks holders; else null. EBADF. */
  stackOf(fd: number): string | null {
    const slot = this.#slot(fd);
    return slot.file.stacks?.of("fd", slot)[0] ?? null;
  }

  /** The file of `fd` with a reference of the caller's own; EBADF. */
  get(fd: number): File {
    const file = this.peek(fd);
    file.get();
    return file;
  }

  /** A second descriptor for the same file; EBADF, EMFILE, EINVAL: `min` is at the limit. */
  dup(fd: number, options: FdOptions = {}): number {
    return this.pass(fd, this, options);
  }

  /**
   * Makes `target` refer to the file of `fd`, and closes what it referred to: dup3(). EBADF:
   * `target` is beyond the limit; EINVAL: both are the same; ESTALE: the file was released.
   */
  dupTo(fd: number, target: number, options: FdOptions = {}): number {
    const operation = `duplicate descriptor ${textOf(fd)}`;
    requireObject(options, "the options", operation);
    const { closeOnExec = false } = options;
    const { file, count } = this.#slot(fd);
    requireNumber(target);
    if (fd === target) fail("EINVAL", operation, "it would replace itself");
    if (!Number.isInteger(target) || target < 0 || target >= this.limit)
      fail("EBADF", operation, `${target} is not below the limit of ${this.limit}`);
    file.get(); // first: what refuses here leaves `target` open
    try {
      if (this.#slots[target] != null) this.close(target);
    } catch (error) {
      file.put();
      throw error;
    }
    this.#put(target, { file, count, isCloseOnExec: closeOnExec });
    return target;
  }

  /**
   * Gives another table a descriptor for the file of `fd`, as a message with SCM_RIGHTS does: its
   * lowest free number, a reference of its own. EBADF; EMFILE: that table is full.
   */
  pass(fd: number, to: FdTable<File>, options: FdOptions = {}): number {
    requireInstance(to, FdTable, "the table", `pass descriptor ${textOf(fd)}`);
    const { file, count } = this.#slot(fd);
    file.get();
    return to.#installOrPut(file, options, count);
  }

  /** Whether `fd` is closed by exec(); EBADF. */
  isCloseOnExec(fd: number): boolean {
    return this.#slot(fd).isCloseOnExec;
  }

  /** Says whether `fd` is closed by exec(); EBADF. */
  setCloseOnExec(fd: number, closeOnExec: boolean): void {
    this.#slot(fd).isCloseOnExec = closeOnExec;
  }

  /** Closes `fd` and puts its reference; EBADF. */
  close(fd: number): void {
    const slot = this.#slot(fd);
    if (isReleased(slot.file)) slot.file.stacks?.remove("fd", slot);
    else putFor(slot.file, "fd", slot); // may refuse, and then the descriptor stays
    this.#slots[fd] = null;
    slot.count.fds -= 1;
    this.#openCount -= 1;
    const word = Math.floor(fd / WORD_BITS);
    this.#taken[word] = (this.#taken[word] ?? 0) & ~bitOf(fd);
    this.#firstWord = Math.min(this.#firstWord, word);
  }

  /**
   * Closes everything, as at the end of a process. What refuses stays open, and the first refusal
   * is thrown once the others are closed.
   */
  closeAll(): void {
    this.#closeEach(this.fds);
  }

  #closeEach(fds: readonly number[]): void {
    const errors: unknown[] = [];
    for (const fd of fds) {
      try {
        this.close(fd);
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length > 0) throw errors[0];
  }

  /** @internal Closes everything for good: nobody is left to use the table. As closeAll(). */
  retire(): void {
    this.closeAll();
    this.#isRetired = true;
  }

  #requireUsed(operation: string): void {
    if (this.#isRetired) fail("ESRCH", operation, "the process has exited");
  }

  /** A table with the same numbers, and one reference more to each file. ESRCH; ESTALE (FD1). */
  fork(): FdTable<File> {
    this.#requireUsed("fork a file table");
    const child = new FdTable<File>(this.limit);
    try {
      for (const fd of this.fds) {
        const slot = this.#slot(fd);
        slot.file.get();
        child.#put(fd, { ...slot });
      }
    } catch (error) {
      reportError(() => child.closeAll());
      throw error;
    }
    return child;
  }

  /**
   * Closes what is marked close-on-exec: what another program must not have. What refuses stays, as
   * with closeAll().
   */
  exec(): void {
    this.#closeEach(this.fds.filter((fd) => this.isCloseOnExec(fd)));
  }

  #slot(fd: number): Slot<File> {
    requireNumber(fd);
    return this.#slots[fd] ?? fail("EBADF", `use descriptor ${fd}`, "it is not open");
  }

  #put(fd: number, slot: Slot<File>): void {
    while (this.#slots.length < fd) this.#slots.push(null);
    this.#slots[fd] = slot;
    slot.count.fds += 1;
    slot.file.stacks?.own(slot.file, "fd", slot);
    this.#openCount += 1;
    const word = Math.floor(fd / WORD_BITS);
    while (this.#taken.length <= word) this.#taken.push(0);
    this.#taken[word] = (this.#taken[word] ?? 0) | bitOf(fd);
  }

  /** FD2. At most one word of bits is looked at for each 32 numbers that are taken. */
  #lowestFree(min: number): number {
    const minWord = Math.floor(min / WORD_BITS);
    let word = Math.max(this.#firstWord, minWord);
    for (;;) {
      const below = word === minWord ? bitOf(min) - 1 : 0;
      const free = ~((this.#taken[word] ?? 0) | below);
      if (free !== 0) {
        if (min === 0) this.#firstWord = word;
        return word * WORD_BITS + WORD_BITS - 1 - Math.clz32(free & -free);
      }
      word += 1;
    }
  }
}

/** Throws EINVAL for a descriptor that is no number: "0" would find slot 0. */
function requireNumber(fd: number): void {
  if (typeof fd !== "number")
    fail("EINVAL", "use a descriptor", `it must be a number, and is ${nameOf(fd)}`);
}

/** The bit of a number in its word. */
function bitOf(fd: number): number {
  return (2 ** (fd % WORD_BITS)) | 0;
}
