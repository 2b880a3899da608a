/**
 * Shmem: memory with a size but without an address, made of frames that come when they are needed.
 *
 *     page   0       1       2       3          hold(1, 2)  udmabuf, mapping
 *          [frame] [frame] ( hole ) [frame]     truncate(2) page 3 leaves, held pages stay frames
 *
 * - SM1  A page without a frame reads as zeros; it gets a cleared frame at the first write or hold.
 * - SM2  A frame goes back once its page has left the memory and nobody holds it.
 * - SM3  Seals only grow. A sealed operation is refused for everybody, whatever they opened.
 *
 * Compare the kernel's mm/shmem.c and mm/memfd.c.
 *
 * @module
 */

import type { Core } from "../core/core.ts";
import { fail, requireInteger, textOf } from "../errors.ts";
import { addressOf, FRAME_BYTES, framesOf, pfnOf } from "../units.ts";
import { allocFrames, freeFrames } from "./frame-list.ts";

/** No seal can be added any more. */
export const F_SEAL_SEAL = 1;
/** The size cannot shrink. */
export const F_SEAL_SHRINK = 2;
/** The size cannot grow. */
export const F_SEAL_GROW = 4;
/** Nobody can write. */
export const F_SEAL_WRITE = 8;
/** Nobody can write, but for the writable mappings that exist. */
export const F_SEAL_FUTURE_WRITE = 16;

const ALL_SEALS = F_SEAL_SEAL + F_SEAL_SHRINK + F_SEAL_GROW + F_SEAL_WRITE + F_SEAL_FUTURE_WRITE;
/** The last page that a file of Linux can have. */
const LAST_PAGE = 2 ** 51 - 1;

interface Page {
  readonly pfn: number;
  holdCount: number;
  /** Whether it still belongs to the memory (SM2). */
  isInside: boolean;
}

/** Pages that somebody keeps. Made by `shmem.hold()`. */
export interface HeldShmem {
  /** The frames, in the order of the pages. */
  readonly pfns: readonly number[];
  /** Gives the pages back, once. */
  release(): void;
}

/** The memory behind memfds. */
export class Shmem {
  readonly name: string;
  readonly #core: Core;
  readonly #pages: Map<number, Page> = new Map();
  #sizeBytes = 0;
  #seals: number;
  #pinCount = 0;
  #writableCount = 0;

