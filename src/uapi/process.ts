/**
 * Process: a table of descriptors, and the system calls on it as a program makes them.
 *
 *     open("/dev/dma_heap/system") ─► fd ──ioctl(fd, command, bytes)──► decoded ─► heap.alloc() ─► fd
 *
 * - PC1  A call decodes its arguments, calls the library and encodes the answer; it fails as the
 *        kernel does, with the errno in a DmaBufError.
 * - PC2  No call waits but those that end in Async. Where the kernel would wait, the others throw
 *        EAGAIN, or EINTR if their `signal` is aborted.
 *
 * Compare the kernel's fs/ioctl.c, fs/read_write.c, fs/fcntl.c and fs/open.c.
 *
 * @module
 */

import { requireInstance, requireObject, requireText } from "../arguments.ts";
import type { WaitOptions } from "../clock.ts";
import type { DmaBuf } from "../dma-buf/dma-buf.ts";
import { getDmaBuf } from "../dma-buf/get-dma-buf.ts";
import { fail, requireInteger, textOf } from "../errors.ts";
import { type FdOptions, FdTable } from "../files/fd-table.ts";
import { isReadable, isWritable, O_CLOEXEC, O_RDWR, type OpenFile } from "../files/open-file.ts";
import { memfdCreate } from "../mm/memfd.ts";
import { System } from "../system.ts";
import { MFD_ALLOW_SEALING, MFD_CLOEXEC } from "./constants.ts";
import { fcntl } from "./fcntl.ts";
import type { FileOperations } from "./file-operations.ts";
import { decodeMap } from "./map-request.ts";
import { listDirectory, openPath, operationsOf } from "./paths.ts";
import { type PollRequest, pollRequests, pollRequestsAsync } from "./poll-requests.ts";
import { UserMapping } from "./user-mapping.ts";
import { type UserArgument, UserPointer } from "./user-pointer.ts";

/** What a process is made with. */
export interface ProcessOptions {
  /** Its name, which sw_sync timelines get; at most 15 characters are kept. Default "process". */
  readonly name?: string | undefined;
  /** How many descriptors it may have: RLIMIT_NOFILE. Default 1024. */
  readonly fdLimit?: number | undefined;
  /** Its memory, for arguments and pointers given as addresses. The first 4096 bytes are unused. */
  readonly memory?: Uint8Array | undefined;
}

/** How to make a call. */
export interface CallOptions {
  /** Interrupts a wait: EINTR (PC2). */
  readonly signal?: AbortSignal | undefined;
}

/** What fstat() tells. */
export interface Stat {
  /** Null: the inode is not the file's own. */
  readonly ino: number | null;
  /** Type and permissions. */
  readonly mode: number;
  readonly nlink: number;
  readonly sizeBytes: number;
  /** What is best read at once, in bytes. */
  readonly blockBytes: number;
  /** Units of 512 bytes. */
  readonly blocks: number;
}

const NAME_LENGTH = 15;
const FLAGS_MAX = 0xffffffff;
const SECTOR_BYTES = 512;
const BLOCK_BYTES = 4096;
const SEEK_MAX = 4;
const MFD_FLAGS = MFD_CLOEXEC + MFD_ALLOW_SEALING;

/** A program of a system. */
export class Process {
  readonly system: System;
  /** Its descriptors. */
  readonly files: FdTable<OpenFile>;
  /** Its memory; empty if it was given none. */
  readonly memory: Uint8Array;
  readonly #mappings: Set<UserMapping> = new Set();

  /** `files`: descriptors that it inherits; none, if it is not given. */
  constructor(system: System, options: ProcessOptions = {}, files?: FdTable<OpenFile>) {
    requireInstance(system, System, "the system", "make a process");
    requireObject(options, "the options", "make a process");
    this.system = system;
    this.files = files ?? new FdTable(options.fdLimit);
    this.memory = options.memory ?? new Uint8Array();
    this.name = options.name ?? "process";
    system.fileTables.add(this.files);
  }

  /** Its name: prctl(PR_GET_NAME) and PR_SET_NAME. At most 15 characters are kept. */
  get name(): string {
    return this.files.name;
  }

  set name(name: string) {
    requireText(name, "the name", "name a process");
    this.files.name = name.slice(0, NAME_LENGTH);
  }

