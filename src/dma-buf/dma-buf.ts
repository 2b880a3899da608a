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
 *        hold none: an importer holds its own.
 * - DB2  The last put is refused while a device is attached (EBUSY): its storage would be freed
 *        under it.
 * - DB3  size, ops and exporter never change.
 *
 * Compare the kernel's drivers/dma-buf/dma-buf.c.
 *
 * @module
 */

import type { WaitOptions } from "../clock.ts";
import type { Core } from "../core/core.ts";
import type { Device } from "../device/device.ts";
import { cpuWrites, type Direction, directionNumber } from "../direction.ts";
import { fail } from "../errors.ts";
import { requireSignaled } from "../fence/fence.ts";

import type { SyncFile } from "../fence/sync-file.ts";
import { requireName } from "../files/name.ts";
import { O_ACCMODE, O_NONBLOCK, O_RDWR, type OpenFile } from "../files/open-file.ts";
import { type PollableFile, pollFile, type WaitQueue } from "../files/poll.ts";
import type { SgTable } from "../mm/sg-table.ts";
import { Attachment } from "./attachment.ts";
import { CpuMapping } from "./cpu-mapping.ts";
import type { DmaBufOps, ExportInfo } from "./ops.ts";
import { BufferPoll } from "./poll.ts";
import { Resv, usageFor } from "./resv.ts";
import { exportSyncFile, importSyncFile, type SyncAccess } from "./sync-files.ts";

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
  readonly exporterName: string;
  /** Which operations are under way. */
  readonly resv: Resv;
  /** Access mode and status flags of the buffer's file (`O_…`). */
  fileFlags: number;
  readonly #owner: BufferOwner;
  readonly #ops: DmaBufOps;
  readonly #attachments: Set<Attachment> = new Set();
  #refCount = 1;
  #label: string | null;
  #poll: BufferPoll | null = null;

  /** @internal */
  constructor(owner: BufferOwner, ino: number, info: ExportInfo) {
    checkExport(info);
    this.#owner = owner;
    this.resv = new Resv(owner.core);
    this.#ops = info.ops;
    this.ino = ino;
    this.sizeBytes = info.sizeBytes;
    this.exporterName = info.exporterName;
    this.#label = info.name ?? null;
    this.fileFlags = (info.flags ?? O_RDWR) & (O_ACCMODE + O_NONBLOCK);
  }

  /** What setName() said last; null before. */
  get label(): string | null {
    return this.#label;
  }

  /** The label, or exporter and number: for people. */
  get name(): string {
    return this.#label ?? `${this.exporterName}:${this.ino}`;
  }

  /** Labels the buffer. EINVAL: more than 31 bytes of UTF-8. */
  setName(label: string): void {
    this.#requireLive(`name ${this.name}`);
    requireName(label, `name ${this.name}`);
    this.#label = label;
  }

  get description(): string {
    return `dma-buf ${this.name}`;
  }

  /** References held; 0 once released (DB1). */
  get refCount(): number {
    return this.#refCount;
  }

  /** Attached devices, oldest first. */
  get attachments(): readonly Attachment[] {
    return [...this.#attachments];
  }

  #requireLive(operation: string): void {
    if (this.#refCount === 0) fail("ESTALE", operation, `${this.name} was released`);
  }

  /** Takes a reference. ESTALE once released. */
  get(): this {
    this.#requireLive(`get ${this.name}`);
    this.#refCount += 1;
    return this;
  }

  /** Gives a reference back; the last one releases the buffer. EBUSY (DB2), ESTALE. */
  put(): void {
    const operation = `put ${this.name}`;
    this.#requireLive(operation);
    if (this.#refCount === 1 && this.#attachments.size > 0) {
      const names = this.attachments.map(({ device }) => device.name).join(", ");
      fail("EBUSY", operation, `it is the last reference and ${names} is attached; detach first`);
    }
    this.#refCount -= 1;
    if (this.#refCount > 0) return;
    try {
      this.#ops.release(this);
    } catch (error) {
      this.#refCount = 1; // nothing was freed: the caller still owns it
      throw error;
    }
    this.#owner.onReleased(this);
  }

  /**
   * Attaches a device. Throws what the exporter throws, with the limits that no storage can meet.
   */
  attach(device: Device): Attachment {
    const operation = `attach ${device.name} to ${this.name}`;
    this.#requireLive(operation);
    if (device.isRemoved) fail("ENODEV", operation, "the device was removed");
    if (!device.isOn(this.#owner.core)) fail("EINVAL", operation, "it is of another system");
    const attachment: Attachment = new Attachment(this, device, this.#ops, () =>
      this.#attachments.delete(attachment),
    );
    this.#ops.attach?.(this, attachment);
    this.#attachments.add(attachment); // A1
    return attachment;
  }

  /**
   * Opens a bracket of CPU access: "from-device" to read, "to-device" to write, "bidirectional" for
   * both. EAGAIN when a fence that the access must wait for is pending; `beginCpuAccessAsync`
   * waits.
   */
  beginCpuAccess(direction: Direction): void {
    const operation = `begin CPU access to ${this.name}`;
    this.#requireLive(operation);
    directionNumber(direction, operation);
    requireSignaled(this.resv.fences(usageFor(cpuWrites(direction))), operation);
    this.#ops.beginCpuAccess?.(this, direction);
  }

  /** Opens a bracket of CPU access after the fences it must wait for. ETIME, EINTR. */
  async beginCpuAccessAsync(direction: Direction, options: WaitOptions = {}): Promise<void> {
    const operation = `begin CPU access to ${this.name}`;
    this.#requireLive(operation);
    directionNumber(direction, operation);
    this.#ops.beginCpuAccess?.(this, direction);
    this.get(); // for the wait
    try {
      await this.resv.wait(usageFor(cpuWrites(direction)), options);
    } catch (error) {
      this.#ops.endCpuAccess?.(this, direction);
      throw error;
    } finally {
      this.put();
    }
  }

  /** Closes a bracket of CPU access. */
  endCpuAccess(direction: Direction): void {
    const operation = `end CPU access to ${this.name}`;
    this.#requireLive(operation);
    directionNumber(direction, operation);
    this.#ops.endCpuAccess?.(this, direction);
  }

  /** The buffer's bytes for the CPU. EINVAL: the exporter has none to show. */
  mmap(): CpuMapping {
    const operation = `map ${this.name} for the CPU`;
    this.#requireLive(operation);
    if (this.#ops.mmap === undefined)
      return fail(
        "EINVAL",
        operation,
        `the exporter ${this.exporterName} does not let the CPU map it`,
      );
    return new CpuMapping(this.#owner.core, this, this.#ops.mmap(this));
  }

  /**
   * Where the bytes lie now, for reports: null before storage is chosen, or if the exporter does
   * not say.
   */
  get storage(): SgTable | null {
    return this.#refCount === 0 ? null : (this.#ops.storage?.(this) ?? null);
  }

  /**
   * SEEK_END with offset 0 tells the size, SEEK_SET with 0 rewinds; everything else is EINVAL, as
   * Linux has it.
   */
  seek(offset: number, whence: "set" | "end"): number {
    const operation = `seek ${this.name}`;
    this.#requireLive(operation);
    if (offset !== 0 || (whence !== "set" && whence !== "end"))
      fail("EINVAL", operation, "only offset 0 from the start or the end is known");
    return whence === "end" ? this.sizeBytes : 0;
  }

  /** What an access that begins now must wait for, as a sync file. EINVAL: the access. */
  exportSyncFile(access: SyncAccess): SyncFile {
    this.#requireLive(`export a sync file of ${this.name}`);
    return exportSyncFile(this.resv, access, this.name);
  }

  /** Adds a sync file's fences as accesses under way. EINVAL; EAGAIN: `resv` is locked. */
  importSyncFile(file: SyncFile, access: SyncAccess): void {
    this.#requireLive(`import a sync file into ${this.name}`);
    importSyncFile(this.resv, file, access, this.name);
  }

  #polling(): BufferPoll {
    this.#requireLive(`poll ${this.name}`);
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

function checkExport({ ops, sizeBytes, exporterName, name }: ExportInfo): void {
  const operation = "export a buffer";
  for (const name of ["map", "unmap", "release"] as const) {
    if (typeof ops?.[name] !== "function")
      fail("EINVAL", operation, `the exporter's ops lack ${name}()`);
  }
  if (name !== undefined) requireName(name, operation);
  if (typeof exporterName !== "string" || exporterName === "")
    fail("EINVAL", operation, "the exporter needs a name");
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 0)
    fail("EINVAL", operation, `sizeBytes must be a whole number, and is ${sizeBytes}`);
}
