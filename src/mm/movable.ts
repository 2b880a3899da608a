/**
 * Movable: memory behind a handle, whose bytes may be moved to make room for a contiguous run.
 *
 *     alloc ──► Movable ──read() / write()──► the bytes, wherever they lie
 *                  └────pin()──► PinnedMovable: views ──unpin()──► Movable ──free()──► gone
 *
 * - Y2  Bytes move only while nobody has pinned them; views come from a pin, and are not to be kept
 *       beyond it.
 * - Y3  free() while pinned takes effect with the last unpin.
 *
 * Free frames of CMA regions are lent to movable memory and taken back when somebody asks for a
 * run; a long-term pin therefore leaves the regions first.
 *
 * Compare pin_user_pages() with FOLL_LONGTERM in the kernel's mm/gup.c.
 *
 * @module
 */

import { requireBytes, requireObject } from "../arguments.ts";
import type { Core } from "../core/core.ts";
import { checked, type ErrnoCode, fail, nameOf, requireInteger } from "../errors.ts";
import { addressOf, countOf, FRAME_BYTES, framesOf } from "../units.ts";

const LIST_AT = 0;
// Words of the header (assembly/layout.ts).
const RESERVE_FRAMES = 14;
const FREE_FRAMES = 16;

/** How to pin: for how long. */
export interface PinOptions {
  /**
   * Held for an unbounded time, as for scan-out: the memory first leaves the CMA regions. Default
   * false.
   */
  readonly longterm?: boolean | undefined;
}

/** Memory that may move. Made by `system.movable(frameCount)`; all zero. */
export class Movable {
  readonly frameCount: number;
  readonly #core: Core;
  readonly #handle: number;
  #isFreed = false;