  /** @internal */
  constructor(core: Core, name: string, seals: number) {
    this.#core = core;
    this.name = name;
    this.#seals = seals;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** Which seals there are, as a mask of `F_SEAL_…`. */
  get seals(): number {
    return this.#seals;
  }

  /** Frames that it has, holes not counted. */
  get frameCount(): number {
    return this.#pages.size;
  }

  #isSealed(seals: number): boolean {
    return (this.#seals & seals) !== 0;
  }

  /** Sets the size; what is beyond it is gone. EINVAL; EPERM: sealed (SM3). */
  truncate(sizeBytes: number): void {
    const operation = `set the size of ${this.name}`;
    requireInteger(sizeBytes, "the size", 0, Number.MAX_SAFE_INTEGER, operation);
    if (sizeBytes < this.#sizeBytes && this.#isSealed(F_SEAL_SHRINK))
      fail("EPERM", operation, "it is sealed against shrinking");
    if (sizeBytes > this.#sizeBytes && this.#isSealed(F_SEAL_GROW))
      fail("EPERM", operation, "it is sealed against growing");
    const kept = framesOf(sizeBytes);
    for (const index of [...this.#pages.keys()]) if (index >= kept) this.#drop(index);
    const tail = this.#pages.get(pfnOf(sizeBytes));
    if (sizeBytes < this.#sizeBytes && tail !== undefined)
      this.#viewOf(tail, sizeBytes % FRAME_BYTES, FRAME_BYTES).fill(0);
    this.#sizeBytes = sizeBytes;
  }

  /**
   * Adds seals (SM3). EINVAL: there are no such seals; EPERM: sealed against seals; EBUSY: it is to
   * be sealed against writing, and a writable mapping or a pin of its pages is there.
   */
  addSeals(seals: number): void {
    const operation = `seal ${this.name}`;
    if (!Number.isInteger(seals) || seals < 0 || seals > ALL_SEALS)
      fail("EINVAL", operation, `${textOf(seals)} are not seals`);
    if (this.#isSealed(F_SEAL_SEAL)) fail("EPERM", operation, "it is sealed against seals");
    if ((seals & F_SEAL_WRITE) !== 0 && !this.#isSealed(F_SEAL_WRITE)) {
      if (this.#writableCount > 0) fail("EBUSY", operation, "it is mapped for writing");
      if (this.#pinCount > 0) fail("EBUSY", operation, "a device may write to its pages");
    }
    this.#seals |= seals;
  }

  /** Reads from byte `offset` on, to the end of the memory at most. How many bytes. */
  read(into: Uint8Array, offset: number): number {
    const length = Math.max(0, Math.min(into.length, this.#sizeBytes - offset));
    this.#eachPart(offset, length, (index, from, to, at) => {
      const page = this.#pages.get(index);
      if (page === undefined) into.fill(0, at, at + to - from);
      else into.set(this.#viewOf(page, from, to), at);
    });
    this.#core.bytesCopied += length;
    return length;
  }

  /** Writes from byte `offset` on, and grows. EPERM: sealed (SM3); ENOMEM. */
  write(bytes: Uint8Array, offset: number): number {
    const operation = `write to ${this.name}`;
    const end = offset + bytes.length;
    if (this.#isSealed(F_SEAL_WRITE + F_SEAL_FUTURE_WRITE))
      fail("EPERM", operation, "it is sealed against writing");
    if (end > this.#sizeBytes && this.#isSealed(F_SEAL_GROW))
      fail("EPERM", operation, "it is sealed against growing");
    if (bytes.length === 0) return 0;
    const first = pfnOf(offset);
    this.#populate(first, framesOf(end) - first, operation);
    this.#eachPart(offset, bytes.length, (index, from, to, at) => {
      this.#viewOf(this.#page(index), from, to).set(bytes.subarray(at, at + to - from));
    });
    this.#sizeBytes = Math.max(this.#sizeBytes, end);
    this.#core.bytesCopied += bytes.length;
    return bytes.length;
  }

  /**
   * Keeps `pageCount` pages from `first` on, and gives them frames (SM1). `how` says what for: to
   * read or write through a mapping, or so that a device may. EFBIG: no file has such a page;
   * EINVAL: it is beyond the end; EPERM: sealed against writing; ENOMEM.
   */
  hold(first: number, pageCount: number, how: "read" | "write" | "pin"): HeldShmem {
    const operation = `hold pages of ${this.name}`;
    if (pageCount > 0 && first > LAST_PAGE) fail("EFBIG", operation, "no file has such a page");
    if (first + pageCount > framesOf(this.#sizeBytes))
      fail("EINVAL", operation, `a page is beyond its ${this.#sizeBytes} bytes`);
    this.#populate(first, pageCount, operation);
    const pages = Array.from({ length: pageCount }, (_, i) => this.#page(first + i));
    for (const page of pages) page.holdCount += 1;
    this.#count(how, 1);
    let isHeld = true;
    return {
      pfns: pages.map(({ pfn }) => pfn),
      release: () => {
        if (!isHeld) fail("ESTALE", `release pages of ${this.name}`, "they were released");
        isHeld = false;
        this.#count(how, -1);
        for (const page of pages) page.holdCount -= 1;
        this.#free(pages);
      },
    };
  }

  /** Forgets everything: nobody can open it any more. Held pages go with their holders (SM2). */
  release(): void {
    const pages = [...this.#pages.values()];
    this.#pages.clear();
    for (const page of pages) page.isInside = false;
    this.#free(pages);
    this.#sizeBytes = 0;
  }

  #count(how: "read" | "write" | "pin", step: number): void {
    if (how === "pin") this.#pinCount += step;
    if (how === "write") this.#writableCount += step;
  }

  #page(index: number): Page {
    return this.#pages.get(index) ?? fail("EIO", `use ${this.name}`, `page ${index} is lost`);
  }

  #viewOf({ pfn }: Page, from: number, to: number): Uint8Array<ArrayBufferLike> {
    return this.#core.view(addressOf(pfn, from), to - from);
  }

  #eachPart(
    offset: number,
    length: number,
    visit: (index: number, from: number, to: number, at: number) => void,
  ): void {
    for (let at = 0; at < length; ) {
      const from = (offset + at) % FRAME_BYTES;
      const to = Math.min(FRAME_BYTES, from + length - at);
      visit(pfnOf(offset + at), from, to, at);
      at += to - from;
    }
  }

  #drop(index: number): void {
    const page = this.#page(index);
    this.#pages.delete(index);
    page.isInside = false;
    this.#free([page]);
  }

  /** SM2. */
  #free(pages: readonly Page[]): void {
    const pfns = pages.flatMap(({ pfn, isInside, holdCount }) =>
      isInside || holdCount > 0 ? [] : [pfn],
    );
    freeFrames(this.#core, Uint32Array.from(new Set(pfns)));
  }

  /** SM1: all of them, or none. */
  #populate(first: number, pageCount: number, operation: string): void {
    const frames = framesOf(this.#core.u8.length);
    if (pageCount > frames) fail("ENOMEM", operation, `memory has ${frames} frames`);
    const missing: number[] = [];
    for (let i = first; i < first + pageCount; i++) if (!this.#pages.has(i)) missing.push(i);
    if (missing.length === 0) return;
    const pfns = allocFrames(this.#core, missing.length, operation);
    for (const [i, index] of missing.entries())
      this.#pages.set(index, { pfn: pfns[i] as number, holdCount: 0, isInside: true });
  }
}
