/**
 * Memfd: memory as a file, which a process sizes, seals, writes and maps.
 *
 *     memfdCreate ─► truncate ─► write, mmap ─► addSeals(F_SEAL_SHRINK) ─► udmabuf
 *
 * - MF1  Files opened on the same memory share its bytes, size and seals; each has a position.
 * - MF2  A mapping holds a reference to its file. The memory goes with the last file, pages that a
 *        udmabuf holds with the udmabuf.
 *
 * Compare memfd_create() in the kernel's mm/memfd.c.
 *
 * @module
 */

import { hasKey, requireBytes, requireInstance, requireObject } from "../arguments.ts";
import { Core } from "../core/core.ts";
import { fail, requireInteger, textOf } from "../errors.ts";
import {
  isReadable,
  isWritable,
  O_APPEND,
  O_RDWR,
  ReferencedFile,
  requireFileFlags,
} from "../files/open-file.ts";
import { addressOf, framesOf, offsetOf, pfnOf } from "../units.ts";
import { runsOf } from "./pinned-table.ts";
import { F_SEAL_FUTURE_WRITE, F_SEAL_SEAL, F_SEAL_WRITE, type HeldShmem, Shmem } from "./shmem.ts";

/** The longest name that, after "memfd:", is still a file's. */
const NAME_BYTES_MAX = 249;

/** What a memfd is made with. */
export interface MemfdOptions {
  /** Whether seals can be added: MFD_ALLOW_SEALING. Default false. */
  readonly allowSealing?: boolean | undefined;
}

/** What of a memfd to map. */
export interface MemfdMapOptions {
  /** Bytes, whole frames. Default 0. */
  readonly offset?: number | undefined;
  /** Bytes. Default: to the end. */
  readonly lengthBytes?: number | undefined;
  /** Whether somebody will write through the views. Default true. */
  readonly writable?: boolean | undefined;
}

/** @internal The memory of several files, and how many there are (MF2). */
interface SharedMemory {
  readonly core: Core;
  readonly shmem: Shmem;
  fileCount: number;
}

/**
 * Memory of a system as a file, empty and open for reading and writing; the caller owns the first
 * reference. EINVAL: the name has more than 249 bytes of UTF-8.
 */
export function memfdCreate(
  system: { readonly core: Core },
  name: string,
  options: MemfdOptions = {},
): Memfd {
  requireObject(options, "the options", "create a memfd");
  requireInstance(system?.core, Core, "the system's core", "create a memfd");
  const { core } = system;
  const { allowSealing = false } = options;
  if (typeof name !== "string" || new TextEncoder().encode(name).length > NAME_BYTES_MAX)
    fail(
      "EINVAL",
      "create a memfd",
      `its name must be a string of at most ${NAME_BYTES_MAX} bytes`,
    );
  const shmem = new Shmem(core, name, allowSealing ? 0 : F_SEAL_SEAL);
  return new Memfd({ core, shmem, fileCount: 0 }, O_RDWR);
}

/** Memory as an open file. Made by {@link memfdCreate}. */
export class Memfd extends ReferencedFile {
  readonly #shared: SharedMemory;
  #position = 0;

  /** @internal */
  constructor(shared: SharedMemory, fileFlags: number) {
    super(fileFlags);
    this.#shared = shared;
    shared.fileCount += 1;
  }

  get name(): string {
    return this.#shared.shmem.name;
  }

  get description(): string {
    return `memfd ${this.name}`;
  }

  get sizeBytes(): number {
    return this.#shared.shmem.sizeBytes;
  }

  /** Which seals there are, as a mask of `F_SEAL_…`. */
  get seals(): number {
    return this.#shared.shmem.seals;
  }

  /** Where the next read() or write() begins, in bytes. */
  get position(): number {
    return this.#position;
  }

  /** Whether it belongs to the memory of `core`. @internal */
  isOn(core: Core): boolean {
    return this.#shared.core.memory === core.memory;
  }

