/**
 * File descriptors: small numbers that hold references, lowest free number first.
 *
 * - FD1  A slot holds one reference; install() moves the caller's into it, close() puts it.
 * - FD2  The number handed out is the lowest that is free.
 *
 * Compare fs/file.c and dma_buf_fd() in the kernel's drivers/dma-buf/dma-buf.c.
 *
 * @module
 */

import { fail, requireInteger } from "../errors.ts";

/** What a descriptor can refer to: something counted. */
export interface CountedFile {
  /** For messages: "dma-buf frame 0". */
  readonly description: string;
  get(): void;
  put(): void;
}

/** A table of descriptors, as a process has one. */
export class FdTable<File extends CountedFile> {
  readonly #slots: (File | null)[] = [];
  readonly #limit: number;

  /** A table of at most `limit` descriptors. */
  constructor(limit = 1024) {
    requireInteger(limit, "limit", 1, 2 ** 20, "create a file table");
    this.#limit = limit;
  }

  /** How many descriptors are open. */
  get openCount(): number {
    return this.#slots.filter((slot) => slot !== null).length;
  }

  /**
   * Moves the caller's reference into the table (FD1). EMFILE: the table is full, and the caller
   * still owns it.
   */
  install(file: File): number {
    const free = this.#slots.indexOf(null); // FD2
    const fd = free < 0 ? this.#slots.length : free;
    if (fd >= this.#limit)
      fail("EMFILE", `install ${file.description}`, `all ${this.#limit} descriptors are open`);
    this.#slots[fd] = file;
    return fd;
  }

  /** The open file of `fd`, without a reference; EBADF. */
  peek(fd: number): File {
    const file = this.#slots[fd];
    if (file === undefined || file === null)
      return fail("EBADF", `use descriptor ${fd}`, "it is not open");
    return file;
  }

  /** The file of `fd` with a reference of the caller's own; EBADF. */
  get(fd: number): File {
    const file = this.peek(fd);
    file.get();
    return file;
  }

  /** A second descriptor for the same file; EBADF, EMFILE. */
  dup(fd: number): number {
    const file = this.get(fd);
    try {
      return this.install(file);
    } catch (error) {
      file.put();
      throw error;
    }
  }

  /** Closes `fd` and puts its reference; EBADF. */
  close(fd: number): void {
    const file = this.peek(fd);
    file.put(); // may refuse, and then the descriptor stays
    this.#slots[fd] = null;
  }

  /** Closes everything, as at the end of a process. */
  closeAll(): void {
    for (const [fd, slot] of this.#slots.entries()) if (slot !== null) this.close(fd);
  }
}
