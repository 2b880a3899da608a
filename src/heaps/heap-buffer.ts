/**
 * HeapBuffer: the exporter behind every built-in heap. It owns a table of frames, chosen at once or
 * at the first use.
 *
 *     no storage ──first use: place()──► storage ──release──► frames free
 *                                         │   ▲
 *                          a device cannot use it, and nobody does: moved at the next use
 *
 * - HB1  Storage is chosen from the devices attached at that moment, and shows zeros to its first
 *        user.
 * - HB2  A device that could use no storage of this size is refused at attach (EINVAL); one that
 *        cannot use the storage that exists gets EBUSY, unless that may move. Both list the
 *        conflicts, and canAttach() says the same.
 * - HB3  Storage moves only while nothing is mapped or pinned and no fence is pending. Its bytes
 *        and the layout of its picture stay; every attached device can use it afterwards. If there
 *        is no room, it stays, and devices that can use it do.
 * - HB4  Once other threads may know the buffer, its storage belongs to a record in the core: it
 *        does not move any more, and is freed when the last thread has released it.
 * - HB5  A private mapping must be one remap: it is refused where the CPU maps storage in one run,
 *        and is one page at most where every page has a remap of its own.
 * - HB6  A bracket of CPU access syncs all mappings of the buffer, for the CPU at its begin and for
 *        the devices at its end.
 *
 * Compare drivers/dma-buf/heaps/system_heap.c in the kernel.
 *
 * @module
 */

import type { Core } from "../core/core.ts";
import type { Device } from "../device/device.ts";
import type { DeviceMapping } from "../device/device-mapping.ts";
import type { Direction } from "../direction.ts";
import type { Attachment } from "../dma-buf/attachment.ts";
import { type Conflict, ConflictError } from "../dma-buf/conflict.ts";
import type { DmaBuf } from "../dma-buf/dma-buf.ts";
import type { PixelLayout } from "../dma-buf/formats.ts";
import { type Layout, negotiate, type StorageRequest } from "../dma-buf/negotiate.ts";
import { pixelConflicts } from "../dma-buf/negotiate-pixels.ts";
import type { DmaBufOps, ExportInfo, MmapArea } from "../dma-buf/ops.ts";
import { conflictsWith } from "../dma-buf/storage-fit.ts";
import { type ErrnoCode, fail } from "../errors.ts";
import type { SgTable } from "../mm/sg-table.ts";
import { leaveRecord, makeRecord, readRecord } from "./buffer-record.ts";
import { PlacedStorage } from "./placed-storage.ts";

/**
 * Chooses frames for a buffer, as the layout says: the handle of a table that owns them. Throws
 * when there are none.
 */
export type Place = (buf: DmaBuf, layout: Layout) => number;

/** What a buffer's storage may do. */
interface StorageRules {
  /** It may be chosen again for a device that cannot use it. */
  readonly mayMove: boolean;
  /** The CPU maps it page by page, each by a remap of its own (HB5). */
  readonly isRemapped: boolean;
  /** What is asked of it, beside its size. */
  readonly request: StorageRequest;
  /** The picture in it, if that is laid out already; null: it is not, or there is none. */
  readonly picture: PixelLayout | null;
}

/** Other threads know nothing of it (HB4). */
const NO_TOKEN = 0;

/** The ops of a buffer that a heap made. */
export class HeapBuffer implements DmaBufOps {
  readonly #core: Core;
  readonly #physicalBase: number;
  readonly #place: Place;
  readonly #rules: StorageRules;
  #storage: PlacedStorage | null = null;
  #token = NO_TOKEN;
  /** A device attached that cannot use the storage. */
  #mustMove = false;

  /** @internal */
  constructor(core: Core, physicalBase: number, place: Place, rules: StorageRules) {
    this.#core = core;
    this.#physicalBase = physicalBase;
    this.#place = place;
    this.#rules = rules;
  }

