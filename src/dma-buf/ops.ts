/**
 * The exporter's contract: what whoever owns a buffer's memory must be able to do.
 *
 *     op               must be there    buf.resv is held   may return a Promise
 *     attach, detach                    no                 both
 *     pin, unpin       both or neither  yes                both
 *     map, unmap       yes              see OP2            both
 *     begin-, endCpuAccess              no                 both
 *     mmap                              no
 *     vmap, vunmap                      no                 both
 *     release          yes              no
 *
 * - OP1  An exporter with pin() is dynamic: it may move the buffer while nobody pins it, and tells
 *        importers with `buf.moveNotify()`.
 * - OP2  map() and unmap() run with `buf.resv` held when the exporter is dynamic or the importer
 *        called a form that takes the lock; otherwise as the importer holds it.
 * - OP3  What gives back (detach, unpin, unmap, vunmap) must not fail. What it throws all the same
 *        reaches the caller, unless it undoes a call that failed before: unmap(), unpin() and
 *        vunmap() have changed nothing then, detach() has taken place.
 * - OP4  An op that returns a Promise serves the asynchronous calls only; a synchronous call throws
 *        EWOULDBLOCK, and what the Promise gives later is given back. An op that gives back goes on
 *        instead: until it has ended the mapping, pin or kernel mapping is there, and the async
 *        form waits for that end; detach() has taken place.
 * - OP5  An asynchronous call says how it waits: `wait`, with what is left of its time limit, and
 *        its AbortSignal. A synchronous call, and one that undoes, has no `wait`.
 *
 * Compare `struct dma_buf_ops` and `struct dma_buf_attach_ops` in the kernel's
 * include/linux/dma-buf.h.
 *
 * @module
 */

import type { WaitOptions } from "../clock.ts";
import type { Device } from "../device/device.ts";
import type { DeviceMapping } from "../device/device-mapping.ts";
import type { Direction } from "../direction.ts";
import type { SgTable } from "../mm/sg-table.ts";
import type { Attachment } from "./attachment.ts";
import type { DmaBuf } from "./dma-buf.ts";
import type { PixelLayout } from "./formats.ts";
import type { Resv } from "./resv.ts";

/** A value, or the promise of it. */
export type MaybePromise<T> = T | Promise<T>;

/** The pages of a buffer that the CPU maps. */
export interface MmapArea {
  /** The first page. */
  readonly pageOffset: number;
  readonly pageCount: number;
  /** Whether writes are for everybody: an exporter may refuse other mappings (EINVAL). */
  readonly isShared: boolean;
}

