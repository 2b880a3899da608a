/**
 * Frames into a table: a list of frame numbers as the entries of a new table, or of one that grows.
 *
 * Compare sg_alloc_append_table_from_pages() in the kernel's lib/scatterlist.c.
 *
 * @module
 */

import { requireObject } from "../arguments.ts";
import type { Core } from "../core/core.ts";
import { checked, type ErrnoCode, requireInteger } from "../errors.ts";
import { addressOf, countOf, FRAME_BYTES } from "../units.ts";
import { withWords } from "./word-list.ts";

/** A table holds less than 4 GiB. */
const MAX_BYTES = 2 ** 32 - 1;

/** How frames become entries. */
export interface SgTableOptions {
  /** Bytes of the first frame to leave out. Default 0; only for a new table. */
  readonly offset?: number | undefined;
  /** How many bytes: they reach the last entry. Default: all that the frames hold. */
  readonly lengthBytes?: number | undefined;
  /** The longest entry, rounded down to frames. Default: no limit. */
  readonly maxSegmentBytes?: number | undefined;
}

/** The options, and how many frames are listed. */
interface Asked {
  readonly frameCount: number;
  readonly offset: number;
  readonly lengthBytes: number;
  readonly maxSegmentBytes: number;
}

/**
 * Appends listed frames to the table of `handle`, or makes a table when that is 0. The table's
 * handle.
 */
export function framesInto(
  core: Core,
  handle: number,
  words: Uint32Array,
  options: SgTableOptions,
  operation: string,
): number {
  requireObject(options, "the options", operation);
  const { offset = 0, maxSegmentBytes = MAX_BYTES } = options;
  requireInteger(offset, "offset", 0, MAX_BYTES, operation);
  const { lengthBytes = addressOf(words.length) - offset } = options;
  for (const [name, value] of Object.entries({ offset, lengthBytes, maxSegmentBytes }))
    requireInteger(value, name, 0, MAX_BYTES, operation);
  const result = withWords(core, words, operation, (at) =>
    core.exports.sgTableAppend(handle, at, words.length, offset, lengthBytes, maxSegmentBytes),
  );
  const asked = { frameCount: words.length, offset, lengthBytes, maxSegmentBytes };
  return checked(result, operation, (code) =>
    code === "EINVAL" ? mistake(asked, handle === 0) : (reasons[code] ?? "it was freed"),
  );
}

/** What of the arguments is wrong, for a message. */
function mistake(
  { frameCount, offset, lengthBytes, maxSegmentBytes }: Asked,
  isNew: boolean,
): string {
  if (frameCount === 0) return "the list has no frame";
  if (maxSegmentBytes < FRAME_BYTES)
    return `maxSegmentBytes must be ${FRAME_BYTES} or more, and is ${maxSegmentBytes}`;
  if (offset > 0 && !isNew) return "what is appended begins with a whole frame, so offset is 0";
  if (offset >= FRAME_BYTES) return `offset must lie in the first frame, and is ${offset}`;
  if (lengthBytes === 0) return "lengthBytes must be 1 or more, and is 0";
  if (offset + lengthBytes > addressOf(frameCount))
    return `${lengthBytes} bytes from ${offset} on do not fit into ${countOf(frameCount, "frame")}`;
  return isNew
    ? "a number is no frame's, or the bytes do not reach the last entry"
    : "a number is no frame's, the bytes do not reach the last entry, or the table cannot grow: " +
        "it owns its frames, or its last entry is empty";
}

const reasons: Partial<Record<ErrnoCode, string>> = {
  EBUSY: "it is mapped",
  ENOMEM: "memory is out",
  EOVERFLOW: "it would hold 4 GiB",
};
