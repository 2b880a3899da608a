/**
 * SgTable: the CPU side of a scatterlist, which frames and which bytes of them.
 *
 * `origNents` entries are what was built and what is freed. What a device sees is another list with
 * another length, and belongs to a mapping (`DeviceMapping.nents`).
 *
 * Compare `struct sg_table` in the kernel's include/linux/scatterlist.h.
 *
 * @module
 */

import { requireInstance, requireList } from "../arguments.ts";
import type { Core } from "../core/core.ts";
import { checked, fail, requireInteger, textOf } from "../errors.ts";
import { addressOf, FRAME_BYTES, framesOf } from "../units.ts";
import {
  type FileSink,
  type FileSource,
  readAll,
  type TransferOptions,
  writeAll,
} from "./files.ts";
import { PinnedRange } from "./frame-range.ts";
import { PageFinder } from "./page-finder.ts";
import { holdRuns, PinnedTable, runsOf } from "./pinned-table.ts";
import { framesInto, type SgTableOptions } from "./sg-frames.ts";
import { withWords, wordsOf } from "./word-list.ts";

/** One entry of a table: `lengthBytes` bytes in consecutive frames. */
export interface SgEntry {
  /** The first frame. */
  readonly pfn: number;
  /** Bytes into it, less than 4096. */
  readonly offset: number;
  readonly lengthBytes: number;
}

const ENTRIES_AT = 0;
const ORIG_NENTS = 1;
const LENGTH_BYTES = 2;
const MAP_COUNT = 3;
/** A table holds less than 4 GiB. */
const MAX_BYTES = 2 ** 32 - 1;

/**
 * @internal Whose the frames of a table are: its own; somebody else's; another thread's, which this
 * one has borrowed with the table (assembly/borrow.ts).
 */
type TableFrames = "own" | "others" | "borrowed";

/** A list of segments in memory. Made by a heap, or by `system.sgTable…()`. */
export class SgTable {
  /** The core's number for it. */
  readonly handle: number;
  readonly #core: Core;
  readonly #frames: TableFrames;
  readonly #onFreed: () => void;
  #isFreed = false;
  readonly #pages: PageFinder;
  readonly #held: PinnedTable[] = [];
  #pinCount = 0;

  /** @internal */
  constructor(
    core: Core,
    handle: number,
    frames: TableFrames,
    onFreed: () => void = () => {},
    isPaged: boolean = frames === "own",
  ) {
    this.#core = core;
    this.#pages = new PageFinder(isPaged);
    this.#onFreed = onFreed;
    this.handle = handle;
    this.#frames = frames;
  }

  /**
   * @internal Whether it belongs to the memory of `core`: another system's numbers mean nothing.
   */
  isOn(core: Core): boolean {
    return this.#core.memory === core.memory;
  }

  #field(index: number): number {
    if (this.#isFreed) fail("ESTALE", "read an sg table", "it was freed");
    const at = checked(
      this.#core.exports.sgTableAt(this.handle),
      "read an sg table",
      () => "it was freed",
    );
    return this.#core.word(at, index);
  }

  /** Entries: what is walked by the CPU and what is freed. */
  get origNents(): number {
    return this.#field(ORIG_NENTS);
  }

  /** Bytes of all entries. */
  get lengthBytes(): number {
    return this.#field(LENGTH_BYTES);
  }

  /** How many device mappings of the table are alive. */
  get mapCount(): number {
    return this.#field(MAP_COUNT);
  }

  /** How many of its own pins are alive. */
  get pinCount(): number {
    return this.#pinCount;
  }

  /** Entry `i` of `origNents`; EINVAL outside. */
  cpu(i: number): SgEntry {
    if (!(Number.isInteger(i) && i >= 0 && i < this.origNents)) {
      fail("EINVAL", `read entry ${textOf(i)} of an sg table`, `it has ${this.origNents} entries`);
    }
    const at = this.#field(ENTRIES_AT) + i * this.#core.exports.ENTRY_BYTES.value;
    return {
      pfn: this.#core.word(at, 0),
      offset: this.#core.word(at, 1),
      lengthBytes: this.#core.word(at, 2),
    };
  }

  /** All entries, in order. */
  *entries(): Generator<SgEntry> {
    const count = this.origNents;
    for (let i = 0; i < count; i++) yield this.cpu(i);
  }

