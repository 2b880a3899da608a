/**
 * DmaBuf: memory of an exporter that devices share.
 *
 *     export ──► refs 1 ──get()──► refs + 1 ──put()──► … ──last put()──► released
 *
 * 1. An exporter wraps its memory, or the promise of it, as a buffer and owns the first reference.
 * 2. Every device that will use it attaches. Nothing is placed yet: the exporter may still choose
 * or move storage.
 * 3. The first map (or CPU mapping) decides the storage, with all attached devices in view.
 * 4. Devices work between map and unmap; fences in `resv` say who waits for whom.
 * 5. The last put calls the exporter's release.
 *
 * - DB1  refCount counts the holders: the exporter's caller, descriptors, CPU mappings. Attachments
 *        and kernel mappings hold none: an importer holds its own.
 * - DB2  The last put is refused while a device is attached or a kernel mapping lives (EBUSY): the
 *        storage would be freed under it.
 * - DB3  size, ops, exporter, flags and reservation never change.
 * - DB4  move notices reach dynamic importers only, the latest attachment first.
 *
 * Compare the kernel's drivers/dma-buf/dma-buf.c.
 *
 * @module
 */

import type { WaitOptions } from "../clock.ts";
import type { Core } from "../core/core.ts";
import type { Device } from "../device/device.ts";
import type { Direction } from "../direction.ts";
import { type DmaBufError, fail } from "../errors.ts";
import type { SyncFile } from "../fence/sync-file.ts";
import { requireName } from "../files/name.ts";
import { O_ACCMODE, O_NONBLOCK, O_RDWR, type OpenFile } from "../files/open-file.ts";
import { type PollableFile, pollFile, type WaitQueue } from "../files/poll.ts";
import type { SgTable } from "../mm/sg-table.ts";
import type { Attachment } from "./attachment.ts";
import { AttachmentList } from "./attachment-list.ts";
import type { AsyncOptions } from "./buffer-lock.ts";
import * as cpuAccess from "./cpu-access.ts";
import { CpuMapping, type MmapOptions, mmapArea } from "./cpu-mapping.ts";
import { checkExport } from "./export-info.ts";
import type { PixelLayout } from "./formats.ts";
import type { AttachOps, DmaBufOps, ExportInfo, ExportOwner } from "./ops.ts";
import { BufferPoll } from "./poll.ts";
import { Resv } from "./resv.ts";
import { exportSyncFile, importSyncFile, type SyncAccess } from "./sync-files.ts";
import { Vmap, type Vmapping } from "./vmap.ts";

/** What a buffer needs from its system. */
export interface BufferOwner {
  readonly core: Core;
  /** Called when the last reference is gone. */
  onReleased(buf: DmaBuf): void;
}

/** A buffer that devices share. Made by a heap's alloc() or by `system.export()`. */
export class DmaBuf implements OpenFile, PollableFile {
  /** Unique in its system, from 1. */
  readonly ino: number;
  readonly sizeBytes: number;
  /** Who exported it; "unnamed" if the exporter did not say. */
  readonly exporterName: string;
  /** Which operations are under way, and the lock that keeps the storage where it is. */
  readonly resv: Resv;
  /** The exporter's own data. */
  readonly priv: unknown;
  /** Access mode and status flags of the buffer's file (`O_…`). */
  fileFlags: number;
  readonly #owner: BufferOwner;
  readonly #module: ExportOwner | null;
  readonly #ops: DmaBufOps;
  readonly #attachments: AttachmentList;
  readonly #vmap: Vmap;
  #label: string | null;
  #name: string;
  #poll: BufferPoll | null = null;
  #refCount = 1;

