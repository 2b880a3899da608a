/**
 * Directions of a transfer, seen from memory, and what each lets the device and the CPU do.
 *
 * Compare `enum dma_data_direction` in the kernel's include/linux/dma-direction.h.
 *
 * @module
 */

import { fail, textOf } from "./errors.ts";

/**
 * Who writes: the device ("from-device"), the CPU ("to-device") or both. "none": nobody; an
 * exporter may be asked to map so, but no device maps memory for it.
 */
export type Direction = "bidirectional" | "to-device" | "from-device" | "none";

const transfers: readonly Direction[] = ["bidirectional", "to-device", "from-device"];
/** @internal All directions; the places of the first three are their numbers. */
export const directions: readonly Direction[] = [...transfers, "none"];

/** The kernel's number for a direction of a transfer; throws EINVAL for anything else. */
export function directionNumber(direction: Direction, operation: string): number {
  const number = transfers.indexOf(direction);
  if (number < 0) refuse(direction, transfers, operation);
  return number;
}

/** Whether `direction` is one, "none" included. */
export function isDirection(direction: unknown): direction is Direction {
  return directions.includes(direction as Direction);
}

/** Throws EINVAL for what is no direction. */
export function refuseDirection(direction: unknown, operation: string): never {
  return refuse(direction, directions, operation);
}

function refuse(direction: unknown, allowed: readonly Direction[], operation: string): never {
  const reason = `the direction must be one of ${allowed.join(", ")}, not ${textOf(direction)}`;
  return fail("EINVAL", operation, reason);
}

/** Whether the CPU writes the buffer in this direction: such an access waits for readers too. */
export function cpuWrites(direction: Direction): boolean {
  return direction !== "from-device";
}