  /** How many leading entries hold `lengthBytes` bytes; EINVAL when the table is shorter. */
  nentsForLen(lengthBytes: number): number {
    const operation = `count the entries of ${textOf(lengthBytes)} bytes`;
    requireInteger(lengthBytes, "lengthBytes", 0, 2 ** 32 - 1, operation);
    const result = this.#core.exports.sgNentsForLen(this.handle, lengthBytes);
    return checked(
      result,
      `count the entries of ${lengthBytes} bytes`,
      () => `the table holds ${this.lengthBytes}`,
    );
  }

  /**
   * The number of every frame that the entries touch, in order: an entry counts each of its frames.
   * `pgoffset` frames are left out at the front. Compare for_each_sgtable_page().
   */
  *pages(pgoffset = 0): Generator<number> {
    requireInteger(pgoffset, "pgoffset", 0, MAX_BYTES, "walk an sg table");
    const count = this.origNents;
    let { i, into } = this.#pages.find(this, pgoffset);
    for (; i < count; i++, into = 0) {
      const { pfn, offset, lengthBytes } = this.cpu(i);
      const frames = framesOf(offset + lengthBytes);
      for (; into < frames; into++) yield pfn + into;
    }
  }

  /**
   * The bytes from `skip` on, in pieces that lie in one frame each; nothing when the table ends
   * before. Compare sg_miter_next().
   */
  *spans(skip = 0): Generator<SgEntry> {
    requireInteger(skip, "skip", 0, MAX_BYTES, "walk an sg table");
    if (skip >= this.lengthBytes) return;
    const first = this.nentsForLen(skip + 1) - 1;
    let into = skip - this.bytesBefore(first);
    for (let i = first; i < this.origNents; i++, into = 0) {
      const entry = this.cpu(i);
      const end = entry.offset + entry.lengthBytes;
      for (let at = entry.offset + into; at < end; ) {
        const offset = at % FRAME_BYTES;
        const lengthBytes = Math.min(end - at, FRAME_BYTES - offset);
        yield { pfn: entry.pfn + (at - offset) / FRAME_BYTES, offset, lengthBytes };
        at += lengthBytes;
      }
    }
  }

  /** @internal Bytes of the entries before entry `i`. */
  bytesBefore(i: number): number {
    const at = this.#field(ENTRIES_AT) + i * this.#core.exports.ENTRY_BYTES.value;
    return this.#core.word(at, 3);
  }