  /** Chooses the storage now, if that did not happen yet (HB1), or again, if it must move. */
  decide(buf: DmaBuf): PlacedStorage {
    if (this.#storage === null) this.#storage = this.#newStorage(buf, this.#rules.picture).clear();
    else if (this.#mustMove) this.#move(buf, this.#storage);
    return this.#storage;
  }

  #newStorage(buf: DmaBuf, picture: PixelLayout | null): PlacedStorage {
    const devices = buf.attachments.map(({ device }) => device);
    const operation = `place ${buf.name}`;
    const request = picture === null ? this.#rules.request : {};
    const { layout, conflicts } = negotiate(devices, { ...request, sizeBytes: buf.sizeBytes });
    if (layout === null) {
      const reason = "the attached devices have no storage in common";
      throw new ConflictError("EINVAL", operation, reason, conflicts, buf.sizeBytes);
    }
    const handle = this.#place(buf, layout);
    const pixels = picture ?? layout.pixels; // it stays as it is
    return new PlacedStorage(this.#core, this.#physicalBase, handle, pixels);
  }

  storage(): SgTable | null {
    return this.#storage?.table ?? null;
  }

  token(buf: DmaBuf): number {
    if (this.#token === NO_TOKEN)
      this.#token = makeRecord(this.#core, buf, this.#decideForCpu(buf));
    return this.#token;
  }

  /** @internal What to export of a buffer that another thread shares and this one holds (HB4). */
  static adopt(core: Core, physicalBase: number, token: number): ExportInfo {
    const { table, sizeBytes, name, layout } = readRecord(core, token);
    if (table === null) return fail("EINVAL", `import ${name}`, "its exporter serves it");
    const rules = { mayMove: false, isRemapped: false, request: {}, picture: layout };
    const ops = new HeapBuffer(core, physicalBase, () => table, rules);
    ops.#token = token;
    ops.#storage = new PlacedStorage(core, physicalBase, table, layout);
    return { ops, sizeBytes, exporterName: "import", name };
  }

  layout(): PixelLayout | null {
    return this.#storage?.existing.pixels ?? this.#rules.picture;
  }

  canAttach(buf: DmaBuf, device: Device): void {
    this.#requireAttachable(buf, device);
  }

  attach(buf: DmaBuf, { device }: Attachment): void {
    if (this.#requireAttachable(buf, device)) this.#mustMove = true;
  }

  /** Throws what keeps a device away (HB2); else says whether the storage must move for it. */
  #requireAttachable(buf: DmaBuf, device: Device): boolean {
    const existing = this.#storage?.existing ?? null;
    const { picture } = this.#rules;
    const early = picture === null ? [] : pixelConflicts(device, picture);
    const own = existing === null ? early : conflictsWith(device, existing);
    if (existing !== null && own.length === 0 && !this.#mustMove) return false;
    const refuse = (code: ErrnoCode, reason: string, conflicts: Conflicts): never => {
      const operation = `attach ${device.name} to ${buf.name}`;
      throw new ConflictError(code, operation, reason, conflicts, buf.sizeBytes);
    };
    if (existing === null && own.length > 0) refuse("EINVAL", "its picture is laid out", own);
    const exists = "the storage exists already";
    const why = this.#whyItStays(buf) ?? (own.some(isOfPicture) ? "so does its picture" : null);
    if (own.length > 0 && why !== null) refuse("EBUSY", `${exists}, and ${why}`, own);
    const devices = [...buf.attachments.map((attachment) => attachment.device), device];
    const request = existing === null ? this.#requestOf(devices) : {};
    const { conflicts: all } = negotiate(devices, { ...request, sizeBytes: buf.sizeBytes });
    if (all !== null && existing === null) refuse("EINVAL", "no storage suits", all);
    if (all !== null) refuse("EBUSY", exists, own.length > 0 ? own : all);
    return existing !== null;
  }

  /** What is asked of the storage, as far as it is known: a picture without a format is not yet. */
  #requestOf(devices: readonly Device[]): StorageRequest {
    const { pixels, ...others } = this.#rules.request;
    const isKnown = pixels?.formats !== undefined || devices.some(({ limits }) => limits.pixels);
    return pixels !== undefined && isKnown ? { ...others, pixels } : others;
  }

  /** What keeps the storage where it is; null: nothing does (HB3). */
  #whyItStays(buf: DmaBuf): string | null {
    if (!this.#rules.mayMove) return "its heap moves none";
    if (this.#token !== NO_TOKEN) return "other threads may use it";
    const why = this.#storage?.whyItStays ?? null;
    return why ?? (buf.resv.testSignaled("bookkeep") ? null : "fences are pending");
  }

  /** Moves the bytes to a storage that all attached devices can use (HB3). */
  #move(buf: DmaBuf, from: PlacedStorage): void {
    const devices = buf.attachments.map(({ device }) => device);
    if (devices.every((device) => conflictsWith(device, from.existing).length === 0)) {
      this.#mustMove = false; // who could not use it has gone
      return;
    }
    if (this.#whyItStays(buf) !== null) return;
    const to = this.#newStorage(buf, from.existing.pixels);
    from.moveTo(to);
    this.#storage = to;
    this.#mustMove = false;
  }

  map(attachment: Attachment, direction: Direction): DeviceMapping {
    const isFirst = this.#storage === null;
    const storage = this.#decideFor(attachment.buf, attachment.device);
    try {
      return storage.map(attachment, direction);
    } catch (error) {
      if (isFirst) this.release(); // the choice was made for this map alone
      throw error;
    }
  }

  /** Storage that a device can use. EBUSY: it should have moved, and cannot now; ENOMEM. */
  #decideFor(buf: DmaBuf, device: Device): PlacedStorage {
    if (!this.#mustMove) return this.decide(buf);
    let failure: unknown = null;
    try {
      this.decide(buf);
    } catch (error) {
      failure = error; // who can use it where it is need not care
    }
    const storage = this.#storage as PlacedStorage;
    const conflicts = this.#mustMove ? conflictsWith(device, storage.existing) : [];
    if (conflicts.length === 0) return storage;
    if (failure !== null) throw failure;
    const reason = `the storage lies elsewhere, and ${this.#whyItStays(buf)}`;
    const operation = `map ${buf.name} for ${device.name}`;
    throw new ConflictError("EBUSY", operation, reason, conflicts, buf.sizeBytes);
  }

  unmap(attachment: Attachment, mapping: DeviceMapping): void {
    this.#storage?.unmap(attachment, mapping);
  }

  /** HB6: what devices wrote becomes visible to the CPU. */
  beginCpuAccess(buf: DmaBuf, direction: Direction): void {
    this.#decideForCpu(buf); // HB1
    this.#storage?.sync(direction, false);
  }

  /** HB6: what the CPU wrote becomes visible to devices. */
  endCpuAccess(_: DmaBuf, direction: Direction): void {
    this.#storage?.sync(direction, true);
  }

  mmap(buf: DmaBuf, { isShared, pageCount }: MmapArea): SgTable {
    const isAllowed = isShared || (this.#rules.isRemapped && pageCount === 1); // HB5
    if (!isAllowed) fail("EINVAL", `map ${buf.name} for the CPU`, "such a mapping must be shared");
    return this.#decideForCpu(buf);
  }

  vmap(buf: DmaBuf): SgTable {
    return this.#decideForCpu(buf);
  }

  #decideForCpu(buf: DmaBuf): SgTable {
    try {
      return this.decide(buf).table;
    } catch (error) {
      if (this.#storage === null) throw error;
      return this.#storage.table; // it could not move, and the CPU reaches it anywhere
    }
  }

  release(): void {
    if (this.#token === NO_TOKEN) this.#storage?.free();
    else {
      this.#storage?.dropCuts();
      leaveRecord(this.#core, this.#token);
    }
    this.#token = NO_TOKEN;
    this.#storage = null;
    this.#mustMove = false;
  }
}

type Conflicts = readonly Conflict[];

/** Whether no other place can help against a conflict: a picture stays as it is laid out. */
function isOfPicture({ field }: Conflict): boolean {
  return field === "formats" || field === "modifiers" || field === "pixels";
}