/** The callbacks of an exporter. Each may throw; what it throws reaches the importer. */
export interface DmaBufOps {
  /**
   * Optional. Keep the first mapping of an attachment until detach, and give it to every further
   * map(). Not together with pin and unpin.
   */
  readonly cacheSgtMapping?: boolean | undefined;
  /**
   * Optional. A device wants to use the buffer: look at its limits. Called without the attachment
   * being listed yet. Throw EBUSY when the storage exists already where this device cannot reach
   * it. May clear `attachment.peer2peer`.
   */
  attach?(buf: DmaBuf, attachment: Attachment, wait?: WaitOptions): MaybePromise<void>;
  /**
   * Optional. Throws what attach would throw, and changes nothing. Without it `buf.canAttach()`
   * does not know the exporter's answer.
   */
  canAttach?(buf: DmaBuf, device: Device): void;
  /** Optional. The opposite of attach; cannot fail. */
  detach?(buf: DmaBuf, attachment: Attachment, wait?: WaitOptions): MaybePromise<void>;
  /**
   * Optional, with unpin. Keeps the storage where it is, for this importer or for all: the exporter
   * counts. It should lie where every attached device can reach it.
   */
  pin?(attachment: Attachment, wait?: WaitOptions): MaybePromise<void>;
  /** Optional, with pin. The storage may move again; cannot fail. */
  unpin?(attachment: Attachment, wait?: WaitOptions): MaybePromise<void>;
  /**
   * Mandatory. Makes the buffer reachable for the attachment's device. The first call is the moment
   * to choose storage, with all devices of `buf.attachments` in view. The importer owns the mapping
   * until unmap; do not give one mapping out twice.
   */
  map(
    attachment: Attachment,
    direction: Direction,
    wait?: WaitOptions,
  ): MaybePromise<DeviceMapping>;
  /** Mandatory. The opposite of map; cannot fail. `direction` is what the importer says. */
  unmap(
    attachment: Attachment,
    mapping: DeviceMapping,
    direction: Direction,
    wait?: WaitOptions,
  ): MaybePromise<void>;
  /** Mandatory. The last reference is gone: free the storage. */
  release(buf: DmaBuf): void;
  /**
   * Optional. Makes what devices wrote visible to the CPU, before implicit fences are looked at. A
   * number above 0 is passed on to the caller, and no fence is looked at.
   */
  beginCpuAccess?(
    buf: DmaBuf,
    direction: Direction,
    wait?: WaitOptions,
  ): MaybePromise<void> | MaybePromise<number>;
  /** Optional. Makes what the CPU wrote visible to devices. */
  endCpuAccess?(
    buf: DmaBuf,
    direction: Direction,
    wait?: WaitOptions,
  ): MaybePromise<void> | MaybePromise<number>;
  /**
   * Optional; without it the CPU cannot map the buffer (EINVAL). The table of all of the buffer's
   * bytes; the CPU will see `area` of it.
   */
  mmap?(buf: DmaBuf, area: MmapArea): SgTable;
  /**
   * Optional; without it there is no kernel mapping (EINVAL). The table of all of the buffer's
   * bytes. Called for the first of several users only.
   */
  vmap?(buf: DmaBuf, wait?: WaitOptions): MaybePromise<SgTable>;
  /** Optional. The last user of vmap() is gone; cannot fail. */
  vunmap?(buf: DmaBuf, table: SgTable, wait?: WaitOptions): MaybePromise<void>;
  /**
   * Optional; without it, other threads ask this one for all that they do with the buffer. The
   * number that they import it by; its storage is chosen now, if it was not before, and every
   * thread uses it without asking.
   */
  token?(buf: DmaBuf): number;
  /** Optional; for reports. Where the buffer's bytes lie now; null before storage is chosen. */
  storage?(buf: DmaBuf): SgTable | null;
  /** Optional. Where the picture lies in the buffer; null before that is known. */
  layout?(buf: DmaBuf): PixelLayout | null;
}

/** The callbacks of an importer that can live with a buffer that moves. */
export interface AttachOps {
  /** Whether the device copes with the memory of another device, which has no frames. */
  readonly allowPeer2Peer?: boolean | undefined;
  /**
   * Mandatory. The buffer is about to move: called with `buf.resv` held. Mappings stay usable until
   * the fences on them have signaled; unmap them soon, and map again for the next use.
   */
  moveNotify(attachment: Attachment): void;
}

/** Whoever must not go while its buffers live: a module. */
export interface ExportOwner {
  readonly name: string;
  /** Takes a use; false: it is going away, and the export fails with ENOENT. */
  tryGet(): boolean;
  /** Gives the use back, when the buffer has been released. */
  put(): void;
}

/** What a buffer is exported with. */
export interface ExportInfo {
  readonly ops: DmaBufOps;
  /** Bytes; fixed for the buffer's life. 0 is allowed. */
  readonly sizeBytes: number;
  /** Who exports it, for people and statistics. */
  readonly exporterName?: string | undefined;
  /** A label for people, at most 31 bytes; may be changed later. */
  readonly name?: string | undefined;
  /** The exporter's own data, found as `buf.priv`: not null. The ops, if it is not given. */
  readonly priv?: unknown | undefined;
  /** How the buffer's file is opened: access mode and O_NONBLOCK. Default O_RDWR. */
  readonly flags?: number | undefined;
  /** The exporter's reservation; several buffers may have one. The buffer's own, if not given. */
  readonly resv?: Resv | undefined;
  /** In use until the buffer is released. */
  readonly owner?: ExportOwner | undefined;
}