  /** @internal */
  constructor(core: Core, frameCount: number) {
    this.#core = core;
    this.frameCount = frameCount;
    const operation = `allocate ${countOf(frameCount, "movable frame")}`;
    this.#handle = checked(core.exports.movableAlloc(frameCount), operation, () =>
      shortage(core, frameCount),
    );
  }

  get lengthBytes(): number {
    return this.frameCount * FRAME_BYTES;
  }

  /** Whether free() was called; pins may still keep the bytes (Y3). */
  get isFreed(): boolean {
    return this.#isFreed;
  }

  /** Reads `into.length` bytes from byte `offset` on. EINVAL outside; ESTALE once freed. */
  read(into: Uint8Array, offset = 0): void {
    requireBytes(into, "the buffer", "read movable memory");
    this.#access("read", offset, into.length, (view, at) => into.set(view, at));
  }

  /** Writes `bytes` from byte `offset` on. EINVAL outside; ESTALE once freed. */
  write(bytes: Uint8Array, offset = 0): void {
    requireBytes(bytes, "the bytes", "write movable memory");
    this.#access("write", offset, bytes.length, (view, at) => {
      view.set(bytes.subarray(at, at + view.length));
    });
  }

  #access(
    verb: string,
    offset: number,
    length: number,
    copy: (view: Uint8Array, at: number) => void,
  ): void {
    const operation = `${verb} ${length} bytes of movable memory at ${nameOf(offset)}`;
    requireInteger(offset, "offset", 0, this.lengthBytes, operation);
    if (offset + length > this.lengthBytes)
      fail("EINVAL", operation, `it holds ${this.lengthBytes} bytes`);
    const pinned = this.pin();
    try {
      for (let done = 0; done < length; ) {
        const view = pinned.at(offset + done, length - done);
        copy(view, done);
        done += view.length;
      }
    } finally {
      pinned.unpin();
    }
    this.#core.bytesCopied += length;
  }

  /** Keeps the bytes where they are. ENOMEM: a long-term pin finds no frame outside the regions. */
  pin(options: PinOptions = {}): PinnedMovable {
    const operation = "pin movable memory";
    requireObject(options, "the options", operation);
    const { longterm = false } = options;
    if (this.#isFreed) fail("ESTALE", operation, "it was freed");
    checked(this.#core.exports.movablePin(this.#handle, longterm ? 1 : 0), operation, pinReason);
    return new PinnedMovable(this.#core, this.#handle, this.frameCount);
  }

  /** Frees the memory, at once or with the last unpin (Y3). ESTALE: freed before. */
  free(): void {
    const operation = "free movable memory";
    if (this.#isFreed) fail("ESTALE", operation, "it was freed before");
    this.#core.requireJoined(operation);
    this.#isFreed = true;
    this.#core.exports.movableFree(this.#handle);
  }

  [Symbol.dispose](): void {
    if (!this.#isFreed) this.free();
  }
}

/** Why there is no room, for a message. */
function shortage(core: Core, frameCount: number): string {
  const [outside, kept] = [FREE_FRAMES, RESERVE_FRAMES].map((i) =>
    core.word(core.exports.HEADER_AT.value, i),
  );
  const listFrames = framesOf(frameCount * 4);
  const wanted = `${countOf(frameCount, "frame")} and, outside the CMA regions, ${listFrames} more`;
  const free = `${outside} are free outside, of which ${kept} are kept for others`;
  return `it needs ${wanted} for its list; ${free}, and the regions lend too few`;
}

function pinReason(code: ErrnoCode): string {
  if (code === "EBUSY") return "a frame in a CMA region has a short-term pin; unpin it first";
  if (code === "EOVERFLOW") return "it has as many pins as can be counted";
  return "too few frames outside the CMA regions are free, those kept for others aside";
}

/** A pin on movable memory. Made by `movable.pin()`. */
export class PinnedMovable {
  readonly #core: Core;
  readonly #handle: number;
  readonly #frameCount: number;
  #isUnpinned = false;

  /** @internal */
  constructor(core: Core, handle: number, frameCount: number) {
    this.#core = core;
    this.#handle = handle;
    this.#frameCount = frameCount;
  }

  #requirePinned(): void {
    if (this.#isUnpinned) fail("ESTALE", "use a pin", "it was taken off");
  }

  #pfn(i: number): number {
    const result = this.#core.exports.movableAt(this.#handle);
    const at = checked(result, "use a pin", () => "it was taken off");
    return this.#core.word(this.#core.word(at, LIST_AT), i);
  }

  /** The frames, in order. ESTALE once unpinned. */
  get pfns(): number[] {
    this.#requirePinned();
    return Array.from({ length: this.#frameCount }, (_, i) => this.#pfn(i));
  }

  /** The bytes in order, one view for each run of frames. ESTALE once unpinned. */
  get views(): Uint8Array<ArrayBufferLike>[] {
    this.#requirePinned();
    const views: Uint8Array<ArrayBufferLike>[] = [];
    for (let done = 0; done < this.#frameCount * FRAME_BYTES; done += views.at(-1)?.length ?? 0) {
      views.push(this.at(done, this.#frameCount * FRAME_BYTES - done));
    }
    return views;
  }

  /** @internal The bytes from `offset` on, as far as frames follow each other, at most `length`. */
  at(offset: number, length: number): Uint8Array<ArrayBufferLike> {
    const first = Math.floor(offset / FRAME_BYTES);
    const pfn = this.#pfn(first);
    let frames = 1;
    const wanted = Math.ceil((offset + length) / FRAME_BYTES) - first;
    while (frames < wanted && this.#pfn(first + frames) === pfn + frames) frames += 1;
    const into = offset - first * FRAME_BYTES;
    return this.#core.view(addressOf(pfn, into), Math.min(length, frames * FRAME_BYTES - into));
  }

  /** Takes this pin off. ESTALE: it was taken off before. */
  unpin(): void {
    this.#requirePinned();
    this.#core.requireJoined("unpin movable memory");
    this.#isUnpinned = true;
    this.#core.exports.movableUnpin(this.#handle);
  }

  [Symbol.dispose](): void {
    if (!this.#isUnpinned) this.unpin();
  }
}