  #operations(fd: number): FileOperations {
    return operationsOf(this.files.peek(fd));
  }

  /** Moves the caller's reference into the table. EINVAL, ESTALE: none is; EMFILE: it is put. */
  install(file: OpenFile, options?: FdOptions): number {
    return this.files.installOrPut(file, options);
  }

  /** The buffer of `fd`, with a reference: dma_buf_get(). EBADF; EINVAL: it is none. */
  dmaBuf(fd: number): DmaBuf {
    return getDmaBuf(this.files, fd);
  }

  /**
   * Opens /dev/dma_heap/<name>, /dev/udmabuf, /sys/kernel/debug/sync/sw_sync (also "sw_sync"), or
   * /proc/self/fd/<n>. ENOENT, EBADF, EMFILE; ENXIO: it cannot be opened again.
   */
  open(path: string, flags: number = O_RDWR): number {
    if (typeof path !== "string") fail("EFAULT", "open a file", "the path is no text");
    requireInteger(flags, "the flags", 0, FLAGS_MAX, `open ${path}`);
    const file = openPath(this, path, flags & ~O_CLOEXEC);
    return this.install(file, { closeOnExec: (flags & O_CLOEXEC) !== 0 });
  }

  /** The names in /dev/dma_heap, sorted. ENOENT: another folder. */
  readdir(path: string): string[] {
    return listDirectory(this, path);
  }

  /** EBADF. */
  close(fd: number): void {
    this.files.close(fd);
  }

  /** EBADF, EMFILE. */
  dup(fd: number): number {
    return this.files.dup(fd);
  }

  /** dup3(): `target` refers to the file of `fd` from now on. EBADF, EINVAL. */
  dup3(fd: number, target: number, flags = 0): number {
    if (flags !== 0 && flags !== O_CLOEXEC)
      fail("EINVAL", "dup3", `${textOf(flags)} is not O_CLOEXEC`);
    return this.files.dupTo(fd, target, { closeOnExec: flags !== 0 });
  }

  /** `F_…` commands on a descriptor. EBADF, EMFILE; EINVAL: no such command. */
  fcntl(fd: number, command: number, argument = 0): number {
    return fcntl(this.files, fd, command, argument);
  }

  #lacks(fd: number, code: "EINVAL" | "ENODEV" | "ENOTTY" | "ESPIPE", what: string): never {
    const { description } = this.files.peek(fd);
    return fail(code, `use descriptor ${fd}`, `${description} has no ${what}`);
  }

  /**
   * Controls a file. `argument`: the struct's bytes, or an address in `memory`. ENOTTY: the file
   * knows no such ioctl; EFAULT: the argument is not there; and what the ioctl says. PC2.
   */
  ioctl(
    fd: number,
    command: number,
    argument: UserArgument = null,
    options: CallOptions = {},
  ): number {
    const operations = this.#operations(fd);
    if (operations.ioctl === undefined) return this.#lacks(fd, "ENOTTY", "ioctl");
    return operations.ioctl(this.#ioctlCall(command, argument, options));
  }

  /** ioctl() that waits where the kernel does: for fences, in DMA_BUF_IOCTL_SYNC. EINTR. */
  async ioctlAsync(
    fd: number,
    command: number,
    argument: UserArgument = null,
    options: CallOptions = {},
  ): Promise<number> {
    const { ioctlAsync } = this.#operations(fd);
    if (ioctlAsync === undefined) return this.ioctl(fd, command, argument, options);
    return ioctlAsync(this.#ioctlCall(command, argument, options));
  }

  #ioctlCall(command: number, argument: UserArgument, options: CallOptions) {
    requireInteger(command, "the command", 0, FLAGS_MAX, "control a file");
    requireObject(options, "the options", "control a file");
    const { signal } = options;
    const pointer = new UserPointer(argument, this.memory);
    const interrupt = signal === undefined ? {} : { signal };
    return { process: this, command, argument: pointer, ...interrupt };
  }

  /** Moves the position of a file, or tells the size of a buffer. EBADF, EINVAL, ESPIPE. */
  lseek(fd: number, offset: number, whence: number): number {
    const { seek } = this.#operations(fd);
    requireInteger(
      offset,
      "the offset",
      -Number.MAX_SAFE_INTEGER,
      Number.MAX_SAFE_INTEGER,
      "lseek",
    );
    if (!Number.isInteger(whence) || whence < 0 || whence > SEEK_MAX)
      fail("EINVAL", "lseek", `${textOf(whence)} is no place to start from`);
    return seek === undefined ? this.#lacks(fd, "ESPIPE", "position") : seek(offset, whence);
  }

  #requireReadable(fd: number): void {
    if (!isReadable(this.files.peek(fd)))
      fail("EBADF", `read descriptor ${fd}`, "it is write-only");
  }

  #requireWritable(fd: number): void {
    if (!isWritable(this.files.peek(fd)))
      fail("EBADF", `write to descriptor ${fd}`, "it is read-only");
  }

  /** Reads at the position. EBADF: also of a file that is not open for reading; EINVAL. */
  read(fd: number, into: Uint8Array): number {
    const { read } = this.#operations(fd);
    this.#requireReadable(fd);
    requireUserBytes(into, `read descriptor ${fd}`);
    return read === undefined ? this.#lacks(fd, "EINVAL", "read") : read(into, null);
  }

  /** Writes at the position. EBADF: also of a file that is not open for writing; EINVAL. */
  write(fd: number, bytes: Uint8Array): number {
    const { write } = this.#operations(fd);
    this.#requireWritable(fd);
    requireUserBytes(bytes, `write to descriptor ${fd}`);
    return write === undefined ? this.#lacks(fd, "EINVAL", "write") : write(bytes, null);
  }

  /** Reads at `offset`. EBADF, ESPIPE; EINVAL: the file has no bytes. */
  pread(fd: number, into: Uint8Array, offset: number): number {
    const { read } = this.#operations(fd);
    if (read === undefined) return this.#lacks(fd, "ESPIPE", "position");
    this.#requireReadable(fd);
    requireUserBytes(into, `read descriptor ${fd}`);
    return read(into, offset);
  }

  /** Writes at `offset`. EBADF, ESPIPE; EINVAL: the file has no bytes. */
  pwrite(fd: number, bytes: Uint8Array, offset: number): number {
    const { write } = this.#operations(fd);
    if (write === undefined) return this.#lacks(fd, "ESPIPE", "position");
    this.#requireWritable(fd);
    requireUserBytes(bytes, `write to descriptor ${fd}`);
    return write(bytes, offset);
  }

  /** Sets the size of a memfd. EBADF; EINVAL: another file; EPERM: sealed. */
  ftruncate(fd: number, sizeBytes: number): void {
    const { truncate } = this.#operations(fd);
    if (truncate === undefined) this.#lacks(fd, "EINVAL", "size to set");
    else truncate(sizeBytes);
  }

  /** EBADF; ENODEV: the file has no storage; EOPNOTSUPP: a memfd or a timeline. */
  fallocate(fd: number, _mode: number, offset: number, lengthBytes: number): void {
    const { allocate } = this.#operations(fd);
    requireInteger(offset, "the offset", 0, Number.MAX_SAFE_INTEGER, "fallocate");
    requireInteger(lengthBytes, "the length", 1, Number.MAX_SAFE_INTEGER, "fallocate");
    this.#requireWritable(fd);
    if (allocate === undefined) this.#lacks(fd, "ENODEV", "storage");
    else allocate();
  }

  /** EBADF; EINVAL: the file keeps nothing elsewhere. */
  fsync(fd: number): void {
    const { sync } = this.#operations(fd);
    if (sync === undefined) this.#lacks(fd, "EINVAL", "storage to write to");
    else sync();
  }

  /**
   * Maps bytes of a file; `prot` of `PROT_…`, `flags` MAP_SHARED or MAP_PRIVATE; a bigint is a
   * register of 64 bits. EINVAL: length, offset, flags, or the exporter refuses; EACCES: the file
   * is not open for that; EBADF, ENODEV, ENOMEM, EOVERFLOW. A program without an MMU gets views
   * instead of an address.
   */
  mmap(
    lengthBytes: number | bigint,
    prot: number,
    flags: number,
    fd: number,
    offset: number | bigint = 0,
  ): UserMapping {
    const request = decodeMap(lengthBytes, prot, flags, offset, () => this.files.peek(fd));
    const { mmap } = this.#operations(fd);
    if (mmap === undefined) return this.#lacks(fd, "ENODEV", "memory to map");
    const { isShared } = request;
    const mapping = this.#track(
      (onUnmapped) =>
        new UserMapping(Number(lengthBytes), isShared, () => mmap(request), onUnmapped),
    );
    this.system.core.bytesCopied += mapping.copiedBytes;
    return mapping;
  }

  #track(make: (onUnmapped: (mapping: UserMapping) => void) => UserMapping): UserMapping {
    const mapping = make((ended) => this.#mappings.delete(ended));
    this.#mappings.add(mapping);
    return mapping;
  }

  /** What each descriptor is ready for now: poll() with a timeout of 0. */
  poll(requests: readonly PollRequest[]): number[] {
    return pollRequests(this.files, requests);
  }

  /**
   * Resolves when a descriptor is ready, with what each is ready for; all 0 when the time ran out.
   * EINTR.
   */
  pollAsync(requests: readonly PollRequest[], options: WaitOptions = {}): Promise<number[]> {
    return pollRequestsAsync(this.files, requests, options);
  }

  /** Makes a memfd: MFD_CLOEXEC, MFD_ALLOW_SEALING. EINVAL, EMFILE. */
  memfdCreate(name: string, flags = 0): number {
    requireInteger(flags, "the flags", 0, FLAGS_MAX, "create a memfd");
    if ((flags & ~MFD_FLAGS) !== 0)
      fail("EINVAL", "create a memfd", `the flags ${flags} are not MFD_CLOEXEC, MFD_ALLOW_SEALING`);
    const allowSealing = (flags & MFD_ALLOW_SEALING) !== 0;
    const memfd = memfdCreate(this.system, name, { allowSealing });
    return this.install(memfd, { closeOnExec: (flags & MFD_CLOEXEC) !== 0 });
  }

  /** What /proc/self/fd/<n> points to. ENOENT: another path, or the descriptor is not open. */
  readlink(path: string): string {
    requireText(path, "the path", "read a link");
    const fd = /^\/proc\/self\/fd\/(\d+)$/.exec(path)?.[1];
    const file = fd === undefined ? null : this.files.find(Number(fd));
    if (file === null) return fail("ENOENT", `read the link ${path}`, "there is none");
    return operationsOf(file).link;
  }

  /** The text of /proc/self/fdinfo/<fd>. EBADF. */
  fdinfo(fd: number): string {
    const { fileFlags } = this.files.peek(fd);
    const { position, ino, info } = this.#operations(fd);
    const flags = fileFlags | (this.files.isCloseOnExec(fd) ? O_CLOEXEC : 0);
    const lines = [`pos:\t${position}`, `flags:\t0${flags.toString(8)}`];
    if (ino !== null) lines.push(`ino:\t${ino}`);
    return [...lines, ...info, ""].join("\n");
  }

  /** Facts of a file's inode. EBADF. */
  fstat(fd: number): Stat {
    const { ino, mode, sizeBytes } = this.#operations(fd);
    const blocks = Math.ceil(sizeBytes / SECTOR_BYTES);
    return { ino, mode, nlink: 1, sizeBytes, blockBytes: BLOCK_BYTES, blocks };
  }

  /**
   * Gives another process a descriptor for the file of `fd`, as a message with SCM_RIGHTS does. The
   * number there. EBADF; EMFILE: it has no room.
   */
  sendFd(fd: number, to: Process, options: Pick<FdOptions, "closeOnExec"> = {}): number {
    requireInstance(to, Process, "the receiver", `send descriptor ${textOf(fd)}`);
    return this.files.pass(fd, to.files, options);
  }

  /** A child with the same descriptors and mappings. It sees the same `memory`. */
  fork(): Process {
    const { name, memory } = this;
    const child = new Process(this.system, { name, memory }, this.files.fork());
    for (const mapping of this.#mappings) child.#track((onUnmapped) => mapping.inherit(onUnmapped));
    return child;
  }

  /** Begins another program: mappings end, and descriptors that are marked close-on-exec. */
  exec(name: string): void {
    requireText(name, "the name", "begin a program");
    for (const mapping of [...this.#mappings]) mapping.unmap();
    this.files.exec();
    this.name = name;
  }

  /** Ends: mappings, then descriptors; to make others is ESRCH from then on. */
  exit(): void {
    for (const mapping of [...this.#mappings]) mapping.unmap();
    this.files.retire();
    this.system.fileTables.delete(this.files);
  }

  [Symbol.dispose](): void {
    this.exit();
  }
}

/** EFAULT: what a call should read or write is no memory. */
function requireUserBytes(bytes: Uint8Array, operation: string): void {
  if (!(bytes instanceof Uint8Array)) fail("EFAULT", operation, "that is no memory");
}
