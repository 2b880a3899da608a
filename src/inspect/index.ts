/**
 * `dmabuf/inspect`: what a system looks like from outside.
 *
 * @module
 */

export { formatBufinfo, formatHolders } from "./bufinfo.ts";
export { type FrameInfo, type FrameUse, pageMap } from "./page-map.ts";
