/**
 * The core's record of a buffer that several threads use: its storage or who serves it, its size
 * and name, and what else can be told of it.
 *
 * Compare assembly/buffer.ts.
 *
 * @module
 */

import type { Core } from "../core/core.ts";
import type { DmaBuf } from "../dma-buf/dma-buf.ts";
import type { PixelLayout } from "../dma-buf/formats.ts";
import { layoutProblem } from "../dma-buf/layout-check.ts";
import { checked } from "../errors.ts";
import type { SgTable } from "../mm/sg-table.ts";
import { freeText, makeText, readText } from "../mm/text-table.ts";

const TABLE = 0;
const SIZE_BYTES = 1;
const DETAILS = 2;
const NAME_AT = 12;
/** What stands in the place of a table's number while the buffer is served is below this. */
const TABLES_FROM = 2 ** 18;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** What the record says. */
interface BufferRecord {
  /** The core's number of the table that owns the frames; null: its exporter serves it. */
  readonly table: number | null;
  readonly sizeBytes: number;
  readonly name: string;
  /** Who exported it, as far as that is told. */
  readonly exporterName: string | null;
  /** The picture in it; null when it holds none. */
  readonly layout: PixelLayout | null;
}

interface Details {
  readonly name?: string;
  readonly exporterName?: string;
  readonly layout?: PixelLayout;
}

/** Makes a record that `table` belongs to from now on; this thread is its first holder. */
export function makeRecord(core: Core, buf: DmaBuf, table: SgTable): number {
  const { layout } = buf;
  return describedRecord(core, buf, layout === null ? {} : { layout }, () =>
    core.exports.bufferAlloc(table.handle, buf.sizeBytes),
  );
}

/** Makes the record of a buffer that this thread serves. */
export function makeServedRecord(core: Core, buf: DmaBuf): number {
  const { layout, exporterName } = buf;
  const details = { exporterName, ...(layout !== null && { layout }) };
  return describedRecord(core, buf, details, () => core.exports.bufferServe(buf.sizeBytes));
}

/** A record with a name and, if there is something to say, details. */
function describedRecord(core: Core, buf: DmaBuf, more: Details, make: () => number): number {
  const { exports, u8 } = core;
  const operation = `share ${buf.name}`;
  const name = new Uint8Array(exports.BUFFER_NAME_BYTES.value);
  const { read } = encoder.encodeInto(buf.name, name); // browsers refuse shared memory here
  const details: Details = read < buf.name.length ? { ...more, name: buf.name } : more;
  const text = Object.keys(details).length === 0 ? 0 : makeText(core, details, operation);
  try {
    const token = checked(make(), operation, () => "no memory is left for its record");
    u8.set(name, exports.bufferAt(token) + NAME_AT);
    if (text !== 0) exports.bufferSetDetails(token, text);
    return token;
  } catch (error) {
    freeText(core, text);
    throw error;
  }
}

/** Reads the record of a token that this thread holds. */
export function readRecord(core: Core, token: number): BufferRecord {
  const at = checked(core.exports.bufferAt(token), "read a buffer's record", () => "it is gone");
  const nameBytes = core.exports.BUFFER_NAME_BYTES.value;
  const bytes = core.u8.slice(at + NAME_AT, at + NAME_AT + nameBytes);
  const end = bytes.indexOf(0);
  const short = decoder.decode(end < 0 ? bytes : bytes.subarray(0, end));
  const [table, sizeBytes, text] = [TABLE, SIZE_BYTES, DETAILS].map((i) => core.word(at, i));
  const { name, exporterName, layout } = detailsOf(core, text ?? 0);
  return {
    table: (table ?? 0) < TABLES_FROM ? null : (table ?? 0),
    sizeBytes: sizeBytes ?? 0,
    name: typeof name === "string" ? name : short,
    exporterName: typeof exporterName === "string" ? exporterName : null,
    layout: layoutProblem(layout, sizeBytes ?? 0) === null ? (layout as PixelLayout) : null,
  };
}

function detailsOf(core: Core, text: number): Details {
  const details = text === 0 ? null : readText(core, text);
  return typeof details === "object" && details !== null ? details : {};
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
