/**
 * Ioctl numbers: direction, size of the argument, type and number in 32 bits.
 *
 *     31 30 29        16 15         8 7          0
 *     ┌────┬────────────┬────────────┬────────────┐
 *     │ dir│    size    │    type    │   number   │      dir: 1 the kernel reads, 2 it writes, 3 both
 *     └────┴────────────┴────────────┴────────────┘
 *
 * Compare the kernel's include/uapi/asm-generic/ioctl.h.
 *
 * @module
 */

import { requireText } from "../arguments.ts";
import { requireInteger } from "../errors.ts";

/** The kernel reads the argument: `_IOW`. */
export const IOC_WRITE = 1;
/** The kernel writes the argument: `_IOR`. */
export const IOC_READ = 2;

const TYPE_UNIT = 2 ** 8;
const SIZE_UNIT = 2 ** 16;
const DIRECTION_UNIT = 2 ** 30;
const SIZE_END = 2 ** 14;

/** The parts of an ioctl's number. */
export interface IoctlParts {
  /** IOC_READ, IOC_WRITE, or their sum. */
  readonly direction: number;
  /** Bytes of the argument. */
  readonly sizeBytes: number;
  /** Usually a letter: its code. */
  readonly type: number;
  readonly number: number;
}

/** The number of an ioctl: `_IOC()`. */
export function ioctlNumber(
  direction: number,
  type: string,
  number: number,
  sizeBytes: number,
): number {
  requireText(type, "the type", "number an ioctl");
  for (const value of [direction, number, sizeBytes])
    requireInteger(value, "each number", 0, SIZE_END, "number an ioctl");
  const low = type.charCodeAt(0) * TYPE_UNIT + number;
  return direction * DIRECTION_UNIT + sizeBytes * SIZE_UNIT + low;
}

/** The parts of a number. */
export function ioctlParts(command: number): IoctlParts {
  requireInteger(command, "the command", 0, 0xffffffff, "split an ioctl");
  return {
    direction: Math.floor(command / DIRECTION_UNIT),
    sizeBytes: Math.floor(command / SIZE_UNIT) % SIZE_END,
    type: Math.floor(command / TYPE_UNIT) % TYPE_UNIT,
    number: command % TYPE_UNIT,
  };
}
