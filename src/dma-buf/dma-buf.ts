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
 * - DB1  Attachments and kernel mappings hold no reference: an importer holds its own.
 * - DB2  The last put is refused while a device is attached or a kernel mapping lives (EBUSY): the
 *        storage would be freed under it.
 * - DB3  size, ops, exporter, flags and reservation never change.
 * - DB4  move notices reach dynamic importers only, the latest attachment first.
 * - DB5  A buffer that other threads hold outlives the last reference here: nobody has that then,
 *        and it is released when they have let go.
 *
 * Compare the kernel's drivers/dma-buf/dma-buf.c.
 *
 * @module
 */

import { requireObject } from "../arguments.ts";
import type { WaitOptions } from "../clock.ts";
import type { Core } from "../core/core.ts";
import type { Device } from "../device/device.ts";
import type { Direction } from "../direction.ts";
import { type DmaBufError, fail } from "../errors.ts";
import type { SgTable } from "../mm/sg-table.ts";
import type { Attachment } from "./attachment.ts";
import { AttachmentList } from "./attachment-list.ts";
import { BufferFile } from "./buffer-file.ts";
import type { AsyncOptions } from "./buffer-lock.ts";
import * as cpuAccess from "./cpu-access.ts";
import { CpuMapping, type MmapOptions, mmapArea, mmapTable } from "./cpu-mapping.ts";
import { checkExport } from "./export-info.ts";
import type { PixelLayout } from "./formats.ts";
import { type FileTable, type Holder, holdersOf } from "./holders.ts";
import { otherThreadsOf } from "./holding-threads.ts";
import type { AttachOps, DmaBufOps, ExportInfo, ExportOwner } from "./ops.ts";
import { Resv } from "./resv.ts";
import { type Revocation, revoke } from "./revoke.ts";
import { Vmap, type Vmapping } from "./vmap.ts";

/** @internal Lets other threads use buffers whose exporter runs on this one. */
export interface BufferSharer {
  /** The number that they import it by. EOPNOTSUPP: the memory is not shared; ENOMEM. */
  token(buf: DmaBuf): number;
  /** Whether another thread holds it. */
  isShared(buf: DmaBuf): boolean;
  /**
   * This thread's last reference goes. True: others hold the buffer, and it lives on for them;
   * false: from now on nobody can import it.
   */
  keeps(buf: DmaBuf): boolean;
}

/** What a buffer needs from its system. */
export interface BufferOwner {
  readonly core: Core;
  /** Where its descriptors may be. */
  readonly tables: Iterable<FileTable>;
  /** What shares buffers whose ops have no token(); null: nothing does. */
  readonly sharer: BufferSharer | null;
  /** Called when the last reference is gone. */
  onReleased(buf: DmaBuf): void;
}

/** What is held of a buffer. */
export interface BufferStats {
  readonly refCount: number;
  readonly attachmentCount: number;
  /** Mappings that importers have. */
  readonly mapCount: number;
  readonly pinCount: number;
  /** Users of the kernel mapping. */
  readonly vmapCount: number;
  readonly cpuMappingCount: number;
}

/** A buffer that devices share. Made by a heap's alloc() or by `system.export()`. */
export class DmaBuf extends BufferFile {
  /** The exporter's own data. */
  readonly priv: unknown;
  readonly #owner: BufferOwner;
  readonly #module: ExportOwner | null;
  readonly #ops: DmaBufOps;
  readonly #attachments: AttachmentList;
  readonly #vmap: Vmap;
  readonly #cpuMappings: Set<CpuMapping> = new Set();

