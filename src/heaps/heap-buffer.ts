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
 * - HB4  A device without an IOMMU that takes shorter segments gets the entries cut, in a table
 *        that lives as long as its attachment.
 * - HB5  Once other threads may know the buffer, its storage belongs to a record in the core: it
 *        does not move any more, and is freed when the last thread has released it.
 * - HB6  A private mapping must be one remap: it is refused where the CPU maps storage in one run,
 *        and is one page at most where every page has a remap of its own.
 * - HB7  A bracket of CPU access syncs all mappings of the buffer, for the CPU at its begin and for
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
import type { DmaBufOps, ExportInfo, MmapArea } from "../dma-buf/ops.ts";
import {
  conflictsWith,
  cutEntries,
  describeStorage,
  type ExistingStorage,
  needsCut,
} from "../dma-buf/storage-fit.ts";
import { type ErrnoCode, fail } from "../errors.ts";
import { tableOverList } from "../mm/sg-build.ts";
import { copyTable } from "../mm/sg-copy.ts";
import { SgTable } from "../mm/sg-table.ts";
import { leaveRecord, makeRecord, readRecord } from "./buffer-record.ts";

/**
 * Chooses frames for a buffer, as the layout says: the handle of a table that owns them. Throws
 * when there are none.
 */
export type Place = (buf: DmaBuf, layout: Layout) => number;

/** What a buffer's storage may do. */
export interface StorageRules {
  /** It may be chosen again for a device that cannot use it. */
  readonly mayMove: boolean;
  /** The CPU maps it page by page, each by a remap of its own (HB6). */
  readonly isRemapped: boolean;
  /** What is asked of it, beside its size. */
  readonly request: StorageRequest;
}

/** Other threads know nothing of it (HB5). */
const NO_TOKEN = 0;

/** The ops of a buffer that a heap made. */
export class HeapBuffer implements DmaBufOps {
  readonly #core: Core;
  readonly #physicalBase: number;
  readonly #place: Place;
  readonly #rules: StorageRules;
  #existing: ExistingStorage | null = null;
  #token = NO_TOKEN;
  /** A device attached that cannot use the storage. */
  #mustMove = false;
  readonly #mappings: Map<DeviceMapping, Device> = new Map();
  /** The entries as devices get them that need them cut (HB4). */
  readonly #cuts: Map<Attachment, SgTable> = new Map();

  /** @internal */
  constructor(core: Core, physicalBase: number, place: Place, rules: StorageRules) {
    this.#core = core;
    this.#physicalBase = physicalBase;
    this.#place = place;
    this.#rules = rules;
  }

