/**
 * Sizes, and the two numbers that every address is made of: the only shifts and masks outside the
 * core.
 *
 * A byte address below 2^56 is a safe integer, so addresses are plain numbers; the core takes them
 * as a page number and an offset, because a 64-bit argument would become a BigInt.
 *
 * @module
 */

import { fail, textOf } from "./errors.ts";

/** 1024 bytes. */
export const KiB = 1024;
/** 1024 KiB in bytes. */
export const MiB: number = 1024 * KiB;
/** 1024 MiB in bytes. */
export const GiB: number = 1024 * MiB;

/** Bytes of a frame of memory and of a device's page. */
export const FRAME_BYTES = 4096;
/** Bytes that CMA regions and `physicalBase` are multiples of: a pageblock. */
export const PAGEBLOCK_BYTES: number = 4 * MiB;
/** The highest device address is below this: 44 bits. */
export const ADDRESS_END: number = 2 ** 44;
/** A page number that is no frame's: "no limit", "none". */
export const NO_PFN = 0xffffffff;

/** Frames that hold `bytes` bytes, rounded up. */
export function framesOf(bytes: number): number {
  return Math.ceil(bytes / FRAME_BYTES);
}

/** The smallest order whose power of two is not below `count`, a number of 1 to 2^32. */
export function orderOf(count: number): number {
  return 32 - Math.clz32(count - 1);
}

/** The number of the page that holds a byte address. */
export function pfnOf(address: number): number {
  return Math.floor(address / FRAME_BYTES);
}

/** The offset of a byte address in its page. */
export function offsetOf(address: number): number {
  return address % FRAME_BYTES;
}

/** The byte address of a page number and an offset. */
export function addressOf(pfn: number, offset = 0): number {
  return pfn * FRAME_BYTES + offset;
}

/** The last page that a device with `bits` address bits reaches: page 0 at least. */
export function lastPfnOf(bits: number): number {
  return bits >= 44 ? NO_PFN : 2 ** (Math.max(bits, 12) - 12) - 1;
}

/** "4 KiB", "1.5 MiB": a size for people. */
export function formatBytes(bytes: number): string {
  if (typeof bytes !== "number") fail("EINVAL", "show a size", `it is no number: ${textOf(bytes)}`);
  if (bytes >= GiB) return `${trimmed(bytes / GiB)} GiB`;
  if (bytes >= MiB) return `${trimmed(bytes / MiB)} MiB`;
  if (bytes >= KiB) return `${trimmed(bytes / KiB)} KiB`;
  return `${bytes} bytes`;
}

function trimmed(value: number): string {
  return String(Number(value.toFixed(2)));
}

/** "1 pin", "2 pins": how many there are, for people. */
export function countOf(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** A device address for people: hexadecimal. */
export function formatAddress(address: number): string {
  return typeof address === "number" ? `0x${address.toString(16)}` : textOf(address);
}
