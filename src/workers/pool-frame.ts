/**
 * What a thread holds of a pool: a frame to write, or a frame to read.
 *
 *     pool.acquire() ─► WritableFrame ──publish()──► FrameConsumer.take() ─► ReadableFrame ──release()──► free
 *
 * - PF1  A frame is used until it is published, abandoned or released, once; then it is refused
 *        (ESTALE).
 *
 * @module
 */

import { requireObject } from "../arguments.ts";
import type { DmaBuf } from "../dma-buf/dma-buf.ts";
import type { PixelLayout } from "../dma-buf/formats.ts";
import { fail } from "../errors.ts";
import type { Fence } from "../fence/fence.ts";

/** A frame's memory on this thread. */
interface FrameMemory {
  readonly buf: DmaBuf;
  /** The bytes in order, one view for each run of frames. */
  readonly views: readonly Uint8Array<ArrayBufferLike>[];
}

/** Who gets a frame, and from when on. */
export interface PublishOptions {
  /** Names of consumers; all that are there, if it is not given. */
  readonly to?: string | readonly string[] | undefined;
  /** When it signals, the bytes may be read. Without it: at once. */
  readonly fence?: Fence | undefined;
}

/** A frame in use on this thread. */
abstract class UsedFrame {
  /** Which frame of the pool. */
  readonly index: number;
  /** Bytes of the frame. */
  readonly sizeBytes: number;
  readonly #memory: FrameMemory;
  #isUsed = true;

  /** @internal */
  constructor(index: number, memory: FrameMemory) {
    this.index = index;
    this.#memory = memory;
    this.sizeBytes = memory.buf.sizeBytes;
  }

  /** Whether it is this thread's still (PF1). */
  get isUsed(): boolean {
    return this.#isUsed;
  }

  /** The frame's buffer, to attach devices to; the pool holds it. ESTALE (PF1). */
  get buf(): DmaBuf {
    this.#requireUsed("use");
    return this.#memory.buf;
  }

  /** Where the planes of its picture lie; null: the frame is bytes. ESTALE (PF1). */
  get layout(): PixelLayout | null {
    return this.buf.layout;
  }

  /** The bytes in order, one view for each run of frames. ESTALE (PF1). */
  get views(): readonly Uint8Array<ArrayBufferLike>[] {
    this.#requireUsed("read");
    return this.#memory.views;
  }

  /** The bytes as one view. EINVAL: they are not in one run; ESTALE (PF1). */
  get bytes(): Uint8Array<ArrayBufferLike> {
    const [view, ...others] = this.views;
    if (view === undefined || others.length > 0)
      return fail(
        "EINVAL",
        `use frame ${this.index} as one view`,
        `its bytes lie in ${this.views.length} runs; use views, or a pool of a CMA region`,
      );
    return view;
  }

  #requireUsed(verb: string): void {
    if (!this.#isUsed) fail("ESTALE", `${verb} frame ${this.index}`, "it was passed on");
  }

  /** Ends the use by `end`, which may refuse. */
  protected finish(verb: string, end: () => void): void {
    this.#requireUsed(verb);
    end();
    this.#isUsed = false;
  }
}

/** What a frame does with the pool that it came from. */
export interface WriterSide {
  publish(index: number, options: PublishOptions): number;
  abandon(index: number): void;
}

/** A frame to write. Made by `pool.acquire()` or `pool.frames()`. */
export class WritableFrame extends UsedFrame {
  readonly #side: WriterSide;

  /** @internal */
  constructor(index: number, memory: FrameMemory, side: WriterSide) {
    super(index, memory);
    this.#side = side;
  }

  /**
   * Passes the frame on. How many consumers get it; with 0 it is free again. EINVAL: the fence is
   * none, or another system's; ENOENT: there is no such consumer; ESTALE (PF1), or the fence was
   * released.
   */
  publish(options: PublishOptions = {}): number {
    requireObject(options, "the options", `publish frame ${this.index}`);
    let count = 0;
    this.finish("publish", () => {
      count = this.#side.publish(this.index, options);
    });
    return count;
  }

  /** Gives the frame back unpublished. ESTALE (PF1). */
  abandon(): void {
    this.finish("abandon", () => this.#side.abandon(this.index));
  }

  [Symbol.dispose](): void {
    if (this.isUsed) this.abandon();
  }
}

/** A frame to read, or to read and write. Made by a consumer's `take()` or `frames()`. */
export class ReadableFrame extends UsedFrame {
  /** Counts the pool's publications from 1, wrapping at 2^32. */
  readonly seqno: number;
  /** What the producer said must signal first; null: nothing. It has signaled when it is here. */
  readonly acquireFence: Fence | null;
  readonly #release: (index: number, fence: Fence | null) => void;

  /** @internal */
  constructor(
    index: number,
    memory: FrameMemory,
    seqno: number,
    acquireFence: Fence | null,
    release: (index: number, fence: Fence | null) => void,
  ) {
    super(index, memory);
    this.seqno = seqno;
    this.acquireFence = acquireFence;
    this.#release = release;
  }

  /**
   * Gives the frame back; with a fence, whoever writes it next waits for that. EINVAL: the fence is
   * none, or another system's; ESTALE (PF1), or the fence was released.
   */
  release(options: { readonly fence?: Fence | null | undefined } = {}): void {
    requireObject(options, "the options", `release frame ${this.index}`);
    const { fence = null } = options;
    this.finish("release", () => this.#release(this.index, fence));
  }

  [Symbol.dispose](): void {
    if (this.isUsed) this.release();
  }
}
