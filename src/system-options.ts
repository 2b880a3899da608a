/**
 * What a system, and what it makes, may be asked for.
 *
 * @module
 */

import type { CoreOptions } from "./core/core.ts";
import type { FenceOps } from "./fence/fence.ts";
import type { CmaOptions } from "./mm/cma-declare.ts";
import type { SymbolPolicy } from "./module/symbol-table.ts";

/** What a system is opened with. */
export interface OpenOptions extends CoreOptions {
  /**
   * CMA regions by name: bytes, rounded up to 4 MiB, or more about the place. They are cut from the
   * top of memory, in order.
   */
  readonly cma?: Readonly<Record<string, number | CmaOptions>> | undefined;
  /**
   * Carve-outs by name, likewise and below them: fixed areas that serve only the heap of that name
   * and are never lent.
   */
  readonly carveout?: Readonly<Record<string, number | CmaOptions>> | undefined;
  /** Who sees symbols that Linux exports to GPL-compatible modules only. Default "gpl-only". */
  readonly symbolPolicy?: SymbolPolicy | undefined;
  /**
   * Keep the stack of whoever exports, gets, installs, attaches, maps, pins or makes a fence, for
   * `buf.holders()`, from the caller's line on: as many frames as the host's
   * `Error.stackTraceLimit`. In a bundle the library's own frames cannot be told from yours, and
   * stay. Costs a stack trace each time. Default false.
   */
  readonly trackHolders?: boolean | undefined;
}

/** What a fence may be made with. */
export interface FenceOptions {
  /** From `system.fenceContexts()`; one of its own, if it is not given. */
  readonly context?: number | undefined;
  /** 1, if it is not given. */
  readonly seqno?: number | undefined;
  /** What its driver knows about it. */
  readonly ops?: FenceOps | undefined;
}
