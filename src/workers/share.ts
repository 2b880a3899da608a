/**
 * SystemShare: what another thread needs to join a system. A small object that can be posted.
 *
 * @module
 */

import { requireObject } from "../arguments.ts";
import { type Core, type CoreShare, joinCore, type ThreadSlots } from "../core/core.ts";
import { joinAnyCore } from "../core/join-any.ts";
import { checked, DmaBufError, fail } from "../errors.ts";
import { CmaRegion } from "../mm/cma-region.ts";
import type { SymbolPolicy } from "../module/symbol-table.ts";

/** Made by `system.share()`; post it to a Worker and `join()` there. */
export interface SystemShare extends CoreShare {
  readonly slots: ThreadSlots;
  /** The thread that is kept for who joins with this share; null: whichever is free. */
  readonly thread: number | null;
  readonly physicalBase: number;
  /** Who sees symbols that Linux exports to GPL-compatible modules only. */
  readonly symbolPolicy: SymbolPolicy;
  /** The CMA regions and carve-outs. */
  readonly areas: readonly { readonly name: string; readonly handle: number }[];
}

/** A Worker whose end is seen: of `node:worker_threads`. A page's Worker does not tell. */
export interface EndingWorker {
  once(event: "exit", listener: () => void): unknown;
}

/** How to share a system. */
export interface ShareOptions {
  /**
   * The Worker that will join: a thread is kept for it, and reaped when it exits, however that
   * happens. In a page: `reserve`, and `reap(share.thread)` once the Worker was terminated.
   */
  readonly worker?: EndingWorker | undefined;
  /**
   * Keep a thread for who joins with this share, so that its number is known for `reap()`. Default:
   * with `worker`.
   */
  readonly reserve?: boolean | undefined;
}

/** How to join a system. */
export interface JoinOptions {
  /** Whether this thread may sleep. Default: found out. */
  readonly canBlock?: boolean | undefined;
  /** Keep the stacks of this thread's holders, as `open({ trackHolders })` does. Default false. */
  readonly trackHolders?: boolean | undefined;
}

/** The share of a system. EINVAL: its memory is not shared; ENOSPC: every thread is taken. */
export function shareCore(
  core: Core,
  physicalBase: number,
  areas: readonly CmaRegion[],
  symbolPolicy: SymbolPolicy,
  isReserved: boolean,
): SystemShare {
  if (!core.isShared)
    fail("EINVAL", "share a system", "its memory is one thread's; open it with shared: true");
  const slots = core.threadSlots;
  const thread = isReserved
    ? checked(
        core.exports.threadReserve(),
        "share a system",
        () => `all ${slots.count} threads are taken; open it with more threads`,
      )
    : null;
  return {
    memory: core.memory,
    module: core.module,
    slots,
    thread,
    physicalBase,
    symbolPolicy,
    areas: areas.map(({ name, handle }) => ({ name, handle })),
  };
}

/** Joins as the share's thread, or any. EBUSY: it has joined already; ENOSPC: none is free. */
function joinShare(share: SystemShare, options: JoinOptions): Core {
  requireObject(options, "the options", "join a system");
  const { canBlock } = options;
  if (typeof share !== "object" || share === null || !Array.isArray(share.areas))
    fail("EINVAL", "join a system", "what share() gave must arrive whole, and only once");
  requireObject(share.slots, "the slots", "join a system");
  return share.thread === null
    ? joinAnyCore(share, share.slots, canBlock)
    : joinReserved(share, share.thread, canBlock);
}

/** Joins as the thread that the share keeps. */
function joinReserved(share: SystemShare, thread: number, canBlock: boolean | undefined): Core {
  try {
    return joinCore(share, thread, canBlock);
  } catch (error) {
    if (!(error instanceof DmaBufError && error.code === "EBUSY")) throw error;
    const used = `this share was used: its thread ${thread} has joined`;
    return fail("EBUSY", "join a system", `${used}; call system.share() again`);
  }
}

/** What `make` makes of a core that joins; when that fails, the thread is free again. */
export function joinedAs<T>(share: SystemShare, options: JoinOptions, make: (core: Core) => T): T {
  const core = joinShare(share, options);
  try {
    return make(core);
  } catch (error) {
    core.leave();
    throw error;
  }
}

/** The areas of a system, for a thread that has joined it. */
export function joinedAreas(core: Core, { areas }: SystemShare): CmaRegion[] {
  return areas.map(({ name, handle }) => new CmaRegion(core, name, handle));
}
