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

import type { Core } from "../core/core.ts";
import type { Device } from "../device/device.ts";
import { cpuWrites, type Direction, directionNumber } from "../direction.ts";
import { fail } from "../errors.ts";
import { requireSignaled, type WaitOptions } from "../fence/fence.ts";
import type { CountedFile } from "../files/fd-table.ts";
import type { SgTable } from "../mm/sg-table.ts";
import { Attachment } from "./attachment.ts";
import { CpuMapping } from "./cpu-mapping.ts";
import type { DmaBufOps, ExportInfo } from "./ops.ts";
import { Resv, usageFor } from "./resv.ts";

/** What a buffer needs from its system. */
export interface BufferOwner {
  readonly core: Core;
  /** Called when the last reference is gone. */
  onReleased(buf: DmaBuf): void;
}

/** A buffer that devices share. Made by a heap's alloc() or by `system.export()`. */
export class DmaBuf implements CountedFile {
  /** Unique in its system, from 1. */
  readonly ino: number;
  readonly sizeBytes: number;
  readonly exporterName: string;
  /** Which operations are under way. */
  readonly resv: Resv = new Resv();
  /** A label for people. */
  name: string;
  readonly #owner: BufferOwner;
  readonly #ops: DmaBufOps;
  readonly #attachments: Set<Attachment> = new Set();
  #refCount = 1;

  /** @internal */
  constructor(owner: BufferOwner, ino: number, info: ExportInfo) {
    checkExport(info);
    this.#owner = owner;
    this.#ops = info.ops;
    this.ino = ino;
    this.sizeBytes = info.sizeBytes;
    this.exporterName = info.exporterName;
    this.name = info.name ?? `${info.exporterName}:${ino}`;
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

  [Symbol.dispose](): void {
    this.put();
  }
}

function checkExport({ ops, sizeBytes, exporterName }: ExportInfo): void {
  const operation = "export a buffer";
  for (const name of ["map", "unmap", "release"] as const) {
    if (typeof ops?.[name] !== "function")
      fail("EINVAL", operation, `the exporter's ops lack ${name}()`);
  }
  if (typeof exporterName !== "string" || exporterName === "")
    fail("EINVAL", operation, "the exporter needs a name");
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 0)
    fail("EINVAL", operation, `sizeBytes must be a whole number, and is ${sizeBytes}`);
}
