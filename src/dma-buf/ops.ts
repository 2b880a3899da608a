/**
 * The exporter's contract: what whoever owns a buffer's memory must be able to do.
 *
 * Compare `struct dma_buf_ops` in the kernel's include/linux/dma-buf.h.
 *
 * @module
 */

import type { DeviceMapping } from "../device/device-mapping.ts";
import type { Direction } from "../direction.ts";
import type { SgTable } from "../mm/sg-table.ts";
import type { Attachment } from "./attachment.ts";
import type { DmaBuf } from "./dma-buf.ts";

/** The callbacks of an exporter. Each may throw; what it throws reaches the importer. */
export interface DmaBufOps {
  /**
   * Optional. A device wants to use the buffer: look at its limits. Called without the attachment
   * being listed yet. Throw EBUSY when the storage exists already where this device cannot reach
   * it.
   */
  attach?(buf: DmaBuf, attachment: Attachment): void;
  /** Optional. The opposite of attach; cannot fail. */
  detach?(buf: DmaBuf, attachment: Attachment): void;
  /**
   * Mandatory. Makes the buffer reachable for the attachment's device. The first call is the moment
   * to choose storage, with all devices of `buf.attachments` in view. The importer owns the mapping
   * until unmap.
   */
  map(attachment: Attachment, direction: Direction): DeviceMapping;
  /** Mandatory. The opposite of map; cannot fail. */
  unmap(attachment: Attachment, mapping: DeviceMapping, direction: Direction): void;
  /** Mandatory. The last reference is gone: free the storage. */
  release(buf: DmaBuf): void;
  /**
   * Optional. Makes what devices wrote visible to the CPU, before implicit fences are looked at.
   */
  beginCpuAccess?(buf: DmaBuf, direction: Direction): void;
  /** Optional. Makes what the CPU wrote visible to devices. */
  endCpuAccess?(buf: DmaBuf, direction: Direction): void;
  /**
   * Optional; without it the CPU cannot map the buffer (EINVAL). The table whose frames the CPU
   * will see.
   */
  mmap?(buf: DmaBuf): SgTable;
  /** Optional; for reports. Where the buffer's bytes lie now; null before storage is chosen. */
  storage?(buf: DmaBuf): SgTable | null;
}

/** What a buffer is exported with. */
export interface ExportInfo {
  readonly ops: DmaBufOps;
  /** Bytes; fixed for the buffer's life. */
  readonly sizeBytes: number;
  /** Who exports it, for people and statistics. */
  readonly exporterName: string;
  /** A label for people, at most 31 bytes; may be changed later. */
  readonly name?: string;
  /** How the buffer's file is opened: access mode and O_NONBLOCK. Default O_RDWR. */
  readonly flags?: number;
}
