/**
 * UserMapping: a part of a file in a process's memory.
 *
 * - UM1  A mapping keeps what it maps alive: a closed descriptor does not end it.
 * - UM2  A private mapping shows a copy that was made with it: nobody else sees what is written
 *        there, and what others write later is not seen.
 *
 * Compare mmap() in the kernel's mm/mmap.c.
 *
 * @module
 */

import { fail, requireInteger } from "../errors.ts";
import type { MappedBytes } from "./file-operations.ts";

/** Bytes that a process mapped. Made by `process.mmap()`. */
export class UserMapping {
  /** As asked for: the views show whole pages. */
  readonly lengthBytes: number;
  readonly isShared: boolean;
  readonly #map: () => MappedBytes;
  readonly #copy: Uint8Array<ArrayBuffer> | null;
  readonly #onUnmapped: (mapping: UserMapping) => void;
  #mapped: MappedBytes | null;

  /** @internal `map` makes the mapping, and again for a process that inherits it. */
  constructor(
    lengthBytes: number,
    isShared: boolean,
    map: () => MappedBytes,
    onUnmapped: (mapping: UserMapping) => void,
  ) {
    this.lengthBytes = lengthBytes;
    this.isShared = isShared;
    this.#map = map;
    this.#onUnmapped = onUnmapped;
    this.#mapped = map();
    this.#copy = isShared ? null : copyOf(this.#mapped.views);
  }

  /** Bytes of its own (UM2); 0 if it is shared. */
  get copiedBytes(): number {
    return this.#copy?.length ?? 0;
  }

  /**
   * The bytes in order, one view for each run of frames. A typed array cannot be revoked, nor made
   * read-only: do not keep it beyond unmap(). EINVAL once unmapped.
   */
  get views(): readonly Uint8Array<ArrayBufferLike>[] {
    const mapped = this.#mapped ?? fail("EINVAL", "read a mapping", "it was unmapped");
    return this.#copy === null ? mapped.views : [this.#copy];
  }

  /** Byte `offset` of the mapping. EINVAL: outside. */
  at(offset: number): number {
    const [view, index] = this.#locate(offset);
    return view[index] as number;
  }

  /** Sets byte `offset` of the mapping. EINVAL: outside. */
  set(offset: number, byte: number): void {
    requireInteger(byte, "byte", 0, 255, "use a mapping");
    const [view, index] = this.#locate(offset);
    view[index] = byte;
  }

  #locate(offset: number): [view: Uint8Array, index: number] {
    requireInteger(offset, "offset", 0, Number.MAX_SAFE_INTEGER, "use a mapping");
    let index = offset;
    for (const view of this.views) {
      if (index < view.length) return [view, index];
      index -= view.length;
    }
    return fail("EINVAL", "use a mapping", `byte ${offset} is outside`);
  }

  /** Ends the mapping: munmap(). EINVAL: it was unmapped before. */
  unmap(): void {
    const mapped = this.#mapped ?? fail("EINVAL", "unmap", "it was unmapped before");
    mapped.unmap(); // may refuse, and then it stays
    this.#mapped = null;
    this.#onUnmapped(this);
  }

  /** @internal The same mapping in a process that inherits it. */
  inherit(onUnmapped: (mapping: UserMapping) => void): UserMapping {
    const child = new UserMapping(this.lengthBytes, this.isShared, this.#map, onUnmapped);
    if (this.#copy !== null) child.#copy?.set(this.#copy);
    return child;
  }

  [Symbol.dispose](): void {
    if (this.#mapped !== null) this.unmap();
  }
}

function copyOf(views: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const copy = new Uint8Array(views.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const view of views) {
    copy.set(view, at);
    at += view.length;
  }
  return copy;
}
