/**
 * UserPointer: the memory that a system call's argument points to.
 *
 *     ioctl(fd, command, bytes)      the argument is these bytes
 *     ioctl(fd, command, address)    it lies in the process's memory, from this byte on
 *
 * - UP1  What lies outside, or in the first page of the process's memory, is EFAULT: NULL always.
 * - UP2  Arguments are short: they are copied byte by byte, because a view of a short array costs
 *        more than the copy.
 *
 * Compare copy_from_user() and strndup_user() in the kernel.
 *
 * @module
 */

import { fail } from "../errors.ts";
import { FRAME_BYTES } from "../units.ts";
import { readText } from "./struct.ts";

/** An argument: bytes, an address in the process's memory, or null. */
export type UserArgument = Uint8Array | number | bigint | null;

/** Where an argument lies. */
export class UserPointer {
  readonly #bytes: Uint8Array;
  /** Where the bytes begin that it points to. */
  readonly #at: number;

  /** `memory`: the process's own, where addresses count from its first byte. */
  constructor(argument: UserArgument, memory: Uint8Array) {
    const isInline = argument instanceof Uint8Array;
    this.#bytes = isInline ? argument : memory;
    const isAddress = typeof argument === "number" || typeof argument === "bigint";
    const address = isAddress ? Number(argument) : 0;
    this.#at = isInline || address >= FRAME_BYTES ? address : this.#bytes.length; // UP1
  }

  /** A copy of `lengthBytes` bytes from `offset` on. EFAULT (UP1). */
  read(lengthBytes: number, offset = 0): Uint8Array<ArrayBuffer> {
    const copy = new Uint8Array(lengthBytes);
    this.readInto(copy, lengthBytes, offset);
    return copy;
  }

  /** Copies `lengthBytes` bytes from `offset` on to the start of `into`. EFAULT (UP1). */
  readInto(into: Uint8Array, lengthBytes: number, offset = 0): void {
    const at = this.#place(lengthBytes, offset);
    for (let i = 0; i < lengthBytes; i++) into[i] = this.#bytes[at + i] as number; // UP2
  }

  /** Writes the first `lengthBytes` of `bytes` from `offset` on. EFAULT (UP1). */
  write(bytes: Uint8Array, offset = 0, lengthBytes: number = bytes.length): void {
    const at = this.#place(lengthBytes, offset);
    for (let i = 0; i < lengthBytes; i++) this.#bytes[at + i] = bytes[i] as number; // UP2
  }

  /** The text up to a NUL. EINVAL: none within `maxBytes` bytes; EFAULT: memory ends before. */
  text(maxBytes: number): string {
    const bytes = this.#bytes.subarray(this.#at, this.#at + maxBytes);
    if (bytes.includes(0)) return readText(bytes);
    if (bytes.length < maxBytes) return fail("EFAULT", "read a string", "it has no end");
    return fail("EINVAL", "read a string", `it has no end within ${maxBytes} bytes`);
  }

  #place(lengthBytes: number, offset: number): number {
    const at = this.#at + offset;
    if (lengthBytes > 0 && at + lengthBytes > this.#bytes.length)
      fail("EFAULT", "copy an argument", `${lengthBytes} bytes there are not the process's`);
    return at;
  }
}