  /** @internal */
  constructor(owner: BufferOwner, ino: number, info: ExportInfo) {
    checkExport(info);
    super(ino, info.resv ?? new Resv(owner.core), info, owner.core.stacks);
    this.#owner = owner;
    this.#ops = info.ops;
    this.#attachments = new AttachmentList(owner.core, this, info.ops);
    this.#vmap = new Vmap(owner.core, this, info.ops);
    this.priv = info.priv ?? info.ops;
    this.#module = info.owner ?? null;
    if (this.#module?.tryGet() === false)
      fail("ENOENT", "export a buffer", `its owner ${this.#module.name} is going away`);
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

  /** Whether a device is attached or a kernel mapping lives: the last reference must stay (DB2). */
  override get isUsed(): boolean {
    return this.#attachments.isUsed || this.#vmap.isUsed;
  }

  /** CPU mappings: each has a reference. */
  protected override get mappedCount(): number {
    return this.#cpuMappings.size;
  }

  /** DB2. */
  protected override requireUnused(operation: string): void {
    if (this.#attachments.isUsed) {
      const devices = this.attachments.map(({ device }) => device.name);
      const names = devices.join(", ") || "a device";
      const are = devices.length > 1 ? "are" : "is";
      fail(
        "EBUSY",
        operation,
        `it is the last reference and ${names} ${are} attached; detach first`,
      );
    }
    if (this.#vmap.isUsed)
      fail("EBUSY", operation, "it is the last reference, and vmap() has users; vunmap first");
  }

  /** DB5. */
  protected override get isShared(): boolean {
    return this.#owner.sharer?.isShared(this) ?? false;
  }

  protected override staysForOthers(): boolean {
    return this.#owner.sharer?.keeps(this) ?? false;
  }

  protected override release(): void {
    this.#ops.release(this);
  }

  protected override released(): void {
    this.#owner.onReleased(this);
    this.#module?.put();
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
    if (this.refCount === 0) this.requireLive(`attach ${device?.name} to ${this.name}`);
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
    if (this.refCount === 0) this.requireLive(`attach ${device?.name} to ${this.name}`);
    return this.#attachments.attachAsync(device, importerOps, importerPriv, options);
  }

  /**
   * Tells the dynamic importers that the buffer moves (DB4). For the exporter, with `buf.resv`
   * held: EINVAL if it is not. What an importer throws is reported to the host.
   */
  moveNotify(): void {
    const operation = `notify the importers of ${this.name}`;
    this.requireLive(operation);
    if (!this.resv.isLocked) fail("EINVAL", operation, "buf.resv is not locked");
    this.#attachments.moveNotify();
  }

  /** Whether it was revoked: nobody maps it for a device any more. */
  get isRevoked(): boolean {
    return this.#attachments.isRevoked;
  }

  /**
   * Takes the buffer away from its importers, for good: from now on map() and pin() are ENODEV, and
   * dynamic importers are notified. Resolves when nobody uses it, or the time is over, with who
   * still does. ETIME: `buf.resv` is not to be had; EINTR.
   */
  revoke(options: WaitOptions = {}): Promise<Revocation> {
    this.requireLive(`revoke ${this.name}`);
    const attachments = this.#attachments;
    return revoke(
      {
        buf: this,
        begin: () => {
          attachments.isRevoked = true;
          attachments.moveNotify();
        },
        subscribe: (wake) => {
          attachments.watchers.add(wake);
          return () => attachments.watchers.delete(wake);
        },
      },
      options,
    );
  }

  /** How much is held of it. Cost: O(1). */
  stats(): BufferStats {
    const { size, mapCount, pinCount } = this.#attachments;
    return {
      refCount: this.refCount,
      attachmentCount: size,
      mapCount,
      pinCount,
      vmapCount: this.vmapCount,
      cpuMappingCount: this.#cpuMappings.size,
    };
  }

  /**
   * Who holds it on this thread, and where they were made if the system tracks that; each other
   * thread that has imported it is one holder, whatever it has there. Cost: O(holders + fds).
   */
  holders(): Holder[] {
    return holdersOf({
      file: this,
      attachments: this.attachments,
      vmapping: this.#vmap.mapping,
      vmapCount: this.vmapCount,
      cpuMappings: this.#cpuMappings,
      resv: this.resv,
      tables: this.#owner.tables,
      threads: otherThreadsOf(this.#owner.core, this),
      stacks: this.stacks,
    });
  }

  /**
   * What attach() would throw, without attaching: null, if the device can be attached now. An
   * exporter whose ops have no canAttach() is not asked.
   */
  canAttach(device: Device): DmaBufError | null {
    this.requireLive(`attach ${device?.name} to ${this.name}`);
    return this.#attachments.canAttach(device);
  }

  /**
   * Opens a bracket of CPU access: "from-device" to read, "to-device" to write, "bidirectional" for
   * both. EAGAIN when a fence that the access must wait for is pending; `beginCpuAccessAsync`
   * waits. 0, or the number above 0 that the exporter returned: then it looked at no fence.
   */
  beginCpuAccess(direction: Direction): number {
    const operation = `begin CPU access to ${this.name}`;
    this.requireLive(operation);
    return cpuAccess.begin(this, this.#ops, direction, operation);
  }

  /** Opens a bracket of CPU access after the fences it must wait for. ETIME, EINTR. */
  async beginCpuAccessAsync(direction: Direction, options: WaitOptions = {}): Promise<number> {
    const operation = `begin CPU access to ${this.name}`;
    this.requireLive(operation);
    return cpuAccess.beginAsync(this, this.#ops, direction, options, operation);
  }

  /** Closes a bracket of CPU access. 0, or the number above 0 that the exporter returned. */
  endCpuAccess(direction: Direction): number {
    const operation = `end CPU access to ${this.name}`;
    this.requireLive(operation);
    return cpuAccess.end(this, this.#ops, direction, operation);
  }

  /** The same for exporters of both kinds. ETIME, EINTR: what the exporter has begun goes on. */
  async endCpuAccessAsync(direction: Direction, options: WaitOptions = {}): Promise<number> {
    const operation = `end CPU access to ${this.name}`;
    this.requireLive(operation);
    return cpuAccess.endAsync(this, this.#ops, direction, options, operation);
  }

  /**
   * The buffer's bytes for the CPU: all whole pages, or some. EINVAL: the exporter has none to
   * show, or fewer; EOVERFLOW: the pages end behind 2^64; EIO: its answer makes no sense.
   */
  mmap(options: MmapOptions = {}): CpuMapping {
    const operation = `map ${this.name} for the CPU`;
    this.requireLive(operation);
    if (this.#ops.mmap === undefined)
      return fail(
        "EINVAL",
        operation,
        `the exporter ${this.exporterName} does not let the CPU map it`,
      );
    requireObject(options, "the options", operation);
    const area = mmapArea(options, this.sizeBytes, operation);
    const { core } = this.#owner;
    const table = mmapTable(this.#ops.mmap(this, area), core, operation);
    return new CpuMapping(core, this, table, area, this.#cpuMappings);
  }

  /**
   * The kernel's mapping of all bytes: the first user makes it, further ones get the same. It holds
   * no reference (DB2). EINVAL: the exporter has none; EWOULDBLOCK; and what the exporter throws.
   */
  vmap(): Vmapping {
    this.requireLive(`vmap ${this.name}`);
    return this.#vmap.get();
  }

  /** The same for exporters of both kinds. ETIME, EINTR. */
  async vmapAsync(options: WaitOptions = {}): Promise<Vmapping> {
    this.requireLive(`vmap ${this.name}`);
    return this.#vmap.getAsync(options);
  }

  /**
   * Gives a kernel mapping back; the last user ends it. EINVAL: it is not the buffer's;
   * EWOULDBLOCK: the exporter ends it later; EALREADY: it has begun to.
   */
  vunmap(mapping: Vmapping): void {
    this.#vmap.put(mapping);
  }

  /** The same for exporters of both kinds. ETIME, EINTR: what the exporter has begun goes on. */
  async vunmapAsync(mapping: Vmapping, options: WaitOptions = {}): Promise<void> {
    await this.#vmap.putAsync(mapping, options);
  }

  /**
   * Where the bytes lie now, for reports: null before storage is chosen, or if the exporter does
   * not say.
   */
  get storage(): SgTable | null {
    return this.refCount === 0 ? null : (this.#ops.storage?.(this) ?? null);
  }

  /**
   * Where the picture lies that the buffer was allocated for: null before its storage is chosen, or
   * if it holds none.
   */
  get layout(): PixelLayout | null {
    return this.refCount === 0 ? null : (this.#ops.layout?.(this) ?? null);
  }

  /**
   * The number that other threads import the buffer by: `system.import(token)`. It holds no
   * reference: keep yours until they have. A buffer whose exporter is JavaScript is served from
   * here: what they do with it is asked of this thread. EOPNOTSUPP: that needs shared memory.
   */
  get token(): number {
    const operation = `share ${this.name}`;
    this.requireLive(operation);
    const { core, sharer } = this.#owner;
    const token = this.#ops.token?.(this) ?? sharer?.token(this);
    if (token === undefined)
      return fail("EOPNOTSUPP", operation, `only ${this.exporterName} on its thread can map it`);
    core.tokens.set(token, this);
    return token;
  }
}