  /** Chooses the storage now, if that did not happen yet (HB1), or again, if it must move. */
  decide(buf: DmaBuf): ExistingStorage {
    if (this.#existing === null) this.#existing = this.#newStorage(buf, null);
    else if (this.#mustMove) this.#move(buf, this.#existing);
    return this.#existing;
  }

  #newStorage(buf: DmaBuf, picture: PixelLayout | null): ExistingStorage {
    const devices = buf.attachments.map(({ device }) => device);
    const operation = `place ${buf.name}`;
    const layout = this.#negotiate(devices, buf, picture, (conflicts) => {
      throw new ConflictError(
        "EINVAL",
        operation,
        "the attached devices have no storage in common",
        conflicts,
        buf.sizeBytes,
      );
    });
    const handle = this.#place(buf, layout);
    this.#core.exports.storageClear(handle);
    const table = new SgTable(this.#core, handle, true);
    return describeStorage(table, this.#physicalBase, layout.pixels);
  }

  /** What suits `devices`; a picture that is there already stays as it is. */
  #negotiate(
    devices: readonly Device[],
    buf: DmaBuf,
    picture: PixelLayout | null,
    onConflicts: (conflicts: Conflicts) => never,
  ): Layout {
    const { sizeBytes } = buf;
    const request = picture === null ? { ...this.#rules.request, sizeBytes } : { sizeBytes };
    const { layout, conflicts } = negotiate(devices, request);
    if (conflicts !== null) return onConflicts(conflicts);
    return picture === null ? layout : { ...layout, pixels: picture };
  }

  storage(): SgTable | null {
    return this.#existing?.table ?? null;
  }

  token(buf: DmaBuf): number {
    if (this.#token === NO_TOKEN)
      this.#token = makeRecord(this.#core, buf, this.#decideForCpu(buf));
    return this.#token;
  }

  /** @internal What to export of a buffer that another thread shares and this one holds (HB5). */
  static adopt(core: Core, physicalBase: number, token: number): ExportInfo {
    const { table, sizeBytes, name } = readRecord(core, token);
    const rules = { mayMove: false, isRemapped: false, request: {} };
    const ops = new HeapBuffer(core, physicalBase, () => table, rules);
    ops.#token = token;
    ops.#existing = describeStorage(new SgTable(core, table, true), physicalBase, null);
    return { ops, sizeBytes, exporterName: "import", name };
  }

  layout(): PixelLayout | null {
    return this.#existing?.pixels ?? null;
  }

  canAttach(buf: DmaBuf, device: Device): void {
    this.#requireAttachable(buf, device);
  }

  attach(buf: DmaBuf, { device }: Attachment): void {
    if (this.#requireAttachable(buf, device)) this.#mustMove = true;
  }

  /** Throws what keeps a device away (HB2); else says whether the storage must move for it. */
  #requireAttachable(buf: DmaBuf, device: Device): boolean {
    const operation = `attach ${device.name} to ${buf.name}`;
    const refuse = (code: ErrnoCode, reason: string, conflicts: Conflicts): never => {
      throw new ConflictError(code, operation, reason, conflicts, buf.sizeBytes);
    };
    const existing = this.#existing;
    const devices = [...buf.attachments.map((attachment) => attachment.device), device];
    if (existing === null) {
      this.#negotiate(devices, buf, null, (all) => refuse("EINVAL", "no storage suits", all));
      return false;
    }
    const own = conflictsWith(device, existing);
    if (own.length === 0 && !this.#mustMove) return false;
    const exists = "the storage exists already";
    const why = this.#whyItStays(buf) ?? (own.some(isOfPicture) ? "so does its picture" : null);
    if (own.length > 0 && why !== null) refuse("EBUSY", `${exists}, and ${why}`, own);
    this.#negotiate(devices, buf, existing.pixels, (all) =>
      refuse("EBUSY", exists, own.length > 0 ? own : all),
    );
    return true;
  }

  /** What keeps the storage where it is; null: nothing does (HB3). */
  #whyItStays(buf: DmaBuf): string | null {
    if (!this.#rules.mayMove) return "its heap moves none";
    if (this.#token !== NO_TOKEN) return "other threads may use it";
    if (this.#mappings.size > 0) return "it is mapped";
    if ((this.#existing?.table.pinCount ?? 0) > 0) return "it is pinned";
    return buf.resv.testSignaled("bookkeep") ? null : "fences are pending";
  }

  /** Moves the bytes to a storage that all attached devices can use (HB3). */
  #move(buf: DmaBuf, from: ExistingStorage): void {
    const devices = buf.attachments.map(({ device }) => device);
    if (devices.every((device) => conflictsWith(device, from).length === 0)) {
      this.#mustMove = false; // who could not use it has gone
      return;
    }
    if (this.#whyItStays(buf) !== null) return;
    const to = this.#newStorage(buf, from.pixels);
    try {
      copyTable(this.#core, to.table, from.table);
      from.table.free();
    } catch (error) {
      to.table.free();
      throw error;
    }
    for (const cut of this.#cuts.values()) cut.free();
    this.#cuts.clear();
    this.#existing = to;
    this.#mustMove = false;
  }

  map(attachment: Attachment, direction: Direction): DeviceMapping {
    const { buf, device } = attachment;
    const isFirst = this.#existing === null;
    const existing = this.#decideFor(buf, device);
    try {
      const table = needsCut(device.limits, existing)
        ? this.#cut(attachment, existing)
        : existing.table;
      const mapping = device.dma.mapSgtable(table, direction);
      this.#mappings.set(mapping, device);
      return mapping;
    } catch (error) {
      if (isFirst) this.#drop(); // the choice was made for this map alone
      throw error;
    }
  }

  /** Storage that a device can use. EBUSY: it should have moved, and cannot now; ENOMEM. */
  #decideFor(buf: DmaBuf, device: Device): ExistingStorage {
    if (!this.#mustMove) return this.decide(buf);
    let failure: unknown = null;
    try {
      this.decide(buf);
    } catch (error) {
      failure = error; // who can use it where it is need not care
    }
    const existing = this.#existing as ExistingStorage;
    const conflicts = this.#mustMove ? conflictsWith(device, existing) : [];
    if (conflicts.length === 0) return existing;
    if (failure !== null) throw failure;
    const reason = `the storage lies elsewhere, and ${this.#whyItStays(buf)}`;
    const operation = `map ${buf.name} for ${device.name}`;
    throw new ConflictError("EBUSY", operation, reason, conflicts, buf.sizeBytes);
  }

  #cut(attachment: Attachment, existing: ExistingStorage): SgTable {
    const known = this.#cuts.get(attachment);
    if (known !== undefined) return known;
    const cut = tableOverList(this.#core, [...cutEntries(attachment.device.limits, existing)]);
    this.#cuts.set(attachment, cut);
    return cut;
  }

  unmap({ device }: Attachment, mapping: DeviceMapping): void {
    device.dma.unmapSgtable(mapping);
    this.#mappings.delete(mapping);
  }

  /** HB7: what devices wrote becomes visible to the CPU. */
  beginCpuAccess(_: DmaBuf, direction: Direction): void {
    for (const [mapping, device] of this.#mappings)
      device.dma.syncAccess(mapping, direction, false);
  }

  /** HB7: what the CPU wrote becomes visible to devices. */
  endCpuAccess(_: DmaBuf, direction: Direction): void {
    for (const [mapping, device] of this.#mappings) device.dma.syncAccess(mapping, direction, true);
  }

  detach(_: DmaBuf, attachment: Attachment): void {
    this.#cuts.get(attachment)?.free();
    this.#cuts.delete(attachment);
  }

  mmap(buf: DmaBuf, { isShared, pageCount }: MmapArea): SgTable {
    const isAllowed = isShared || (this.#rules.isRemapped && pageCount === 1); // HB6
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
      if (this.#existing === null) throw error;
      return this.#existing.table; // it could not move, and the CPU reaches it anywhere
    }
  }

  release(): void {
    this.#drop();
  }

  #drop(): void {
    for (const cut of this.#cuts.values()) cut.free();
    this.#cuts.clear();
    if (this.#token === NO_TOKEN) this.#existing?.table.free();
    else leaveRecord(this.#core, this.#token);
    this.#token = NO_TOKEN;
    this.#existing = null;
    this.#mustMove = false;
  }
}

type Conflicts = readonly Conflict[];

/** Whether no other place can help against a conflict: a picture stays as it is laid out. */
function isOfPicture({ field }: Conflict): boolean {
  return field === "formats" || field === "modifiers" || field === "pixels";
}
