/**
 * Udmabuf: memory that a process owns already, as a buffer for devices.
 *
 *     memfd   [0][1][2][3][4][5]…        items (page 4, 2 pages), (page 0, 1 page)
 *                  └──────┐└──┴─► buffer [4][5][0]: the same frames, seen from both sides
 *
 * - UD1  The memory must not shrink and must be writable: sealed against shrinking, and not against
 *        writing.
 * - UD2  Its pages stay where they are from creation until the buffer's release, even if the memory
 *        is closed before.
 * - UD3  Limits, alignment and sizes of all items are looked at before the first memfd is.
 *
 * Compare the kernel's drivers/dma-buf/udmabuf.c.
 *
 * @module
 */

import { requireInstance, requireObjects } from "../arguments.ts";
import { Core } from "../core/core.ts";
import type { DeviceMapping } from "../device/device-mapping.ts";
import type { Direction } from "../direction.ts";
import type { Attachment } from "../dma-buf/attachment.ts";
import type { DmaBuf } from "../dma-buf/dma-buf.ts";
import type { DmaBufOps, ExportInfo, MmapArea } from "../dma-buf/ops.ts";
import { fail } from "../errors.ts";
import { O_RDWR } from "../files/open-file.ts";
import { Memfd } from "../mm/memfd.ts";
import { tableFromFrames } from "../mm/sg-build.ts";
import type { SgTable } from "../mm/sg-table.ts";
import { F_SEAL_FUTURE_WRITE, F_SEAL_SHRINK, F_SEAL_WRITE, type HeldShmem } from "../mm/shmem.ts";
import { addressOf, FRAME_BYTES, formatBytes, MiB, pfnOf } from "../units.ts";

/** Items of one buffer: the module parameter list_limit. */
const LIST_LIMIT = 1024;
/** Bytes of one buffer: the module parameter size_limit_mb. */
const SIZE_LIMIT: number = 64 * MiB;

/** A part of a memfd. */
export interface UdmabufItem {
  /** EBADFD: it is none. */
  readonly memfd: Memfd | null;
  /** Bytes, whole frames. */
  readonly offset: number | bigint;
  /** Bytes, whole frames. */
  readonly sizeBytes: number | bigint;
}

/** What a udmabuf needs from its system. */
export interface UdmabufContext {
  readonly core: Core;
  export(info: ExportInfo): DmaBuf;
}

interface Pages {
  readonly memfd: Memfd | null;
  readonly first: number;
  readonly count: number;
}

/**
 * A buffer of the items' pages, in order. EINVAL: too many items, more than 64 MiB, nothing, a part
 * of a page, pages beyond the end, or the seals (UD1); EBADFD: no memfd; EFBIG; ENOMEM.
 */
export function createUdmabuf(context: UdmabufContext, items: readonly UdmabufItem[]): DmaBuf {
  const operation = "create a udmabuf";
  requireInstance(context?.core, Core, "the system's core", operation);
  requireObjects(items, "the items", operation);
  const parts = requireItems(items, operation); // UD3
  const held: HeldShmem[] = [];
  let table: SgTable | null = null;
  try {
    for (const part of parts) held.push(pinItem(context.core, part, operation));
    const pfns = held.flatMap((one) => one.pfns);
    table = tableFromFrames(context.core, pfns, {});
    const ops = new UdmabufOps(table, held);
    const sizeBytes = addressOf(pfns.length);
    return context.export({ ops, sizeBytes, exporterName: "udmabuf", flags: O_RDWR });
  } catch (error) {
    table?.free();
    for (const one of held) one.release();
    throw error;
  }
}

function requireItems(items: readonly UdmabufItem[], operation: string): Pages[] {
  if (items.length > LIST_LIMIT)
    fail("EINVAL", operation, `it has ${items.length} items; ${LIST_LIMIT} is the limit`);
  let total = 0;
  const parts = items.map(({ memfd, offset, sizeBytes }): Pages => {
    const first = requirePages(offset, "offset", operation);
    const count = requirePages(sizeBytes, "sizeBytes", operation);
    total += count;
    if (addressOf(total) > SIZE_LIMIT)
      fail("EINVAL", operation, `it is larger than ${formatBytes(SIZE_LIMIT)}`);
    return { memfd, first, count };
  });
  if (total === 0) fail("EINVAL", operation, "it has no pages");
  return parts;
}

/** Bytes as pages. EINVAL: not whole frames. */
function requirePages(bytes: number | bigint, name: string, operation: string): number {
  const isWhole =
    typeof bytes === "bigint"
      ? bytes % BigInt(FRAME_BYTES) === 0n
      : Number.isInteger(bytes) && bytes % FRAME_BYTES === 0;
  if (!isWhole || bytes < 0) fail("EINVAL", operation, `${name} must be whole frames`);
  return pfnOf(Number(bytes));
}

function pinItem(core: Core, { memfd, first, count }: Pages, operation: string): HeldShmem {
  if (!(memfd instanceof Memfd)) return fail("EBADFD", operation, "an item has no memfd");
  if (!memfd.isOn(core)) fail("EINVAL", operation, `${memfd.name} is of another system`);
  if ((memfd.seals & F_SEAL_SHRINK) === 0)
    fail("EINVAL", operation, `${memfd.name} is not sealed against shrinking`); // UD1
  if ((memfd.seals & (F_SEAL_WRITE + F_SEAL_FUTURE_WRITE)) !== 0)
    fail("EINVAL", operation, `${memfd.name} is sealed against writing`);
  return memfd.pinPages(first, count);
}

/** The exporter of one udmabuf. */
class UdmabufOps implements DmaBufOps {
  readonly #table: SgTable;
  readonly #held: readonly HeldShmem[];
  /** Whether the CPU's side was ever made coherent. */
  #isSynced = false;

  constructor(table: SgTable, held: readonly HeldShmem[]) {
    this.#table = table;
    this.#held = held;
  }

  map({ device }: Attachment, direction: Direction): DeviceMapping {
    return device.dma.mapSgtable(this.#table, direction);
  }

  unmap({ device }: Attachment, mapping: DeviceMapping): void {
    device.dma.unmapSgtable(mapping);
  }

  beginCpuAccess(): void {
    this.#isSynced = true;
  }

  endCpuAccess(buf: DmaBuf): void {
    if (!this.#isSynced) fail("EINVAL", `end CPU access to ${buf.name}`, "no access ever began");
  }

  mmap(buf: DmaBuf, { isShared }: MmapArea): SgTable {
    if (!isShared) fail("EINVAL", `map ${buf.name} for the CPU`, "it is mapped shared only");
    return this.#table;
  }

  storage(): SgTable {
    return this.#table;
  }

  release(): void {
    this.#table.free();
    for (const held of this.#held) held.release(); // UD2
  }
}
