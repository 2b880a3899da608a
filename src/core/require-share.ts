/**
 * What a thread that joins is given must be a core's share.
 *
 * @module
 */

import { requireObject } from "../arguments.ts";
import { fail } from "../errors.ts";
import type { CoreShare } from "./core.ts";

/** @internal Throws EINVAL for what does not hold a memory and a module. */
export function requireShare(share: CoreShare): void {
  requireObject(share, "the share", "join a system");
  const { memory, module } = share;
  if (memory instanceof WebAssembly.Memory && module instanceof WebAssembly.Module) return;
  fail("EINVAL", "join a system", "the share must hold a memory and a module");
}
