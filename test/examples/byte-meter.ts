/**
 * ByteMeter: counts the bytes that really move into, out of and inside a system's memory, whoever
 * moves them.
 *
 *     TypedArray.prototype  set, copyWithin, slice     wrapped while measuring
 *     core exports          sgCopy                     wrapped in one system
 *
 * @module
 */

import type { System } from "dmabuf";

// biome-ignore lint/suspicious/noExplicitAny: the methods are wrapped for every kind of array
type AnyFunction = (...args: any[]) => any;
type Methods = Record<"set" | "copyWithin" | "slice", AnyFunction>;

const typedArrayPrototype = Object.getPrototypeOf(Uint8Array.prototype) as Methods;

/** Bytes that moved, by who moved them. */
export class ByteMeter {
  setBytes = 0;
  copyWithinBytes = 0;
  sliceBytes = 0;
  sgCopyBytes = 0;
  #memory: ArrayBufferLike | null = null;
  readonly #originals: Methods = {
    set: typedArrayPrototype.set,
    copyWithin: typedArrayPrototype.copyWithin,
    slice: typedArrayPrototype.slice,
  };

  constructor() {
    const meter = this;
    const { set, copyWithin, slice } = this.#originals;
    typedArrayPrototype.set = function (this: Uint8Array, source: Uint8Array, at?: number) {
      if (meter.#isInMemory(this) || meter.#isInMemory(source)) meter.setBytes += source.byteLength;
      return set.call(this, source, at);
    };
    typedArrayPrototype.copyWithin = function (this: Uint8Array, ...args: number[]) {
      if (meter.#isInMemory(this)) meter.copyWithinBytes += this.byteLength;
      return copyWithin.apply(this, args);
    };
    typedArrayPrototype.slice = function (this: Uint8Array, ...args: number[]) {
      const part = slice.apply(this, args);
      if (meter.#isInMemory(this)) meter.sliceBytes += part.byteLength;
      return part;
    };
  }

  #isInMemory(array: Uint8Array): boolean {
    return this.#memory !== null && array.buffer === this.#memory;
  }

  /** Measures this system from now on. */
  watch(system: System): void {
    this.#memory = system.core.memory.buffer;
    const { exports } = system.core;
    const sgCopy: typeof exports.sgCopy = (...args) => {
      const copied = exports.sgCopy(...args);
      if (copied > 0) this.sgCopyBytes += copied;
      return copied;
    };
    Object.defineProperty(system.core, "exports", { value: { ...exports, sgCopy } });
  }

  [Symbol.dispose](): void {
    Object.assign(typedArrayPrototype, this.#originals);
  }
}
