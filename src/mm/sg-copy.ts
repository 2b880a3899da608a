/**
 * Copying between tables, whatever their entries are.
 *
 * @module
 */

import type { Core } from "../core/core.ts";
import { checked, fail } from "../errors.ts";
import { addressOf } from "../units.ts";
import type { SgTable } from "./sg-table.ts";

/**
 * Copies all bytes of `from` to the first bytes of `to`; counted in `bytesCopied`. EINVAL: they do
 * not fit.
 */
export function copyTable(core: Core, to: SgTable, from: SgTable): void {
  const operation = "copy an sg table";
  if (from.lengthBytes > to.lengthBytes) fail("EINVAL", operation, "the source is longer");
  let done = 0;
  for (const { pfn, offset, lengthBytes } of from.entries()) {
    const at = addressOf(pfn, offset);
    const result = core.exports.sgCopy(to.handle, done, at, lengthBytes, 0);
    done += checked(result, operation, () => "a table was freed");
  }
  core.bytesCopied += done;
}
