/**
 * CpuMapping: pages of a buffer as the CPU sees them, pinned as long as it lives.
 *
 * - X1  The frames under the views are pinned from mmap() to unmap().
 * - X2  A mapping holds a reference to its buffer.
 * - X3  Only whole pages are mapped: what a buffer has behind its last whole page is out of reach.
 *
 * Compare dma_buf_mmap() in the kernel's drivers/dma-buf/dma-buf.c.
 *
 * @module
 */

import type { Core } from "../core/core.ts";
import { fail, nameOf, textOf } from "../errors.ts";
import { SgTable } from "../mm/sg-table.ts";
import { putFor } from "../stacks.ts";
import { addressOf, FRAME_BYTES } from "../units.ts";
import { BufferViews } from "./buffer-views.ts";
import type { DmaBuf } from "./dma-buf.ts";
import type { MmapArea } from "./ops.ts";

/** Which pages of a buffer to map. */
export interface MmapOptions {
  /** The first page; default 0. */
  readonly pageOffset?: number | bigint | undefined;
  /** How many, 0 included; default: all whole pages behind pageOffset, of which there is one. */
  readonly pageCount?: number | bigint | undefined;
  /**
   * False: the caller asks as for a private mapping, which not every exporter allows, and will not
   * write through the views. Default true.
   */
  readonly shared?: boolean | undefined;
}

/** Views over pages of a buffer. Made by `buf.mmap()`. */
export class CpuMapping extends BufferViews {
  readonly pageOffset: number;
  readonly pageCount: number;
  readonly #table: SgTable;
  readonly #live: Set<CpuMapping>;

  /** @internal `live`: where the buffer keeps its mappings. */
  constructor(
    core: Core,
    buf: DmaBuf,
    table: SgTable,
    { pageOffset, pageCount }: MmapArea,
    live: Set<CpuMapping>,
  ) {
    const begin = addressOf(pageOffset);
    super(core, buf, table.pin(), begin, begin + addressOf(pageCount));
    this.#table = table;
    this.#live = live;
    this.pageOffset = pageOffset;
    this.pageCount = pageCount;
    buf.get(); // X2
    buf.stacks?.own(buf, "cpu-mapping", this);
    live.add(this);
  }

  /** Ends the mapping and its pins. EINVAL: unmapped before. */
  unmap(): void {
    if (!this.isMapped) fail("EINVAL", `unmap ${this.buf.name}`, "it was unmapped before");
    this.end();
    this.#live.delete(this);
    try {
      putFor(this.buf, "cpu-mapping", this);
    } catch (error) {
      this.#live.add(this);
      this.resume(this.#table.pin()); // the reference is still ours, and so is the mapping
      throw error;
    }
  }

  [Symbol.dispose](): void {
    if (this.isMapped) this.unmap();
  }
}

/** The table that an exporter's mmap() has returned. EIO: it is none, or another system's. */
export function mmapTable(answer: unknown, core: Core, operation: string): SgTable {
  if (!(answer instanceof SgTable))
    return fail("EIO", operation, `the exporter's mmap() returned ${nameOf(answer)}`);
  if (!answer.isOn(core))
    fail("EIO", operation, "the exporter's mmap() returned a table of another system");
  return answer;
}

const PAGES_END = 2n ** 64n;

/** The pages that `options` ask for, of a buffer of `sizeBytes` bytes. */
export function mmapArea(options: MmapOptions, sizeBytes: number, operation: string): MmapArea {
  const wholePages = Math.floor(sizeBytes / FRAME_BYTES); // X3
  const first = wideInteger(options.pageOffset ?? 0, "pageOffset", operation);
  const rest = wholePages - Number(first);
  const count = wideInteger(options.pageCount ?? Math.max(1, rest), "pageCount", operation);
  if (first + count >= PAGES_END) fail("EOVERFLOW", operation, "the pages end behind 2^64");
  if (first + count > BigInt(wholePages))
    fail("EINVAL", operation, `pages ${first} to ${first + count} of ${wholePages} are asked for`);
  const { shared: isShared = true } = options;
  return { pageOffset: Number(first), pageCount: Number(count), isShared };
}

function wideInteger(value: number | bigint, name: string, operation: string): bigint {
  const isWhole = typeof value === "bigint" || Number.isInteger(value);
  if (!isWhole || value < 0 || value >= PAGES_END)
    fail(
      "EINVAL",
      operation,
      `${textOf(name)} must be an integer from 0 on, and is ${textOf(value)}`,
    );
  return BigInt(value);
}
