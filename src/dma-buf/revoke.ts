/**
 * Revoke: taking a buffer away from its importers, within a time limit.
 *
 *     lock ─► mark revoked ─► notify ─► wait for all fences ─► unlock ─► wait until nobody maps it
 *
 * - RK1  From the mark on nobody maps or pins the buffer any more (ENODEV); unmapping goes on.
 * - RK2  The answer names who did not comply in time: fences that are pending, and attachments that
 *        still have mappings or pins. Static importers cannot be told, and are among them.
 *
 * Compare dma_buf_invalidate_mappings() and "revocation" in recent kernels'
 * drivers/dma-buf/dma-buf.c; Linux 6.1 has only the notice.
 *
 * @module
 */

import type { WaitOptions } from "../clock.ts";
import type { Fence } from "../fence/fence.ts";
import type { Attachment } from "./attachment.ts";
import { withLockAsync } from "./buffer-lock.ts";
import type { DmaBuf } from "./dma-buf.ts";
import { type Subscribe, TimeLimit } from "./time-limit.ts";

/** What is left of a buffer's use when its revocation ends; nothing, if all complied. */
export interface Revocation {
  /** Attachments with mappings or pins, oldest first. */
  readonly attachments: readonly Attachment[];
  /** Fences that were pending when the buffer was revoked and still are. */
  readonly fences: readonly Fence[];
}

/** @internal What revoke() needs of its buffer. */
interface Revoked {
  readonly buf: DmaBuf;
  /** Marks the buffer and notifies (RK1). */
  begin(): void;
  /** Calls `wake` after each unmap and unpin. */
  readonly subscribe: Subscribe;
}

/** @internal Revokes a buffer; `timeoutMs` is for all of it. EINTR. */
export async function revoke(revoked: Revoked, options: WaitOptions): Promise<Revocation> {
  const { buf } = revoked;
  const limit = new TimeLimit(options, `revoke ${buf.name}`);
  const fences = await withLockAsync(buf.resv, buf, limit, async () => {
    revoked.begin();
    const pending = buf.resv.fences("bookkeep");
    for (const fence of pending) await limit.until(onSignal(fence), () => fence.isSignaled);
    return pending;
  });
  await limit.until(revoked.subscribe, () => usersOf(buf).length === 0);
  return { attachments: usersOf(buf), fences: fences.filter((fence) => !fence.isSignaled) };
}

/** Wakes when `fence` signals, as a task of its own if it has. */
function onSignal(fence: Fence): Subscribe {
  return (wake) => {
    const callback = (): void => wake();
    if (!fence.addCallback(callback)) queueMicrotask(wake);
    return () => fence.removeCallback(callback);
  };
}

function usersOf(buf: DmaBuf): Attachment[] {
  return buf.attachments.filter(({ mapCount, pinCount }) => mapCount + pinCount > 0);
}
