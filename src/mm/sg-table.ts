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

import type { Core } from "../core/core.ts";
import { checked, fail, requireInteger } from "../errors.ts";
import { addressOf } from "../units.ts";
import type { PinnedRange } from "./frame-range.ts";

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

/** A list of segments in memory. Made by a heap, or by `system.sgTable…()`. */
export class SgTable {
  /** The core's number for it. */
  readonly handle: number;
  readonly #core: Core;
  readonly #ownsFrames: boolean;
  readonly #onFreed: () => void;
  #isFreed = false;

  /** @internal */
  constructor(core: Core, handle: number, ownsFrames: boolean, onFreed: () => void = () => {}) {
    this.#core = core;
    this.#onFreed = onFreed;
    this.handle = handle;
    this.#ownsFrames = ownsFrames;
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

  /** Entry `i` of `origNents`; EINVAL outside. */
  cpu(i: number): SgEntry {
    if (!(Number.isInteger(i) && i >= 0 && i < this.origNents)) {
      fail("EINVAL", `read entry ${i} of an sg table`, `it has ${this.origNents} entries`);
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
    const operation = `count the entries of ${lengthBytes} bytes`;
    requireInteger(lengthBytes, "lengthBytes", 0, 2 ** 32 - 1, operation);
    const result = this.#core.exports.sgNentsForLen(this.handle, lengthBytes);
    return checked(
      result,
      `count the entries of ${lengthBytes} bytes`,
      () => `the table holds ${this.lengthBytes}`,
    );
  }

  /**
   * @internal The bytes of every entry. The caller keeps the frames pinned as long as somebody
   * holds the views.
   */
  views(): Uint8Array<ArrayBufferLike>[] {
    return Array.from(this.entries(), (entry) =>
      this.#core.view(addressOf(entry.pfn, entry.offset), entry.lengthBytes),
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
    requireInteger(skip, "skip", 0, 2 ** 32 - 1, operation);
    if (!buffer.isOn(this.#core)) fail("EINVAL", operation, "the buffer is of another system");
    const { byteOffset, length } = buffer.bytes;
    const copied = checked(
      this.#core.exports.sgCopy(this.handle, skip, byteOffset, length, isToBuffer),
      operation,
      () => "it was freed",
    );
    this.#core.bytesCopied += copied;
    return copied;
  }

  /** Frees the table, and its frames if it owns them. EBUSY: mapped or pinned. */
  free(): void {
    const operation = "free an sg table";
    if (this.#isFreed) fail("ESTALE", operation, "it was freed");
    const { exports } = this.#core;
    const result = this.#ownsFrames
      ? exports.storageFree(this.handle)
      : exports.sgTableFree(this.handle);
    checked(result, operation, (code) =>
      code === "EBUSY"
        ? `it is mapped ${this.mapCount} times, or a frame is pinned`
        : "it was freed",
    );
    this.#isFreed = true;
    this.#onFreed();
  }

  [Symbol.dispose](): void {
    if (!this.#isFreed) this.free();
  }
}