  /** @internal */
  constructor(owner: BufferOwner, ino: number, info: ExportInfo) {
    checkExport(info);
    this.#owner = owner;
    this.resv = info.resv ?? new Resv(owner.core);
    this.#ops = info.ops;
    this.#attachments = new AttachmentList(owner.core, this, info.ops);
    this.#vmap = new Vmap(owner.core, this, info.ops);
    this.ino = ino;
    this.sizeBytes = info.sizeBytes;
    this.exporterName = info.exporterName ?? "unnamed";
    this.priv = info.priv ?? info.ops;
    this.fileFlags = (info.flags ?? O_RDWR) & (O_ACCMODE + O_NONBLOCK);
    this.#label = info.name ?? null;
    this.#name = this.#label ?? `${this.exporterName}:${ino}`;
    this.#module = info.owner ?? null;
    if (this.#module?.tryGet() === false)
      fail("ENOENT", "export a buffer", `its owner ${this.#module.name} is going away`);
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
    this.#requireLive(`name ${this.#name}`);
    requireName(name, `name ${this.#name}`);
    this.#label = name;
    this.#name = name;
  }

  /** References held; 0 once released (DB1). */
  get refCount(): number {
    return this.#refCount;
  }

  /** Whether the exporter may move it while nobody pins it: it has pin(). */
  get isDynamic(): boolean {
    return this.#ops.pin !== undefined;
  }

  /** Attached devices, oldest first. */
  get attachments(): readonly Attachment[] {
    return this.#attachments.all;
  }

  /** Users of the kernel mapping. */
  get vmapCount(): number {
    return this.#vmap.count;
  }

  #requireLive(operation: string): void {
    if (this.#refCount === 0) fail("ESTALE", operation, `${this.#name} was released`);
  }

  /** Takes a reference. ESTALE once released. */
  get(): this {
    this.#requireLive(`get ${this.#name}`);
    this.#refCount += 1;
    return this;
  }

  /** Gives a reference back; the last one releases the buffer. EBUSY (DB2), ESTALE. */
  put(): void {
    const operation = `put ${this.#name}`;
    this.#requireLive(operation);
    if (this.#refCount === 1) this.#requireUnused(operation);
    this.#refCount -= 1;
    if (this.#refCount > 0) return;
    try {
      this.#ops.release(this);
    } catch (error) {
      this.#refCount = 1; // nothing was freed: the caller still owns it
      throw error;
    }
    this.#owner.onReleased(this);
    this.#module?.put();
  }

  /** DB2. */
  #requireUnused(operation: string): void {
    if (this.#attachments.size > 0) {
      const names = this.attachments.map(({ device }) => device.name).join(", ");
      fail("EBUSY", operation, `it is the last reference and ${names} is attached; detach first`);
    }
    if (this.vmapCount > 0)
      fail(
        "EBUSY",
        operation,
        "it is the last reference and it has a kernel mapping; vunmap first",
      );
  }

  /**
   * Attaches a device that needs the buffer where it is. Throws what the exporter throws, with the
   * limits that no storage can meet. EINVAL, ENODEV, ESTALE; EDEADLK, EAGAIN: `buf.resv` is not
   * free; EWOULDBLOCK.
   */
  attach(device: Device): Attachment {
    return this.dynamicAttach(device, null);
  }

  /**
   * Attaches a device that can be told when the buffer moves. `importerOps` null: as attach().
   * EINVAL: it has no moveNotify(); and what attach() throws.
   */
  dynamicAttach(
    device: Device,
    importerOps: AttachOps | null,
    importerPriv: unknown = null,
  ): Attachment {
    if (this.#refCount === 0) this.#requireLive(`attach ${device?.name} to ${this.#name}`);
    return this.#attachments.attach(device, importerOps, importerPriv);
  }

  /** attach() for exporters of both kinds, after waiting for them and for `buf.resv`. EINTR. */
  attachAsync(device: Device, options: AsyncOptions = {}): Promise<Attachment> {
    return this.dynamicAttachAsync(device, null, null, options);
  }

  /** dynamicAttach() in the same way. */
  async dynamicAttachAsync(
    device: Device,
    importerOps: AttachOps | null,
    importerPriv: unknown = null,
    options: AsyncOptions = {},
  ): Promise<Attachment> {
    if (this.#refCount === 0) this.#requireLive(`attach ${device?.name} to ${this.#name}`);
    return this.#attachments.attachAsync(device, importerOps, importerPriv, options);
  }

  /**
   * Tells the dynamic importers that the buffer moves (DB4). For the exporter, with `buf.resv`
   * held: EINVAL if it is not. What an importer throws is reported to the host.
   */
  moveNotify(): void {
    const operation = `notify the importers of ${this.#name}`;
    this.#requireLive(operation);
    if (!this.resv.isLocked) fail("EINVAL", operation, "buf.resv is not locked");
    this.#attachments.moveNotify();
  }

  /**
   * What attach() would throw, without attaching: null, if the device can be attached now. An
   * exporter whose ops have no canAttach() is not asked.
   */
  canAttach(device: Device): DmaBufError | null {
    this.#requireLive(`attach ${device?.name} to ${this.#name}`);
    return this.#attachments.canAttach(device);
  }

  /**
   * Opens a bracket of CPU access: "from-device" to read, "to-device" to write, "bidirectional" for
   * both. EAGAIN when a fence that the access must wait for is pending; `beginCpuAccessAsync`
   * waits. 0, or the number above 0 that the exporter returned: then it looked at no fence.
   */
  beginCpuAccess(direction: Direction): number {
    const operation = `begin CPU access to ${this.#name}`;
    this.#requireLive(operation);
    return cpuAccess.begin(this, this.#ops, direction, operation);
  }

  /** Opens a bracket of CPU access after the fences it must wait for. ETIME, EINTR. */
  async beginCpuAccessAsync(direction: Direction, options: WaitOptions = {}): Promise<number> {
    const operation = `begin CPU access to ${this.#name}`;
    this.#requireLive(operation);
    return cpuAccess.beginAsync(this, this.#ops, direction, options, operation);
  }

  /** Closes a bracket of CPU access. 0, or the number above 0 that the exporter returned. */
  endCpuAccess(direction: Direction): number {
    const operation = `end CPU access to ${this.#name}`;
    this.#requireLive(operation);
    return cpuAccess.end(this, this.#ops, direction, operation);
  }

  /** The same for exporters of both kinds. */
  async endCpuAccessAsync(direction: Direction): Promise<number> {
    const operation = `end CPU access to ${this.#name}`;
    this.#requireLive(operation);
    return cpuAccess.endAsync(this, this.#ops, direction, operation);
  }

  /**
   * The buffer's bytes for the CPU: all whole pages, or some. EINVAL: the exporter has none to
   * show, or fewer; EOVERFLOW: the pages end behind 2^64.
   */
  mmap(options: MmapOptions = {}): CpuMapping {
    const operation = `map ${this.#name} for the CPU`;
    this.#requireLive(operation);
    if (this.#ops.mmap === undefined)
      return fail(
        "EINVAL",
        operation,
        `the exporter ${this.exporterName} does not let the CPU map it`,
      );
    const area = mmapArea(options, this.sizeBytes, operation);
    return new CpuMapping(this.#owner.core, this, this.#ops.mmap(this, area), area);
  }

  /**
   * The kernel's mapping of all bytes: the first user makes it, further ones get the same. It holds
   * no reference (DB2). EINVAL: the exporter has none; EWOULDBLOCK; and what the exporter throws.
   */
  vmap(): Vmapping {
    this.#requireLive(`vmap ${this.#name}`);
    return this.#vmap.get();
  }

  /** The same for exporters of both kinds. */
  async vmapAsync(): Promise<Vmapping> {
    this.#requireLive(`vmap ${this.#name}`);
    return this.#vmap.getAsync();
  }

  /** Gives a kernel mapping back; the last user ends it. EINVAL: it is not the buffer's. */
  vunmap(mapping: Vmapping): void {
    this.#vmap.put(mapping);
  }

  /**
   * Where the bytes lie now, for reports: null before storage is chosen, or if the exporter does
   * not say.
   */
  get storage(): SgTable | null {
    return this.#refCount === 0 ? null : (this.#ops.storage?.(this) ?? null);
  }

  /**
   * Where the picture lies that the buffer was allocated for: null before its storage is chosen, or
   * if it holds none.
   */
  get layout(): PixelLayout | null {
    return this.#refCount === 0 ? null : (this.#ops.layout?.(this) ?? null);
  }

  /**
   * The number that other threads import the buffer by: `system.import(token)`. It holds no
   * reference: keep yours until they have. EOPNOTSUPP: the exporter's memory is its thread's alone.
   */
  get token(): number {
    const operation = `share ${this.name}`;
    this.#requireLive(operation);
    if (this.#ops.token === undefined)
      return fail("EOPNOTSUPP", operation, `only ${this.exporterName} on its thread can map it`);
    const token = this.#ops.token(this);
    this.#owner.core.tokens.set(token, this);
    return token;
  }

  /**
   * SEEK_END with offset 0 tells the size, SEEK_SET with 0 rewinds; everything else is EINVAL, as
   * Linux has it.
   */
  seek(offset: number, whence: "set" | "end"): number {
    const operation = `seek ${this.#name}`;
    this.#requireLive(operation);
    if (offset !== 0 || (whence !== "set" && whence !== "end"))
      fail("EINVAL", operation, "only offset 0 from the start or the end is known");
    return whence === "end" ? this.sizeBytes : 0;
  }

  /** What an access that begins now must wait for, as a sync file. EINVAL: the access. */
  exportSyncFile(access: SyncAccess): SyncFile {
    this.#requireLive(`export a sync file of ${this.#name}`);
    return exportSyncFile(this.resv, access, this.#name);
  }

  /** Adds a sync file's fences as accesses under way. EINVAL; EAGAIN: `resv` is locked. */
  importSyncFile(file: SyncFile, access: SyncAccess): void {
    this.#requireLive(`import a sync file into ${this.#name}`);
    importSyncFile(this.resv, file, access, this.#name);
  }

  #polling(): BufferPoll {
    this.#requireLive(`poll ${this.#name}`);
    this.#poll ??= new BufferPoll(this);
    return this.#poll;
  }

  get pollQueue(): WaitQueue {
    return this.#polling().queue;
  }

  /** Which of POLLIN (nobody writes) and POLLOUT (nobody reads or writes) are ready now. */
  poll(events: number): number {
    return this.#polling().poll(events);
  }

  /** Resolves with those of `events` that are ready, as soon as one is. ETIME, EINTR. */
  pollAsync(events: number, options: WaitOptions = {}): Promise<number> {
    return pollFile(this, events, options);
  }

  [Symbol.dispose](): void {
    this.put();
  }
}
