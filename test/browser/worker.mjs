/**
 * A second thread: joins the memory that the page posts, allocates, holds the allocator's lock for
 * as long as it is told, and frees when told to leave.
 *
 * @module
 */

// The copy without bare imports (site.mjs).
import { joinCore } from "./for-workers/dmabuf/dist/core/index.js";

const FRAME_BYTES = 4096;
const ANYWHERE = 0xffffffff;
const FRAMES_LOCK = 128; // bytes into the header (assembly/layout.ts)
let core;
let pfns = [];

function join({ memory, module, count }) {
  core = joinCore({ memory, module }, 1);
  pfns = Array.from({ length: count }, () => core.exports.frameAlloc(1, 0, ANYWHERE));
  for (const pfn of pfns) core.u8[pfn * FRAME_BYTES] = 1;
  return { thread: core.thread, pfns };
}

function leave() {
  for (const pfn of pfns) {
    const result = core.exports.frameFree(pfn, 1);
    if (result !== 0) throw new Error(`frameFree(${pfn}) returned ${result}`);
  }
  core.exports.coreLeave();
  return {};
}

/** Has the allocator's lock for a while, as a thread that is put to sleep inside it. */
function hold(ms) {
  const lock = (core.exports.HEADER_AT.value + FRAMES_LOCK) / 4;
  while (Atomics.compareExchange(core.i32, lock, 0, core.thread + 1) !== 0);
  postMessage({ held: true });
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
  Atomics.store(core.i32, lock, 0);
  Atomics.notify(core.i32, lock);
  return { released: true };
}

globalThis.onmessage = ({ data }) => {
  try {
    if (data.holdMs !== undefined) postMessage(hold(data.holdMs));
    else postMessage(data.leave ? leave() : join(data));
  } catch (error) {
    postMessage({ error: String(error?.stack ?? error) });
  }
};
