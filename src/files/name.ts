/**
 * Names that users give: at most 31 bytes of UTF-8, and the NUL that ends them in a struct.
 *
 * @module
 */

import { fail } from "../errors.ts";

const NAME_BYTES = 31;

/** Throws EINVAL unless `name` is a text that fits. */
export function requireName(name: string, operation: string): void {
  if (typeof name !== "string") fail("EINVAL", operation, "the name must be a string");
  const length = new TextEncoder().encode(name).length;
  if (length > NAME_BYTES)
    fail("EINVAL", operation, `a name has at most ${NAME_BYTES} bytes, and this one ${length}`);
}

/** As much of a name as fits, without a broken character at its end. */
export function cutName(name: string): string {
  const bytes = new TextEncoder().encode(name);
  if (bytes.length <= NAME_BYTES) return name;
  return new TextDecoder().decode(bytes.subarray(0, NAME_BYTES)).replace(/\uFFFD+$/, "");
}
