/**
 * A valid call of each public function for fences, files that are polled, pools and cores.
 *
 * @module
 */

import * as core from "../../src/core/index.ts";
import * as dmabuf from "../../src/index.ts";
import { fn, LIMIT, on, type PublicCall, type World } from "./public-world.ts";

const { MiB } = dmabuf;
const noCall = () => {};

class PlainFile extends dmabuf.ReferencedFile {
  readonly description = "a plain file";
  protected release(): void {}
}

/** Fences, what waits for them, and what polls. */
export function fenceCalls(w: World): PublicCall[] {
  return [
    ...on("fence", w.fence, {
      setError: ["EIO"],
      signal: ["EIO", 5],
      wait: [LIMIT],
      waitSync: [LIMIT],
      addCallback: [noCall],
      removeCallback: [noCall],
      setDeadline: [5],
    }),
    ...on("imported", w.imported, {
      setError: ["EIO"],
      signal: ["EIO", 5],
      waitSync: [LIMIT],
      addCallback: [noCall],
      removeCallback: [noCall],
    }),
    ...on("both", w.both, { matchesContext: [1] }),
    ...on("queue", w.queue, { add: [noCall], remove: [noCall] }),
    ...on("timeline", w.timeline, { advance: [1] }),
    ...on("swSync", w.sw, { createFence: [3], inc: [1] }),
    ...on("syncFile", w.file, { merge: [w.file2, "n"], poll: [1] }),
    fn("new SyncFile", (...args: [never]) => new dmabuf.SyncFile(...args), [w.fence]),
    fn("mergeFences", dmabuf.mergeFences, [w.fence, w.fence2]),
    fn("findSeqno", dmabuf.findSeqno, [w.chain, 1]),
    fn("laterFence", dmabuf.laterFence, [w.fence, w.fence2]),
    fn("latestOfEachContext", dmabuf.latestOfEachContext, [[w.fence]]),
    fn("matchesContext", dmabuf.matchesContext, [w.fence, 1]),
    fn("waitAny", dmabuf.waitAny, [[w.fence], LIMIT]),
    fn("startWait", dmabuf.startWait, [w.fence, LIMIT, noCall]),
    fn("startWaitAny", dmabuf.startWaitAny, [[w.fence], LIMIT, noCall]),
    fn("startWaitAll", dmabuf.startWaitAll, [[w.fence], LIMIT, noCall, 0]),
    fn("startPoll", dmabuf.startPoll, [[{ file: w.file, events: 1 }], LIMIT, noCall]),
    fn("signaledFence", dmabuf.signaledFence, [5]),
    fn("containedFence", dmabuf.containedFence, [w.chain]),
    fn("walkChain", dmabuf.walkChain, [w.chain]),
    fn("unwrapFence", dmabuf.unwrapFence, [w.chain]),
    fn("isLater", dmabuf.isLater, [w.fence, w.fence]),
    fn("isSeqnoLater", dmabuf.isSeqnoLater, [1, 2, 32]),
    fn("isReadable", dmabuf.isReadable, [w.mem]),
    fn("isWritable", dmabuf.isWritable, [w.mem]),
    fn("new ReferencedFile", (flags) => new PlainFile(flags), [2]),
    fn("pollNow", dmabuf.pollNow, [[{ file: w.file, events: 1 }]]),
  ];
}

/** Pools of frames and their two sides. */
export function poolCalls(w: World): PublicCall[] {
  return [
    ...on("pool", w.pool, {
      acquire: [LIMIT],
      acquireSync: [LIMIT],
      frames: [LIMIT],
      consumer: [{ name: "c", access: "read", policy: "every" }],
    }),
    ...on("consumer", w.consumer, { take: [LIMIT], takeSync: [LIMIT], frames: [LIMIT] }),
    ...on("writing", w.writing, { publish: [{ to: "consumer", fence: w.fence }] }),
    ...on("reading", w.reading, { release: [{ fence: w.fence }] }),
  ];
}

/** Cores without a system. */
export function coreCalls(w: World): PublicCall[] {
  return [
    ...on("core", w.system.core, { check: [true] }),
    fn("openCore", core.openCore, [{ memoryBytes: MiB }]),
    fn("openCoreSync", core.openCoreSync, [{ memoryBytes: MiB, threads: 2, physicalBase: 0 }]),
    fn("joinCore", core.joinCore, [w.shared.core, 5, true]),
    fn("tableFormatWord", core.tableFormatWord, [
      { stage: 1, granuleOrder: 0, inputBits: 44, outputBits: 44, flags: 0 },
    ]),
    fn("invariantName", core.invariantName, [6602]),
    fn("inlinedModule", core.inlinedModule, [true]),
  ];
}
