/**
 * A second thread: joins the memory that the page posts, allocates, and frees when told to leave.
 *
 * @module
 */

// The copy without bare imports (site.mjs).
import { joinCore } from "./for-workers/dmabuf/dist/core/index.js";

const FRAME_BYTES = 4096;
const ANYWHERE = 0xffffffff;
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

globalThis.onmessage = ({ data }) => {
  try {
    postMessage(data.leave ? leave() : join(data));
  } catch (error) {
    postMessage({ error: String(error?.stack ?? error) });
  }
};
