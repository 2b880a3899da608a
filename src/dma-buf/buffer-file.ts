/**
 * BufferFile: a buffer as an open file: counted, named, sought, polled, a source of sync files.
 *
 * - BF1  refCount counts the holders: the exporter's caller, descriptors, CPU mappings.
 * - BF2  What was released is refused from then on (ESTALE).
 * - BF3  Nobody but a CPU mapping puts the reference that it holds: there are always as many.
 * - BF4  A dispose puts what is the caller's: not what he has put himself or moved into a table.
 *
 * Compare `dma_buf_fops` in the kernel's drivers/dma-buf/dma-buf.c.
 *
 * @module
 */

import type { WaitOptions } from "../clock.ts";
import { fail } from "../errors.ts";
import type { SyncFile } from "../fence/sync-file.ts";
import { requireName } from "../files/name.ts";
import { O_ACCMODE, O_NONBLOCK, O_RDWR, type OpenFile } from "../files/open-file.ts";
import { type PollableFile, pollFile, requireEvents, type WaitQueue } from "../files/poll.ts";
import { hasFreeReference } from "../files/references.ts";
import type { Stacks } from "../stacks.ts";
import type { ExportInfo } from "./ops.ts";
import { BufferPoll } from "./poll.ts";
import type { Resv } from "./resv.ts";
import { exportSyncFile, importSyncFile, type SyncAccess } from "./sync-files.ts";

/** What a buffer is as a file. */
export abstract class BufferFile implements OpenFile, PollableFile {
  /** Unique in its system, from 1. */
  readonly ino: number;
  readonly sizeBytes: number;
  /** Who exported it; "unnamed" if the exporter did not say. */
  readonly exporterName: string;
  /** Which operations are under way, and the lock that keeps the storage where it is. */
  readonly resv: Resv;
  /** Access mode and status flags of the buffer's file (`O_…`). */
  fileFlags: number;
  /** @internal Where its holders were made; null: its system does not track them. */
  readonly stacks: Stacks | null;
  #label: string | null;
  #name: string;
  #poll: BufferPoll | null = null;
  #refCount = 1;
  /** Whether the last reference was put, and the buffer lives on for other threads. */
  #isLeft = false;

  /** @internal */
  constructor(ino: number, resv: Resv, info: ExportInfo, stacks: Stacks | null) {
    this.ino = ino;
    this.resv = resv;
    this.stacks = stacks;
    this.sizeBytes = info.sizeBytes;
    this.exporterName = info.exporterName ?? "unnamed";
    this.fileFlags = (info.flags ?? O_RDWR) & (O_ACCMODE + O_NONBLOCK);
    this.#label = info.name ?? null;
    this.#name = this.#label ?? `${this.exporterName}:${ino}`;
  }

  get description(): string {
    return `dma-buf ${this.#name}`;
  }

  /** The label, or the exporter and the inode number: for people. */
  get name(): string {
    return this.#name;
  }

  /** What setName() gave; null if it has no name of its own. */
  get label(): string | null {
    return this.#label;
  }

  /** Gives it a label, attached or not. EINVAL: longer than 31 bytes; ESTALE. */
  setName(name: string): void {
    this.requireLive(`name ${this.#name}`);
    requireName(name, `name ${this.#name}`);
    this.#label = name;
    this.#name = name;
  }

  /** References held; 0 once released (BF1). */
  get refCount(): number {
    return this.#refCount;
  }

  /** Takes a reference. ESTALE once released. */
  get(): this {
    this.requireLive(`get ${this.#name}`);
    this.#refCount += 1;
    this.stacks?.add("reference", this);
    return this;
  }

  /** Gives a reference back; the last one releases the buffer. EBUSY: it is used; ESTALE. */
  put(): void {
    const operation = `put ${this.#name}`;
    this.requireLive(operation);
    if (this.#refCount <= this.mappedCount)
      // BF3
      fail("EBUSY", operation, "the references that are left are its CPU mappings'; unmap those");
    if (this.#refCount === 1) {
      if (!this.isShared) this.requireUnused(operation);
      this.#isLeft = this.staysForOthers();
      if (this.#isLeft) return;
    }
    this.#refCount -= 1;
    if (this.#refCount === 0) this.#end();
    this.stacks?.remove("reference", this);
  }

  #end(): void {
    try {
      this.release();
    } catch (error) {
      this.#refCount = 1; // nothing was freed: the caller still owns it
      throw error;
    }
    this.released();
  }

  /**
   * SEEK_END with offset 0 tells the size, SEEK_SET with 0 rewinds; everything else is EINVAL, as
   * Linux has it.
   */
  seek(offset: number, whence: "set" | "end"): number {
    const operation = `seek ${this.#name}`;
    this.requireLive(operation);
    if (offset !== 0 || (whence !== "set" && whence !== "end"))
      fail("EINVAL", operation, "only offset 0 from the start or the end is known");
    return whence === "end" ? this.sizeBytes : 0;
  }

  /** What an access that begins now must wait for, as a sync file. EINVAL: the access. */
  exportSyncFile(access: SyncAccess): SyncFile {
    this.requireLive(`export a sync file of ${this.#name}`);
    return exportSyncFile(this.resv, access, this.#name);
  }

  /** Adds a sync file's fences as accesses under way. EINVAL; EAGAIN: `resv` is locked. */
  importSyncFile(file: SyncFile, access: SyncAccess): void {
    this.requireLive(`import a sync file into ${this.#name}`);
    importSyncFile(this.resv, file, access, this.#name);
  }

  #polling(): BufferPoll {
    this.requireLive(`poll ${this.#name}`);
    this.#poll ??= new BufferPoll(this);
    return this.#poll;
  }

  get pollQueue(): WaitQueue {
    return this.#polling().queue;
  }

  /** Which of POLLIN (nobody writes) and POLLOUT (nobody reads or writes) are ready now. */
  poll(events: number): number {
    requireEvents(events);
    return this.#polling().poll(events);
  }

  /** Resolves with those of `events` that are ready, as soon as one is. ETIME, EINTR. */
  pollAsync(events: number, options: WaitOptions = {}): Promise<number> {
    return pollFile(this, events, options);
  }

  /** @internal References that are nobody's here to move or to dispose of. */
  get lentCount(): number {
    return this.mappedCount + (this.#isLeft ? 1 : 0);
  }

  /**
   * Puts the caller's reference, if one is left (BF4): nothing, if he has put it, or moved it into
   * a table of descriptors. EBUSY: as put().
   */
  [Symbol.dispose](): void {
    if (hasFreeReference(this)) this.put();
  }

  /** Throws ESTALE once released (BF2). */
  protected requireLive(operation: string): void {
    if (this.#refCount === 0) fail("ESTALE", operation, `${this.#name} was released`);
  }

  /** Whether a device or a kernel mapping needs the last reference. */
  abstract get isUsed(): boolean;

  /** @internal Whether other threads use it through this one: it outlives the last put() here. */
  get isHeldElsewhere(): boolean {
    return this.isShared;
  }

  /** References that are its CPU mappings' (BF3). */
  protected abstract get mappedCount(): number;

  /** Whether other threads hold it: then the last reference here is no matter of this thread. */
  protected abstract get isShared(): boolean;

  /** The last reference goes: whether the buffer lives on for other threads. ESTALE: it does so. */
  protected abstract staysForOthers(): boolean;

  /** Throws EBUSY while the last reference must stay. */
  protected abstract requireUnused(operation: string): void;

  /** The last reference is gone; what this throws keeps it. */
  protected abstract release(): void;

  /** Called when release() has returned. */
  protected abstract released(): void;
}
