/**
 * FrameRange: frames in one run, and pins on them.
 *
 *     alloc ──► FrameRange ──pin()──► PinnedRange (bytes) ──unpin()──► FrameRange ──free()──► gone
 *
 * - N1  The token is the pin: it is taken back by its own method, and only once.
 * - N2  Views come from pins only, because only pinned frames stay where they are.
 * - N12 Old bytes are gone before anybody can show them: pin() and `pfn` clear the frames, once.
 *       Who knows the number can map it for a device, whose writes a later pin() must not clear.
 *
 * Compare pin_user_pages() in the kernel's mm/gup.c.
 *
 * @module
 */

import type { Core } from "../core/core.ts";
import { checked, type ErrnoCode, fail } from "../errors.ts";
import { addressOf, FRAME_BYTES } from "../units.ts";

/** How a range gives its frames back: 0 or a negative errno. */
type FreeFrames = (pfn: number, frameCount: number) => number;

/**
 * A run of frames that the holder owns. Made by `system.frames` or a CMA region. Zeroed when it is
 * pinned, or its `pfn` is read, for the first time.
 */
export class FrameRange {
  readonly frameCount: number;
  readonly #core: Core;
  readonly #pfn: number;
  readonly #freeFrames: FreeFrames;
  #isFreed = false;
  #isCleared = false;

  /** @internal */
  constructor(core: Core, pfn: number, frameCount: number, freeFrames: FreeFrames) {
    this.#core = core;
    this.#pfn = pfn;
    this.frameCount = frameCount;
    this.#freeFrames = freeFrames;
  }

  /** The first frame. The first look clears what earlier owners left (N12). */
  get pfn(): number {
    this.clear();
    return this.#pfn;
  }

  get lengthBytes(): number {
    return this.frameCount * FRAME_BYTES;
  }

  #requireLive(operation: string): void {
    if (this.#isFreed) fail("ESTALE", operation, "the range was freed");
  }

  /** @internal Clears what earlier owners left, once (N12). */
  clear(): void {
    if (this.#isCleared || this.#isFreed) return;
    this.#core.exports.frameClearRun(this.#pfn, this.frameCount);
    this.#isCleared = true;
  }

  /** Keeps the frames where they are, and shows their bytes: no earlier owner's are among them. */
  pin(): PinnedRange {
    this.#requireLive("pin a range");
    checked(this.#core.exports.pinRange(this.#pfn, this.frameCount), "pin a range", (code) =>
      code === "EOVERFLOW"
        ? "a frame has as many pins as can be counted"
        : "a frame was given back past the range",
    );
    this.clear();
    return new PinnedRange(this.#core, this.#pfn, this.frameCount);
  }

  /** Gives the frames back. EBUSY: pinned; ESTALE: freed before. */
  free(): void {
    this.#requireLive("free a range");
    checked(this.#freeFrames(this.#pfn, this.frameCount), "free a range", freeReason);
    this.#isFreed = true;
  }

  [Symbol.dispose](): void {
    if (!this.#isFreed) this.free();
  }
}

function freeReason(code: ErrnoCode): string {
  return code === "EBUSY" ? "a frame is pinned; unpin it first" : "a frame was not handed out";
}

/** A pin on a run of frames, and the bytes it keeps in place. */
export class PinnedRange {
  readonly pfn: number;
  readonly frameCount: number;
  readonly #core: Core;
  #bytes: Uint8Array<ArrayBufferLike> | null;

  /** @internal */
  constructor(core: Core, pfn: number, frameCount: number) {
    this.#core = core;
    this.pfn = pfn;
    this.frameCount = frameCount;
    this.#bytes = core.view(addressOf(pfn), frameCount * FRAME_BYTES);
  }

  /**
   * @internal Whether it belongs to the memory of `core`: another system's numbers mean nothing.
   */
  isOn(core: Core): boolean {
    return this.#core.memory === core.memory;
  }

  /**
   * The bytes. A typed array cannot be revoked: do not keep it beyond unpin(). ESTALE once
   * unpinned.
   */
  get bytes(): Uint8Array<ArrayBufferLike> {
    return this.#bytes ?? fail("ESTALE", "read a pinned range", "it was unpinned");
  }

  /** Takes this pin off. ESTALE when it was taken off before. */
  unpin(): void {
    if (this.#bytes === null) fail("ESTALE", "unpin a range", "it was unpinned before");
    checked(
      this.#core.exports.unpinRange(this.pfn, this.frameCount),
      "unpin a range",
      () => "a frame has no pin",
    );
    this.#bytes = null;
  }

  [Symbol.dispose](): void {
    if (this.#bytes !== null) this.unpin();
  }
}