  /**
   * Keeps the frames where they are, and shows their bytes. ENOENT: a frame is not handed out;
   * EOVERFLOW: it has as many pins as can be counted.
   */
  pin(): PinnedTable {
    this.#pinCount += 1;
    try {
      const owner = this.#frames === "others" ? 0 : this.handle;
      const unpinned = (): void => {
        this.#pinCount -= 1;
      };
      return new PinnedTable(this.#core, [...this.entries()], unpinned, owner);
    } catch (error) {
      this.#pinCount -= 1;
      throw error;
    }
  }

  /**
   * The bytes, one view for each entry, as `fs.readv` and `writev` take them. EINVAL unless
   * somebody holds a `pin()` of the table: do not keep the views beyond that.
   */
  views(): Uint8Array<ArrayBufferLike>[] {
    if (this.#pinCount === 0) fail("EINVAL", "view an sg table", "nobody pinned it; use pin()");
    return Array.from(this.entries(), (entry) =>
      this.#core.view(addressOf(entry.pfn, entry.offset), entry.lengthBytes),
    );
  }

  /**
   * Reads bytes of a file into the table, until that is full or the file ends: how many. The file
   * writes straight into the frames, which stay pinned meanwhile.
   */
  async readFrom(file: FileSource, options: TransferOptions = {}): Promise<number> {
    const pinned = this.pin();
    try {
      return await readAll(file, pinned.views, options);
    } finally {
      pinned.unpin();
    }
  }

  /** Writes the table's bytes to a file, straight from the frames: how many. */
  async writeTo(file: FileSink, options: TransferOptions = {}): Promise<number> {
    const pinned = this.pin();
    try {
      return await writeAll(file, pinned.views, options);
    } finally {
      pinned.unpin();
    }
  }

  /**
   * Tables of `sizes` bytes each, one after the other from byte `skip` on. They name the same
   * frames, pin them, and are freed by the caller. EINVAL: the table is too short. Compare
   * sg_split().
   */
  split(sizes: readonly number[], skip = 0): SgTable[] {
    const operation = "split an sg table";
    requireInteger(skip, "skip", 0, MAX_BYTES, operation);
    requireList(sizes, "the sizes", operation);
    for (const size of sizes) requireInteger(size, "a size", 1, MAX_BYTES, operation);
    const end = sizes.reduce((sum, size) => sum + size, skip);
    if (sizes.length === 0) fail("EINVAL", operation, "no size is given");
    if (end > this.lengthBytes)
      fail("EINVAL", operation, `${end} bytes are asked for, and it holds ${this.lengthBytes}`);
    return withWords(this.#core, Uint32Array.from(sizes), operation, (at, list) => {
      const result = this.#core.exports.sgSplit(this.handle, skip, at, sizes.length);
      checked(result, operation, (code) => (code === "ENOMEM" ? "memory is out" : "it was freed"));
      const { isPaged } = this.#pages;
      const outputs = Array.from(
        list,
        (handle) => new SgTable(this.#core, handle, "others", undefined, isPaged),
      );
      try {
        for (const output of outputs) output.#hold();
      } catch (error) {
        for (const output of outputs) output.free();
        throw error;
      }
      return outputs;
    });
  }

  /** Pins the frames until the table is freed. */
  #hold(): void {
    this.#held.push(new PinnedTable(this.#core, [...this.entries()], () => {}));
  }

  /**
   * Appends the first `lengthBytes` bytes of the frames, which stay their owner's: all bytes,
   * unless told otherwise. They join the last entry where they follow it and it stays within
   * `maxSegmentBytes`. EBUSY: mapped; EINVAL: the table owns its frames. Compare
   * sg_alloc_append_table_from_pages().
   */
  append(frames: ArrayLike<number>, options: SgTableOptions = {}): void {
    const operation = "append to an sg table";
    const words = wordsOf(frames, "a frame", operation);
    const held = holdRuns(this.#core, runsOf(words), operation);
    try {
      framesInto(this.#core, this.handle, words, options, operation);
    } catch (error) {
      held.unpin();
      throw error;
    }
    this.#held.push(held);
    this.#pages.grown(this, options.lengthBytes ?? addressOf(words.length));
  }

  /**
   * Fills `lengthBytes` bytes from `skip` on with zeros: all, unless told otherwise. How many:
   * fewer when the table ends before. Compare sg_zero_buffer().
   */
  zero(skip = 0, lengthBytes: number = MAX_BYTES): number {
    const operation = "zero an sg table";
    requireInteger(skip, "skip", 0, MAX_BYTES, operation);
    requireInteger(lengthBytes, "lengthBytes", 0, MAX_BYTES, operation);
    return checked(this.#core.exports.sgZero(this.handle, skip, lengthBytes), operation, (code) =>
      code === "ESTALE" ? "it was freed" : "a frame has no bytes",
    );
  }

  /**
   * Copies the table's bytes from `skip` on into `into`. How many: fewer than `into` holds when the
   * table ends before. Compare sg_pcopy_to_buffer().
   */
  pcopyToBuffer(into: PinnedRange, skip = 0): number {
    return this.#pcopy(into, skip, 1);
  }

  /**
   * Copies the bytes of `from` into the table from `skip` on. How many. Compare
   * sg_pcopy_from_buffer().
   */
  pcopyFromBuffer(from: PinnedRange, skip = 0): number {
    return this.#pcopy(from, skip, 0);
  }

  #pcopy(buffer: PinnedRange, skip: number, isToBuffer: number): number {
    const operation = "copy an sg table";
    requireInteger(skip, "skip", 0, MAX_BYTES, operation);
    requireInstance(buffer, PinnedRange, "the buffer", operation);
    if (!buffer.isOn(this.#core)) fail("EINVAL", operation, "the buffer is of another system");
    const { byteOffset, length } = buffer.bytes;
    const copied = checked(
      this.#core.exports.sgCopy(this.handle, skip, byteOffset, length, isToBuffer),
      operation,
      (code) => (code === "ESTALE" ? "it was freed" : "a frame has no bytes"),
    );
    this.#core.bytesCopied += copied;
    return copied;
  }

  /** Frees the table, and its frames if it owns them. EBUSY: mapped or pinned. */
  free(): void {
    const operation = "free an sg table";
    if (this.#isFreed) fail("ESTALE", operation, "it was freed");
    const { exports } = this.#core;
    const frees = {
      own: exports.storageFree,
      others: exports.sgTableFree,
      borrowed: exports.tableReturn,
    };
    const result = frees[this.#frames](this.handle);
    checked(result, operation, (code) =>
      code === "EBUSY"
        ? `it is mapped ${this.mapCount} times, or a frame is pinned`
        : "it was freed",
    );
    this.#isFreed = true;
    for (const held of this.#held) held.unpin();
    this.#onFreed();
  }

  [Symbol.dispose](): void {
    if (!this.#isFreed) this.free();
  }
}
