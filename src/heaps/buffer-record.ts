/**
 * The core's record of a buffer that several threads use: its storage, size and name.
 *
 * Compare assembly/buffer.ts.
 *
 * @module
 */

import type { Core } from "../core/core.ts";
import type { DmaBuf } from "../dma-buf/dma-buf.ts";
import { checked } from "../errors.ts";
import type { SgTable } from "../mm/sg-table.ts";

const TABLE = 0;
const SIZE_BYTES = 1;
const NAME_AT = 8;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** What the record says. */
export interface BufferRecord {
  /** The core's number of the table that owns the frames. */
  readonly table: number;
  readonly sizeBytes: number;
  readonly name: string;
}

/** Makes a record that `table` belongs to from now on; this thread is its first holder. */
export function makeRecord(core: Core, buf: DmaBuf, table: SgTable): number {
  const { exports, u8 } = core;
  const result = exports.bufferAlloc(table.handle, buf.sizeBytes);
  const token = checked(result, `share ${buf.name}`, () => "no memory is left for its record");
  const name = new Uint8Array(exports.BUFFER_NAME_BYTES.value);
  encoder.encodeInto(buf.name, name); // whole characters; not into shared memory: browsers refuse
  u8.set(name, exports.bufferAt(token) + NAME_AT);
  return token;
}

/** Reads the record of a token that this thread holds. */
export function readRecord(core: Core, token: number): BufferRecord {
  const at = checked(core.exports.bufferAt(token), "read a buffer's record", () => "it is gone");
  const nameBytes = core.exports.BUFFER_NAME_BYTES.value;
  const bytes = core.u8.slice(at + NAME_AT, at + NAME_AT + nameBytes);
  const end = bytes.indexOf(0);
  return {
    table: core.word(at, TABLE),
    sizeBytes: core.word(at, SIZE_BYTES),
    name: decoder.decode(end < 0 ? bytes : bytes.subarray(0, end)),
  };
}

/**
 * Gives up this thread's hold; the last one frees the storage. EBUSY: it is the last, and the
 * storage is mapped or pinned.
 */
export function leaveRecord(core: Core, token: number): void {
  checked(core.exports.bufferFree(token), "release a shared buffer", (code) =>
    code === "EBUSY" ? "it is mapped or pinned" : "this thread does not hold it",
  );
  core.tokens.delete(token);
}
