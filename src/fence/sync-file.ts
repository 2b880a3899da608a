/**
 * SyncFile: a fence as a file, so that it can be passed on, merged and polled.
 *
 *     fence ─► SyncFile ──merge(other)──► SyncFile of both fences
 *                 ├── info()   names and states of the leaves
 *                 └── poll()   ready for reading once the fence has signaled
 *
 * - SF1  A sync file shows one fence for life; a merge is another file.
 * - SF2  The first poll hooks the fence; the last reference takes the hook off.
 *
 * Compare the kernel's drivers/dma-buf/sync_file.c.
 *
 * @module
 */

import { requireText } from "../arguments.ts";
import { fail } from "../errors.ts";
import { cutName } from "../files/name.ts";
import { O_RDONLY, ReferencedFile } from "../files/open-file.ts";
import { POLLIN, type PollableFile, requireEvents, WaitQueue } from "../files/poll.ts";
import { Fence } from "./fence.ts";
import { mergeFences, unwrapFence } from "./unwrap.ts";

const NS_PER_MS = 1e6;

/** One leaf of a sync file's fence: `struct sync_fence_info`. */
export interface SyncFenceInfo {
  /** The leaf's queue. */
  readonly timelineName: string;
  readonly driverName: string;
  /** 0 pending, 1 signaled, or the negative errno that it ended with. */
  readonly status: number;
  /** When it signaled, in nanoseconds of `performance.now()`; 0 while pending. */
  readonly timestampNs: number;
}

/** What a sync file shows: `struct sync_file_info`. */
export interface SyncFileInfo {
  readonly name: string;
  /** The state of the first leaf that is pending or failed; else of the last one. */
  readonly status: number;
  readonly fences: readonly SyncFenceInfo[];
}

/** A fence as a file. Made by `new SyncFile(fence)`, `buf.exportSyncFile()` or merge(). */
export class SyncFile extends ReferencedFile implements PollableFile {
  /** What it waits for (SF1). */
  readonly fence: Fence;
  readonly pollQueue: WaitQueue = new WaitQueue();
  readonly #userName: string;
  #isHooked = false;

  /** A file of a fence. `userName` is cut to 31 bytes. EINVAL: it is no fence. */
  constructor(fence: Fence, userName = "") {
    super(O_RDONLY);
    if (!(fence instanceof Fence)) fail("EINVAL", "create a sync file", "it needs a fence");
    this.fence = fence;
    requireText(userName, "the name", "create a sync file");
    this.#userName = cutName(userName);
  }

  /** The name that it was given, or one made of driver, timeline, context and seqno. */
  get name(): string {
    const { driverName, timelineName, context, seqno } = this.fence;
    return this.#userName || `${driverName}-${timelineName}${context}-${seqno}`;
  }

  get description(): string {
    return `sync file ${this.name}`;
  }

  /** 0 pending, 1 signaled, or the negative errno that the fence ended with. */
  get status(): number {
    return this.fence.status;
  }

  /** A file that is ready when both are. ESTALE. */
  merge(other: SyncFile, userName = ""): SyncFile {
    this.requireLive("merge");
    if (!(other instanceof SyncFile))
      fail("ENOENT", `merge ${this.description}`, "the other file is no sync file");
    other.requireLive("merge");
    return new SyncFile(mergeFences(this.fence, other.fence), userName);
  }

  /** Names and states of the leaves, in their order. Asks the fences, which may signal now. */
  info(): SyncFileInfo {
    let status = 1;
    const fences: SyncFenceInfo[] = [];
    for (const leaf of unwrapFence(this.fence)) {
      const one = infoOf(leaf);
      fences.push(one);
      if (status > 0) status = one.status;
    }
    return { name: this.name, status, fences };
  }

  poll(events: number): number {
    this.requireLive("poll");
    requireEvents(events);
    if (!this.#isHooked) {
      this.#isHooked = true; // SF2
      if (!this.fence.addCallback(this.#onSignaled)) this.pollQueue.wakeAll();
    }
    return this.fence.isSignaled ? events & POLLIN : 0;
  }

  readonly #onSignaled = (): void => this.pollQueue.wakeAll();

  protected override release(): void {
    this.fence.removeCallback(this.#onSignaled);
  }
}

function infoOf(leaf: Fence): SyncFenceInfo {
  const { status, timelineName, driverName } = leaf;
  return {
    timelineName,
    driverName,
    status,
    timestampNs: Math.round(leaf.timestampMs * NS_PER_MS),
  };
}
