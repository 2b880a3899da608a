/**
 * Directions of a transfer, seen from memory, and what each lets the device and the CPU do.
 *
 * Compare `enum dma_data_direction` in the kernel's include/linux/dma-direction.h.
 *
 * @module
 */

import { fail } from "./errors.ts";

/** Who writes: the device ("from-device"), the CPU ("to-device") or both. */
export type Direction = "bidirectional" | "to-device" | "from-device";

const numbers: Record<Direction, number> = { bidirectional: 0, "to-device": 1, "from-device": 2 };

/** The kernel's number for a direction; throws EINVAL for anything else. */
export function directionNumber(direction: Direction, operation: string): number {
  const number = Object.hasOwn(numbers, direction) ? numbers[direction] : undefined;
  if (number === undefined) {
    fail(
      "EINVAL",
      operation,
      `the direction must be one of ${Object.keys(numbers).join(", ")}, not ${String(direction)}`,
    );
  }
  return number;
}

/** Whether the CPU writes the buffer in this direction: such an access waits for readers too. */
export function cpuWrites(direction: Direction): boolean {
  return direction !== "from-device";
}