  /** Another open file on the same memory (MF1). */
  reopen(fileFlags: number): Memfd {
    this.requireLive("reopen");
    requireFileFlags(fileFlags, `reopen ${this.description}`);
    return new Memfd(this.#shared, fileFlags);
  }

  /** Sets the size in bytes. EINVAL: not open for writing; EPERM: sealed. */
  truncate(sizeBytes: number): void {
    this.requireLive("truncate");
    if (!isWritable(this)) fail("EINVAL", `truncate ${this.description}`, "it is read-only");
    this.#shared.shmem.truncate(sizeBytes);
  }

  /** Adds seals. EPERM: read-only, or sealed against seals; EINVAL; EBUSY: somebody may write. */
  addSeals(seals: number): void {
    this.requireLive("seal");
    if (!isWritable(this)) fail("EPERM", `seal ${this.description}`, "it is read-only");
    this.#shared.shmem.addSeals(seals);
  }

  /** Reads at `offset` without moving the position. How many bytes. EBADF: write-only. */
  pread(into: Uint8Array, offset: number): number {
    const operation = `read ${this.description}`;
    this.requireLive("read");
    requireBytes(into, "the buffer", operation);
    if (!isReadable(this)) fail("EBADF", operation, "it is not open for reading");
    requireInteger(offset, "offset", 0, Number.MAX_SAFE_INTEGER, operation);
    return this.#shared.shmem.read(into, offset);
  }

  /** Writes at `offset` without moving the position. EBADF: read-only; EPERM: sealed; ENOMEM. */
  pwrite(bytes: Uint8Array, offset: number): number {
    const operation = `write to ${this.description}`;
    this.requireLive("write to");
    requireBytes(bytes, "the bytes", operation);
    if (!isWritable(this)) fail("EBADF", operation, "it is not open for writing");
    requireInteger(offset, "offset", 0, Number.MAX_SAFE_INTEGER, operation);
    return this.#shared.shmem.write(bytes, offset);
  }

  /** Reads at the position and moves it. How many bytes. EBADF. */
  read(into: Uint8Array): number {
    const done = this.pread(into, this.#position);
    this.#position += done;
    return done;
  }

  /** Writes at the position, or at the end with O_APPEND, and moves it. EBADF, EPERM, ENOMEM. */
  write(bytes: Uint8Array): number {
    const at = (this.fileFlags & O_APPEND) === 0 ? this.#position : this.sizeBytes;
    const done = this.pwrite(bytes, at);
    this.#position = at + done;
    return done;
  }

  /** Moves the position, in bytes; where it is then. EINVAL: before the start. */
  seek(offset: number, whence: "set" | "current" | "end"): number {
    const operation = `seek in ${this.description}`;
    this.requireLive("seek in");
    const bases = { set: 0, current: this.#position, end: this.sizeBytes };
    if (!hasKey(bases, whence))
      fail("EINVAL", operation, `${textOf(whence)} is no place to start from`);
    const base = bases[whence];
    requireInteger(offset, "offset", -Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER, operation);
    requireInteger(base + offset, "the position", 0, Number.MAX_SAFE_INTEGER, operation);
    this.#position = base + offset;
    return this.#position;
  }

  /**
   * The bytes for the CPU, shared with everybody. EINVAL: the range; EACCES: not opened for that;
   * EPERM: sealed against writing; ENOMEM.
   */
  mmap(options: MemfdMapOptions = {}): MemfdMapping {
    const operation = `map ${this.description}`;
    requireObject(options, "the options", operation);
    const { offset = 0, lengthBytes, writable = true } = options;
    this.requireLive("map");
    const length = lengthBytes ?? this.sizeBytes - offset;
    requireInteger(length, "lengthBytes", 1, Number.MAX_SAFE_INTEGER, operation);
    requireInteger(offset, "offset", 0, Number.MAX_SAFE_INTEGER, operation);
    if (offsetOf(offset) !== 0) fail("EINVAL", operation, "the offset must be whole frames");
    if (!isReadable(this) || (writable && !isWritable(this)))
      fail("EACCES", operation, "it is not open for that");
    const mayWrite = isWritable(this) && (this.seals & F_SEAL_FUTURE_WRITE) === 0;
    if ((writable && !mayWrite) || (mayWrite && (this.seals & F_SEAL_WRITE) !== 0))
      fail("EPERM", operation, "it is sealed against writing");
    const { core, shmem } = this.#shared;
    const held = shmem.hold(pfnOf(offset), framesOf(length), mayWrite ? "write" : "read");
    return new MemfdMapping(core, this, held, length);
  }

  /** @internal Frames for a device: they stay, and the memory is not sealed against writing. */
  pinPages(first: number, pageCount: number): HeldShmem {
    this.requireLive("pin");
    return this.#shared.shmem.hold(first, pageCount, "pin");
  }

  protected override release(): void {
    this.#shared.fileCount -= 1;
    if (this.#shared.fileCount === 0) this.#shared.shmem.release(); // MF2
  }
}

/** The bytes of a memfd as the CPU sees them. Made by `memfd.mmap()`. */
export class MemfdMapping {
  readonly memfd: Memfd;
  readonly #core: Core;
  readonly #held: HeldShmem;
  readonly #lengthBytes: number;
  #isMapped = true;

  /** @internal */
  constructor(core: Core, memfd: Memfd, held: HeldShmem, lengthBytes: number) {
    this.memfd = memfd.get(); // MF2
    this.#core = core;
    this.#held = held;
    this.#lengthBytes = lengthBytes;
  }

  /** The bytes in order, one view for each run of frames. ESTALE once unmapped. */
  get views(): readonly Uint8Array<ArrayBufferLike>[] {
    if (!this.#isMapped) fail("ESTALE", "read a mapping", "it was unmapped");
    let left = this.#lengthBytes;
    return runsOf(Uint32Array.from(this.#held.pfns)).map(({ pfn, lengthBytes }) => {
      const view = this.#core.view(addressOf(pfn), Math.min(left, lengthBytes));
      left -= view.length;
      return view;
    });
  }

  /** Ends the mapping. ESTALE: it was unmapped before. */
  unmap(): void {
    if (!this.#isMapped) fail("ESTALE", "unmap a mapping", "it was unmapped before");
    this.#isMapped = false;
    this.#held.release();
    this.memfd.put();
  }

  [Symbol.dispose](): void {
    if (this.#isMapped) this.unmap();
  }
}
